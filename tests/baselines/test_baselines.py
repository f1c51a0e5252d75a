"""Tests that every method of baselines/ keeps the contract of a recommender and learns planted data."""

import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from baselines import sasrec
from baselines._recbole.sasrec import fit_best
from benchmark.config.methods import known_methods, load_method
from benchmark.contract import Learned, check_scores
from benchmark.evaluate import rank, validation_ndcg
from benchmark.metrics import ndcg
from tests.support.quick_fits import QUICK, all_scores, data, fit, fitted, quick, scores_of, unlabelled

METHODS = [name for name in known_methods() if name != "r2ec"]
# A tiny random LM's texts say nothing of these items: test_llm_baselines.py has what these have to solve.
BY_TEXT = {"bigrec", "frozen_llm", "langptune", "llm_rerank", "profile_retrieval", "rec_r1"}
BY_TEXT |= {"llara", "latent_r3", "s_dpo", "sp_rec", "title_sft"}
# Folders from which a killed run of hours goes on, its scoring included; their names change with params, data and code.
CHECKPOINTS = {
    "rec_r1": {"grpo"},
    "bigrec": {"tuning"},
    "d3": {"tuning"},
    "llara": {"tuning", "hybrid"},
    "latent_r3": {"tuning", "thoughts", "reinforced"},
    "s_dpo": {"tuning", "preferences"},
    "sp_rec": {"tuning", "iteration0", "iteration1"},
    "slim": {"tuning"},
    "title_sft": {"tuning"},
    "tiger": {"training"},
    "langptune": {"encoder0", "writer0", "encoder1"},
}
NOT_SEQUENTIAL = {"popularity"} | BY_TEXT


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Run torch on one thread, as in a job of one core; two threads on tiny tensors only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def quality(name: str) -> float:
    """NDCG@10 on the test cases."""
    split, prepared = data()
    table = rank([scores_of(name)], unlabelled(), prepared.test.target, split.n_items, name)
    return float(ndcg(table.column("rank").to_numpy(), 10).mean())


def random_quality() -> float:
    split, prepared = data()
    scores = np.random.default_rng(0).normal(size=(len(prepared.test), split.n_items))
    table = rank([scores], unlabelled(), prepared.test.target, split.n_items, "random")
    return float(ndcg(table.column("rank").to_numpy(), 10).mean())


def test_the_planted_data_can_be_learned() -> None:
    split, prepared = data()
    assert split.n_items == 60 and len(prepared.test) > 150
    assert len(split.train) > 1000 and split.train.target is not None
    # The commonest follower of an item is the target of most cases: there is something to learn.
    last = split.train.items[split.train.offsets[1:] - 1]
    together = np.zeros((60, 60))
    np.add.at(together, (last, split.train.target), 1)
    assert together.max(axis=1).sum() / together.sum() > 0.5
    assert 0.05 < random_quality() < 0.15


def test_popularity_beats_random() -> None:
    assert quality("popularity") > random_quality() + 0.05


@pytest.mark.parametrize("name", sorted(set(METHODS) - NOT_SEQUENTIAL))
def test_a_sequential_method_beats_popularity(name: str) -> None:
    assert quality(name) > quality("popularity") + 0.1


@pytest.mark.parametrize("name", METHODS)
def test_scores_keep_the_contract(name: str) -> None:
    split, prepared = data()
    scores = scores_of(name)
    assert scores.shape == (len(prepared.test), split.n_items)
    assert np.isfinite(check_scores(scores, split.n_items, name)).any(axis=1).all()
    assert fitted(name).tokens_written() >= 0
    for value in fitted(name).report().values():
        assert isinstance(value, int | float | str | list | dict | None)


