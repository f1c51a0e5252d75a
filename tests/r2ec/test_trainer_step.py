"""A step of RecPOTrainer against the paper's equation and Algorithm 1, computed again by plain code.

Whole prompts, one item at a time, a ranking by a loop, the clipped sums action by action; values and gradients.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.contract import Cases
from benchmark.provenance import derive_seed
from r2ec.fit import trainer_of
from r2ec.method import Params
from r2ec.recpo.trainer import Experience, RecPOBatch, RecPOTrainer
from r2ec.scoring.reader import Reader
from r2ec.speed.plain import plain_policy
from tests.support.tiny_fits import settings, split, write_backbone

USERS, GROUP = 4, 3
TEMPERATURE, BETA, K, PRIOR, EPSILON = 1.5, 0.3, 45, 0.4, 0.02


@dataclass
class Step:
    """Inputs and results of one call of compute_loss."""

    cases: Cases
    table: Tensor  # [V, d], before
    after: Tensor
    loss: float
    gradients: list[Tensor]
    kept: Experience
    expected: "Expected"


@dataclass
class Expected:
    loss: Tensor
    gradients: list[Tensor]
    rewards: np.ndarray | None  # [B, G]
    states: dict[int, Tensor]  # of the targets
    logps: tuple[Tensor, Tensor] | None  # of tokens and items


def trained(backbone: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, normalize: bool, reasoning: bool) -> Any:
    """Two updates on one batch of rollouts, with a table of states that no LM has given. Returns the steps and the
    log."""
    recpo = {
        "normalize": normalize,
        "tau": 0.7 if normalize else 5.0,
        "beta": BETA,
        "ndcg_k": K,
        "prior": PRIOR,
        "epsilon": EPSILON,
    }
    recpo |= {"head_update": "topk", "topk": 2, "num_iterations": 2, "refresh_steps": 1000, "extra_negatives": 0}
    training = {"max_steps": 2, "per_device_train_batch_size": USERS, "learning_rate": 0.05, "save_steps": 2}
    fit_settings = settings(
        backbone,
        recpo=recpo | {"reasoning": reasoning},
        rollouts={"group_size": GROUP, "temperature": TEMPERATURE, "max_new_tokens": 5, "top_k": 0},
        training=training | {"split_grad_norms": 0},
    )
    data = split()
    torch.manual_seed(derive_seed(5, "adapters"))
    parts = Reader.build(data, Params.model_validate(fit_settings), "free", 8)
    trainer = trainer_of(parts, data, data.valid.take(range(16)), 5, folder)
    random = torch.Generator().manual_seed(2)
    trainer.table.states.copy_(0.3 * torch.randn(trainer.table.states.shape, generator=random))
    for weight in parts.model.parameters():  # adapters whose B is zero give A no gradient
        if weight.requires_grad:
            weight.data += 0.05 * torch.randn(weight.shape, generator=random)
    steps: list[Step] = []
    plain = RecPOTrainer.compute_loss

    def compute_loss(self: RecPOTrainer, model: Any, batch: RecPOBatch, *rest: Any, **named: Any) -> Tensor:
        before, cases, kept = self.table.states.clone(), batch.cases, batch.experience
        loss = plain(self, model, batch, *rest, **named)
        old = steps[0].expected if steps else None
        expected = recomputed(self, cases, kept, before, old, reasoning)
        own = torch.autograd.grad(loss, weights_of(self), retain_graph=True, materialize_grads=True)
        steps.append(Step(cases, before, self.table.states.clone(), float(loss.detach()), list(own), kept, expected))
        return loss

    monkeypatch.setattr(RecPOTrainer, "compute_loss", compute_loss)
    trainer.train()
    return steps, [entry for entry in trainer.state.log_history if "loss" in entry]


def weights_of(trainer: RecPOTrainer) -> list[Tensor]:
    return [weight for weight in trainer.net.parameters() if weight.requires_grad]


def last_state(trainer: RecPOTrainer, ids: list[int]) -> Tensor:
    """float32 [d], with its graph."""
    out = trainer.net.causal_lm(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    state: Tensor = out.hidden_states[-1][0, -1].float()
    return state


def recomputed(
    trainer: RecPOTrainer, cases: Cases, kept: Experience, table: Tensor, old: Expected | None, reasoning: bool
) -> Expected:
    """The loss of this batch by the present weights. old: the result of the first iteration on the batch."""
    net, prompts = trainer.net, trainer.prompts
    assert cases.target is not None
    targets = cases.target.tolist()
    items = prompts.item_prompts()
    states = {v: last_state(trainer, items[v]) for v in sorted(set(targets))}

    def alike(users: Tensor, vectors: Tensor) -> Tensor:
        if trainer.recpo.normalize:
            users, vectors = (x / x.norm(dim=1, keepdim=True) for x in (users, vectors))
        return users @ vectors.T / trainer.recpo.tau

    if reasoning:
        policy = plain_policy(net, kept.rollouts, TEMPERATURE)
        users, group = policy.users, GROUP
    else:
        prompt_ids = prompts.user_prompts(cases, open_answer=True)
        users, group = net.head.user(torch.stack([last_state(trainer, ids) for ids in prompt_ids])), 1
    of_batch = alike(users, net.head.item(torch.stack([states[v] for v in sorted(states)])))
    columns = [sorted(states).index(v) for v in targets for _ in range(group)]
    item = torch.log_softmax(of_batch, dim=1)[torch.arange(len(columns)), columns]
    if not reasoning:
        loss = -item.mean()
        return Expected(loss.detach(), gradients(trainer, loss), None, states, None)
    # Algorithm 1: the targets' new states are in the table when the reward is computed.
    table = table.clone()
    for v, state in states.items():
        table[v] = state.detach()
    counts = np.bincount(split().train.interactions()[1], minlength=len(table))
    prior = PRIOR * (np.log1p(counts) - np.log1p(counts).mean())
    with torch.no_grad():
        item_scores = alike(users, net.head.item(table)).double().numpy() + prior
    rewards = np.array(
        [reward(item_scores[n], targets[n // group], cases.history(n // group)) for n in range(len(item_scores))]
    )
    rewards = rewards.reshape(-1, group)
    old_rewards = rewards if old is None else old.rewards
    assert old_rewards is not None and policy.token_logps is not None and kept.rollouts.action_mask is not None
    advantages = (old_rewards - old_rewards.mean(axis=1, keepdims=True)) / (
        old_rewards.std(axis=1, ddof=1, keepdims=True) + 1e-8
    )
    token = policy.token_logps
    old_token, old_item = (token.detach(), item.detach()) if old is None or old.logps is None else old.logps
    total = torch.zeros(())
    for n in range(len(item_scores)):
        u, i = divmod(n, group)
        advantage = float(advantages[u, i])
        for t in kept.rollouts.action_mask[n].nonzero().flatten().tolist():
            total = total + clipped(token[n, t] - old_token[n, t], advantage) / group
        if i in np.argsort(-advantages[u])[:2]:
            total = total + clipped(item[n] - old_item[n], advantage) / group
    loss = -total / len(targets)
    return Expected(loss.detach(), gradients(trainer, loss), rewards, states, (token.detach(), item.detach()))


def gradients(trainer: RecPOTrainer, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, weights_of(trainer), materialize_grads=True))


def reward(scores: np.ndarray, target: int, history: np.ndarray) -> float:
    rank = 1
    for v, score in enumerate(scores):
        if v != target and v not in history and score >= scores[target]:
            rank += 1
    softmax = float(np.exp(scores[target] - scores.max()) / np.exp(scores - scores.max()).sum())
    return BETA * softmax + (1 - BETA) * (1 / np.log2(1 + rank) if rank <= K else 0.0)


def clipped(log_ratio: Tensor, advantage: float) -> Tensor:
    ratio = log_ratio.exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - EPSILON, 1 + EPSILON) * advantage)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


def check(steps: list[Step]) -> None:
    assert len(steps) == 2
    for step in steps:
        assert step.loss == pytest.approx(float(step.expected.loss), rel=1e-3, abs=1e-5)
        largest = max(float(wanted.norm()) for wanted in step.expected.gradients)
        for gradient, wanted in zip(step.gradients, step.expected.gradients, strict=True):
            assert float((gradient - wanted).norm()) <= 1e-3 * largest
        assert sum(float(gradient.abs().max()) > 0 for gradient in step.gradients) >= 3  # maps and adapters
        for v, state in step.expected.states.items():
            torch.testing.assert_close(step.after[v], state.detach(), rtol=1e-3, atol=1e-4)
        other_rows = [v for v in range(len(step.after)) if v not in step.expected.states]
        assert torch.equal(step.after[other_rows], step.table[other_rows])


@pytest.mark.parametrize("normalize", [False, True])
def test_a_step_is_the_equation(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalize: bool
) -> None:
    steps, log = trained(backbone, tmp_path, monkeypatch, normalize, reasoning=True)
    check(steps)
    first, second = steps
    assert first.expected.rewards is not None
    assert first.expected.rewards.std(axis=1).max() > 1e-3  # or no advantage would say anything
    assert log[0]["reward"] == pytest.approx(first.expected.rewards.mean(), rel=1e-4)
    # The second update is on the rollouts, advantages and log-probabilities of the first.
    assert second.kept is first.kept and np.array_equal(first.cases.case, second.cases.case)
    assert log[0]["clip_share_tokens"] == 0 and log[1]["clip_share_tokens"] > 0


def test_a_step_without_reasoning_is_the_cross_entropy(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, log = trained(backbone, tmp_path, monkeypatch, normalize=True, reasoning=False)
    check(steps)
    assert log[0]["item_logp"] == pytest.approx(-steps[0].loss, rel=1e-4)
    assert steps[1].loss < steps[0].loss  # the same batch again
