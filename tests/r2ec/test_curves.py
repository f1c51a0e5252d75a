"""What long trainings add: ranks measured on the way, the KL term, the whole table as candidates, and a control.

The control goes on with the warm start's teacher.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.errors import InputError, checked
from benchmark.metrics import ndcg
from benchmark.storage.checkpoints import last_checkpoint
from r2ec.fit import fit_r2ec, ranks_now, trainer_of
from r2ec.recpo.objective import kl_to_start
from r2ec.recpo.trainer import RecPOTrainer
from r2ec.scoring.reader import Reader
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.settings import Params
from r2ec.speed.plain import plain_policy
from r2ec.training.measured import Measuring
from r2ec.warm_start.adapters import TaughtTrainer
from tests.support.tiny_fits import scores, settings, split, write_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


def params_of(backbone: Path, **changes: Any) -> Params:
    return Params.model_validate(settings(backbone, **changes))


def weights(recommender: R2ecRecommender) -> dict[str, Tensor]:
    return recommender.reader.model.own_state()


def test_the_kl_term_by_hand() -> None:
    """One user has two rollouts: tokens of p = 1/2 against q = 1/4 and 1 (q/p - log(q/p) - 1: .1931 and .3069), and a
    token of p = q. Padding adds nothing, whatever it holds."""
    policy = torch.tensor([[0.5, 0.5, 1.0], [0.25, 1.0, 1.0]]).log()
    start = torch.tensor([[0.25, 1.0, 0.001], [0.25, 0.001, 0.001]]).log()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    halves = (0.5 + np.log(2) - 1) + (2 - np.log(2) - 1)
    assert float(kl_to_start(policy, start, mask, 2, 1.0)) == pytest.approx(halves / 2)
    assert float(kl_to_start(policy, start, mask, 2, 4.0)) == pytest.approx(halves / 8)
    policy.requires_grad_()
    kl_to_start(policy, start, mask, 2, 1.0).backward()
    # (1 - q/p) of each sampled token, over G.
    assert policy.grad is not None
    torch.testing.assert_close(policy.grad, torch.tensor([[0.25, -0.5, 0.0], [0.0, 0.0, 0.0]]))


def recorded(monkeypatch: pytest.MonkeyPatch, look: Callable[[RecPOTrainer, Any, Tensor], None]) -> None:
    """Call `look` with the trainer, the batch and the loss of every update of RecPO."""
    plain = RecPOTrainer.compute_loss

    def compute_loss(self: RecPOTrainer, model: Any, batch: Any, *rest: Any, **named: Any) -> Tensor:
        loss = plain(self, model, batch, *rest, **named)
        look(self, batch, loss)
        return loss

    monkeypatch.setattr(RecPOTrainer, "compute_loss", compute_loss)


def test_the_kl_terms_gradient_is_the_plain_computations(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second update the policy has moved. The gradient with the term minus that without it equals the gradient
    of a sum over tokens, whose log-probabilities come from plain forwards by the start's and the present weights."""
    params = params_of(
        backbone, recpo={"kl": 3.0, "extra_negatives": 0}, training={"max_steps": 2, "split_grad_norms": 0}
    )
    updates: list[tuple[list[Tensor], list[Tensor], float]] = []
    start: list[Any] = []

    def plain_logps(net: Any, trainer: RecPOTrainer, batch: Any) -> Tensor:
        logps = plain_policy(net, batch.rollouts, trainer.engine.settings.temperature).token_logps
        assert logps is not None
        return logps

    def look(trainer: RecPOTrainer, batch: Any, loss: Tensor) -> None:
        if not start:
            start.append(copy.deepcopy(trainer.net))
        trainable = [weight for weight in trainer.net.parameters() if weight.requires_grad]
        with_term = torch.autograd.grad(loss, trainable, retain_graph=True, materialize_grads=True)
        by_start = plain_logps(start[0], trainer, batch).detach()
        logps = plain_logps(trainer.net, trainer, batch)
        expected = torch.zeros(())
        for n, t in batch.rollouts.action_mask.nonzero().tolist():
            apart = by_start[n, t] - logps[n, t]
            expected = expected + (apart.exp() - apart - 1) / (trainer.group * len(batch.targets))
        noted = (
            trainer._gathered["kl"][-1] * float(batch.rollouts.action_mask.sum()) / trainer.group / len(batch.targets)
        )
        assert noted == pytest.approx(float(expected.detach()), rel=2e-2, abs=1e-6)
        gradients = torch.autograd.grad(3.0 * expected, trainable, retain_graph=True, materialize_grads=True)
        updates.append((list(with_term), list(gradients), float(expected.detach())))

    recorded(monkeypatch, look)
    fit_r2ec(split(), 3, params, tmp_path / "with")
    (_, none, at_start), (with_term, of_term, moved) = updates
    assert at_start == pytest.approx(0, abs=1e-6) and moved > 1e-4
    assert max(float(gradient.abs().max()) for gradient in none) < 1e-3
    # The first update is the same without the term, so that the second begins from the same weights and rollouts.
    monkeypatch.undo()
    without: list[list[Tensor]] = []

    def look_without(trainer: RecPOTrainer, batch: Any, loss: Tensor) -> None:
        trainable = [weight for weight in trainer.net.parameters() if weight.requires_grad]
        without.append(list(torch.autograd.grad(loss, trainable, retain_graph=True, materialize_grads=True)))

    recorded(monkeypatch, look_without)
    bare = params_of(backbone, recpo={"extra_negatives": 0}, training={"max_steps": 2, "split_grad_norms": 0})
    fit_r2ec(split(), 3, bare, tmp_path / "without")
    largest = max(float(gradient.norm()) for gradient in of_term)
    assert largest > 1e-3
    for gradient, gradient_without, expected in zip(with_term, without[1], of_term, strict=True):
        assert float((gradient - gradient_without - expected).norm()) < 2e-2 * largest


