"""Intervals and paired tests that respect that the cases of one user are not independent.

Everything here works on sums per user ("cluster"): a user's values are added up first, and users, never cases, are
resampled or sign-flipped. All tests are paired and two-sided.

- Bootstrap over clusters: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8.
- Paired randomisation test: Smucker, Allan, Carterette, "A comparison of statistical significance tests for information
  retrieval evaluation", CIKM 2007; p = (1 + hits) / (flips + 1) after Phipson and Smyth, SAGMB 2010.
- A group of flips in the place of independent ones is exact, too: Koning and Hemerik, "More efficient exact group
  invariance testing: using a representative subgroup", Biometrika 2024. Ours is drawn.
- McNemar's test for clustered pairs: Obuchowski, "On the comparison of correlated proportions for clustered data",
  Statistics in Medicine 1998.
- Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
- Smallest detectable effect: Bloom, "Minimum detectable effects", Evaluation Review 1995.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from benchmark.errors import InputError

# What shows statistics takes names and levels from here, and starts in half the time without scipy.stats and
# statsmodels: these are imported where they are used.

LEVEL = 0.95  # of every interval
ALPHA = 0.05  # of every test, after Holm
POWER = 0.8  # of the smallest detectable difference
RESAMPLES = 9_999  # bootstrap resamples
FEW_USERS = 25  # below this many users with a difference, the chi-squared approximation gives way to the exact test
BLOCK_BYTES = 64 * 2**20  # float64 memory of one block of the resample matrix
PIECE_BYTES = 2**23  # of flipped sums that are made at once, so that they stay in a processor's cache
FLIPS = 2**14 - 1  # sign flips of a small family; with the sign vector of no flip they are a group

RANDOMISATION = "paired randomisation test, signs flipped per user"
MCNEMAR = "McNemar test clustered by user (Obuchowski 1998), chi-squared"
MCNEMAR_EXACT = "McNemar test clustered by user, exact sign flips"


@dataclass(frozen=True)
class TestResult:
    """One two-sided test."""

    __test__ = False  # not a class of tests, whatever pytest thinks of its name

    name: str
    statistic: float
    p: float


def user_sums(values: npt.ArrayLike, users: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Add up each user's cases.

    `values` float [columns, n] (a value per case and column), `users` int [n] -> sums float64 [users, columns] and the
    number of cases per user, float64 [users]; users ascending. Raises InputError for NaN, infinities or unequal
    lengths.
    """
    matrix, user = np.atleast_2d(np.asarray(values, dtype=np.float64)), np.asarray(users)
    if matrix.shape[1] != len(user):
        raise InputError(f"{matrix.shape[1]} values per column but {len(user)} users; pass one user per case")
    if len(user) == 0:
        raise InputError("no cases to compare; run the methods on at least one test case")
    _refuse_nan(matrix, "values")
    order = np.argsort(user, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(user[order]) != 0])
    counts = np.diff(np.r_[starts, len(user)]).astype(np.float64)
    return np.add.reduceat(matrix[:, order], starts, axis=1).T, counts


