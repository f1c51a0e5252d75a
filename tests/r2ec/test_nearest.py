"""Exact search against the plain scores as the evaluator ranks them; indexes of faiss against the exact search."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmark.errors import InputError
from benchmark.evaluate import rank_batch
from r2ec.catalogue import nearest
from r2ec.catalogue.large_table import LargeTable
from r2ec.catalogue.nearest import KINDS, Kind, NearestIndex, bytes_per_item, lists, planned_bytes, top_k
from r2ec.model import ranking
from r2ec.model.ranking import scores
from tests.benchmark.test_evaluate import cases_of
from tests.r2ec.test_reward_blocks import on_disk, problem


def plain(every: Tensor, history: Tensor, k: int) -> tuple[list[list[int]], list[list[float]]]:
    """The rules in a loop: history out, best first, the lower number first among equals."""
    numbers, values = [], []
    for row, masked in zip(every.tolist(), history.tolist(), strict=True):
        best = sorted((v for v in range(len(row)) if v not in masked), key=lambda v: (-row[v], v))[:k]
        lacking = k - len(best)
        numbers.append(best + [-1] * lacking)
        values.append([row[v] for v in best] + [-np.inf] * lacking)
    return numbers, values


@given(st.integers(0, 2**31 - 1), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.integers(1, 45))
@settings(max_examples=60, deadline=None)
def test_blocks_of_any_size_give_the_evaluators_items(
    seed: int, n_items: int, shard_rows: int, block_rows: int, k: int
) -> None:
    users, items, _, history = problem(seed, n_items)
    prior = torch.from_numpy(np.random.default_rng(seed).integers(-1, 2, n_items)).float()
    every = scores(users, items, tau=0.5, normalize=False, prior=prior)
    expected = plain(every, history, k)
    rows, ranking.BLOCK_ROWS = ranking.BLOCK_ROWS, block_rows
    try:
        with tempfile.TemporaryDirectory() as name:
            for table in (on_disk(items, Path(name), shard_rows), items):
                numbers, values = top_k(
                    users, table, history, k, tau=0.5, normalize=False, prior=prior, scores_at_once=11
                )
                assert (numbers.tolist(), values.tolist()) == expected
    finally:
        ranking.BLOCK_ROWS = rows


def test_the_top_items_are_the_evaluators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines of real numbers after a map, in blocks long enough for the evaluator's way by blocks."""
    monkeypatch.setattr(ranking, "BLOCK_ROWS", 12_000)
    random = torch.Generator().manual_seed(0)
    users, states = torch.randn(6, 8, generator=random), torch.randn(30_000, 12, generator=random)
    layer = nn.Linear(12, 8)
    history = torch.randint(30_000, (6, 20), generator=random)
    with torch.no_grad():
        every = scores(users, layer(states), tau=0.1, normalize=True)
    *_, expected = rank_batch(every.numpy(), cases_of(history.tolist()), np.zeros(6, np.int64))
    numbers, values = top_k(users, states, history, 20, tau=0.1, item_map=layer)
    assert numbers.tolist() == expected.tolist()
    torch.testing.assert_close(values, every.gather(1, numbers), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    items = torch.ones(9, 3)
    items[7, 1] = value
    with pytest.raises(InputError, match="a score of items 0 to 8 is not finite"):
        top_k(torch.ones(2, 3), items, torch.full((2, 1), -1), normalize=False)


def test_bad_input_is_named() -> None:
    users, items = torch.ones(2, 3), torch.ones(9, 3)
    with pytest.raises(InputError, match="k is 0"):
        top_k(users, items, torch.full((2, 1), -1), 0)
    with pytest.raises(InputError, match=r"2 users need history \[n, L\], got \[2\]"):
        top_k(users, items, torch.tensor([1, 2]))
    with pytest.raises(InputError, match="item 9 lies outside the table of 9 items"):
        top_k(users, items, torch.tensor([[1], [9]]))


# Indexes


@pytest.fixture
def world() -> dict[str, Any]:
    """3,000 clustered items before a map, users near them, a prior."""
    random = torch.Generator().manual_seed(3)
    centres = torch.randn(40, 24, generator=random)
    items = centres[torch.randint(40, (3_000,), generator=random)] + 0.5 * torch.randn(3_000, 24, generator=random)
    layer = nn.Linear(24, 20, bias=False)
    users = layer(items[torch.randint(3_000, (30,), generator=random)]).detach()
    return {
        "users": users + 0.1 * torch.randn(users.shape, generator=random),
        "items": items,
        "history": torch.randint(3_000, (30, 6), generator=random),
        "about": {"tau": 0.1, "prior": torch.randn(3_000, generator=random) / 2, "item_map": layer},
    }


def recall(numbers: Tensor, exact: Tensor) -> float:
    return float((numbers[:, :, None] == exact[:, None, :]).any(dim=1).float().mean())


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_index_finds_what_the_exact_search_finds(
    kind: Kind, normalize: bool, world: dict[str, Any], tmp_path: Path
) -> None:
    """With all lists searched, or a long queue, nearly everything; scores are exact for whatever is found."""
    table = on_disk(world["items"], tmp_path, 700, "bfloat16")
    about = world["about"] | {"normalize": normalize}
    expected, values = top_k(world["users"], table, world["history"], 20, **about)
    index = NearestIndex.build(table, kind, **about)
    assert index.index.ntotal == 3_000
    numbers, near_values = index.search(world["users"], world["history"], 20, effort=400)
    assert recall(numbers, expected) > 0.97
    same = numbers == expected
    torch.testing.assert_close(near_values[same], values[same], rtol=1e-4, atol=1e-4)
    assert bool((near_values.diff(dim=1) <= 0).all())
    assert not bool((numbers[:, :, None] == world["history"][:, None, :]).any())
    # The index's own order: quantised in ivf_pq, nearly exact in the others.
    bare, rough = index.search(world["users"], world["history"], 20, effort=400, candidates=0)
    assert recall(bare, expected) > (0.5 if kind == "ivf_pq" else 0.95)
    if kind != "ivf_pq":
        torch.testing.assert_close(rough[:, 0], values[:, 0], rtol=0.01, atol=0.05)


@pytest.mark.parametrize("kind", ["ivf", "ivf_pq"])
def test_little_effort_finds_less(kind: Kind, world: dict[str, Any]) -> None:
    index = NearestIndex.build(world["items"], kind, **world["about"])
    expected = top_k(world["users"], world["items"], world["history"], 20, **world["about"])[0]
    recalls = [
        recall(index.search(world["users"], world["history"], 20, effort=effort)[0], expected) for effort in (1, 400)
    ]
    assert recalls[0] < recalls[1]


def test_candidates_repair_the_order_of_bytes(world: dict[str, Any]) -> None:
    index = NearestIndex.build(world["items"], "ivf_pq", **world["about"])
    expected = top_k(world["users"], world["items"], world["history"], 20, **world["about"])[0]
    recalls = [
        recall(index.search(world["users"], world["history"], 20, effort=400, candidates=c)[0], expected)
        for c in (0, 20, 400)
    ]
    assert recalls[0] <= recalls[1] + 0.05 and recalls[1] < recalls[2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_for_more_items_than_there_are_is_padded(kind: Kind) -> None:
    items = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    history = torch.tensor([[0, 1, -1]])
    numbers, values = NearestIndex.build(items, kind).search(items[:1], history, 310, effort=400)
    assert numbers.shape == values.shape == (1, 310)
    items_found = numbers[0][numbers[0] >= 0]
    assert len(items_found) == len(set(items_found.tolist())) and not {0, 1} & set(items_found.tolist())
    assert bool((values[0][numbers[0] < 0] == -torch.inf).all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_index_answers_the_same(kind: Kind, world: dict[str, Any], tmp_path: Path) -> None:
    table = on_disk(world["items"], tmp_path / "table", 700)
    index = NearestIndex.build(table, kind, **world["about"])
    index.save(tmp_path / "index")
    loaded = NearestIndex.load(tmp_path / "index", LargeTable(tmp_path / "table"), **world["about"])
    for a, b in zip(
        index.search(world["users"], world["history"]), loaded.search(world["users"], world["history"]), strict=True
    ):
        assert torch.equal(a, b)


def test_an_index_of_something_else_is_refused(world: dict[str, Any], tmp_path: Path) -> None:
    table, about = on_disk(world["items"], tmp_path / "table", 700), world["about"]
    NearestIndex.build(table, "ivf", **about).save(tmp_path / "index")
    for change in (
        {"item_map": nn.Linear(24, 20)},
        {"prior": about["prior"] + 1},
        {"prior": None},
        {"normalize": False},
        {"tau": 0.2},
    ):
        with pytest.raises(InputError, match="built for other scores"):
            NearestIndex.load(tmp_path / "index", table, **about | change)
    with pytest.raises(InputError, match="built from another table"):
        NearestIndex.load(tmp_path / "index", world["items"], **about)
    on_disk(world["items"] + 1, tmp_path / "table", 700)
    with pytest.raises(InputError, match="built from another table"):
        NearestIndex.load(tmp_path / "index", LargeTable(tmp_path / "table"), **about)
    with pytest.raises(InputError, match="holds no index"):
        NearestIndex.load(tmp_path / "nothing", table, **about)


@pytest.mark.parametrize("kind", ["ivf", "ivf_pq"])
def test_an_index_follows_a_refreshed_table(kind: Kind, world: dict[str, Any], tmp_path: Path) -> None:
    """Some items change, some come: as good as an index that is built anew on the same centroids."""
    about = world["about"] | {"prior": None}
    index = NearestIndex.build(world["items"], kind, **about)
    random = torch.Generator().manual_seed(4)
    rows = torch.randperm(3_000, generator=random)[:50]
    changed = torch.cat([world["items"], torch.randn(40, 24, generator=random)])
    changed[rows] = torch.randn(50, 24, generator=random)
    index.update(changed, torch.cat([rows, torch.arange(3_000, 3_040)]).numpy())
    assert index.index.ntotal == 3_040
    users = about["item_map"](changed[[int(rows[0]), 3_001]]).detach()
    numbers, _ = index.search(users, torch.full((2, 1), -1), effort=400)
    assert numbers[:, 0].tolist() == [int(rows[0]), 3_001]
    expected = top_k(world["users"], changed, world["history"], 20, **about)[0]
    assert recall(index.search(world["users"], world["history"], effort=400)[0], expected) > 0.97


def test_what_an_index_cannot_follow_is_refused(world: dict[str, Any]) -> None:
    items = world["items"]
    graph = NearestIndex.build(items[:500], "hnsw")
    with pytest.raises(InputError, match="hnsw can't take items out"):
        graph.update(items[:500], np.array([1]))
    inverted = NearestIndex.build(items[:500], "ivf")
    with pytest.raises(InputError, match="the table lost items, it has 400"):
        inverted.update(items[:400], np.array([1]))
    with pytest.raises(InputError, match="the index holds 500 items of a table of 501"):
        inverted.update(items[:501], np.array([1]))


def test_memory_is_planned_before_anything_is_read() -> None:
    assert bytes_per_item("ivf_pq", 576) == 72 + 8
    assert bytes_per_item("hnsw", 576) == 2 * 576 + 4 * 70
    assert [lists(rows) for rows in (10_000, 100_000, 1_000_000, 10_000_000)] == [128, 256, 1024, 4096]
    assert planned_bytes("ivf_pq", 10**7, 576) < 4 * 2**30 < planned_bytes("ivf", 10**7, 576)
    with pytest.raises(
        InputError, match=r"hnsw of 300 x 8 takes up to 0\.0 GiB to build, more than 1e-05; take ivf_pq"
    ):
        NearestIndex.build(torch.ones(300, 8), "hnsw", memory_gib=1e-5)
    with pytest.raises(InputError, match="no index 'flat'; known: hnsw, ivf, ivf_pq"):
        NearestIndex.build(torch.ones(300, 8), "flat")  # type: ignore[arg-type]


def test_bad_effort_is_named(world: dict[str, Any]) -> None:
    index = NearestIndex.build(world["items"][:500], "ivf")
    with pytest.raises(InputError, match="effort is 0"):
        index.search(world["items"][:1], torch.full((1, 1), -1), effort=0)
    assert nearest.EFFORT["ivf"] >= 1
