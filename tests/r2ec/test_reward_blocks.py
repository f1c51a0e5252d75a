"""The reward by blocks, from disk and memory, against the plain one; the sampled softmax over all possible draws."""

import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmark.errors import InputError
from r2ec.catalogue.large_table import LargeTable, refresh
from r2ec.catalogue.sampled_softmax import Draws, draw, sampled_softmax
from r2ec.model import ranking
from r2ec.model.ranking import Ranks, scores
from r2ec.recpo.reward import Rewards, recpo_rewards, rewards_of

NONE = torch.tensor([[-1]])


def on_disk(states: Tensor, folder: Path, shard_rows: int, dtype: str = "float32") -> LargeTable:
    """A table with these states [V, d]."""

    def prompts(start: int, stop: int) -> list[list[int]]:
        return [[v] for v in range(start, stop)]

    def encode(wanted: object) -> Tensor:
        return states[[v for (v,) in wanted]]  # type: ignore[attr-defined]

    about = f"{hash(states.numpy(force=True).tobytes())}"
    refresh(
        folder,
        len(states),
        prompts,
        encode,
        width=states.shape[1],
        encoder=about,
        dtype=dtype,  # type: ignore[arg-type]
        shard_rows=shard_rows,
    )
    return LargeTable(folder)


def problem(seed: int, n_items: int, users: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Small whole numbers, so that ties are common and exact: users, items, targets, history."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, n_items, size=users)
    history = random.integers(-1, n_items, size=(users, 4))
    history[history == targets[:, None]] = -1
    return (
        torch.tensor(random.integers(-2, 3, size=(users, 4)), dtype=torch.float32),
        torch.tensor(random.integers(-2, 3, size=(n_items, 4)), dtype=torch.float32),
        torch.tensor(targets),
        torch.tensor(history),
    )


def whole(
    users: Tensor,
    items: Tensor,
    targets: Tensor,
    history: Tensor,
    tau: float,
    normalize: bool,
    prior: Tensor | None,
    k: int,
) -> Rewards:
    """The plain computation: every score at once."""
    logits = scores(users, items, tau=tau, normalize=normalize, prior=prior)
    ahead = logits >= logits.gather(1, targets[:, None])
    for row, (target, seen) in enumerate(zip(targets.tolist(), history.tolist(), strict=True)):
        ahead[row, [target, *(v for v in seen if v >= 0)]] = False
    softmax = logits.softmax(dim=1).gather(1, targets[:, None])[:, 0]
    return rewards_of(Ranks(1 + ahead.sum(dim=1), softmax), 0.05, k)


@given(
    st.integers(0, 2**31 - 1),
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 7, 2**24]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_blocks_of_any_size_give_the_plain_reward(
    seed: int, n_items: int, shard_rows: int, block_rows: int, at_once: int, with_prior: bool
) -> None:
    users, items, targets, history = problem(seed, n_items)
    # Halves over tau 0.5 and 0.5 as a prior are exact too.
    prior = torch.from_numpy(np.random.default_rng(seed).integers(-2, 3, n_items) / 2).float() if with_prior else None
    expected = whole(users, items, targets, history, 0.5, False, prior, 10)
    rows, ranking.BLOCK_ROWS = ranking.BLOCK_ROWS, block_rows
    try:
        with tempfile.TemporaryDirectory() as name:
            for table in (on_disk(items, Path(name), shard_rows), items):
                rewards = recpo_rewards(
                    users,
                    table,
                    targets,
                    history,
                    tau=0.5,
                    normalize=False,
                    k=10,
                    prior=prior,
                    scores_at_once=at_once,
                )
                assert torch.equal(rewards.rank, expected.rank) and torch.equal(rewards.ndcg, expected.ndcg)
                torch.testing.assert_close(rewards.softmax, expected.softmax, rtol=1e-5, atol=0)
                torch.testing.assert_close(rewards.reward, expected.reward, rtol=1e-5, atol=1e-7)
    finally:
        ranking.BLOCK_ROWS = rows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_cosines_after_a_map_give_the_plain_reward(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real numbers: ranks may differ only where two scores are equal up to rounding, and here none are."""
    monkeypatch.setattr(ranking, "BLOCK_ROWS", 64)
    random = torch.Generator().manual_seed(0)
    users, states = torch.randn(24, 8, generator=random), torch.randn(500, 16, generator=random)
    layer = nn.Linear(16, 8)
    table = on_disk(states, tmp_path, 150, dtype)
    stored = torch.cat([block.float() for _, block in ranking.blocks_of(table)])
    with torch.no_grad():
        items = layer(stored)
    targets = torch.randint(500, (24,), generator=random)
    history = torch.randint(500, (24, 5), generator=random)
    history.masked_fill_(history == targets[:, None], -1)
    expected = whole(users, items, targets, history, 0.1, True, None, 1000)
    rewards = recpo_rewards(users, table, targets, history, tau=0.1, item_map=layer)
    assert torch.equal(rewards.rank, expected.rank)
    torch.testing.assert_close(rewards.reward, expected.reward, rtol=1e-5, atol=1e-7)
    assert not rewards.reward.requires_grad


@pytest.mark.parametrize("block_rows", [1, 5, 16, 33])
def test_an_item_with_the_targets_state_ties_with_it_in_any_block(
    block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "BLOCK_ROWS", block_rows)
    random = torch.Generator().manual_seed(1)
    users, items = torch.randn(7, 100, generator=random), torch.randn(33, 100, generator=random)
    items[[3, 20, 32]] = items[11].clone()
    rewards = recpo_rewards(users, items, torch.full((7,), 11), torch.full((7, 1), -1), tau=0.1)
    cosines = scores(users.double(), items.double(), tau=1, normalize=True)
    ahead = (cosines > cosines[:, 11:12] + 1e-6).sum(dim=1)
    assert rewards.rank.tolist() == (1 + ahead + 3).tolist()


def test_bad_input_is_named() -> None:
    users, items = torch.ones(2, 3), torch.ones(4, 3)
    with pytest.raises(InputError, match="item 4 lies outside"):
        recpo_rewards(users, items, torch.tensor([1, 4]), torch.full((2, 1), -1), tau=1)
    items[2, 0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        recpo_rewards(users, items, torch.tensor([1, 1]), torch.full((2, 1), -1), tau=1, normalize=False)


# Sampled


def estimates(m: int, weights: Tensor, certain: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean of the estimated partition function over all m draws that there are, weighted by q, and the exact one:
    [N]."""
    random = torch.Generator().manual_seed(2)
    users, items = torch.randn(3, 4, generator=random), torch.randn(6, 4, generator=random)
    targets, prior = torch.tensor([0, 5, 2]), torch.randn(6, generator=random)
    q = weights / weights.sum()
    total = torch.zeros(3, dtype=torch.float64)
    for chosen in itertools.product(range(6), repeat=m):
        draws = Draws(torch.tensor(chosen), q[list(chosen)].log())
        estimate = sampled_softmax(users, items, targets, draws, tau=0.5, prior=prior, certain=certain)
        assert bool((estimate.softmax <= 1).all())
        mine = scores(users, items, tau=0.5, normalize=True, prior=prior).gather(1, targets[:, None])[:, 0]
        torch.testing.assert_close(estimate.softmax, torch.exp(mine - estimate.log_z))
        total += estimate.log_z.double().exp() * math.prod(q[v].item() for v in chosen)
    exact = scores(users, items, tau=0.5, normalize=True, prior=prior).double().exp().sum(dim=1)
    return total, exact


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("weights", [torch.ones(6), torch.tensor([1.0, 2, 3, 4, 5, 30])])
@pytest.mark.parametrize("certain", [None, torch.tensor([[3, 0, -1], [-1, -1, -1], [4, 5, 1]])])
def test_the_estimated_partition_function_is_unbiased(m: int, weights: Tensor, certain: Tensor | None) -> None:
    """Over every sample that can be drawn; targets stand among the certain items too, and count once."""
    mean_estimate, exact = estimates(m, weights, certain)
    torch.testing.assert_close(mean_estimate, exact, rtol=1e-5, atol=0)


def test_without_the_correction_the_estimate_is_biased() -> None:
    """Popular draws that count as if they were uniform: the test above can fail."""
    weights = torch.tensor([1.0, 2, 3, 4, 5, 30])
    q, uniform = weights / weights.sum(), torch.full((6,), -math.log(6))
    users, items, targets = torch.eye(2), torch.eye(2).repeat(3, 1), torch.tensor([0, 1])
    total = sum(
        q[v] * sampled_softmax(users, items, targets, Draws(torch.tensor([v]), uniform[[v]]), tau=1).log_z.exp()
        for v in range(6)
    )
    exact = scores(users, items, tau=1, normalize=True).exp().sum(dim=1)
    assert float(((total - exact) / exact).abs().max()) > 0.1  # type: ignore[union-attr]


def test_with_all_items_certain_the_estimate_is_exact(tmp_path: Path) -> None:
    users, items, targets, history = problem(0, 20)
    table = on_disk(items, tmp_path, 6)
    everything = torch.arange(20).expand(5, -1)
    estimate = sampled_softmax(
        users, table, targets, Draws(torch.tensor([1, 2]), torch.zeros(2)), tau=0.5, certain=everything
    )
    torch.testing.assert_close(estimate.softmax, whole(users, items, targets, history, 0.5, True, None, 1000).softmax)


def test_draws_follow_their_distribution() -> None:
    random = torch.Generator().manual_seed(0)
    draws = draw(4, 20_000, random)
    assert torch.allclose(draws.log_q, torch.tensor(-math.log(4)))
    assert torch.allclose(draws.items.bincount(minlength=4) / 20_000, torch.tensor(0.25), atol=0.02)
    weights = torch.tensor([1.0, 3, 6])
    draws = draw(3, 20_000, random, weights)
    torch.testing.assert_close(draws.log_q, (weights / 10).log()[draws.items])
    assert torch.allclose(draws.items.bincount(minlength=3) / 20_000, weights / 10, atol=0.02)
    for bad in (torch.tensor([1.0, 0, 1]), torch.ones(2), torch.tensor([1.0, math.inf, 1])):
        with pytest.raises(InputError, match="give one finite number above 0 for each"):
            draw(3, 5, random, bad)
