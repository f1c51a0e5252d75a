"""The headroom: oracle and pickers by hand, and a tiny model's reasonings sampled, ranked and resumed."""

import doctest
import itertools
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.data.store import read_split
from benchmark.errors import InputError
from benchmark.evaluate import rank
from benchmark.output.page.headroom import Headroom
from benchmark.storage.io import read_json
from r2ec.headroom import __main__ as program
from r2ec.headroom import pickers as module
from r2ec.headroom import sampled as sampling
from r2ec.headroom.pickers import learned, oracle, pickers
from r2ec.headroom.sampled import Sampled, chosen_cases, folder_of, sampled
from r2ec.scoring.reader import Reader
from r2ec.scoring.recommender import R2ecRecommender
from tests.support.planted import planted, planted_split, write_prepared
from tests.support.tiny_fits import fit_one_step


def reasonings_of(rank: np.ndarray, state: np.ndarray, users: np.ndarray) -> Sampled:
    shape = rank.shape
    nothing = np.zeros(shape, dtype=np.float32)
    texts, ids = np.full(shape, "a text"), np.zeros((*shape, 2), dtype=np.int32)
    cases = np.arange(len(rank))
    return Sampled(cases, users, rank, nothing, nothing.astype(int), nothing > 0, nothing, nothing, state, ids, texts)


def test_doctests() -> None:
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0


def test_the_oracle_is_the_mean_over_all_subsets() -> None:
    rng = np.random.default_rng(1)
    ranks = rng.integers(1, 50, (6, 4)).astype(np.int32)
    frame = oracle(reasonings_of(ranks, np.zeros((6, 4, 1)), np.arange(6))).set_index("samples")
    assert frame.index.tolist() == [1, 2, 4]
    for size in (1, 2, 4):
        subsets = [list(subset) for subset in itertools.combinations(range(4), size)]
        best = np.stack([ranks[:, subset].min(axis=1) for subset in subsets])
        assert frame.loc[size, "log rank"] == pytest.approx(np.log(best).mean())
        assert frame.loc[size, "gain"] == pytest.approx(np.log(best).mean() - np.log(ranks).mean())
        assert frame.loc[size, "low"] <= frame.loc[size, "gain"] <= frame.loc[size, "high"]
        assert frame.loc[size, "NDCG@10"] == pytest.approx(np.where(best <= 10, 1 / np.log2(1 + best), 0).mean())


def test_a_picker_learns_what_decides_and_nothing_else() -> None:
    """The rank follows one of ten features of the state; in a second world it follows none."""
    rng = np.random.default_rng(2)
    state = rng.normal(size=(180, 8, 10))
    users = np.arange(180) // 6
    told = np.exp(3 + state[..., 4] + 0.5 * rng.normal(size=(180, 8))).astype(np.int32) + 1
    untold = rng.permuted(told, axis=1)
    for ranks, learns in ((told, True), (untold, False)):
        frame = pickers(reasonings_of(ranks, state, users), "toy").set_index(["picker", "statistic"])
        gain = frame.loc[("learned from h_T", "log rank")]
        assert (gain.high < 0) == learns
        if learns:
            assert gain.gain < -0.8  # of at most 1.4: the mean of the best of eight normal deviates


def test_a_picker_never_learns_from_the_users_it_chooses_for() -> None:
    """A feature that names the user's own best text: of no use for other users, and of all for the same."""
    rng = np.random.default_rng(3)
    users = np.arange(40)
    target = rng.normal(size=(40, 4))
    features = np.zeros((40, 4, 40))
    features[users, :, users] = target  # column u tells the truth of user u alone
    assert learned(features, target, users, "toy") == pytest.approx(np.zeros((40, 4)))
    with pytest.raises(InputError, match="7 users can't be halved"):
        learned(features[:7], target[:7], users[:7], "toy")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = planted(n_users=60)
    return write_prepared(tmp_path_factory.mktemp("data") / "toy", raw, test_cases=60, valid_cases=40, history_length=6)


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_one_step(data, tmp_path_factory.mktemp("fit"))