def test_a_heavy_kl_term_holds_the_policy_where_it_began(backbone: Path, tmp_path: Path) -> None:
    def moved(kl: float) -> float:
        own = {"learning_rate": 0.02, "max_steps": 8, "head_learning_rate": 0}
        params = params_of(backbone, recpo={"kl": kl, "refresh_steps": 100}, training=own)
        log = fit_r2ec(split(), 3, params, tmp_path / f"{kl}").report()["recpo_log"]
        return float(np.mean([entry["kl"] for entry in log[-3:]]))

    assert moved(100.0) < 0.5 * moved(1e-6)


def test_a_resumed_training_has_the_same_start(backbone: Path, tmp_path: Path) -> None:
    params = params_of(backbone, recpo={"kl": 1.0}, training={"max_steps": 2})
    fit_r2ec(split(), 3, params, tmp_path)
    torch.manual_seed(1)
    reader = Reader.build(split(), params, "free", 8)
    before = {name: value.clone() for name, value in reader.model.own_state().items()}
    trainer = trainer_of(reader, split(), split().valid.take(np.arange(8)), 3, tmp_path / "recpo")
    assert isinstance(trainer, RecPOTrainer)
    last = last_checkpoint(tmp_path / "recpo")
    assert last is not None
    trainer._load_from_checkpoint(str(last))
    assert any(not torch.equal(value, before[name]) for name, value in reader.model.own_state().items())
    assert all(torch.equal(trainer.start[name], value) for name, value in before.items())


