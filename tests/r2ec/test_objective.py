"""The objective against hand-worked numbers, a NumPy transcription, and what paper and released code must differ in."""

import doctest
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.errors import InputError
from r2ec.recpo import objective
from r2ec.recpo.objective import (
    HEAD_UPDATES,
    Advantage,
    HeadUpdate,
    candidate_log_q,
    group_advantages,
    head_mask,
    item_logps,
    recpo_loss,
)


def test_doctests() -> None:
    results = doctest.testmod(objective, extraglobs={"torch": torch})
    assert results.attempted > 0
    assert results.failed == 0


# Advantages


def test_grpo_by_hand() -> None:
    # mean 2, unbiased variance (1 + 0 + 1) / 2 = 1.
    advantages = group_advantages(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]), "grpo")
    assert torch.allclose(advantages, torch.tensor([[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), atol=1e-6)


def test_rloo_by_hand() -> None:
    # 1 - (2+6)/2 = -3; 2 - (1+6)/2 = -1.5; 6 - (1+2)/2 = 4.5.
    advantages = group_advantages(torch.tensor([[1.0, 2.0, 6.0]]), "rloo")
    assert torch.allclose(advantages, torch.tensor([[-3.0, -1.5, 4.5]]))


def test_released_rloo_is_neither_rloo_nor_zero_mean() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0]])
    advantages = group_advantages(rewards, "rloo_released")
    assert torch.allclose(advantages, torch.tensor([[4 / 3 - 3, 8 / 3 - 3, 8.0 - 3]]))
    assert abs(float(advantages.sum())) > 1


def test_batch_by_hand() -> None:
    # One rollout each: the others' means are (2+6)/2, (1+6)/2, (1+2)/2; mean 3, unbiased variance (4 + 1 + 9) / 2 = 7.
    advantages = group_advantages(torch.tensor([[1.0], [2.0], [6.0]]), "batch")
    assert torch.allclose(advantages, torch.tensor([[-3.0], [-1.5], [4.5]]) / 7**0.5)
    # Two each: a user's own other rollout is no part of the baseline; variance (4 + 1 + 0 + 9) / 3 around 3.
    advantages = group_advantages(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), "batch")
    assert torch.allclose(advantages, torch.tensor([[1 - 4.5, 2 - 4.5], [3 - 1.5, 6 - 1.5]]) / (14 / 3) ** 0.5)


@given(st.floats(0, 1, width=32), st.integers(2, 40), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_equal_rewards_of_a_batch_teach_nothing(reward: float, users: int, group: int) -> None:
    assert not group_advantages(torch.full((users, group), reward), "batch").any()


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=16))
@settings(max_examples=50, deadline=None)
def test_batch_advantages_of_single_rollouts_sum_to_zero(rewards: list[float]) -> None:
    advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64)[:, None], "batch")
    assert abs(float(advantages.sum())) < 1e-6


@pytest.mark.parametrize("rewards", [torch.ones(1, 4), torch.ones(3)])
def test_a_batch_of_one_user_has_no_baseline(rewards: torch.Tensor) -> None:
    with pytest.raises(InputError, match="per_device_train_batch_size"):
        group_advantages(rewards, "batch")


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=8), st.sampled_from(["grpo", "rloo"]))
@settings(max_examples=50, deadline=None)
def test_advantages_sum_to_zero_and_keep_the_order(rewards: list[float], kind: Advantage) -> None:
    group = torch.tensor([rewards], dtype=torch.float64)
    advantages = group_advantages(group, kind)
    assert abs(float(advantages.sum())) < 1e-6
    assert bool((advantages[0][group[0].argsort()].diff() >= -1e-9).all())


@given(st.floats(0, 1, width=32), st.integers(2, 16), st.sampled_from(["grpo", "rloo"]))
@settings(max_examples=200, deadline=None)
def test_equal_rewards_teach_nothing(reward: float, size: int, kind: Advantage) -> None:
    """In float32 the mean of eight equal rewards is off by a rounding error, which the division by 1e-8 blows up."""
    assert not group_advantages(torch.full((1, size), reward), kind).any()


@pytest.mark.parametrize("rewards", [torch.ones(3, 1), torch.ones(3)])
def test_a_group_of_one_has_no_advantage(rewards: torch.Tensor) -> None:
    with pytest.raises(InputError, match="group_size"):
        group_advantages(rewards)


# The item action


def numpy_item_logp(user: np.ndarray, target: int, items: dict[int, np.ndarray], tau: float, cosine: bool) -> float:
    unit = (lambda x: x / np.linalg.norm(x)) if cosine else (lambda x: x)
    logits = {v: unit(user) @ unit(h) / tau for v, h in items.items()}
    return float(logits[target] - np.log(sum(np.exp(x) for x in logits.values())))


