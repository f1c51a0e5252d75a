"""The tests and intervals against scipy and statsmodels, and their false-positive rate under a true null."""

import doctest
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from benchmark.analysis import significance
from benchmark.analysis.significance import (
    MCNEMAR,
    MCNEMAR_EXACT,
    bootstrap_means,
    holm,
    interval,
    mcnemar_test,
    randomisation_test,
    user_sums,
)
from benchmark.errors import InputError
from benchmark.metrics import ndcg


def test_doctests() -> None:
    assert doctest.testmod(significance).attempted > 0
    assert doctest.testmod(significance).failed == 0


def test_user_sums_by_hand() -> None:
    sums, counts = user_sums([[1, 2, 3, 4], [0, 1, 0, 1]], [7, 3, 7, 3])
    assert sums.tolist() == [[6, 2], [4, 0]]  # user 3: 2 + 4 and 1 + 1; user 7: 1 + 3 and 0 + 0
    assert counts.tolist() == [2, 2]


# --- intervals
# ---------------------------------------------------------------------------------------------------------


def clustered(n_users: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two methods' NDCG@10 per case, [2, n], and users [n] with 1 to about 60 cases each."""
    generator = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), generator.geometric(0.12, n_users))
    # Whose ranks a method gets right differs from user to user: the cases of one user go together.
    taste = generator.normal(size=(2, n_users))[:, user]
    ranks = 1 + np.floor(np.exp(2.5 + 0.8 * taste + 0.8 * generator.normal(size=taste.shape))).astype(int)
    return ndcg(ranks, 10), user


def test_bootstrap_interval_equals_scipys() -> None:
    values, user = clustered(150, 1)
    sums, counts = user_sums(values, user)
    ours = np.array(interval(bootstrap_means(sums, counts, seed=2)))[:, 0]
    of_scipy = stats.bootstrap(
        (sums[:, 0], counts),
        lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=9_999,
        rng=np.random.default_rng(3),
    ).confidence_interval
    width = of_scipy.high - of_scipy.low
    assert ours == pytest.approx([of_scipy.low, of_scipy.high], abs=0.04 * width)
    assert ours[0] < values[0].mean() < ours[1]


def test_paired_difference_shares_its_resamples() -> None:
    values, user = clustered(100, 4)
    sums, counts = user_sums(np.vstack([values, values[0] - values[1]]), user)
    replicates = bootstrap_means(sums, counts, seed=5, resamples=500)
    assert replicates[:, 0] - replicates[:, 1] == pytest.approx(replicates[:, 2], abs=1e-12)


