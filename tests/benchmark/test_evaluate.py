"""The evaluator against a slow plain version, RecBole's own evaluator and ir-measures."""

import contextlib
from typing import Any

import ir_measures
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import Qrel, ScoredDoc, Success, nDCG

from benchmark.contract import Cases
from benchmark.errors import InputError
from benchmark.evaluate import BLOCK, ROWS, TOP, rank, top_items
from benchmark.metrics import CUTOFFS, per_case
from benchmark.sandbox import evaluator

BLOCKED = 2 * BLOCK * TOP + 77  # more items than the plain path takes, in no whole number of blocks


def cases_of(histories: list[list[int]]) -> Cases:
    lengths = [len(history) for history in histories]
    n = len(histories)
    return Cases(
        case=np.arange(n) + 5,
        user=np.arange(n, dtype=np.int32),
        time=np.arange(n) + 1000,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.array([item for history in histories for item in history], dtype=np.int32),
        ratings=np.full(sum(lengths), np.nan, np.float32),
        times=np.zeros(sum(lengths), np.int64),
        target=None,
    )


def slow_rank(scores: list[float], history: list[int], target: int) -> tuple[int, int, list[int]]:
    """Rank, number of candidates and best items of one case, by the rules as they are written."""
    candidates = [item for item in range(len(scores)) if item not in set(history)]
    if target not in candidates or scores[target] == -np.inf:
        place = len(candidates)
    else:
        place = 1 + sum(scores[item] >= scores[target] for item in candidates if item != target)
    retrieved = [item for item in candidates if scores[item] > -np.inf]
    return place, len(candidates), sorted(retrieved, key=lambda item: (-scores[item], item))[:TOP]


def rows_of(table: pa.Table) -> list[tuple[int, int, list[int]]]:
    columns = table.to_pydict()
    return list(zip(columns["rank"], columns["candidates"], columns["top_items"], strict=True))


# Against the plain version

SCORE = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0])  # few values: ties everywhere


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(2, 40), st.integers(1, 6), st.integers(1, 6))
def test_ranking_equals_a_plain_loop(data: st.DataObject, n_items: int, n: int, size: int) -> None:
    item = st.integers(0, n_items - 1)
    scores = data.draw(st.lists(st.lists(SCORE, min_size=n_items, max_size=n_items), min_size=n, max_size=n))
    # Histories may hold an item twice, and in a leaking dataset even the target: then it is masked as any other.
    histories = data.draw(st.lists(st.lists(item, min_size=1, max_size=n_items - 1), min_size=n, max_size=n))
    targets = data.draw(st.lists(item, min_size=n, max_size=n))
    batches = [np.array(scores[start : start + size]) for start in range(0, n, size)]
    table = rank(batches, cases_of(histories), np.array(targets), n_items, "m")
    expected = [slow_rank(*row) for row in zip(scores, histories, targets, strict=True)]
    assert rows_of(table) == expected
    assert table.column("case").to_pylist() == [5 + i for i in range(n)]
    assert table.column("target").to_pylist() == targets