@pytest.mark.parametrize("cosine", [True, False])
def test_item_logps_merge_equal_targets(cosine: bool) -> None:
    random = np.random.default_rng(0)
    table = {v: random.normal(size=5) for v in (7, 2, 9)}
    ids = [7, 2, 7, 9]
    users, targets = random.normal(size=(6, 5)), [7, 7, 2, 2, 9, 9]
    logps = item_logps(
        torch.tensor(users, dtype=torch.float32),
        torch.tensor(targets),
        torch.tensor(np.stack([table[v] for v in ids]), dtype=torch.float32),
        torch.tensor(ids),
        tau=0.5,
        normalize=cosine,
    )
    expected = [numpy_item_logp(user, target, table, 0.5, cosine) for user, target in zip(users, targets, strict=True)]
    assert np.allclose(logps.numpy(), expected, atol=1e-5)


def test_item_logps_gradients_reach_both_sides() -> None:
    """Against a cross-entropy over the merged candidates, worked in float64; item 7's copy that counts is the first."""
    random = torch.Generator().manual_seed(4)
    users, items = (torch.randn(n, 5, generator=random, dtype=torch.float64) for n in (4, 3))
    targets, weights = torch.tensor([7, 7, 2, 2]), torch.tensor([1.0, -2.0, 0.5, 3.0])
    leaves = [users.float().requires_grad_(), torch.cat([items[:2], items[:1]]).float().requires_grad_()]
    logps = item_logps(leaves[0], targets, leaves[1], torch.tensor([7, 2, 7]), tau=0.5)
    (logps * weights).sum().backward()
    users.requires_grad_()
    items.requires_grad_()
    cosine = torch.cosine_similarity(users[:, None], items[None, :2], dim=-1) / 0.5
    (-torch.nn.functional.cross_entropy(cosine, (targets == 2).long(), reduction="none") * weights).sum().backward()
    assert users.grad is not None and items.grad is not None
    for leaf, expected in zip(leaves, (users.grad, items.grad), strict=True):
        assert leaf.grad is not None and torch.allclose(
            leaf.grad.double()[: len(expected)][:2], expected[:2], atol=1e-5
        )
    assert leaves[1].grad is not None and float(leaves[1].grad[2].norm()) == 0


def test_extra_negatives_get_no_gradient_and_count_once() -> None:
    random = np.random.default_rng(1)
    table = {v: random.normal(size=4) for v in (0, 1, 5, 6)}
    users = torch.tensor(random.normal(size=(2, 4)), dtype=torch.float32, requires_grad=True)
    own = torch.tensor(np.stack([table[0], table[1]]), dtype=torch.float32, requires_grad=True)
    extra_ids = torch.tensor([6, 1, 5, 6])  # 1 is a target of the batch, 6 comes twice
    extra = torch.tensor(np.stack([table[int(v)] for v in extra_ids]), dtype=torch.float32, requires_grad=True)
    targets = torch.tensor([0, 1])
    kwargs: dict[str, Any] = {"tau": 1.0, "normalize": False, "extra_items": extra, "extra_ids": extra_ids}
    logps = item_logps(users, targets, own, torch.tensor([0, 1]), **kwargs)
    expected = [numpy_item_logp(users[i].detach().numpy(), i, table, 1.0, False) for i in range(2)]
    assert np.allclose(logps.detach().numpy(), expected, atol=1e-5)
    logps.sum().backward()
    assert extra.grad is None
    assert own.grad is not None and float(own.grad.norm()) > 0


def test_log_q_is_subtracted_from_every_candidate() -> None:
    # Two candidates of equal score, the first expected 2 x 3/4 = 1.5 times, the second 0.5 times in a batch of two.
    log_q = candidate_log_q(torch.tensor([3.0, 1.0, 0.0]), batch_users=2)
    assert torch.allclose(log_q[:2].exp(), torch.tensor([1.5, 0.5]))
    users, items = torch.ones(2, 3), torch.ones(2, 3)
    ids = torch.tensor([0, 1])
    logps = item_logps(users, ids, items, ids, tau=1.0, log_q=log_q)
    # exp(score)/1.5 : exp(score)/0.5 = 1 : 3
    assert torch.allclose(logps.exp(), torch.tensor([0.25, 0.75]))
    with pytest.raises(InputError, match="log_q is not finite"):
        item_logps(users, torch.tensor([2, 2]), items, torch.tensor([2, 1]), tau=1.0, log_q=log_q)