def test_the_whole_table_as_candidates_is_the_plain_softmax(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every item is a candidate by its row of the table, which no update writes: nothing is fresh and nothing stale."""
    recpo = {"candidates": "table", "extra_negatives": 0, "refresh_steps": 100}
    tables: list[Tensor] = []

    def look(trainer: RecPOTrainer, batch: Any, loss: Tensor) -> None:
        tables.append(trainer.table.states.clone())
        users = plain_policy(trainer.net, batch.rollouts, 1.0).users.detach()
        items = trainer.net.head.item(trainer.table.states).detach()
        cosines = torch.nn.functional.normalize(users, dim=1) @ torch.nn.functional.normalize(items, dim=1).T
        targets = batch.targets.repeat_interleave(trainer.group)
        expected = (cosines / 0.1).log_softmax(dim=1)[torch.arange(len(targets)), targets].mean()
        assert trainer._gathered["item_logp"][-1] == pytest.approx(float(expected), rel=1e-3)

    recorded(monkeypatch, look)
    fitted = fit_r2ec(split(), 3, params_of(backbone, recpo=recpo, training={"learning_rate": 1e-3}), tmp_path)
    assert len(tables) == 4 and all(torch.equal(table, tables[0]) for table in tables)
    assert not torch.equal(fitted.reader.table.states, tables[0])  # encoded anew at the end


def test_measuring_leaves_no_trace_and_goes_on_where_it_was_stopped(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"max_steps": 4, "save_steps": 2}
    plain = fit_r2ec(split(), 3, params_of(backbone, training=own), tmp_path / "plain")
    params = params_of(backbone, training=own | {"measured_steps": [0, 1, 3, 4]})
    measured = fit_r2ec(split(), 3, params, tmp_path / "measured")
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(measured)[name]), name
    np.testing.assert_array_equal(scores(plain), scores(measured))
    curve = measured.report()["curve"]
    assert [point["step"] for point in curve["points"]] == [0, 1, 3, 4]
    assert all(len(point["ranks"]) == len(curve["users"]) == 40 for point in curve["points"])
    seconds = [point["seconds"] for point in curve["points"]]
    assert seconds == sorted(seconds) and seconds[0] < seconds[-1]
    assert "curve" not in plain.report()
    # What is noted last is what the finished model ranks.
    cases = split().valid.sample(40, split().name, "r2ec sample")
    assert curve["points"][-1]["ranks"] == ranks_now(measured.reader, cases, split().n_items, refit=False)
    assert curve["points"][0]["ranks"] != curve["points"][-1]["ranks"]
    # Stopped behind step 3, on from the checkpoint of step 2.
    note = Measuring._note

    def stops(self: Measuring, state: Any, measured: bool) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt
        note(self, state, measured)

    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "_note", stops)
        with pytest.raises(KeyboardInterrupt):
            fit_r2ec(split(), 3, params, tmp_path / "stopped")
    resumed = fit_r2ec(split(), 3, params, tmp_path / "stopped").report()["curve"]
    assert [(point["step"], point["ranks"]) for point in resumed["points"]] == [
        (point["step"], point["ranks"]) for point in curve["points"]
    ]
    assert resumed["points"][2]["seconds"] > resumed["points"][1]["seconds"]


def taught(backbone: Path, steps: int, **training: Any) -> Params:
    """Return settings of a warm start of maps only, and of the control that goes on from there."""
    warm = {"cases": 200, "rank": 32, "valid_cases": 100, "epochs": 30, "teacher_epochs": 8, "learning_rate": 1e-2}
    warm |= {"batch_size": 64, "weight_decays": [0.01], "history_decay": 0.3, "adapters": {"held_items": 8}}
    own = {"objective": "teacher", "max_steps": steps, "learning_rate": 5e-3, "head_learning_rate": 3e-3}
    own |= {"per_device_train_batch_size": 32, "eval_cases": 200, "save_steps": 100}
    own |= {"lr_scheduler_type": "cosine", "warmup_steps": 5} | training
    changes: dict[str, Any] = {"prompts": {"max_items": 1}, "recpo": {"prior": 1.0, "tau": 0.05}}
    changes["lora"] = {"r": 16, "alpha": 32}
    return params_of(backbone, warm_start=warm, training=own, **changes)


def test_the_control_learns_what_its_teacher_says_and_ranks_better(backbone: Path, tmp_path: Path) -> None:
    steps = 60
    fitted = fit_r2ec(split(), 3, taught(backbone, steps, measured_steps=[0, steps]), tmp_path)
    report = fitted.report()
    log = [entry["divergence"] for entry in report["recpo_log"]]
    assert len(log) == steps and report["recpo_steps"] == steps
    assert np.mean(log[-10:]) < 0.9 * np.mean(log[:10])
    ranks = {point["step"]: np.array(point["ranks"]) for point in report["curve"]["points"]}
    assert np.log(ranks[steps]).mean() < np.log(ranks[0]).mean() - 0.05
    assert ndcg(ranks[steps], 10).mean() > 1.1 * ndcg(ranks[0], 10).mean()
    last = report["curve"]["points"][-1]["ranks"]
    cases = split().valid.sample(200, split().name, "r2ec sample")
    item_scores = np.concatenate(
        list(fitted.score(cases))
    )  # the finished model, its item map refitted as it was measured
    target = item_scores[np.arange(len(item_scores)), cases.target]
    assert (
        np.median(np.abs((item_scores > target[:, None]).sum(axis=1) + 1 - np.array(last))) <= 2
    )  # history not masked here


def test_the_teacher_that_goes_on_is_the_warm_starts_own(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = []
    plain = TaughtTrainer.__init__

    def init(self: TaughtTrainer, **parts: Any) -> None:
        teachers.append(parts["teacher"])
        plain(self, **parts)

    monkeypatch.setattr(TaughtTrainer, "__init__", init)
    params = taught(backbone, 1)
    adapters = params.warm_start.adapters.model_copy(update={"steps": 1})
    warm = params.warm_start.model_copy(update={"adapters": adapters, "states": str(tmp_path / "states")})
    fit_r2ec(split(), 3, params.model_copy(update={"warm_start": warm}), tmp_path)
    first, again = teachers
    history = torch.from_numpy(split().valid.take(np.arange(9)).padded(-1, 20))
    torch.testing.assert_close(first.probabilities(history), again.probabilities(history))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"measured_steps": [5, 0]}}, r"measured_steps \[5, 0\]; give each step once"),
        ({"recpo": {"candidates": "table"}}, "table has every item as a candidate.*extra_negatives .now 8. to 0"),
        ({"recpo": {"kl": 0.1, "reasoning": False}}, "kl 0.1 is of what is written"),
        (
            {"recpo": {"kl": 0.1}, "training": {"deepspeed": "config/accelerate/zero2.json"}},
            "recpo.kl 0.1 is not wired to",
        ),
        ({"training": {"objective": "teacher"}, "warm_start": {"cases": 0}}, "objective teacher needs a teacher"),
        (
            {"training": {"objective": "teacher", "save_steps": 2}, "recpo": {"num_iterations": 2}},
            "no rollouts to learn from twice",
        ),
    ],
)
def test_settings_that_say_nothing_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked(Params, settings(Path("nowhere"), **changes), "here")