@pytest.mark.parametrize("kind", ["floats", "ties", "few retrieved", "nothing retrieved", "best in the tail"])
def test_ranking_of_many_items_equals_a_plain_loop(kind: str) -> None:
    generator = np.random.default_rng(len(kind))
    n = 6
    assert BLOCKED % BLOCK and BLOCKED > 2 * BLOCK * TOP
    scores = generator.normal(size=(n, BLOCKED)).astype(np.float32)
    if kind == "ties":
        scores = generator.integers(0, 3, (n, BLOCKED)).astype(np.float32)
        scores[:, : BLOCKED // 2] = 0  # all of the best lie in later blocks
    if kind == "few retrieved":
        hidden = generator.permuted(np.tile(np.arange(BLOCKED), (n, 1)), axis=1)[:, 7:]
        np.put_along_axis(scores, hidden, -np.inf, axis=1)
    if kind == "nothing retrieved":
        scores[:] = -np.inf
    if kind == "best in the tail":
        scores[:, BLOCKED // BLOCK * BLOCK :] += 100
    histories = [generator.integers(0, BLOCKED, 20).tolist() for _ in range(n)]
    histories[0] += np.argsort(-scores[0])[:15].tolist()  # the best of row 0 are masked
    targets = generator.integers(0, BLOCKED, n)
    targets[1] = np.argmax(scores[1])
    table = rank([scores], cases_of(histories), targets, BLOCKED, "m")
    assert rows_of(table) == [slow_rank(*row) for row in zip(scores.tolist(), histories, targets.tolist(), strict=True)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, BLOCK), st.sampled_from([2, 4, 1000]))
def test_top_items_by_blocks_equal_a_full_sort(seed: int, k: int, extra: int, levels: int) -> None:
    generator = np.random.default_rng(seed)
    n = 2 * BLOCK * k + 1 + extra
    scores = generator.integers(0, levels, (3, n)).astype(np.float32)
    scores[generator.random((3, n)) < generator.choice([0, 0.5, 0.999])] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    expected = np.where(np.take_along_axis(scores, order, axis=1) == -np.inf, -1, order)
    assert top_items(scores, k).tolist() == expected.tolist()


# Rules by hand


def test_ties_count_against_the_method() -> None:
    constant = np.zeros((1, 10))
    table = rank([constant], cases_of([[0, 1]]), np.array([2]), 10, "m")
    assert rows_of(table) == [(8, 8, [2, 3, 4, 5, 6, 7, 8, 9])]


def test_scores_are_ranked_in_the_precision_given() -> None:
    """Unix seconds one apart are one number in float32."""
    seconds = np.array([[1_700_000_003.0, 1_700_000_000.0, 1_700_000_002.0, 1_700_000_001.0]])
    for scores in (seconds, seconds.astype(np.int64), seconds - seconds.max()):
        assert rows_of(rank([scores], cases_of([[0]]), np.array([3]), 4, "m")) == [(2, 3, [2, 3, 1])]
    # The same values without their neighbours' digits are ties, which count against the method.
    assert rows_of(rank([seconds.astype(np.float32)], cases_of([[0]]), np.array([3]), 4, "m"))[0][0] == 3


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**52), 2**52), min_size=4, max_size=30, unique=True), st.data())
def test_whatever_distinct_numbers_a_method_gives_their_order_is_the_ranking(
    values: list[int], data: st.DataObject
) -> None:
    target = data.draw(st.integers(1, len(values) - 1))
    places = np.argsort(np.argsort(values))
    for scores in (np.array([values]), np.array([values], dtype=np.float64), places[None]):
        table = rank([scores], cases_of([[0]]), np.array([target]), len(values), "m")
        expected = 1 + sum(value > values[target] for value in values[1:])
        assert table.column("rank").to_pylist() == [expected]


def test_a_history_item_that_scores_higher_does_not_count() -> None:
    scores = np.array([[9.0, 5.0, 7.0, 1.0]])
    assert rows_of(rank([scores], cases_of([[0]]), np.array([1]), 4, "m")) == [(2, 3, [2, 1, 3])]
    assert rows_of(rank([scores], cases_of([[0, 2, 2, 0]]), np.array([1]), 4, "m")) == [(1, 2, [1, 3])]


def test_a_target_that_is_not_retrieved_is_last() -> None:
    scores = np.array([[-np.inf, 2.0, -np.inf, 1.0, -np.inf]])
    assert rows_of(rank([scores], cases_of([[1]]), np.array([2]), 5, "m")) == [(4, 4, [3])]