def test_bootstrap_in_blocks_is_weighted_right(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, counts = np.array([[2.0], [9.0]]), np.array([1.0, 3.0])
    monkeypatch.setattr(significance, "BLOCK_BYTES", 8 * 2 * 7)  # 7 rows a block
    replicates = bootstrap_means(sums, counts, seed=1, resamples=4_000)[:, 0]
    # Two users: both user 1 (2/1), one each (11/4) or both user 2 (18/6), with chances 1/4, 1/2, 1/4.
    distinct, times = np.unique(replicates, return_counts=True)
    assert distinct.tolist() == [2.0, 2.75, 3.0]
    assert times / 4_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


# --- randomisation test
# ------------------------------------------------------------------------------------------------


def test_randomisation_equals_scipys_permutation_test() -> None:
    generator = np.random.default_rng(6)
    sums = generator.normal(size=(12, 4)) + np.array([0.0, 0.3, 0.6, 1.0])
    pairs = list(itertools.combinations(range(4), 2))
    ours = randomisation_test(sums, pairs, seed=7)
    for (a, b), p in zip(pairs, ours, strict=True):
        exact = stats.permutation_test(
            (sums[:, a], sums[:, b]),
            lambda x, y, axis: (x - y).sum(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,  # all 2^12
            alternative="two-sided",
        ).pvalue
        assert p == pytest.approx(exact, rel=1e-12)  # 12 users have fewer flips than the test takes: all of them


def test_randomisation_by_hand() -> None:
    # Differences 1, 1, 1, 1: 2 of the 16 sign vectors reach |4|, so p = 1/8; equal methods: every flip counts, p = 1.
    sums = np.array([[1.0, 0.0, 0.0]] * 4)
    assert randomisation_test(sums, [(0, 1), (1, 2)], seed=8).tolist() == [0.125, 1.0]


@pytest.mark.parametrize("piece", [2**6, 2**10, 2**23])
def test_the_transform_gives_the_plain_sums_of_each_flip(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(12)
    words, sums = generator.integers(2**9, size=50), generator.normal(size=(50, 3))
    monkeypatch.setattr(significance, "PIECE_BYTES", piece)
    flipped = np.concatenate(list(significance._flipped_sums(words, sums, 9)), axis=1)
    for flip in range(2**9):
        signs = np.array([-1.0 if bin(flip & word).count("1") % 2 else 1.0 for word in words.tolist()])
        assert flipped[:, flip] == pytest.approx(signs @ sums, abs=1e-12)


def test_p_is_right_on_average_and_varies_as_with_independent_flips_or_less() -> None:
    generator = np.random.default_rng(16)
    sums = np.column_stack([generator.exponential(size=(18, 2)) * [1.0, 1.6], np.zeros(18)])
    pairs, flips, draws = [(0, 1)], 2**10 - 1, 400
    exact = randomisation_test(sums, pairs, seed=0, flips=2**18 - 1)[0]  # all flips of 18 users
    assert 0.02 < exact < 0.04
    p = np.array([randomisation_test(sums, pairs, seed, flips)[0] for seed in range(draws)])
    deviation = np.sqrt(exact * (1 - exact) / flips)
    counted = (1 + flips * exact) / (flips + 1)  # what has been seen is one of the flips + 1
    assert p.mean() == pytest.approx(counted, abs=4 * deviation / np.sqrt(draws))
    assert 0 < p.std() < 1.2 * deviation


@pytest.mark.parametrize("seed", [9149, 14495, 23631])
def test_a_few_users_that_decide_have_all_their_flips(seed: int) -> None:
    # With random words for all these seeds gave p = .58, .08 and .58, as words of the three were equal, or one was 0.
    rest = np.random.default_rng(3).normal(size=297) * 0.02
    sums = np.column_stack([np.r_[5.0, 4.0, -3.0, rest], np.zeros(300)])
    independent = np.random.default_rng(1).choice([-1.0, 1.0], (20_000, 300)) @ (sums[:, 0] - sums[:, 1])
    expected = np.mean(np.abs(independent) >= np.abs(sums.sum()))
    assert randomisation_test(sums, [(0, 1)], seed)[0] == pytest.approx(expected, abs=0.015)


def test_users_without_a_difference_take_no_flips() -> None:
    sums = np.zeros((3_000, 2))
    sums[100:112, 0] = 1.0  # 2 of the 2^12 sign vectors of these twelve reach 12
    for seed in range(5):
        assert randomisation_test(sums, [(0, 1)], seed)[0] == 2 / 2**12


def test_the_choice_of_the_widest_users_is_no_peek() -> None:
    # Under the null p <= 3/64 in 3/64 of the draws at most, whatever the users' sizes.
    generator = np.random.default_rng(14)
    rejected = 0
    draws = 4_000
    sums = generator.standard_cauchy((draws, 9)) * generator.choice([-1.0, 1.0], (draws, 9))
    for seed, values in enumerate(sums):
        rejected += randomisation_test(np.column_stack([values, np.zeros(9)]), [(0, 1)], seed, 63)[0] <= 3 / 64
    assert 0.02 < rejected / draws < 3 / 64 + 3 * np.sqrt(3 / 64 / draws)


@pytest.mark.parametrize("flips", [0, -1, 9_999, 2**14])
def test_flips_that_are_no_group_are_refused(flips: int) -> None:
    with pytest.raises(InputError, match=f"flips is {flips}; give one less than a power of two"):
        randomisation_test(np.ones((4, 2)), [(0, 1)], seed=1, flips=flips)


def test_no_pairs_have_no_p() -> None:
    assert randomisation_test(np.ones((4, 1)), [], seed=1).shape == (0,)


def test_what_has_no_sum_is_refused() -> None:
    with pytest.raises(InputError, match="no users to compare"):
        randomisation_test(np.ones((0, 2)), [(0, 1)], seed=1)
    with pytest.raises(InputError, match=r"totals: entry \[0\] is inf"), np.errstate(over="ignore"):
        randomisation_test(np.c_[np.full(30, 1e307), np.zeros(30)], [(0, 1)], seed=1)


def test_ties_count_in_spite_of_rounding() -> None:
    # 0.1 + 0.2 + 0.3 is not exact in floats; half of the flips of a single differing user reach it, both ways: p = 1.
    sums = np.array([[0.1 + 0.2 + 0.3, 0.0], [0.7, 0.7], [1 / 3, 1 / 3]])
    assert randomisation_test(sums, [(0, 1)], seed=9).tolist() == [1.0]


def test_blocks_do_not_change_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(10).normal(size=(40, 2)) + np.array([0, 0.3])
    whole = randomisation_test(sums, [(0, 1)], seed=11)
    monkeypatch.setattr(significance, "PIECE_BYTES", 8 * 40 * 100)
    assert randomisation_test(sums, [(0, 1)], seed=11) == whole


# --- McNemar
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "c"), [(40, 21), (30, 30), (25, 0), (13, 60)])
def test_mcnemar_equals_statsmodels_with_one_case_per_user(b: int, c: int) -> None:
    ours = mcnemar_test(np.r_[np.ones(b), -np.ones(c), np.zeros(50)])
    of_statsmodels = mcnemar([[30, b], [c, 20]], exact=False, correction=False)
    assert ours.name == MCNEMAR
    assert (ours.statistic, ours.p) == pytest.approx((of_statsmodels.statistic, of_statsmodels.pvalue))


@pytest.mark.parametrize(("b", "c"), [(10, 3), (6, 6), (24, 0), (1, 0), (0, 0), (7, 16)])
def test_exact_mcnemar_equals_statsmodels(b: int, c: int) -> None:
    ours = mcnemar_test(np.r_[np.ones(b), -np.ones(c), np.zeros(50)])
    assert ours.name == MCNEMAR_EXACT
    assert ours.p == pytest.approx(mcnemar([[30, b], [c, 20]], exact=True).pvalue if b + c else 1.0)


@given(st.lists(st.integers(-6, 6).filter(bool), min_size=1, max_size=10))
def test_exact_distribution_equals_listing_all_signs(d: list[int]) -> None:
    sums = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in itertools.product((1, -1), repeat=len(d))
    ]
    assert mcnemar_test(d).p == pytest.approx(np.mean(np.array(sums) >= abs(sum(d))))


