"""R2ec as a method, on a tiny random model: fitted, saved and loaded (killed and resumed: test_killed.py)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.contract import check_scores
from benchmark.errors import InputError, checked
from benchmark.provenance import derive_seed
from r2ec.fit import fit_r2ec
from r2ec.method import Params
from r2ec.model.item_table import ItemTable
from r2ec.scoring.reader import Reader
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.settings import TrainingSettings
from r2ec.training.schedule import Order
from tests.support.tiny_fits import scores, settings, split, write_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


def test_fit_trains_saves_and_loads_to_the_same_scores(backbone: Path, tmp_path: Path) -> None:
    fitted = fit_r2ec(split(), 3, Params.model_validate(settings(backbone)), tmp_path)
    first_scores = scores(fitted)
    assert np.isfinite(check_scores(first_scores, split().n_items, "r2ec")).all()
    assert fitted.tokens_written() > 0
    texts = fitted.texts()
    assert list(texts.columns) == ["case", "prompt", "reasoning", "cut"] and len(texts) == 20
    assert texts["reasoning"].str.endswith("<answer>").all()
    report = fitted.report()
    assert report["recpo_steps"] == 4 and len(report["recpo_log"]) == 4
    for name in ("reward", "reward_ndcg", "reward_softmax", "advantage_abs", "groups_without_spread", "length",
                 "cut_share", "entropy", "clip_share_tokens", "grad_norm", "rollout_tokens_per_second",
                 "update_tokens_per_second"):  # fmt: skip
        assert name in report["recpo_log"][0], name
    # Every second step; at first the table is still as the warm start encoded it.
    assert ["seconds_refresh" in entry for entry in report["recpo_log"]] == [False, False, True, False]
    assert "refresh_tokens_per_second" in report["recpo_log"][2]
    # Training moved both factors of the adapters and the maps of the head.
    state = fitted.reader.model.own_state()
    assert all(float(value.abs().max()) > 0 for name, value in state.items() if "lora_B" in name)
    again = fit_r2ec(split(), 3, Params.model_validate(settings(backbone)), tmp_path)  # finished: loads
    np.testing.assert_array_equal(scores(again), first_scores)


@pytest.mark.parametrize(
    "changes",
    [
        {"recpo": {"reasoning": False}},
        {"recpo": {"pooling": "mean"}},
        {"recpo": {"pooling": "special"}},
        {"recpo": {"cls_head": True, "extra_negatives": 0}},
        {"recpo": {"num_iterations": 2, "advantage": "rloo", "head_update": "random"}},
        {"recpo": {"head_update": "released", "advantage": "rloo_released", "logq": True, "normalize": False}},
        {"rollouts": {"group_size": 1}, "recpo": {"advantage": "batch"}},
        {"training": {"gradient_accumulation_steps": 2, "eval_steps": 2, "head_learning_rate": 1e-3}},
    ],
    ids=str,
)
def test_every_variant_trains(backbone: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    fit_settings = settings(backbone, **({"warm_start": {"cases": 0}} | changes))
    fit_settings["training"] = fit_settings["training"] | {"max_steps": 2, "save_steps": 2}
    fitted = fit_r2ec(split(), 3, Params.model_validate(fit_settings), tmp_path)
    assert np.isfinite(scores(fitted, 5)).all()
    assert fitted.report()["recpo_steps"] == 2


def trained(backbone: Path, folder: Path, steps: int, **changes: Any) -> dict[str, torch.Tensor]:
    """The trained weights after this many steps."""
    fit_settings = settings(backbone, **changes)
    fit_settings["training"] = fit_settings["training"] | {"max_steps": steps, "save_steps": 2}
    return fit_r2ec(split(), 3, Params.model_validate(fit_settings), folder).reader.model.own_state()


def test_maps_with_a_rate_of_zero_stay_as_the_warm_start_left_them(backbone: Path, tmp_path: Path) -> None:
    fixed = {"training": {"head_learning_rate": 0}}
    before, after = (trained(backbone, tmp_path / str(steps), steps, **fixed) for steps in (0, 2))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("lora" in name for name in moved)
    assert any("user_map" in name for name in before)
    with pytest.raises(ValueError, match=r"head_learning_rate\n.*greater than or equal to 0"):
        Params.model_validate(settings(backbone, training={"head_learning_rate": -1e-3}))


def test_a_classification_head_learns_of_the_whole_catalogue(backbone: Path, tmp_path: Path) -> None:
    head = {"recpo": {"cls_head": True, "extra_negatives": 0}, "warm_start": {"cases": 0}}
    before, after = (trained(backbone, tmp_path / str(steps), steps, **head)["cls_head.weight"] for steps in (0, 1))
    # 6 users have at most 6 targets.
    assert len(before) == split().n_items and bool((before != after).any(dim=1).all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rollouts": {"group_size": 1}},
            "training: recpo.advantage grpo compares the rollouts of a user, but rollouts",
        ),
        (
            {"recpo": {"advantage": "batch"}, "training": {"per_device_train_batch_size": 1}},
            "training: recpo.advantage batch needs other users; raise per_device_train_batch_size above 1",
        ),
    ],
)
def test_a_rollout_needs_another_one_to_be_compared_with(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^here: {message}"):
        checked(Params, settings(Path("nowhere"), **changes), "here")
    # Where nothing is compared it may stand alone.
    for allowed in ({"recpo": {"reasoning": False}}, {"training": {"max_steps": 0, "per_device_train_batch_size": 1}}):
        assert checked(Params, settings(Path("nowhere"), **(changes | allowed)), "here").backbone


def test_order_repeats_each_step_and_shuffles_each_epoch() -> None:
    training = TrainingSettings(max_steps=6)
    order = Order(cases=5, per_step=2, settings=training, iterations=2, seed=1)
    rows = [order[i] for i in range(len(order))]
    assert len(rows) == 12
    assert rows[0:2] == rows[2:4] and rows[4:6] == rows[6:8] and rows[8:10] == rows[10:12]
    fresh = rows[0:2] + rows[4:6] + rows[8:10]
    assert sorted(fresh[:5]) == [0, 1, 2, 3, 4]  # the first epoch shows every case once
    assert rows == [Order(5, 2, training, 2, seed=1)[i] for i in range(12)]
    assert rows != [Order(5, 2, training, 2, seed=2)[i] for i in range(12)]
    # Not a step beyond the last, also where that is in the middle of its iterations.
    odd = Order(5, 2, TrainingSettings(max_steps=5), 2, seed=1)
    assert [odd[i] for i in range(len(odd))] == rows[:10]


def test_too_few_cases_for_a_step_is_one_sentence() -> None:
    with pytest.raises(InputError, match="3 training cases are fewer than the 4 of one step; lower the batch size"):
        Order(cases=3, per_step=4, settings=TrainingSettings(max_steps=1), iterations=1, seed=0)


def cpu_is_full(*_: Any, **__: Any) -> None:
    torch.empty(10**15)  # torch's own error and words


def gpu_is_full(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("no room")


@pytest.mark.parametrize(
    ("full", "why"), [(gpu_is_full, "no room"), (cpu_is_full, "can't allocate memory: you tried to allocate")]
)
@pytest.mark.parametrize("where", ["r2ec.recpo.trainer.item_logps", "accelerate.Accelerator.backward"])
def test_out_of_memory_stops_and_says_what_to_lower(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, full: Any, why: str
) -> None:
    monkeypatch.setattr(where, full)
    with pytest.raises(
        InputError, match=f"out of memory at step 0: {why}.*; lower training.per_device_train_batch_size"
    ):
        fit_r2ec(split(), 3, Params.model_validate(settings(backbone)), tmp_path)


def test_other_errors_of_torch_pass_through(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r2ec.recpo.trainer.item_logps", lambda *_, **__: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        fit_r2ec(split(), 3, Params.model_validate(settings(backbone)), tmp_path)


@pytest.mark.parametrize(
    ("training", "wrong"),
    [
        ({"save_steps": 4}, "save_steps 4"),
        ({}, "save_steps 20"),
        ({"eval_steps": 4, "save_steps": 3}, "eval_steps 4"),  # checkpoints come with evaluations then
        ({"eval_steps": 3, "save_steps": 4}, None),
        ({"save_steps": 6}, None),
    ],
    ids=str,
)
def test_no_checkpoint_in_the_middle_of_the_iterations(training: dict[str, int], wrong: str | None) -> None:
    fit_settings = {"backbone": {"name": "any"}, "recpo": {"num_iterations": 3}, "training": training}
    if wrong is None:
        Params.model_validate(fit_settings)
        return
    with pytest.raises(
        InputError, match=rf"^params: training: {wrong} is not a multiple of recpo\.num_iterations 3; set it to one"
    ):
        checked(Params, fit_settings, "params")


def test_a_bf16_backbone_trains_float32_adapters(backbone: Path, tmp_path: Path) -> None:
    fit_settings = settings(backbone)
    fit_settings["backbone"]["dtype"] = "bfloat16"
    params = Params.model_validate(fit_settings)
    torch.manual_seed(derive_seed(3, "adapters"))
    before = Reader.build(split(), params).model.own_state()
    fitted = fit_r2ec(split(), 3, params, tmp_path)
    assert fitted.reader.model.causal_lm.dtype == torch.bfloat16
    adapters = {name: value for name, value in fitted.reader.model.own_state().items() if "lora_" in name}
    assert len(adapters) > 0
    for name, value in adapters.items():
        assert value.dtype == before[name].dtype == torch.float32, name
        assert bool(torch.isfinite(value).all()) and not torch.equal(value, before[name]), name
    first_scores = scores(fitted)
    assert np.isfinite(first_scores).all()
    np.testing.assert_array_equal(scores(R2ecRecommender.load(tmp_path / "model", split())), first_scores)


def test_the_prior_is_the_log_frequency_in_the_training_histories(backbone: Path, tmp_path: Path) -> None:
    data = split()
    seen: list[set[int]] = [set() for _ in range(data.n_items)]
    assert data.train.target is not None
    for i in range(len(data.train)):
        for item in [*data.train.history(i).tolist(), int(data.train.target[i])]:
            seen[item].add(int(data.train.user[i]))
    expected = np.log1p([len(users) for users in seen])
    expected -= expected.mean()
    # Untrained, no maps: the prior is all that differs.
    fitted = {
        weight: fit_r2ec(
            data,
            3,
            Params.model_validate(
                settings(backbone, recpo={"prior": weight}, warm_start={"cases": 0}, training={"max_steps": 0})
            ),
            tmp_path / str(weight),
        )
        for weight in (0.0, 0.5)
    }
    scores_of = {weight: scores(recommender) for weight, recommender in fitted.items()}
    np.testing.assert_allclose(scores_of[0.5] - scores_of[0.0], np.tile(0.5 * expected, (20, 1)), atol=1e-4)
    again = R2ecRecommender.load(tmp_path / "0.5/model", data)
    np.testing.assert_array_equal(scores(again), scores_of[0.5])


def test_a_classification_head_has_no_warm_start(backbone: Path) -> None:
    with pytest.raises(ValueError, match=r"set cases to 0 for recpo\.cls_head"):
        Params.model_validate(settings(backbone, recpo={"cls_head": True}))


def test_a_classification_head_needs_no_correction_of_its_candidates(backbone: Path) -> None:
    head = {"cls_head": True, "logq": True}
    with pytest.raises(ValueError, match="cls_head has every item as a candidate, always; set logq to false"):
        Params.model_validate(settings(backbone, recpo=head, warm_start={"cases": 0}))


def test_the_warm_start_s_states_are_encoded_once_for_all_runs_that_share_them(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def params_with(**changes: dict[str, Any]) -> Params:
        changes["warm_start"] = {"states": str(tmp_path / "states")} | changes.get("warm_start", {})
        changes["training"] = {"max_steps": 0} | changes.get("training", {})
        return Params.model_validate(settings(backbone, **changes))

    def kept() -> int:
        return len(list((tmp_path / "states").glob("*.safetensors")))

    first = fit_r2ec(split(), 3, params_with(), tmp_path / "first")
    assert kept() == 3  # items, training and validation cases
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", lambda *_: pytest.fail("encoded again"))
        patch.setattr(ItemTable, "refresh", lambda *_: pytest.fail("encoded again"))
        # Another seed and another objective start from the same states.
        second = fit_r2ec(split(), 4, params_with(lora={"r": 2}, recpo={"beta": 0.5}), tmp_path / "second")
    torch.testing.assert_close(second.reader.table.states, first.reader.table.states, rtol=0, atol=0)
    # From disk as freshly encoded: the same fit, to the bit.
    again = fit_r2ec(split(), 3, params_with(warm_start={"states": str(tmp_path / "other")}), tmp_path / "again")
    np.testing.assert_array_equal(scores(again), scores(first))
    # What changes states has files of its own; the items' depend on no reasoning.
    for changes, new in (
        ({"rollouts": {"max_new_tokens": 4}}, 2),
        ({"recpo": {"pooling": "mean"}}, 2),
        ({"recpo": {"reasoning": False}}, 2),
        ({"prompts": {"max_items": 3}}, 2),
        ({"prompts": {"system_prompt": "Be brief."}}, 3),
        ({"warm_start": {"cases": 50}}, 1),
    ):
        before = kept()
        fit_r2ec(split(), 3, params_with(**changes), tmp_path / str(before))
        assert kept() == before + new, changes