def bootstrap_means(sums: np.ndarray, counts: np.ndarray, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Means per case under resampling of users: float64 [resamples, columns], a ratio of two resampled sums.

    `sums` [users, columns], `counts` [users]. All columns see the same resamples, so the difference of two columns is
    the bootstrap distribution of the paired difference. Raises InputError for fewer than 2 users or NaN.
    """
    n_users = len(sums)
    if n_users < 2:
        raise InputError(f"an interval over users needs at least 2 users, got {n_users}; use more test cases")
    _refuse_nan(sums, "sums")
    generator = np.random.default_rng(seed)
    columns = np.column_stack([sums, counts])
    out = np.empty((resamples, columns.shape[1]))
    for start, stop in _blocks(resamples, n_users):
        rows = stop - start
        drawn = generator.integers(n_users, size=(rows, n_users)) + np.arange(rows)[:, None] * n_users
        times = np.bincount(drawn.ravel(), minlength=rows * n_users).reshape(rows, n_users)
        out[start:stop] = times.astype(np.float64) @ columns
    return out[:, :-1] / out[:, -1:]


def interval(replicates: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of bootstrap replicates [resamples, columns]: low and high, float64 [columns]."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def flips_for(family: int) -> int:
    """Sign flips enough that the smallest possible p, Holm-corrected over `family` tests, is at most 0.01.

    With 16,383 flips no p is below 0.00006, and over 1,140 tests (all pairs of 20 methods, 6 metrics) nothing could
    ever be significant. One less than a power of two, as `randomisation_test` takes it.

    >>> flips_for(90), flips_for(1140)
    (16383, 131071)
    """
    return max(FLIPS + 1, 1 << (100 * int(family) - 1).bit_length()) - 1


def randomisation_test(sums: np.ndarray, pairs: npt.ArrayLike, seed: int, flips: int = FLIPS) -> np.ndarray:
    """p of each pair of columns under swaps of the two methods' labels, one coin per user: float64 [pairs].

    `sums` [users, columns] are user sums of a per-case metric, `pairs` int [pairs, 2] column numbers; the statistic is
    the absolute difference of the columns' sums. p = (1 + number of flips at least as extreme) / (flips + 1).
    `flips` + 1 is a power of two, 2^m. Each user has a word of m bits, and flip f swaps the users whose word has an odd
    number of bits in common with f. So all of them with f = 0 are a group, under which the test is exact. The m users
    whose columns lie widest apart have a bit each: their flips are all there are, in equal numbers. That choice is the
    same whichever labels they have, as exactness asks. The others have random words.
    As the statistic is linear, the flipped sums of each column serve all pairs: S(a - b) = Sa - Sb. Raises InputError
    for NaN, no users, totals too large for a float, or other numbers of flips.
    """
    _refuse_nan(sums, "sums")
    bits = (int(flips) + 1).bit_length() - 1
    if len(sums) == 0:
        raise InputError("no users to compare; run the methods on at least one test case")
    if flips < 1 or flips + 1 != 1 << bits:
        raise InputError(f"flips is {flips}; give one less than a power of two, such as {FLIPS}")
    used, places = np.unique(np.asarray(pairs, dtype=np.int64).reshape(-1, 2), return_inverse=True)
    if len(used) == 0:  # one method has nothing to be tested against
        return np.empty(0)
    first, second = places.reshape(-1, 2).T
    sums = sums[:, used]
    total, size = sums.sum(axis=0), np.abs(sums).sum(axis=0)
    _refuse_nan(size, "totals")
    # Flips that equal the observed value have to count in spite of rounding.
    reach = np.abs(total[first] - total[second]) - 1e-12 * (size[first] + size[second])
    words = np.random.default_rng(seed).integers(flips + 1, size=len(sums))
    widest = np.argsort(-np.ptp(sums, axis=1), kind="stable")[:bits]
    words[widest] = 1 << np.arange(len(widest))
    extreme = np.zeros(len(first), dtype=np.int64)
    for flipped in _flipped_sums(words, sums, bits):
        difference = np.empty(flipped.shape[1])
        for pair, (i, j) in enumerate(zip(first, second, strict=True)):
            np.subtract(flipped[i], flipped[j], out=difference)
            np.abs(difference, out=difference)
            extreme[pair] += np.count_nonzero(difference >= reach[pair])
    return extreme / (flips + 1.0)  # f = 0 is the 1 of the formula


def _flipped_sums(words: np.ndarray, sums: np.ndarray, bits: int) -> Iterator[np.ndarray]:
    """Of all f in 0..2^bits - 1 sum_k (-1)^|f & words_k| sums_k, in blocks of f: float64 [columns, f of the block].

    words: int64 [users], sums: float64 [users, columns]. f's high bits are fixed in a block; over the low ones it is a
    Walsh-Hadamard transform, two products of matrices.
    """
    n_columns = sums.shape[1]
    low = min(bits, max(2, (PIECE_BYTES // (8 * n_columns)).bit_length() - 1))
    # Sylvester's Hadamard matrices, without the half second that scipy.linalg takes to start.
    one, other = (_signs(np.arange(1 << side)[:, None], np.arange(1 << side)) for side in ((low + 1) // 2, low // 2))
    of_low = words & ((1 << low) - 1)
    order = np.argsort(of_low, kind="stable")
    high, ordered = words[order] >> low, sums[order]
    filled, starts = np.unique(of_low[order], return_index=True)
    table = np.zeros((n_columns, 1 << low))
    for block in range(1 << (bits - low)):
        # A column's flips lie side by side, so that a pair takes one pass.
        table[:, filled] = np.add.reduceat(_signs(high, block)[:, None] * ordered, starts, axis=0).T
        halves = table.reshape(n_columns, len(one), len(other))
        yield (one @ (halves @ other)).reshape(n_columns, -1)


def _signs(a: np.ndarray, b: np.ndarray | int) -> np.ndarray:
    """(-1)^|a & b|, float64, by the number of bits that two whole numbers have in common."""
    signs: np.ndarray = 1.0 - 2.0 * (np.bitwise_count(a & b) & 1)
    return signs


def mcnemar_test(differences: npt.ArrayLike) -> TestResult:
    """McNemar's test with users as clusters: chi2 = (sum_k D_k)^2 / sum_k D_k^2 on 1 degree of freedom.

    `differences` int [users]: D_k, user k's hits of one method minus those of the other, over cases and seeds. With one
    case and one seed per user this is McNemar's chi2 without continuity correction. With fewer than FEW_USERS users
    that differ, the exact distribution of |sum of +-D_k| is used (exact McNemar in the simple case; statistic = sum
    D_k). Raises InputError for values that are no integers.
    """
    values = np.asarray(differences)
    _refuse_nan(values, "differences")
    d = np.rint(values).astype(np.int64)
    if not np.array_equal(d, values):
        raise InputError("McNemar's test got a difference that is no integer; pass hit counts, not hit rates")
    d = d[d != 0]
    if len(d) < FEW_USERS:
        return TestResult(MCNEMAR_EXACT, float(d.sum()), _exact_sign_flip(d))
    from scipy import stats

    chi2 = float(d.sum()) ** 2 / float((d * d).sum())
    return TestResult(MCNEMAR, chi2, float(stats.chi2.sf(chi2, df=1)))


def holm(p: npt.ArrayLike) -> np.ndarray:
    """Holm-corrected p, float64 [tests], of all tests of one family.

    Raises InputError for NaN or values outside 0..1.
    """
    values = np.asarray(p, dtype=np.float64)
    _refuse_nan(values, "p values")
    if values.size == 0:
        return values
    if values.min() < 0 or values.max() > 1:
        raise InputError(f"a p value lies outside 0..1 ({values.min()}..{values.max()}); pass p values, not statistics")
    from statsmodels.stats.multitest import multipletests

    corrected: np.ndarray = multipletests(values, alpha=ALPHA, method="holm")[1]
    return corrected


def smallest_detectable(error: float, family: int) -> float:
    """The smallest true difference that a two-sided test finds with POWER at Holm's first step, ALPHA / family.

        (z_{1 - ALPHA / (2 family)} + z_POWER) x error

    `error` is the standard error of the paired difference, here the standard deviation of its bootstrap replicates over
    users. Normal approximation: with few users that differ the tests are exact and find less. The first step of Holm is
    the strictest; what comes after smaller p values is found a little more easily. NaN where the error is 0 (no user's
    value differs), as nothing is known then of how differences spread.

    >>> round(smallest_detectable(0.001, family=1), 6)  # 1.96 + 0.84 standard errors
    0.002802
    """
    return float("nan") if error == 0 else _errors_detected(family) * error


@cache
def _errors_detected(family: int) -> float:
    """How many standard errors the smallest detectable difference is."""
    from scipy import stats

    return float(stats.norm.isf(ALPHA / family / 2) + stats.norm.ppf(POWER))


def _exact_sign_flip(d: np.ndarray) -> float:
    """P(|sum of s_k d_k| >= |sum of d_k|) over independent fair signs s_k; d int [users], few and not 0.

    The distribution is built by convolution on the integers instead of listing 2^k sign vectors.
    """
    d = d // max(1, np.gcd.reduce(d))  # what all share, such as equal seeds, changes no chance
    size = int(np.abs(d).sum())
    chance = np.zeros(2 * size + 1)  # chance[size + t] = P(sum = t)
    chance[size] = 1.0
    for step in np.abs(d):
        chance = (np.roll(chance, step) + np.roll(chance, -step)) / 2  # never wraps: the sum stays within +-size
    sums = np.arange(-size, size + 1)
    return float(min(1.0, chance[np.abs(sums) >= abs(int(d.sum()))].sum()))


def _blocks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """Row ranges of a [rows, width] float64 matrix that each fit in BLOCK_BYTES."""
    step = max(1, BLOCK_BYTES // (8 * max(1, width)))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _refuse_nan(values: np.ndarray, name: str) -> None:
    if not np.isfinite(values).all():
        place = np.argwhere(~np.isfinite(values))[0].tolist()
        raise InputError(
            f"{name}: entry {place} is {values[tuple(place)]}; a failed case has a rank (the last), it is not left out"
        )
