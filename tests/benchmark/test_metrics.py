"""Hit and NDCG against numbers worked by hand, against ir-measures, and what can't be a metric."""

import doctest
import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import Qrel, ScoredDoc, Success, nDCG

from benchmark import metrics
from benchmark.errors import InputError
from benchmark.metrics import CUTOFFS, METRICS, check_means, hit, ndcg, per_case


def test_doctests() -> None:
    assert doctest.testmod(metrics).attempted >= 4
    assert doctest.testmod(metrics).failed == 0


def test_metrics_stand_in_the_order_of_the_table() -> None:
    assert METRICS == ["Hit@5", "NDCG@5", "Hit@10", "NDCG@10", "Hit@20", "NDCG@20"]


def test_metrics_are_those_by_hand() -> None:
    # Four targets at ranks 1, 2, 7 and 31: discounts 1, 1/log2(3) = 0.63093, 1/3, 1/5 (beyond 20: 0).
    ranks = np.array([1, 2, 7, 31])
    assert hit(ranks, 5).mean() == 0.5
    assert hit(ranks, 10).mean() == 0.75
    assert ndcg(ranks, 5).mean() == pytest.approx((1 + 0.6309298) / 4)
    assert ndcg(ranks, 20).mean() == pytest.approx((1 + 0.6309298 + 1 / 3) / 4)
    assert ndcg(ranks, 31)[3] == pytest.approx(0.2)


def test_shape_is_kept() -> None:
    ranks = np.arange(1, 13, dtype=np.int32).reshape(3, 4)
    assert per_case(ranks).shape == (6, 3, 4)
    assert per_case(ranks).dtype == np.float64


def test_equals_ir_measures_on_the_same_scores() -> None:
    generator = np.random.default_rng(3)
    scores = generator.normal(size=(300, 80))
    target = generator.integers(80, size=300)
    own = scores[np.arange(300), target]
    ranks = 1 + (scores > own[:, None]).sum(axis=1)
    qrels = [Qrel(str(case), str(item), 1) for case, item in enumerate(target)]
    run = [ScoredDoc(str(case), str(item), float(s)) for case, row in enumerate(scores) for item, s in enumerate(row)]
    of_ir_measures = ir_measures.calc_aggregate(
        [measure @ k for k in CUTOFFS for measure in (Success, nDCG)], qrels, run
    )
    ours = per_case(ranks).mean(axis=1)
    for i, k in enumerate(CUTOFFS):
        assert ours[2 * i] == pytest.approx(of_ir_measures[Success @ k], abs=1e-12)
        assert ours[2 * i + 1] == pytest.approx(of_ir_measures[nDCG @ k], abs=1e-12)
    assert 0 < ours[0] < 1  # the comparison is not one of zeros


@given(st.lists(st.integers(1, 200), min_size=1, max_size=50))
def test_any_ranks_pass_the_check(ranks: list[int]) -> None:
    values = per_case(ranks)
    check_means(values.mean(axis=1), len(ranks), "here")
    for k, row in zip(CUTOFFS, values[1::2], strict=True):
        assert row.tolist() == pytest.approx([1 / math.log2(1 + r) if r <= k else 0.0 for r in ranks])


@pytest.mark.parametrize(
    ("means", "n_cases", "message"),
    [
        # Caser and SASRec as printed in the paper's Table 1: NDCG above Hit
        ([0.0109, 0.0141, 0.0115, 0.0149, 0.0127, 0.0155], 10_000, r"NDCG@5 0.0141 exceeds Hit@5 0.0109"),
        ([0.0076, 0.0104, 0.0081, 0.0119, 0.0086, 0.0141], 10_000, r"NDCG@5 0.0104 exceeds Hit@5 0.0076"),
        ([0.5, 0.3, 0.4, 0.3, 0.5, 0.3], 10, r"Hit@10 0.4000 is below Hit@5 0.5000"),
        ([0.5, 0.3, 0.5, 0.2, 0.5, 0.3], 10, r"NDCG@10 0.2000 is below NDCG@5 0.3000"),
        ([0.55, 0.3, 0.6, 0.3, 0.6, 0.3], 10, r"Hit@5 0.550000 is not a multiple of 1/10"),
        ([1.1, 0.3, 1.1, 0.3, 1.1, 0.3], 10, r"Hit@5 is 1.1000, outside 0..1"),
        ([0.5, -0.1, 0.5, 0.3, 0.5, 0.3], 10, r"NDCG@5 -0.1000"),
        ([0.5, 0.3, 0.5, float("nan"), 0.5, 0.3], 10, r"NDCG@10 is not a number"),
    ],
)
def test_impossible_means_are_refused(means: list[float], n_cases: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_means(np.array(means), n_cases, "runs/x")


@pytest.mark.parametrize(
    ("ranks", "k", "message"),
    [([0, 1], 5, "rank 0 is below 1"), ([1.0, 2.0], 5, "type float64"), ([1], 0, "cut-off k is 0")],
)
def test_bad_ranks_are_refused(ranks: list[float], k: int, message: str) -> None:
    for function in (hit, ndcg):
        with pytest.raises(InputError, match=message):
            function(ranks, k)