def test_clustered_mcnemar_by_hand() -> None:
    # 30 users with D = 2 (20 of them) and D = -1 (10): (40 - 10)^2 / (20 * 4 + 10 * 1) = 900 / 90 = 10
    result = mcnemar_test([2] * 20 + [-1] * 10)
    assert result.statistic == 10.0
    assert result.p == pytest.approx(0.001565, abs=1e-6)  # chi-squared table, 1 degree of freedom


def test_seeds_do_not_multiply_the_evidence() -> None:
    one_seed = np.r_[np.ones(40), -np.ones(25)]
    assert mcnemar_test(3 * one_seed).p == pytest.approx(
        mcnemar_test(one_seed).p
    )  # three identical seeds say what one says


# --- Holm
# --------------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # sorted .01, .02, .04 times 3, 2, 1: .03, .04, .04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([]).tolist() == []


# --- refusals
# ----------------------------------------------------------------------------------------------------------


def test_nan_is_refused_everywhere() -> None:
    bad = np.array([[1.0, 2.0], [np.nan, 1.0]])
    for call in (
        lambda: user_sums(bad, [1, 2]),
        lambda: bootstrap_means(bad, np.ones(2), 1),
        lambda: randomisation_test(bad, [(0, 1)], 1),
        lambda: mcnemar_test(bad[1]),
        lambda: holm(bad[1]),
    ):
        with pytest.raises(InputError, match="is nan; a failed case has a rank"):
            call()


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="3 values per column but 2 users"):
        user_sums([1, 2, 3], [1, 2])  # unpaired
    with pytest.raises(InputError, match="no cases"):
        user_sums([], [])
    with pytest.raises(InputError, match="at least 2 users, got 1"):
        bootstrap_means(np.ones((1, 1)), np.ones(1), 1)
    with pytest.raises(InputError, match="no integer"):
        mcnemar_test([0.5, 1])
    with pytest.raises(InputError, match=r"outside 0..1"):
        holm([0.5, 1.5])