def test_a_methods_own_array_is_left_alone() -> None:
    # A method that keeps its scores and yields them, a view of them, or a broadcast row, is masked in a copy only.
    kept = np.random.default_rng(0).normal(size=(2 * ROWS + 3, 30)).astype(np.float32)
    before, cases = kept.copy(), cases_of([[i % 30] for i in range(len(kept))])
    targets = (np.arange(len(kept)) + 1) % 30
    first = rank([kept[:10], kept[10:]], cases, targets, 30, "m")
    assert (kept == before).all()
    assert rank([kept], cases, targets, 30, "m").equals(first)
    row = np.broadcast_to(np.arange(30, dtype=np.float32), kept.shape)
    assert rows_of(rank([row], cases, targets, 30, "m"))[:2] == [
        (29, 29, list(range(29, 9, -1))),
        (28, 29, list(range(29, 9, -1))),
    ]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([np.zeros((2, 4))], r"m: score\(\) gave 2 rows for 3 cases; yield one row per case, in order"),
        ([np.zeros((2, 4)), np.zeros((2, 4))], r"m: score\(\) gave 4 rows for 3 cases"),
        ([], r"m: score\(\) gave 0 rows for 3 cases"),
        ([np.zeros((3, 5))], r"m: scores have shape \(3, 5\), expected \[cases, 4\]"),
        ([np.zeros(4)], r"m: score\(\) gave the 4 scores of one case at a time"),
        ([np.zeros((2, 4)), np.array([[0, 1, np.nan, 0]])], "m: a score in row 0 of a batch is nan"),
        ([np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, np.inf]])], "m: a score in row 2 of a batch is inf"),
        ([[[0, 1, 2, 3]]], r"m: score\(\) gave list"),
    ],
)
def test_wrong_scores_are_refused(batches: list[np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rank(batches, cases_of([[0], [1], [2]]), np.array([1, 2, 3]), 4, "m")


def test_a_score_that_gives_nothing_is_refused_by_both_evaluators(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a method that forgets to yield."""
    nothing: Any = None
    with pytest.raises(InputError, match=r"^m: score\(\) gave NoneType; yield arrays of scores, batch by batch$"):
        rank(nothing, cases_of([[0]]), np.array([1]), 4, "m")
    monkeypatch.setattr(evaluator, "_connected", lambda socket: contextlib.nullcontext())
    with pytest.raises(InputError, match=r"^m: score\(\) gave NoneType; yield arrays of scores, batch by batch$"):
        evaluator.rank_by("socket", nothing, 4, "m")


def test_scores_that_are_all_equal_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the items that the history doesn't hold. A target that isn't retrieved is last, too, but others aren't."""
    cases, target = cases_of([[0], [1], [2]]), np.array([1, 2, 3])
    level = np.array([[9.0, 1, 1, 1], [-np.inf] * 4, [3, 2, 1, -np.inf]])
    rank([level], cases, target, 4, "m")
    assert capsys.readouterr().out == "m: all scores of 2 of 3 cases are equal, which ranks their targets last\n"
    rank([np.eye(4)[target]], cases, target, 4, "m")
    assert capsys.readouterr().out == ""


def test_one_case_at_a_time_is_told_what_to_yield() -> None:
    rows = np.ones((3, 4), dtype=np.float32)  # of a `return` in the place of `yield`
    with pytest.raises(
        InputError, match=r"^m: score\(\) gave the 4 scores of one case at a time; yield arrays \[cases, 4"
    ):
        rank(rows, cases_of([[0], [1], [2]]), np.array([1, 2, 3]), 4, "m")


# Other evaluators on the same scores


def a_problem() -> tuple[np.ndarray, list[list[int]], np.ndarray, np.ndarray]:
    """Scores without ties, histories, targets outside of the histories, and the evaluator's ranks."""
    generator = np.random.default_rng(11)
    n, n_items = 400, 150
    order = np.array([generator.permutation(n_items) for _ in range(n)])
    histories = [
        row[1 : 2 + int(length)].tolist() for row, length in zip(order, generator.integers(0, 20, n), strict=True)
    ]
    targets = order[:, 0]
    scores = generator.normal(size=(n, n_items)).astype(np.float32)
    scores[np.arange(n), targets] += 1.0  # a method that knows something: all metrics far from 0 and 1
    ranks = rank([scores], cases_of(histories), targets, n_items, "m").column("rank").to_numpy()
    return scores, histories, targets, ranks


def test_equals_ir_measures() -> None:
    scores, histories, targets, ranks = a_problem()
    qrels = [Qrel(str(case), str(item), 1) for case, item in enumerate(targets)]
    run = [
        ScoredDoc(str(case), str(item), float(score))
        for case, row in enumerate(scores)
        for item, score in enumerate(row)
        if item not in histories[case]
    ]
    of_ir_measures = ir_measures.calc_aggregate(
        [measure @ k for k in CUTOFFS for measure in (Success, nDCG)], qrels, run
    )
    expected = [of_ir_measures[measure @ k] for k in CUTOFFS for measure in (Success, nDCG)]
    assert per_case(ranks).mean(axis=1) == pytest.approx(expected, abs=1e-12)
    assert 0.1 < expected[0] < 0.9


def test_equals_recboles_own_evaluator(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from recbole.evaluator import Collector, Evaluator

    monkeypatch.setattr(np, "float", float, raising=False)  # RecBole's Config brings it back, its metrics want it
    scores, histories, targets, ranks = a_problem()
    # RecBole keeps item 0 for padding and sets it and the history to -inf before it collects, as its trainer does.
    scores_of_recbole = torch.full((len(scores), scores.shape[1] + 1), -np.inf)
    scores_of_recbole[:, 1:] = torch.from_numpy(scores)
    for case, history in enumerate(histories):
        scores_of_recbole[case, torch.tensor(history) + 1] = -np.inf
    config = {
        "metrics": ["Hit", "NDCG"],
        "topk": list(CUTOFFS),
        "metric_decimal_place": 12,
        "device": torch.device("cpu"),
        "eval_args": {"mode": {"valid": "full", "test": "full"}},
    }
    collector = Collector(FakeConfig(config))
    rows = torch.arange(len(scores))
    collector.eval_batch_collect(scores_of_recbole, None, rows, torch.from_numpy(targets) + 1)
    of_recbole = Evaluator(FakeConfig(config)).evaluate(collector.get_data_struct())
    expected = [of_recbole[f"{name}@{k}"] for k in CUTOFFS for name in ("hit", "ndcg")]
    assert per_case(ranks).mean(axis=1) == pytest.approx(expected, abs=1e-9)
    assert 0.1 < expected[0] < 0.9


class FakeConfig(dict):
    """RecBole's Config answers None for what it doesn't hold."""

    def __missing__(self, key: str) -> None:
        return None
