"""The reward against numbers worked by hand and against a plain loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.errors import InputError
from r2ec.recpo.reward import recpo_rewards

NONE = torch.tensor([[-1]])


def test_the_reward_equals_hand_worked_numbers() -> None:
    # Inner products with (1, 0): 2, 1, 3, 1. Target 1: items 0 and 2 are ahead, 3 ties and counts against it: rank 4.
    items = torch.tensor([[2.0, 5.0], [1.0, 0.0], [3.0, 1.0], [1.0, 7.0]])
    user, target = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    rewards = recpo_rewards(user, items, target, NONE, tau=1.0, normalize=False, beta=0.05, k=1000)
    assert rewards.rank.tolist() == [4]
    softmax = math.exp(1) / (math.exp(2) + math.exp(1) + math.exp(3) + math.exp(1))
    assert float(rewards.softmax) == pytest.approx(softmax, rel=1e-6)
    assert float(rewards.ndcg) == pytest.approx(1 / math.log2(5), rel=1e-6)
    assert float(rewards.reward) == pytest.approx(0.05 * softmax + 0.95 / math.log2(5), rel=1e-6)
    # With item 2 in the history the rank falls to 3; R_c still runs over all of V.
    rewards = recpo_rewards(user, items, target, torch.tensor([[-1, 2]]), tau=1.0, normalize=False)
    assert rewards.rank.tolist() == [3]
    assert float(rewards.softmax) == pytest.approx(softmax, rel=1e-6)
    # Below the cut-off nothing is left but R_c.
    rewards = recpo_rewards(user, items, target, NONE, tau=1.0, normalize=False, beta=0.5, k=3)
    assert float(rewards.ndcg) == 0
    assert float(rewards.reward) == pytest.approx(0.5 * softmax, rel=1e-6)


def test_cosine_ignores_length() -> None:
    items = torch.tensor([[100.0, 100.0], [0.0, 0.001]])
    rewards = recpo_rewards(torch.tensor([[0.0, 5.0]]), items, torch.tensor([1]), NONE, tau=0.02)
    assert rewards.rank.tolist() == [1]
    assert float(rewards.ndcg) == 1
    assert float(rewards.softmax) == pytest.approx(1 / (1 + math.exp((math.sqrt(0.5) - 1) / 0.02)), rel=1e-5)


@given(st.integers(0, 2**31 - 1), st.integers(1, 40), st.booleans(), st.sampled_from([1, 7, 2**24]))
@settings(max_examples=40, deadline=None)
def test_equals_a_plain_loop_in_any_block(seed: int, n_items: int, cosine: bool, block: int) -> None:
    random = np.random.default_rng(seed)
    # Small whole numbers, so that ties are common and exact.
    users = random.integers(-2, 3, size=(5, 3)).astype(float)
    items = random.integers(-2, 3, size=(n_items, 3)).astype(float)
    targets = random.integers(0, n_items, size=5)
    history = random.integers(-1, n_items, size=(5, 4))
    history[history == targets[:, None]] = -1
    rewards = recpo_rewards(
        torch.tensor(users, dtype=torch.float32),
        torch.tensor(items, dtype=torch.float32),
        torch.tensor(targets),
        torch.tensor(history),
        tau=0.7,
        normalize=cosine,
        k=10,
        scores_at_once=block,
    )
    for n in range(5):
        unit = (lambda x: x / max(np.linalg.norm(x), 1e-12)) if cosine else (lambda x: x)
        s = np.array([unit(users[n]) @ unit(item) for item in items])
        others = [v for v in range(n_items) if v != targets[n] and v not in history[n]]
        # Cosines of different vectors that are equal on paper differ in the last digit: both counts are right.
        low = 1 + sum(s[v] > s[targets[n]] + 1e-6 for v in others)
        high = 1 + sum(s[v] > s[targets[n]] - 1e-6 for v in others)
        assert low <= int(rewards.rank[n]) <= high
        if not cosine:
            assert int(rewards.rank[n]) == high
        p = np.exp(s[targets[n]] / 0.7) / np.exp(s / 0.7).sum()
        assert float(rewards.softmax[n]) == pytest.approx(p, rel=1e-4)
        rank = int(rewards.rank[n])
        assert float(rewards.ndcg[n]) == pytest.approx(1 / math.log2(1 + rank) if rank <= 10 else 0, rel=1e-5)


def test_a_bf16_table_gives_the_same_as_its_values_in_float32() -> None:
    random = torch.Generator().manual_seed(0)
    items = torch.randn(50, 8, generator=random).bfloat16()
    users, targets = torch.randn(6, 8, generator=random), torch.arange(6)
    history = torch.full((6, 1), -1)
    low = recpo_rewards(users, items, targets, history, tau=0.1)
    high = recpo_rewards(users, items.float(), targets, history, tau=0.1)
    assert torch.equal(low.rank, high.rank) and torch.equal(low.reward, high.reward)


@pytest.mark.parametrize("where", ["user", "item"])
def test_states_that_are_not_finite_are_refused(where: str) -> None:
    users, items = torch.ones(2, 3), torch.ones(4, 3)
    (users if where == "user" else items)[0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        recpo_rewards(users, items, torch.tensor([1, 1]), torch.full((2, 1), -1), tau=1.0, normalize=False)


@pytest.mark.parametrize(
    ("targets", "history", "message"),
    [
        ([1, 4], [[-1], [-1]], "item 4 lies outside"),
        ([1, -1], [[-1], [-1]], "item -1 lies outside"),
        ([1, 1], [[-1], [9]], "item 9 lies outside"),
        ([1, 2], [[-1], [2]], "target 2 is in its own history"),
        ([1], [[-1], [-1]], "need targets"),
    ],
)
def test_bad_input_is_named(targets: list[int], history: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recpo_rewards(torch.ones(2, 3), torch.ones(4, 3), torch.tensor(targets), torch.tensor(history), tau=1.0)


def test_a_prior_moves_ranks_and_the_softmax() -> None:
    """Scores over tau 0.5 are 2, 4, 0; the prior makes them 2, 1, 0: the second item falls behind the first."""
    users, items = torch.tensor([[1.0]]), torch.tensor([[1.0], [2.0], [0.0]])
    rewards = recpo_rewards(
        users, items, torch.tensor([1]), NONE, tau=0.5, normalize=False, beta=0, prior=torch.tensor([0.0, -3.0, 0.0])
    )
    assert rewards.rank.tolist() == [2]
    e = math.e
    torch.testing.assert_close(rewards.softmax, torch.tensor([e / (e**2 + e + 1)]))
