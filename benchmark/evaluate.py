"""The one evaluator: ranks of the targets in the full catalogue, by one set of rules for every method.

History items are masked. Ties count against the method: the target's rank is 1 + the number of other unmasked items
that score at least as high. A target that is not retrieved (-inf) gets the worst rank, the number of unmasked items.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from benchmark.contract import Cases, Recommender, batches_of, check_scores
from benchmark.errors import InputError
from benchmark.metrics import ndcg
from benchmark.storage.stages import Stage

RANKING = Stage("ranking", 1, packages=())  # it compares numbers, whatever computes them

TOP = 20
BLOCK = 256  # columns per block in top_items; a power of two that keeps the blocks in the cache
ROWS = 64  # cases ranked at once: their scores are copied, so that masking never writes into a method's own array


def rank(
    recommender_scores: Iterable[np.ndarray], cases: Cases, target: np.ndarray, n_items: int, method: str
) -> pa.Table:
    """Turn a method's score batches into rankings.

    recommender_scores: batches [b, n_items] of numbers, together as many rows as `cases`, ranked in their own
    precision. target: int [n]. Returns one row per case: case, user, target, rank (1-based), candidates (number of
    unmasked items), top_items (the 20 best, best first). Memory is bounded by one batch. Raises InputError for scores
    of a wrong shape, NaN or +inf, or a wrong number of rows.
    """
    ranks = np.zeros(len(cases), dtype=np.int32)
    candidates = np.zeros(len(cases), dtype=np.int32)
    top = np.zeros((len(cases), min(TOP, n_items)), dtype=np.int32)
    done = level = 0
    with tqdm(total=len(cases), desc=f"ranking {method}", unit="case", mininterval=5, delay=5) as bar:
        for batch in batches_of(recommender_scores, method):
            scores = check_scores(batch, n_items, method)
            first, done = done, done + len(scores)
            if done > len(cases):
                break
            for start in range(first, done, ROWS):
                rows = slice(start, min(start + ROWS, done))
                part = cases.take(np.arange(rows.start, rows.stop))
                own = scores[rows.start - first : rows.stop - first].copy()
                ranks[rows], candidates[rows], top[rows] = rank_batch(own, part, target[rows])
                last = np.flatnonzero(ranks[rows] == candidates[rows])
                level += sum(own[i].max() == own[i, target[rows][i]] for i in last)
            bar.update(len(scores))
    if done != len(cases):
        raise InputError(f"{method}: score() gave {done} rows for {len(cases)} cases; yield one row per case, in order")
    if level:
        print(f"{method}: all scores of {level} of {len(cases)} cases are equal, which ranks their targets last")
    # Masked items and items that aren't retrieved have no place among the recommendations.
    retrieved = top >= 0
    offsets = np.concatenate([[0], np.cumsum(retrieved.sum(axis=1))]).astype(np.int32)
    return pa.table(
        {
            "case": cases.case,
            "user": cases.user,
            "target": target.astype(np.int32),
            "rank": ranks,
            "candidates": candidates,
            "top_items": pa.ListArray.from_arrays(pa.array(offsets), pa.array(top[retrieved])),
        }
    )


def validation_ndcg(recommender: Recommender, cases: Cases, n_items: int, method: str) -> float:
    """Mean NDCG@10 on cases whose targets are known; the recommender gets them without."""
    assert cases.target is not None
    hidden = replace(cases, target=None)
    table = rank(recommender.score(hidden), hidden, cases.target, n_items, method)
    return float(ndcg(table.column("rank").to_numpy(), 10).mean())


def rank_batch(scores: np.ndarray, cases: Cases, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks int [b], numbers of candidates int [b] and best items int [b, <= 20] (-1: nothing retrieved) of one batch.

    scores: float32 or float64 [b, n_items], overwritten: history items become -inf.
    """
    n = len(scores)
    lengths = np.diff(cases.offsets)
    scores[np.repeat(np.arange(n), lengths), cases.items] = -np.inf
    masked = np.array([len(np.unique(cases.history(i))) for i in range(n)])
    candidates = scores.shape[1] - masked
    own = scores[np.arange(n), target]
    ranks = np.empty(n, dtype=np.int64)
    for i in range(n):  # row by row: the comparison's bytes stay in the cache, and no [b, n_items] array is made
        ranks[i] = np.count_nonzero(scores[i] >= own[i])
    return np.minimum(ranks, candidates), candidates, top_items(scores, min(TOP, scores.shape[1]))


def top_items(scores: np.ndarray, k: int) -> np.ndarray:
    """The k best items of each row, best first, the lower item number first among equals; -1 where a score is -inf.

    scores: float32 or float64 [b, n]. The k best lie in the k blocks with the largest maxima, so only those are
    searched: one pass over the scores instead of a partial sort. Equal to a full sort (tested), ties within and across
    blocks included.
    """
    b, n = scores.shape
    if n <= 2 * BLOCK * k:
        return _sorted_top(scores, np.broadcast_to(np.arange(n), scores.shape), k)
    whole = n // BLOCK * BLOCK
    maxima = scores[:, :whole].reshape(b, -1, BLOCK).max(axis=2)
    # The k-th largest block maximum bounds the k-th best item from below. Among equal maxima the lower block comes
    # first, as the lower item number does among equal items, so a stable choice of blocks keeps the tie rule.
    blocks = _sorted_top(maxima, np.broadcast_to(np.arange(maxima.shape[1]), maxima.shape), k)
    # -1 stands in a row with fewer than k finite blocks: block 0 takes its place once more.
    blocks = np.sort(np.where(blocks < 0, 0, blocks), axis=1)
    inner = (blocks[:, :, None] * BLOCK + np.arange(BLOCK)).reshape(b, -1)
    columns = np.concatenate([inner, np.broadcast_to(np.arange(whole, n), (b, n - whole))], axis=1)
    values = np.take_along_axis(scores, columns, axis=1)
    if (np.diff(blocks, axis=1) == 0).any():  # a block that was filled in twice must not give an item twice
        repeated = np.repeat(np.c_[np.zeros(b, bool), np.diff(blocks, axis=1) == 0], BLOCK, axis=1)
        values[:, : repeated.shape[1]][repeated] = -np.inf
    return _sorted_top(values, columns, k)


def _sorted_top(values: np.ndarray, names: np.ndarray, k: int) -> np.ndarray:
    """The names [b, k] of the k largest values of each row, -1 for a value of -inf; of equal values the one further
    left.
    """
    n = values.shape[1]
    if n > 4 * k:
        # A partition may cut anywhere through a run of equal values, so everything from the k-th value on is kept ...
        kth = np.partition(values, n - k, axis=1)[:, n - k]
        out = np.empty((len(values), k), dtype=np.int64)
        for i in range(len(values)):
            at = np.flatnonzero(values[i] >= kth[i])
            at = at[np.argsort(-values[i, at], kind="stable")][:k]  # ... and cut by the rule
            out[i] = np.where(values[i, at] == -np.inf, -1, names[i, at])
        return out
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    chosen = np.take_along_axis(values, order, axis=1)
    return np.where(chosen == -np.inf, -1, np.take_along_axis(names, order, axis=1))