@pytest.mark.parametrize("name", METHODS)
def test_scores_do_not_depend_on_the_batch(name: str) -> None:
    """A case's scores depend neither on the other cases of its batch, nor on its row, nor on earlier batches."""
    rows = np.array([40, 3, 77, 3, 150])
    batch_scores = all_scores(fitted(name), unlabelled().take(rows))
    np.testing.assert_allclose(batch_scores, scores_of(name)[rows], rtol=1e-4, atol=1e-4)
    by_itself = all_scores(fitted(name), unlabelled().take(rows[2:3]))
    np.testing.assert_allclose(by_itself, scores_of(name)[rows[2:3]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_scores_do_not_read_case_or_time(name: str) -> None:
    """Case number and time say when the target was taken; a method may use the user and the history only."""
    cases = unlabelled().take(np.arange(20))
    renumbered = replace(cases, case=cases.case + 1000, time=cases.time + 10**6)
    np.testing.assert_array_equal(all_scores(fitted(name), renumbered), all_scores(fitted(name), cases))


@pytest.mark.parametrize("name", METHODS)
def test_a_user_never_seen_is_scored(name: str) -> None:
    cases = unlabelled().take(np.arange(5))
    new_user_scores = all_scores(fitted(name), replace(cases, user=cases.user + 10**6))
    assert np.isfinite(check_scores(new_user_scores, data()[0].n_items, name)).any(axis=1).all()


def test_caser_knows_its_users() -> None:
    cases = unlabelled().take(np.arange(5))
    another = replace(cases, user=(cases.user + 1).astype(np.int32))
    assert (all_scores(fitted("caser"), another) != all_scores(fitted("caser"), cases)).any()


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    few = {"epochs": 1} if "epochs" in quick(name) else {}
    cases = unlabelled().take(np.arange(30))
    first, second = (all_scores(fit(name, tmp_path / folder, **few), cases) for folder in ("a", "b"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", METHODS)
def test_a_fit_leaves_nothing_behind(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"epochs": 1} if "epochs" in quick(name) else {}
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "left by a killed fit").write_text("stale")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", arguments := ["command", "--seed", "1", "--epochs=7"])
    fit(name, Path("../work"), **few)  # a relative path, as the workflow gives it
    assert os.getcwd() == str(tmp_path / "here") and sys.argv is arguments
    assert not list((tmp_path / "here").iterdir())
    kept = {path.name for path in (tmp_path / "work").glob("*")} - {"left by a killed fit"}
    assert kept == CHECKPOINTS.get(name, set())


@pytest.mark.parametrize("name", METHODS)
def test_unknown_params_are_refused_before_any_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="learning_rat"):
        load_method(name).fit(data()[0], seed=1, params={"learning_rat": 1}, workdir=tmp_path / "work")
    assert not (tmp_path / "work").exists()


# Popularity and item-kNN by hand


def test_popularity_counts_users() -> None:
    split = data()[0]
    assert split.train.target is not None
    users: dict[int, set[int]] = {item: set() for item in range(split.n_items)}
    for i in range(len(split.train)):
        for item in [*split.train.history(i), split.train.target[i]]:
            users[int(item)].add(int(split.train.user[i]))
    assert scores_of("popularity")[0].tolist() == [len(users[item]) for item in range(split.n_items)]


def test_popularity_halves_a_case_each_half_life(tmp_path: Path) -> None:
    split = data()[0]
    item_scores = all_scores(fit("popularity", tmp_path, half_life_days=3.0), unlabelled().take(np.arange(1)))[0]
    expected = np.zeros(split.n_items)
    assert split.train.target is not None
    for target, time in zip(split.train.target, split.train.time, strict=True):
        expected[target] += 0.5 ** ((split.train.time[-1] - time) / 86400 / 3)
    np.testing.assert_allclose(item_scores, expected, rtol=1e-5)


@pytest.mark.parametrize("params", [{}, {"neighbours": 5, "shrink": 0.0, "decay": 0.5}])
def test_item_knn_equals_a_loop(params: dict[str, Any], tmp_path: Path) -> None:
    split = data()[0]
    chosen = {"neighbours": 100, "shrink": 10.0, "decay": 0.9} | params
    users, items = split.train.interactions()
    had = np.zeros((users.max() + 1, split.n_items))
    had[users, items] = 1
    similar = had.T @ had / (np.sqrt(np.outer(had.sum(axis=0), had.sum(axis=0))) + chosen["shrink"])
    np.fill_diagonal(similar, 0)
    for row in similar:
        row[np.argsort(-row, kind="stable")[chosen["neighbours"] :]] = 0
    cases = unlabelled().take(np.arange(15))
    expected = [
        sum(chosen["decay"] ** back * similar[item] for back, item in enumerate(cases.history(i)[::-1]))
        for i in range(len(cases))
    ]
    np.testing.assert_allclose(all_scores(fit("item_knn", tmp_path, **params), cases), expected, rtol=1e-4, atol=1e-6)


# RecBole's adapter


def byte_dropout() -> Any:
    from baselines._recbole.dropout import ByteDropout

    return ByteDropout


def test_anomaly_detection_is_off_after_a_fit() -> None:
    import torch

    fitted("sasrec")
    assert not torch.is_anomaly_enabled()


def test_the_best_sasrec_of_several_is_kept(tmp_path: Path) -> None:
    good = sasrec.Params.model_validate(QUICK["sasrec"])
    weak, cases = good.model_copy(update={"epochs": 1, "learning_rate": 1e-6}), unlabelled()
    good_fit, tried_of_one = fit_best(data()[0], [good], seed=7, workdir=tmp_path / "alone")
    assert tried_of_one == []
    np.testing.assert_array_equal(all_scores(good_fit, cases), all_scores(fitted("sasrec"), cases))
    for order in ([weak, good], [good, weak]):
        best, tried = fit_best(data()[0], order, seed=7, workdir=tmp_path / "two")
        assert [setting["params"] for setting in tried] == [setting.model_dump() for setting in order]
        values = {setting["params"]["epochs"]: setting["value"] for setting in tried}
        assert values[4] > 2 * values[1]
        np.testing.assert_array_equal(all_scores(best, cases), all_scores(good_fit, cases))


def test_faster_layers_compute_the_same() -> None:
    import torch

    net = fitted("bert4rec").net  # type: ignore[attr-defined]
    layers = [module for module in net.modules() if type(module).__name__ == "FeedForward"]
    assert layers and any(isinstance(module, byte_dropout()) for module in net.modules())
    x = torch.randn(100)
    for layer in layers:
        assert layer.intermediate_act_fn is torch.nn.functional.gelu
        torch.testing.assert_close(layer.intermediate_act_fn(x), layer.gelu(x))


@pytest.mark.parametrize("name", sorted(set(QUICK) - {"stock_recbole"}))
def test_the_best_epoch_is_what_scores(name: str) -> None:
    """The NDCG@10 of the validation cases that the report has for the best epoch is that of the weights that are
    kept."""
    split, report = data()[0], fitted(name).report()
    value = validation_ndcg(fitted(name), split.valid, split.n_items, name)
    assert report["valid_ndcg@10_by_epoch"][report["best_epoch"] - 1] == round(value, 4)
    assert round(value, 4) == max(report["valid_ndcg@10_by_epoch"]) > 0.1
    assert fitted(name).learned() == Learned.of(split.train)