@pytest.mark.parametrize("target", [4, 99])
def test_a_target_without_a_state_is_refused(target: int) -> None:
    with pytest.raises(InputError, match=f"target {target} has no state"):
        item_logps(torch.ones(1, 2), torch.tensor([target]), torch.ones(2, 2), torch.tensor([3, 5]), tau=1.0)


# The loss


def numpy_recpo(
    token: np.ndarray,
    old_token: np.ndarray,
    mask: np.ndarray,
    item: np.ndarray,
    old_item: np.ndarray,
    advantages: np.ndarray,
    eps: float,
    chosen: list[set[int]],
) -> float:
    """J written from the paper's equation, one action at a time; the loss is -J."""

    def l_eps(ratio: float, advantage: float) -> float:
        return min(ratio * advantage, min(max(ratio, 1 - eps), 1 + eps) * advantage)

    users, group = advantages.shape
    total = 0.0
    for u in range(users):
        for i in range(group):
            n = u * group + i
            for t in range(token.shape[1]):
                if mask[n, t]:
                    total += l_eps(np.exp(token[n, t] - old_token[n, t]), advantages[u, i]) / group
            if i in chosen[u]:
                total += l_eps(np.exp(item[n] - old_item[n]), advantages[u, i]) / group
    return total / users


CHOSEN: dict[HeadUpdate, list[set[int]]] = {
    # advantages [[0.5, -1, 2], [1, 3, -0.2]], as in `example`
    "top1": [{2}, {1}],
    "topk": [{0, 2}, {0, 1}],
    "all": [{0, 1, 2}, {0, 1, 2}],
    "none": [set(), set()],
}


def example() -> dict[str, Any]:
    random = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return -torch.rand(*shape, generator=random, dtype=torch.float64) * 2

    mask = torch.rand(6, 5, generator=random) < 0.7
    mask[0] = False  # a rollout of which nothing was sampled
    return {
        "token_logps": draw(6, 5),
        "old_token_logps": draw(6, 5),
        "token_mask": mask,
        "item_logps": draw(6),
        "old_item_logps": draw(6),
        "advantages": torch.tensor([[0.5, -1.0, 2.0], [1.0, 3.0, -0.2]], dtype=torch.float64),
    }


