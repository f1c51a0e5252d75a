"""A paired test and an interval that cover users and trainings.

Users and trainings are crossed: each training ranks the cases of each user. A method's value on user u by training s is

    mean + user_u + training_s + rest_us

and another experiment would draw other users and other trainings. Treating either as fixed finds differences that
aren't there: Clark, "The language-as-fixed-effect fallacy", Journal of Verbal Learning and Verbal Behavior 1973; for
learned models Bouthillier et al., "Accounting for variance in machine learning benchmarks", MLSys 2021. What is
estimated, by moments, as in a two-way layout (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007, has
the same layout with unequal numbers of cases):

    variance of the difference = users' part + trainings' part
    users' part = variance over users of the difference of means over trainings; it holds rest_us, too
    trainings' part = sum over methods of max(0, variance of the trainings' means - what rest_us adds to it) / trainings

Both parts are estimated, the second from few trainings. The reference distribution is that of the sum of two
independent Student variables, each with its own part and degrees of freedom (Behrens and Fisher's solution); several
methods' and datasets' parts of one kind are put together by Satterthwaite, "An approximate distribution of estimates of
variance components", Biometrics Bulletin 1946. With one training of a method nothing is known of the second part: the
result covers users alone, and says so (`Judged.covers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from benchmark.analysis.significance import ALPHA, LEVEL, POWER, user_sums
from benchmark.errors import InputError

NORMAL = np.linspace(-8, 8, 321)  # normal deviates at whose quantiles a tail is averaged
WEIGHTS = stats.norm.pdf(NORMAL) / stats.norm.pdf(NORMAL).sum()
BOTH, USERS = "users and trainings", "users alone"


@dataclass(frozen=True)
class Part:
    """A part of a variance with the degrees of freedom that it was estimated with."""

    variance: float
    df: float


@dataclass(frozen=True)
class Components:
    """The difference of two methods on one dataset, and the parts of its variance."""

    difference: float
    users: Part
    trainings: tuple[Part, ...]  # a part per method that trains; one where both are read from the same trainings
    n_trainings: tuple[int, int]
    covered: bool  # whether each method that depends on a seed has at least two trainings


@dataclass(frozen=True)
class Judged:
    """One two-sided test, and the interval of the same distribution."""

    difference: float
    low: float
    high: float
    p: float
    error: float  # standard error
    error_trainings: float  # the trainings' part of the standard error; NaN where nothing is known of it
    covers: str  # BOTH or USERS
    users: Part
    trainings: Part  # of variance 0 where trainings are not covered

    def detectable(self, family: int) -> float:
        """The smallest true difference that is found with POWER at Holm's first step, ALPHA / family.

        The critical value and z_POWER standard errors; NaN where no user's value differs.
        """
        if self.error == 0:
            return float("nan")
        critical = _critical(self.users, self.trainings, ALPHA / family)
        return float(critical + stats.norm.ppf(POWER) * self.error)


def components(
    first: np.ndarray,
    second: np.ndarray,
    users: np.ndarray,
    *,
    shared: bool = False,
    seedless: tuple[bool, bool] = (False, False),
) -> Components:
    """The difference `first` minus `second` and the parts of its variance.

    first, second: float [trainings, n], a case's values by each training of a method. users: int [n].
    shared: training s of both methods is one training that is read in two ways, or two trainings with the same random
    numbers; then both have the same number of trainings. seedless: for each method, whether it depends on no seed, so
    that one training is all that there is. Raises InputError for unequal numbers of shared trainings, fewer than 2
    users, NaN.
    """
    if shared and len(first) != len(second):
        raise InputError(f"{len(first)} and {len(second)} trainings can't be shared; give the same ones for both")
    sides = [first - second] if shared else [first, -second]
    fixed = [all(seedless)] if shared else list(seedless)
    sums = []
    for side in sides:
        side_sums, counts = user_sums(side, users)  # [users, trainings]
        sums.append(side_sums)
    n_users, n_cases = len(counts), counts.sum()
    if n_users < 2:
        raise InputError(f"a test over users needs at least 2 users, got {n_users}; use more test cases")
    total = np.sum([side.mean(axis=1) for side in sums], axis=0)
    difference = float(total.sum() / n_cases)
    errors = (total - difference * counts) / n_cases
    correction = n_users / (n_users - 1)
    parts, covered = [], True
    for side, is_fixed in zip(sums, fixed, strict=True):
        trainings = side.shape[1]
        if is_fixed:
            continue
        if trainings < 2:
            covered = False
            continue
        means = side.sum(axis=0) / n_cases
        # rest_us: a user's value without the user's and the training's own part, float64 [users, trainings].
        residuals = side - side.mean(axis=1, keepdims=True) - np.outer(counts, means - means.mean())
        by_residuals = correction * float((residuals**2).sum()) / n_cases**2 / (trainings - 1)
        parts.append(Part(max(0.0, float(means.var(ddof=1)) - by_residuals) / trainings, trainings - 1))
    numbers = (len(first), len(second))
    return Components(
        difference, Part(correction * float(errors @ errors), n_users - 1), tuple(parts), numbers, covered
    )


def judge(datasets: Sequence[Components]) -> Judged:
    """The mean of the datasets' differences, each of the same weight; of one dataset, its own.

    Covers trainings only where each dataset does: else no dataset's trainings count, and `covers` says so.
    """
    difference, users, trainings = _parts_of(datasets)
    covered = all(dataset.covered for dataset in datasets)
    error = float(np.sqrt(users.variance + trainings.variance))
    reach = _critical(users, trainings, 1 - LEVEL) if error else 0.0
    return Judged(
        difference=difference,
        low=difference - reach,
        high=difference + reach,
        p=p_value(datasets),
        error=error,
        error_trainings=float(np.sqrt(trainings.variance)) if covered else float("nan"),
        covers=BOTH if covered else USERS,
        users=users,
        trainings=trainings,
    )


def p_value(datasets: Sequence[Components]) -> float:
    """The p of `judge`, without the cost of its interval."""
    difference, users, trainings = _parts_of(datasets)
    return _tails(abs(difference), users, trainings) if users.variance + trainings.variance else 1.0


def _parts_of(datasets: Sequence[Components]) -> tuple[float, Part, Part]:
    """The mean difference, the users' part and the trainings'."""
    share = 1 / len(datasets)
    users = _together([_scaled(dataset.users, share) for dataset in datasets])
    covered = all(dataset.covered for dataset in datasets)
    trainings = _together([_scaled(part, share) for dataset in datasets for part in dataset.trainings if covered])
    return share * sum(dataset.difference for dataset in datasets), users, trainings


def _scaled(part: Part, share: float) -> Part:
    return Part(part.variance * share**2, part.df)


def _together(parts: Sequence[Part]) -> Part:
    """The sum of independent parts, with Satterthwaite's degrees of freedom."""
    variance = sum(part.variance for part in parts)
    if variance == 0:
        return Part(0.0, 1.0)  # nothing, whatever its degrees of freedom
    return Part(variance, variance**2 / sum(part.variance**2 / part.df for part in parts))


def _tails(x: float, users: Part, trainings: Part) -> float:
    """P(|U + T| >= x) of independent Student variables, scaled by the parts' standard deviations.

    The mean, over quantiles of the narrower one, of the tails of the wider one.
    """
    narrow, wide = sorted((users, trainings), key=lambda part: part.variance)
    # Quantiles at normal deviates and not at equal steps: the tail of few degrees of freedom decides small p.
    quantiles = stats.t.isf(stats.norm.sf(np.abs(NORMAL)), narrow.df) * np.sign(NORMAL)
    shift, scale = np.sqrt(narrow.variance) * quantiles, np.sqrt(wide.variance)
    above, below = stats.t.sf((x - shift) / scale, wide.df), stats.t.cdf((-x - shift) / scale, wide.df)
    return float(min(1.0, WEIGHTS @ (above + below)))


def _critical(users: Part, trainings: Part, level: float) -> float:
    """The x with P(|U + T| >= x) = level."""
    width = float(np.sqrt(users.variance + trainings.variance))
    high = 4 * width
    while _tails(high, users, trainings) > level:
        high *= 4
    return float(optimize.brentq(lambda x: _tails(x, users, trainings) - level, 0.0, high, xtol=1e-10 * width))
