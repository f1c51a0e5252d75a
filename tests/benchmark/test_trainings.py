"""The test over users and trainings: by hand, against scipy and the two-way analysis of variance, and on the null."""

import numpy as np
import pytest
from scipy import stats

from benchmark.analysis.trainings import BOTH, USERS, Components, Part, _critical, _tails, components, judge, p_value
from benchmark.errors import InputError


def test_components_by_hand() -> None:
    """Three users with one case each, two trainings of the first method, a second one without a seed."""
    first = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 7.0]])  # means of the trainings 2 and 4, of the users 2, 2 and 5
    second = np.array([[1.0, 1.0, 1.0]])
    parts = components(first, second, np.arange(3), seedless=(False, True))
    assert parts.difference == pytest.approx(3 - 1)
    # Users' differences 1, 1, 4 lie 1, 1 and 2 from their mean: variance of the mean (1 + 1 + 4) / 2 / 3 = 1.
    assert parts.users == Part(pytest.approx(1.0), 2)
    # What is left once users (2, 2, 5) and trainings (-1, +1) are taken out: 0, 1, -1 and its negative, squares 4 in
    # all; 3 / 2 of them by 3 x 3 cases and one degree of freedom are 2/3. Variance of the means 2 and 4 is 2: (2 - 2/3)
    # / 2.
    assert parts.trainings == (Part(pytest.approx(2 / 3), 1),)
    assert parts.covered
    assert parts.n_trainings == (2, 1)


def test_users_weigh_by_their_cases() -> None:
    parts = components(np.array([[1.0, 1.0, 4.0]]), np.zeros((1, 3)), np.array([7, 7, 9]), seedless=(True, True))
    assert parts.difference == pytest.approx(2.0)  # over three cases
    # User 7 has a sum of 2 where 4 was expected, user 9 of 4 for 2: 2 / (2 - 1) x (4 + 4) / 9.
    assert parts.users.variance == pytest.approx(16 / 9)


def test_without_trainings_it_is_the_t_test() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.3, 1, (1, 40)), rng.normal(0, 1, (1, 40))
    judged = judge([components(first, second, np.arange(40), seedless=(True, True))])
    of_scipy = stats.ttest_rel(first[0], second[0])
    assert judged.p == pytest.approx(of_scipy.pvalue, rel=1e-9)
    assert (judged.low, judged.high) == pytest.approx(tuple(of_scipy.confidence_interval()), rel=1e-6)
    assert judged.covers == BOTH  # of two methods without a seed there is no other training


def test_shared_trainings_are_the_two_way_analysis_of_variance() -> None:
    rng = np.random.default_rng(2)
    n, s = 30, 4
    values = rng.normal(size=(s, n)) + rng.normal(size=(s, 1)) + rng.normal(size=n)
    parts = components(values, np.zeros_like(values), np.arange(n), shared=True)
    of_users = s * values.mean(axis=0).var(ddof=1)
    of_trainings = n * values.mean(axis=1).var(ddof=1)
    residuals = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    of_rest = (residuals**2).sum() / (n - 1) / (s - 1)
    assert parts.users.variance == pytest.approx(of_users / n / s)
    assert parts.trainings[0].variance == pytest.approx((of_trainings - of_rest) / n / s)
    assert parts.trainings[0].df == s - 1


def test_one_training_covers_users_alone_and_says_so() -> None:
    rng = np.random.default_rng(3)
    single, three = rng.normal(size=(1, 20)), rng.normal(size=(3, 20))
    judged = judge([components(single, three, np.arange(20))])
    assert judged.covers == USERS
    assert np.isnan(judged.error_trainings)
    both = judge([components(three, three + rng.normal(size=(3, 20)), np.arange(20))])
    assert both.covers == BOTH
    others = three + rng.normal(size=(3, 20))
    mixed = judge([components(three, others, np.arange(20)), components(single, three, np.arange(20))])
    assert mixed.covers == USERS  # a mean over datasets covers what each of them does


@pytest.mark.parametrize("df", [1.0, 2.0, 4.0, 30.0])
def test_tails_are_those_of_the_sum(df: float) -> None:
    rng = np.random.default_rng(4)
    drawn = rng.standard_t(50, 400_000) + 2 * rng.standard_t(df, 400_000)
    for x in (1.0, 4.0, 12.0):
        expected = float((np.abs(drawn) >= x).mean())
        assert _tails(x, Part(1.0, 50), Part(4.0, df)) == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 400_000))
    critical = _critical(Part(1.0, 50), Part(4.0, df), 0.05)
    assert _tails(critical, Part(1.0, 50), Part(4.0, df)) == pytest.approx(0.05, rel=1e-6)


