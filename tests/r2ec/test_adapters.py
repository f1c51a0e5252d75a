"""Adapters that learn from the warm start's teacher, on a tiny random LM, and the refit of the item map."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmark.errors import InputError, checked
from benchmark.evaluate import validation_ndcg
from benchmark.storage.io import read_json
from benchmark.storage.ledger import Cost, timed_fit
from r2ec.fit import fit_r2ec
from r2ec.method import Params
from r2ec.model.rec_head import RecHead
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.speed.plain import plain_policy
from r2ec.training.loop import Batch
from r2ec.warm_start.adapters import RIDGE, TaughtTrainer, adapter_training, refit_item_map
from tests.support.tiny_fits import scores, settings, split, write_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


def adapter_params(backbone: Path, steps: int, **changes: Any) -> Params:
    """Settings: a teacher that reads the last item, this many steps of the adapters, and no RecPO.

    The teacher has few epochs: after 60 it would be so sharp that 100 steps come less near to it.
    """
    adapters = {"steps": steps, "batch_size": 32, "learning_rate": 5e-3, "head_learning_rate": 3e-3, "held_items": 8}
    warm = {"cases": 200, "rank": 32, "valid_cases": 100, "epochs": 30, "teacher_epochs": 8, "learning_rate": 1e-2}
    warm |= {"batch_size": 64, "weight_decays": [0.01], "history_decay": 0.3}
    changes["warm_start"] = warm | {"adapters": adapters | changes.pop("adapters", {})} | changes.get("warm_start", {})
    changes["training"] = {"max_steps": 0} | changes.get("training", {})
    changes |= {"prompts": {"max_items": 1}, "recpo": {"prior": 1.0, "tau": 0.05}}
    changes["lora"] = {"r": 16, "alpha": 32} | changes.get("lora", {})
    return Params.model_validate(settings(backbone, **changes))


def popularity_ndcg10() -> float:
    data = split()
    counts = np.bincount(data.train.interactions()[1], minlength=data.n_items).astype(np.float32)
    return validation_ndcg_of(np.tile(counts, (len(data.valid), 1)))


def validation_ndcg_of(fixed_scores: np.ndarray) -> float:
    class Fixed:
        def score(self, cases: Any) -> Any:
            yield fixed_scores

    return validation_ndcg(Fixed(), split().valid, split().n_items, "fixed")  # type: ignore[arg-type]


def test_the_adapters_learn_what_no_map_on_the_frozen_states_can(backbone: Path, tmp_path: Path) -> None:
    data = split()
    before = fit_r2ec(data, 3, adapter_params(backbone, 0), tmp_path / "before")
    after = fit_r2ec(data, 3, adapter_params(backbone, 100), tmp_path / "after")
    report = after.report()
    assert report["warm_start"][0]["form"] == "adapters" and len(report["adapter_log"]) == 100
    assert report["adapters"]["divergence"] < 0.93 * report["adapters"]["divergence_before"]
    values = [validation_ndcg(recommender, data.valid, data.n_items, "r2ec") for recommender in (before, after)]
    assert values[1] > 1.1 * max(values[0], popularity_ndcg10())
    # The held items stay near, and the table that scores is the adapted LM's own.
    assert report["adapters"]["item_cosine"] > 0.98
    states = after.reader.table.states.clone()
    after.reader.table.refresh(after.reader.model)
    torch.testing.assert_close(after.reader.table.states, states, rtol=1e-4, atol=1e-4)
    assert float((states - before.reader.table.states).abs().max()) > 0.01


def test_adapters_that_rank_worse_are_taken_back(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = {"learning_rate": 10.0, "head_learning_rate": 10.0, "warmup_steps": 0}
    fitted = fit_r2ec(split(), 3, adapter_params(backbone, 2, adapters=spoiled), tmp_path / "spoiled")
    forms = [choice["form"] for choice in fitted.report()["warm_start"]]
    assert forms[0] == "taught" and "adapters" in forms[1:]
    np.testing.assert_array_equal(
        scores(fitted), scores(fit_r2ec(split(), 3, adapter_params(backbone, 0), tmp_path / "none"))
    )


def test_the_loss_is_the_divergence_and_the_weighted_move_of_the_held_items(backbone: Path, tmp_path: Path) -> None:
    for weight, items in ((0.0, 8), (50.0, 8), (1.0, 0)):
        changes = {"held_weight": weight, "held_items": items, "warmup_steps": 0}
        log = fit_r2ec(split(), 3, adapter_params(backbone, 3, adapters=changes), tmp_path / f"{weight}").report()[
            "adapter_log"
        ]
        moved = [entry.get("held_items_moved", 0.0) for entry in log]
        assert (moved[0], moved[2] > 1e-4) == (pytest.approx(0, abs=1e-5), items > 0)
        for entry, move in zip(log, moved, strict=True):
            assert entry["loss"] == pytest.approx(entry["divergence"] + weight * move, abs=2e-4)


def test_the_logged_divergence_is_that_from_the_teacher_by_a_plain_forward(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step's divergence, computed again: greedy texts, whole prompts, the frozen table, the prior, a plain sum."""
    divergences: list[tuple[float, float]] = []
    plain = TaughtTrainer.compute_loss

    def compute_loss(self: TaughtTrainer, model: Any, batch: Batch, *rest: Any, **named: Any) -> torch.Tensor:
        cases, net, recpo = batch.cases, self.net, adapter_params(backbone, 2).recpo
        rollouts = replace(self.write(cases, self.state.global_step), action_mask=None)
        with torch.no_grad():
            users = plain_policy(net, rollouts).users
            cosines = F.normalize(users, dim=1) @ F.normalize(net.head.item(self.table.states), dim=1).T
            counts = np.bincount(split().train.interactions()[1], minlength=split().n_items)
            logits = cosines / recpo.tau + recpo.prior * torch.from_numpy(np.log1p(counts)).float()
            probabilities = self.teacher.probabilities(torch.from_numpy(cases.padded(-1, 20)))
            terms = probabilities * (probabilities.log() - logits.log_softmax(dim=1))
        loss = plain(self, model, batch, *rest, **named)
        divergences.append((self._gathered["divergence"][-1], float(terms.sum(dim=1).mean())))
        return loss

    monkeypatch.setattr(TaughtTrainer, "compute_loss", compute_loss)
    fit_r2ec(split(), 3, adapter_params(backbone, 2), tmp_path)
    assert len(divergences) == 2
    for divergence, expected in divergences:
        assert divergence == pytest.approx(expected, rel=1e-3) and divergence > 0.01