# --- false-positive rate over 1,000 null comparisons
# -------------------------------------------------------------------

COMPARISONS = 1_000


def null_comparisons(n_users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per-case differences of two methods, [1000, n] for NDCG@10 and for hits, and users [n].

    Each user has 1 to about 150 cases; within a user one method can be better throughout. The two methods' labels are
    swapped at random per user in each comparison, so no method is better: every rejection is a false positive.
    """
    generator = np.random.default_rng(2026)
    user = np.repeat(np.arange(n_users), np.ceil(generator.lognormal(1.5, 1.0, n_users)).astype(int).clip(1, 150))
    score, hits = np.empty((COMPARISONS, len(user))), np.empty((COMPARISONS, len(user)))
    for i in range(COMPARISONS):
        taste = generator.normal(size=(2, n_users))[:, user]
        ranks = 1 + np.floor(np.exp(2.3 + taste + generator.normal(size=taste.shape))).astype(int)
        swap = generator.choice([-1, 1], n_users)[user]
        gain = ndcg(ranks, 10)
        score[i], hits[i] = swap * (gain[0] - gain[1]), swap * ((ranks[0] <= 10) * 1 - (ranks[1] <= 10) * 1)
    return score, hits, user


@pytest.fixture(scope="module", params=[400, 121, 75])
def null(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The last two numbers of users are those of ml-100k's and of movielens-2016's test cases in config.yaml."""
    return null_comparisons(request.param)


def rates(null: tuple[np.ndarray, np.ndarray, np.ndarray], clusters: np.ndarray, flips: int) -> tuple[float, float]:
    """Share of p < 0.05 of the randomisation test on NDCG@10 and of McNemar on Hit@10, with these clusters."""
    score, hits, _ = null
    sums, _ = user_sums(score, clusters)
    with_zero = np.column_stack([sums, np.zeros(len(sums))])  # the difference of column i and 0 is comparison i
    p = randomisation_test(with_zero, [(i, COMPARISONS) for i in range(COMPARISONS)], seed=1, flips=flips)
    hit_sums, _ = user_sums(hits, clusters)
    return float(np.mean(p < 0.05)), float(np.mean([mcnemar_test(d).p < 0.05 for d in hit_sums.T]))


def test_false_positive_rate_lies_between_3_and_7_percent(null: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    randomisation, mcnemars = rates(null, clusters=null[2], flips=4_095)
    assert 0.03 <= randomisation <= 0.07
    assert 0.03 <= mcnemars <= 0.07


def test_ignoring_the_users_would_fail_this_check(null: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    randomisation, mcnemars = rates(null, clusters=np.arange(len(null[2])), flips=511)  # every case its own "user"
    assert randomisation > 0.10
    assert mcnemars > 0.10


def test_intervals_hold_the_true_difference_nearly_as_often_as_they_say(
    null: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Of 95 %; with few users of very unequal numbers of cases a bootstrap's intervals are a little too narrow."""
    score, _, users = null
    low, high = interval(bootstrap_means(*user_sums(score, users), seed=1, resamples=999))
    covered = float(np.mean((low <= 0) & (high >= 0)))
    assert 0.91 <= covered <= 0.97