def renamed(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The arrays of `example` under the transcription's names."""
    return dict(zip(("token", "old_token", "mask", "item", "old_item", "advantages"), arrays.values(), strict=True))


@pytest.mark.parametrize("how", CHOSEN)
def test_loss_equals_the_equation(how: HeadUpdate) -> None:
    case = example()
    parts = recpo_loss(**case, eps=0.2, head_update=how, topk=2)
    expected = -numpy_recpo(**renamed({name: case[name].numpy() for name in case}), eps=0.2, chosen=CHOSEN[how])
    assert float(parts.loss) == pytest.approx(expected, rel=1e-5)
    assert float(parts.token_part + parts.item_part) == pytest.approx(expected, rel=1e-5)
    assert 0 < float(parts.token_clip_share) < 1  # the ratios of `example` are wide apart


@pytest.mark.parametrize("how", CHOSEN)
def test_gradient_equals_that_of_the_equation(how: HeadUpdate) -> None:
    """By central differences of the transcription, in float64."""
    case = example()
    for name in ("token_logps", "item_logps"):
        case[name].requires_grad_()
    recpo_loss(**case, head_update=how, topk=2).loss.backward()

    def value(**changed: np.ndarray) -> float:
        arrays = {name: tensor.detach().numpy() for name, tensor in case.items()} | changed
        return -numpy_recpo(**renamed(arrays), eps=0.2, chosen=CHOSEN[how])

    for name in ("token_logps", "item_logps"):
        base = case[name].detach().numpy()
        slope = np.zeros_like(base)
        for index in np.ndindex(base.shape):
            step = np.zeros_like(base)
            step[index] = 1e-6
            slope[index] = (value(**{name: base + step}) - value(**{name: base - step})) / 2e-6
        gradient = case[name].grad
        assert np.allclose(0.0 if gradient is None else gradient.numpy(), slope, atol=1e-6)


def test_without_old_logps_the_gradient_is_that_of_the_log_probabilities() -> None:
    case = example()
    case["token_logps"].requires_grad_()
    parts = recpo_loss(case["token_logps"], None, case["token_mask"], case["item_logps"], None, case["advantages"])
    parts.loss.backward()
    expected = -case["advantages"].reshape(-1, 1) * case["token_mask"] / 6
    assert torch.allclose(case["token_logps"].grad, expected, atol=1e-7)
    assert float(parts.token_clip_share) == float(parts.item_clip_share) == 0


def test_padding_never_reaches_the_loss() -> None:
    case = example()
    dirty = {name: case[name].clone() for name in ("token_logps", "old_token_logps")}
    for name, value in (("token_logps", torch.inf), ("old_token_logps", torch.nan)):
        dirty[name][~case["token_mask"]] = value
    leaf = dirty["token_logps"].requires_grad_()
    parts = recpo_loss(**(case | dirty))
    parts.loss.backward()
    assert parts.loss.item() == pytest.approx(recpo_loss(**case).loss.item())
    assert leaf.grad is not None and bool(torch.isfinite(leaf.grad).all())


def numpy_released(mask: np.ndarray, advantages: np.ndarray, topk: int) -> tuple[np.ndarray, np.ndarray]:
    """Gradient by token and item log-probabilities, from the full (M, M, S) and (M, M, 1) products of one group."""
    group, length = mask.shape
    relabel = np.zeros(group)
    relabel[np.argsort(-advantages)[:topk]] = 1
    token, item = np.zeros((group, length)), np.zeros(group)
    for i in range(group):
        for j in range(group):
            token[j] -= advantages[i] * mask[j] / mask.sum() / group
            item[j] -= advantages[i] * relabel[i] / group**2
    return token, item


@pytest.mark.parametrize("topk", [1, 2])
def test_the_released_arithmetic_equals_its_transcription(topk: int) -> None:
    case = example()
    tokens, items = case["token_logps"].requires_grad_(), case["item_logps"].requires_grad_()
    advantages = torch.tensor([[0.5, -1.0, 2.0], [1.0, 3.0, -0.2]])  # not zero-mean, so that the token part shows
    mask = case["token_mask"]
    parts = recpo_loss(tokens, None, mask, items, None, advantages, head_update="released", topk=topk)
    parts.loss.backward()
    halves = [numpy_released(mask[u * 3 : u * 3 + 3].numpy(), advantages[u].numpy(), topk) for u in range(2)]
    # The mean over the two groups, each a mini-batch of its own.
    assert np.allclose(tokens.grad.numpy(), np.concatenate([half[0] for half in halves]) / 2, atol=1e-6)
    assert np.allclose(items.grad.numpy(), np.concatenate([half[1] for half in halves]) / 2, atol=1e-6)


def test_released_has_no_token_gradient_for_a_lone_group_and_top1_has() -> None:
    case = example()
    advantages = group_advantages(torch.tensor([[0.1, 0.7, 0.2]]), "grpo")
    gradients = {}
    for how in ("released", "top1"):
        tokens = case["token_logps"][:3].clone().requires_grad_()
        items = case["item_logps"][:3].clone().requires_grad_()
        recpo_loss(tokens, None, case["token_mask"][:3], items, None, advantages, head_update=how).loss.backward()
        gradients[how] = (tokens.grad, items.grad)
    token, item = gradients["released"]
    assert token is not None and float(token.abs().max()) < 1e-7
    assert item is not None and bool((item < -1e-3).all())  # every rollout's item probability is pushed up
    token, item = gradients["top1"]
    assert token is not None and float(token.abs().max()) > 1e-2
    assert item is not None and item.nonzero().flatten().tolist() == [1]  # only the best one's


# Which rollouts update the head


def test_ties_go_to_the_earlier_rollout() -> None:
    advantages = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    assert head_mask(advantages, "top1").int().tolist() == [[1, 0, 0], [0, 1, 0]]
    assert head_mask(advantages, "topk", topk=9).all()
    single = torch.tensor([[1.4], [-1.4]])  # G = 1 against the batch: no target is pushed away
    assert head_mask(single, "top1").tolist() == [[True], [False]]


def test_random_takes_one_per_group_and_its_generator_decides() -> None:
    advantages = torch.zeros(200, 4)
    masks = [head_mask(advantages, "random", generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert bool((masks[0].sum(dim=1) == 1).all())
    assert bool((masks[0].sum(dim=0) > 20).all())  # all four places are drawn
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("how", HEAD_UPDATES)
def test_every_head_update_gives_a_finite_loss(how: HeadUpdate) -> None:
    case = example()
    parts = recpo_loss(**case, head_update=how, generator=torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(parts.loss))


def test_bad_input_is_named() -> None:
    case = example()
    with pytest.raises(InputError, match="no head update 'best'"):
        recpo_loss(**case, head_update="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="do not fit token_logps"):
        recpo_loss(**(case | {"token_logps": case["token_logps"][:5]}))
    with pytest.raises(InputError, match="no advantage 'ppo'"):
        group_advantages(torch.ones(2, 2), "ppo")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="topk is 0"):
        head_mask(torch.ones(2, 2), "topk", topk=0)