def test_a_stopped_sampling_goes_on_from_its_finished_parts(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = read_split(data)
    cases = chosen_cases(split.valid, 20, split.name)
    recommender = R2ecRecommender.load(model, split)
    whole = sampled(recommender.reader, cases, 3, tmp_path / "whole")
    assert whole.rank.shape == (20, 3)
    assert len(np.unique(whole.text)) > 20  # sampled, not greedy
    assert whole.state.shape[:2] == whole.ids.shape[:2] == (20, 3)
    # Stopped after the first part, then on: the same, and the first part is not sampled again.
    sample_part = sampling._sample
    calls: list[int] = []

    def stops(reader: Reader, part: object, samples: int) -> dict[str, np.ndarray]:
        calls.append(len(part))  # type: ignore[arg-type]
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample_part(reader, part, samples)  # type: ignore[arg-type]

    monkeypatch.setattr(sampling, "_sample", stops)
    with pytest.raises(KeyboardInterrupt):
        sampled(recommender.reader, cases, 3, tmp_path / "stopped")
    assert [path.name for path in (tmp_path / "stopped").glob("*.npz")] == ["000000.npz"]
    resumed = sampled(recommender.reader, cases, 3, tmp_path / "stopped")
    assert calls == [8, 8, 8, 4]  # 8, the one that was stopped, and from there on
    assert np.array_equal(resumed.text, whole.text)
    assert np.array_equal(resumed.rank, whole.rank)


def test_ranks_are_the_evaluators(data: Path, model: Path, tmp_path: Path) -> None:
    """The states of greedy texts get the ranks of `benchmark.evaluate`."""
    split = read_split(data)
    cases = split.valid.take(np.arange(6))
    recommender = R2ecRecommender.load(model, split)
    assert cases.target is not None
    hidden = replace(cases, target=None)
    table = rank(recommender.score(hidden), hidden, cases.target, split.n_items, "r2ec")
    states, _, _ = recommender.reader.read(hidden)
    with torch.no_grad():
        ranks, top, entropy = sampling.ranked(recommender.reader, cases, states[:, None])
    assert ranks[:, 0].tolist() == table.column("rank").to_pylist()
    assert (entropy > 0).all() and (entropy < np.log(split.n_items)).all() and np.isfinite(top).all()


def test_other_arguments_have_another_folder(data: Path, model: Path, tmp_path: Path) -> None:
    cases = read_split(data).valid
    folder = folder_of(tmp_path, model, "hash", cases, 3)
    assert folder == folder_of(tmp_path, model, "hash", cases, 3)
    changed = [folder_of(tmp_path, model, "other", cases, 3), folder_of(tmp_path, model, "hash", cases, 4)]
    changed.append(folder_of(tmp_path, model, "hash", cases.take(np.arange(5)), 3))
    assert len({folder, *changed}) == 4


def test_the_command_writes_its_report(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["headroom", "--model", str(model), "--data", str(data), "--samples", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    program.main()
    text = (tmp_path / "headroom.md").read_text()
    assert "2 reasonings each" in text
    assert "learned from h_T" in text
    assert "The best reasoning of the user's case before it" in text
    assert {path.name for path in tmp_path.glob("*.*")} == {
        *("oracle.csv", "pickers.csv", "lent.csv", "headroom.md", "headroom.png", "headroom.pdf", "headroom.json")
    }
    measure = Headroom.model_validate(read_json(tmp_path / "headroom.json"))
    assert measure.run is None and measure.samples == 2  # of --model
    oracle = pd.read_csv(tmp_path / "oracle.csv")
    assert [row.gain for row in measure.oracle] == pytest.approx(oracle.gain.tolist(), abs=1e-6)
    assert [row.statistics["NDCG@10"] for row in measure.oracle] == pytest.approx(oracle["NDCG@10"].tolist(), abs=1e-6)
    lent, picked = pd.read_csv(tmp_path / "lent.csv"), pd.read_csv(tmp_path / "pickers.csv")
    assert [row.gain for row in measure.lent] == pytest.approx(lent.gain.tolist(), abs=1e-6)
    assert [row.picker for row in measure.pickers] == picked.picker.tolist()
    assert (measure.lent_cases, measure.lent_users) == (lent.cases[0], lent.users[0])


def test_a_dry_run_samples_one_part_and_says_what_the_others_take(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["headroom", "--model", str(model), "--data", str(data), "--samples", "2", "--cases", "20"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path), "--dry-run"])
    program.main()
    output = capsys.readouterr().out
    said = re.search(r"the next part took (\d+) s; 2 more take (\d+) s\.", output)  # 20 cases: 3 parts
    assert said and int(said[2]) >= int(said[1])
    split = read_split(data)
    users = chosen_cases(split.valid, 20, split.name).user
    borrow = len(users) - len(np.unique(users))  # all but the first case of a user
    assert borrow > 0 and f"Then come {-(-borrow // 8)} shorter parts" in output
    assert [path.name for path in tmp_path.glob("parts-*/*.npz")] == ["000000.npz"]
    assert not (tmp_path / "headroom.md").exists()
    program.main()
    assert "; 1 more take" in capsys.readouterr().out


def test_too_few_users_are_refused_before_anything_is_sampled() -> None:
    split, _ = planted_split()
    cases = split.valid.take(np.arange(40))
    few = cases.take(np.flatnonzero(np.isin(cases.user, np.unique(cases.user)[:7])))
    with pytest.raises(
        InputError, match=rf"^small: {len(few)} validation cases are of 7 users, and pickers need 8, half"
    ):
        chosen_cases(few, 500, "small")
