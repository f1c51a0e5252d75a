"""Hit@k and NDCG@k of cases with exactly one target each, from its rank.

Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002. With one relevant item the ideal
DCG is 1, so NDCG@k is the discount at the target's rank.

Three further statistics see more of the ranking: NDCG@100; NDCG@1000, the paper's own reward (its Section 3.2); and the
logarithm of the rank, whose mean is the logarithm of the geometric mean rank. docs/claims.md says which of them judges
a claim, and why.
"""

import numpy as np
import numpy.typing as npt

from benchmark.errors import InputError

CUTOFFS = (5, 10, 20)
METRICS = [f"{name}@{k}" for k in CUTOFFS for name in ("Hit", "NDCG")]  # the order of every table
LOG_RANK = "log rank"
WHOLE_RANKING = ["NDCG@100", "NDCG@1000", LOG_RANK]


def hit(ranks: npt.ArrayLike, k: int) -> np.ndarray:
    """1.0 where the target is among the first k, else 0.0; float64, of the shape of `ranks` (1-based, integer).

    Raises InputError for a rank below 1, a rank that is no integer, or k below 1.

    >>> hit([1, 5, 6], k=5).tolist()
    [1.0, 1.0, 0.0]
    """
    return (_checked(ranks, k) <= k).astype(np.float64)


def ndcg(ranks: npt.ArrayLike, k: int) -> np.ndarray:
    """1 / log2(1 + rank) where rank <= k, else 0; float64, of the shape of `ranks` (1-based, integer).

    By hand: rank 1 gives 1 / log2(2) = 1, rank 3 gives 1 / log2(4) = 1/2, rank 7 gives 1 / log2(8) = 1/3.
    Raises InputError for a rank below 1, a rank that is no integer, or k below 1.

    >>> ndcg([1, 3, 4], k=3).tolist()
    [1.0, 0.5, 0.0]
    >>> ndcg([7, 15], k=20).round(6).tolist()
    [0.333333, 0.25]
    """
    checked = _checked(ranks, k)
    return np.where(checked <= k, 1.0 / np.log2(1.0 + checked), 0.0)


def per_case(ranks: npt.ArrayLike) -> np.ndarray:
    """All of METRICS, in their order: float64 [6, *shape of ranks].

    >>> per_case([1, 7]).mean(axis=1).round(4).tolist()
    [0.5, 0.5, 1.0, 0.6667, 1.0, 0.6667]
    """
    return np.stack([function(ranks, k) for k in CUTOFFS for function in (hit, ndcg)])


def log_rank(ranks: npt.ArrayLike) -> np.ndarray:
    """Natural logarithm of the rank; float64, of the shape of `ranks` (1-based, integer). Lower is better.

    A difference of means d is a ratio of geometric mean ranks, e^d. A target that isn't retrieved has the worst rank
    and counts with its logarithm. Raises InputError for a rank below 1 or a rank that is no integer.

    >>> log_rank([1, 10, 100]).round(4).tolist()
    [0.0, 2.3026, 4.6052]
    >>> float(np.exp(log_rank([1, 10, 100]).mean()).round(6))  # the geometric mean rank
    10.0
    """
    logarithms: np.ndarray = np.log(_checked(ranks, 1))
    return logarithms


def statistic(name: str, ranks: npt.ArrayLike) -> np.ndarray:
    """Any statistic of a case by its name: `log rank`, or Hit@k and NDCG@k for any k; float64, of the shape of `ranks`.

    Raises InputError for another name.

    >>> statistic("NDCG@1000", [1, 3, 1001]).tolist()
    [1.0, 0.5, 0.0]
    """
    if name == LOG_RANK:
        return log_rank(ranks)
    metric, _, k = name.partition("@")
    if metric not in ("Hit", "NDCG") or not k.isdecimal():
        raise InputError(f"no statistic {name!r}; give {LOG_RANK!r}, or Hit@k or NDCG@k with a number k")
    return (hit if metric == "Hit" else ndcg)(ranks, int(k))


def direction(name: str) -> int:
    """1 where a higher value of a statistic is better, -1 where a lower one is.

    >>> direction("NDCG@10"), direction("log rank")
    (1, -1)
    """
    return -1 if name == LOG_RANK else 1


def check_means(means: np.ndarray, n_cases: int, where: str) -> None:
    """Refuse metric means, float [6] in the order of METRICS for one run, that `n_cases` cases can't have.

    Raises InputError unless 0 <= NDCG@k <= Hit@k <= 1, both grow with k, and every Hit is a multiple of 1/n_cases.
    """
    slack = 1e-9  # rounding of a mean of float64 values
    hits, ndcgs = means[0::2], means[1::2]
    if not np.isfinite(means).all():
        raise InputError(f"{where}: {METRICS[int(np.argmin(np.isfinite(means)))]} is not a number; evaluate it again")
    for i, k in enumerate(CUTOFFS):
        if not 0 <= hits[i] <= 1:
            raise InputError(f"{where}: Hit@{k} is {hits[i]:.4f}, outside 0..1; evaluate this run again")
        if not -slack <= ndcgs[i] <= hits[i] + slack:
            raise InputError(
                f"{where}: NDCG@{k} {ndcgs[i]:.4f} exceeds Hit@{k} {hits[i]:.4f}, impossible with one target; "
                "evaluate this run again"
            )
        if abs(hits[i] * n_cases - round(hits[i] * n_cases)) > 1e-6:
            raise InputError(
                f"{where}: Hit@{k} {hits[i]:.6f} is not a multiple of 1/{n_cases}; evaluate this run on all its cases"
            )
    for name, values in (("Hit", hits), ("NDCG", ndcgs)):
        if (down := np.flatnonzero(np.diff(values) < -slack)).size:
            low, high = CUTOFFS[down[0]], CUTOFFS[down[0] + 1]
            raise InputError(
                f"{where}: {name}@{high} {values[down[0] + 1]:.4f} is below {name}@{low} {values[down[0]]:.4f}; "
                "evaluate this run again"
            )


def _checked(ranks: npt.ArrayLike, k: int) -> np.ndarray:
    array = np.asarray(ranks)
    if k < 1:
        raise InputError(f"metric cut-off k is {k}; it has to be 1 or more")
    if array.dtype.kind not in "iu":
        raise InputError(f"ranks have type {array.dtype}; pass integers, and let a missing rank fail where it arose")
    if array.size and array.min() < 1:
        raise InputError(f"rank {array.min()} is below 1; ranks are 1-based, the best item has rank 1")
    return array