def test_a_small_p_of_few_trainings_is_that_of_their_tail() -> None:
    """Equal steps of the quantiles would lose it: of 2 degrees of freedom one in 1,000 lies beyond 31 standard
    deviations."""
    almost = _tails(40.0, Part(0.01, 100), Part(1.0, 2))
    assert almost == pytest.approx(2 * stats.t.sf(40, 2), rel=0.01)


def test_detectable_is_the_critical_value_and_the_power() -> None:
    judged = judge([Components(0.0, Part(0.01, 1e6), (), (1, 1), True)])
    assert judged.detectable(1) == pytest.approx(0.1 * (stats.norm.isf(0.025) + stats.norm.ppf(0.8)), rel=1e-4)
    assert judged.detectable(8) > judged.detectable(1)
    nothing = judge([Components(0.0, Part(0.0, 10), (), (1, 1), True)])
    assert np.isnan(nothing.detectable(1))
    assert nothing.p == 1.0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="3 and 2 trainings can't be shared"):
        components(np.zeros((3, 4)), np.zeros((2, 4)), np.arange(4), shared=True)
    with pytest.raises(InputError, match="at least 2 users"):
        components(np.zeros((3, 4)), np.zeros((2, 4)), np.zeros(4, dtype=int))


# --- held to the null
# --------------------------------------------------------------------------------------------------


def false_positives(
    trainings: int, of_trainings: float, of_users: float, shared: bool, worlds: int = 1_000
) -> tuple[float, float]:
    """Shares of worlds without a difference that are called different at 5 %: by users and trainings, and by users
    alone.

    Unequal numbers of cases per user, as in ml-100k. of_trainings, of_users: variance of the trainings' own values, and
    of the difference that users have for good, as multiples of what is left (user by training) in the mean of one
    training.
    """
    rng = np.random.default_rng([trainings, int(100 * of_trainings), int(100 * of_users), shared])
    both, users_alone = 0, 0
    for _ in range(worlds):
        counts = np.maximum(1, np.round(np.exp(rng.normal(1.2, 1.0, 120)))).astype(int)
        users = np.repeat(np.arange(120), counts)
        spread = np.sqrt(0.3 + 1 / counts)
        of_rest = ((counts * spread) ** 2).sum() / counts.sum() ** 2  # in the mean of one training

        def method(n: int) -> np.ndarray:
            own = rng.normal(size=(n, 1)) * np.sqrt(of_trainings * of_rest)  # noqa: B023
            values = rng.normal(size=(n, 120)) * spread + own  # noqa: B023
            return values[:, users]  # noqa: B023

        for_good = (rng.normal(size=120) * spread * np.sqrt(of_users))[users]
        first = method(trainings) + for_good
        second = np.zeros_like(first) if shared else method(trainings)
        parts = components(first, second, users, shared=shared)
        both += p_value([parts]) < 0.05
        users_alone += 2 * stats.t.sf(abs(parts.difference) / np.sqrt(parts.users.variance), parts.users.df) < 0.05
    return both / worlds, users_alone / worlds


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("of_trainings", [0.0, 1.0, 20.0])
def test_false_positives_stay_at_five_per_cent(of_trainings: float, shared: bool) -> None:
    both, _ = false_positives(5, of_trainings, 0.5 if shared else 1.0, shared)
    assert 0.03 <= both <= 0.07


@pytest.mark.parametrize("of_trainings", [0.0, 0.25, 1.0, 4.0])
def test_two_sets_of_trainings_of_one_setting_do_not_differ(of_trainings: float) -> None:
    """Nothing that users have for good: the two sides are one setting with other seeds."""
    both, _ = false_positives(5, of_trainings, 0.0, False)
    assert 0.02 <= both <= 0.07  # below 5 % where trainings have nothing of their own, as a variance can't be below 0


def test_users_alone_find_what_is_not_there() -> None:
    both, users_alone = false_positives(5, 4.0, 0.0, False)
    assert users_alone > 0.25
    assert both <= 0.07