def no_room(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("no room")


def not_a_number(*_: Any) -> torch.Tensor:
    return torch.tensor(float("nan"), requires_grad=True)


@pytest.mark.parametrize(
    ("where", "replacement", "message"),
    [
        (
            "accelerate.Accelerator.backward",
            no_room,
            "out of memory at step 0: no room; lower warm_start.adapters.batch_size",
        ),
        (
            "r2ec.warm_start.adapters.divergence",
            not_a_number,
            "teacher is nan at step 0; lower warm_start.adapters.learning_rate",
        ),
    ],
)
def test_an_error_that_stops_the_steps_names_the_settings_to_lower(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, replacement: Any, message: str
) -> None:
    monkeypatch.setattr(where, replacement)
    with pytest.raises(InputError, match=message):
        fit_r2ec(split(), 5, adapter_params(backbone, 2), tmp_path)


def test_without_steps_the_adapters_stay_zero(backbone: Path, tmp_path: Path) -> None:
    fitted = fit_r2ec(split(), 3, adapter_params(backbone, 0), tmp_path)
    state = fitted.reader.model.own_state()
    assert all(not value.any() for name, value in state.items() if "lora_B" in name)
    assert "adapter_log" not in fitted.report()


def test_a_warm_start_serves_all_runs_that_differ_in_recpo_alone(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(name: str, seed: int = 3, **changes: Any) -> R2ecRecommender:
        merged = {"warm_start": {"states": str(tmp_path / "states")}, "training": {"max_steps": 1}} | changes
        return fit_r2ec(split(), seed, adapter_params(backbone, 2, **merged), tmp_path / name)

    def kept() -> int:
        return len(list((tmp_path / "states").glob("warm-start-*")))

    first = fit("first")
    with monkeypatch.context() as patch:
        patch.setattr("r2ec.warm_start.start._warm", lambda *_: pytest.fail("fitted again"))
        np.testing.assert_array_equal(scores(fit("again")), scores(first))
        more = {"training": {"max_steps": 2, "learning_rate": 1e-3}, "rollouts": {"group_size": 2, "temperature": 0.5}}
        second = fit("other", **more)
    assert kept() == 1 and second.report()["warm_start"] == first.report()["warm_start"]
    assert (second.report()["recpo_steps"], first.report()["recpo_steps"]) == (2, 1)
    # A change of what a warm start depends on makes another one.
    for number, changes in enumerate(
        ({"seed": 4}, {"lora": {"r": 8}}, {"adapters": {"held_items": 5}}, {"rollouts": {"max_new_tokens": 4}}), start=2
    ):
        fit(str(number), **changes)
        assert kept() == number, changes


def test_a_run_is_charged_for_a_kept_warm_start(backbone: Path, tmp_path: Path) -> None:
    """It is charged once, although the states behind the warm start are on disk, too."""
    shared: dict[str, Any] = {"warm_start": {"states": str(tmp_path / "states")}, "training": {"max_steps": 1}}

    def fit(name: str, **changes: Any) -> Cost:
        (tmp_path / name).mkdir()
        settings = adapter_params(backbone, 2, **(shared | changes))
        return timed_fit(lambda: fit_r2ec(split(), 3, settings, tmp_path / name), tmp_path / name)[1]

    first = fit("first")
    note = read_json(next((tmp_path / "states").glob("warm-start-*.spent.json")))
    states = [read_json(path)["seconds"] for path in (tmp_path / "states").glob("*.safetensors.spent.json")]
    assert first.reused == 0 and note["by"] == first.by and len(states) == 3
    assert sum(states) < note["seconds"] < first.seconds
    assert fit("second").reused == pytest.approx(note["seconds"])
    # Without the adapters' part, it begins from the same states.
    assert fit("third", adapters={"steps": 0}).reused == pytest.approx(sum(states))


def test_the_refitted_item_map_gives_a_rotated_table_the_same_vectors() -> None:
    """Where a linear map of the new states gives the old ones, the refit finds it, up to the ridge."""
    random = torch.Generator().manual_seed(0)
    old = torch.randn(300, 12, generator=random)
    turn = torch.randn(12, 12, generator=random)
    head = RecHead(12, "free", 5)
    head.standardize(old, torch.randn(50, 12, generator=random))
    torch.nn.init.normal_(head.item_map.weight, generator=random)  # type: ignore[union-attr]
    user, wanted = head.user(old[:7]), head.item(old)
    assert refit_item_map(head, old, old, normalize=False) == pytest.approx(1, abs=1e-6)  # nothing moved
    torch.testing.assert_close(head.item(old), wanted, rtol=1e-4, atol=1e-4)
    cosine = refit_item_map(head, old, old @ turn + 3, normalize=True)
    mean_cosine = F.cosine_similarity(head.item(old @ turn + 3), wanted, dim=1).mean().detach()
    assert cosine == pytest.approx(float(mean_cosine), abs=1e-6) and cosine > 0.95
    torch.testing.assert_close(head.user(old[:7]), user, rtol=0, atol=0)


def test_the_refit_is_the_ridge_solution() -> None:
    """Against plain gradient descent on the same problem."""
    random = torch.Generator().manual_seed(1)
    old, new = torch.randn(40, 6, generator=random), torch.randn(40, 6, generator=random)
    head = RecHead(6, "free", 3)
    head.standardize(old)
    start, wanted = head.item_map.weight.detach().clone(), head.item(old).detach()  # type: ignore[union-attr]
    refit_item_map(head, old, new, normalize=False)
    states = (new - new.mean(dim=0)) / new.std(dim=0)
    current = states @ start.T
    start = start * (wanted * current).sum() / current.square().sum()
    weight = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (states @ weight.T - wanted).square().sum() + RIDGE * 40 * (weight - start).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(head.item_map.weight.detach(), weight.detach(), rtol=1e-3, atol=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warm_start": {"cases": 0}}, r"warm_start: adapters.steps 2 needs a teacher: set cases above 0 \(now 0\)"),
        ({"warm_start": {"forms": ["tied"]}}, r"warm_start: adapters.steps 2 needs a teacher: .* \(now \['tied'\]\)"),
        (
            {"training": {"deepspeed": "config/accelerate/zero2.json"}},
            "warm_start: adapters.steps 2 is not wired to 'config/accelerate/zero2.json'; set it to 0",
        ),
    ],
)
def test_settings_without_a_teacher_or_with_cut_weights_are_refused(changes: dict[str, Any], message: str) -> None:
    merged = dict(changes)
    merged["warm_start"] = {"adapters": {"steps": 2}} | changes.get("warm_start", {})
    with pytest.raises(InputError, match=f"^here: {message}"):
        checked(Params, settings(Path("nowhere"), **merged), "here")


def test_the_adapters_training_has_settings_of_its_own(backbone: Path) -> None:
    training = adapter_training(
        adapter_params(backbone, 7, training={"eval_steps": 5, "gradient_accumulation_steps": 3})
    )
    assert (training.max_steps, training.eval_steps, training.gradient_accumulation_steps) == (7, 0, 1)
    assert (training.learning_rate, training.head_learning_rate) == (5e-3, 3e-3)
    assert training.lr_scheduler_type == "cosine"
