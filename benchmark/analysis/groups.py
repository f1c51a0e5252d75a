"""Means and intervals of groups of test cases, by length of the history and by popularity of the target, for plots."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.collect import Collected
from benchmark.analysis.summary import resampled
from benchmark.contract import Cases
from benchmark.data.store import checked_part, read_cases
from benchmark.metrics import METRICS

ALL, HISTORY, TARGET = "all", "history", "target"  # what cases are grouped by
MAIN = METRICS.index("NDCG@10")  # the metric of the groups
Group = tuple[str, str, np.ndarray]  # what its cases are grouped by, its name, the rows of its cases (int)


@dataclass(frozen=True)
class Measured:
    """What plots and page show of the groups."""

    intervals: pd.DataFrame  # {dataset}.intervals.csv
    seeds: pd.DataFrame  # {dataset}.seeds.csv
    pairs: pd.DataFrame  # {dataset}.pairs.csv


def measured(results: Collected, bounds: tuple[np.ndarray, np.ndarray]) -> Measured:
    """Means by metric over all cases, and NDCG@10 by group, also of pairs; bounds: `intervals` of all cases."""
    every = np.arange(len(results.cases))
    points = [
        _points(results, (ALL, "all cases", every), metric, bounds[0][row], bounds[1][row])
        for row, metric in enumerate(METRICS)
    ]
    pairs = []
    for group in groups_of(results):
        low = high = np.full(len(results.methods), np.nan)
        replicates = None
        if len(np.unique(results.cases.user[group[2]])) > 1:
            replicates = resampled(results, group[2], metrics=[MAIN])
            low, high = significance.interval(replicates)
        points.append(_points(results, group, METRICS[MAIN], low, high))
        pairs.append(_pairs(results, group, replicates))
    means, seeds = zip(*points, strict=True)
    return Measured(pd.concat(means, ignore_index=True), *(_concatenated(parts) for parts in (seeds, pairs)))


def _concatenated(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _pairs(results: Collected, group: Group, replicates: np.ndarray | None) -> pd.DataFrame:
    """Every pair's difference in NDCG@10 within one group, with its interval; no rows for a group without cases.

    Where no case differs, nothing is known of how differences spread, so that there is no interval.
    replicates: float64 [resamples, methods]; None: too few users to resample.
    """
    by, name, rows = group
    columns = ["by", "group", "method_a", "method_b", "difference", "low", "high"]
    if not len(rows):
        return pd.DataFrame(columns=columns)
    values = results.case_means[MAIN][:, rows]
    means = values.mean(axis=-1)
    differences = []
    for a, method in enumerate(results.methods):
        others = range(a + 1, len(results.methods))
        low = high = np.full(len(others), np.nan)
        if replicates is not None and others:
            low, high = significance.interval(replicates[:, [a]] - replicates[:, a + 1 :])
        for b in others:
            bounds = (low[b - a - 1], high[b - a - 1]) if (values[a] != values[b]).any() else (np.nan, np.nan)
            differences.append((by, name, method, results.methods[b], means[a] - means[b] + 0.0, *bounds))
    return pd.DataFrame(differences, columns=columns)  # without rows, but with columns, where there is one method


def _points(
    results: Collected, group: Group, metric: str, low: np.ndarray, high: np.ndarray
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The methods' means within one group with their intervals, and the means of the single seeds."""
    by, name, rows = group
    place = METRICS.index(metric)
    by_seed = [values[place][:, rows].mean(axis=-1) if len(rows) else np.empty(0) for values in results.values]
    group_of = {"by": by, "group": name, "n_cases": len(rows), "n_users": len(np.unique(results.cases.user[rows]))}
    means = [float(seed_means.mean()) if len(seed_means) else np.nan for seed_means in by_seed]
    frame = pd.DataFrame({"metric": metric, "method": results.methods, "mean": means, "low": low, "high": high})
    single = [
        {"by": by, "group": name, "metric": metric, "method": method, "seed": seed, "mean": float(mean)}
        for method, seed_means in zip(results.methods, by_seed, strict=True)
        for seed, mean in enumerate(seed_means, 1)
    ]
    return pd.concat([pd.DataFrame(group_of, index=frame.index), frame], axis=1), pd.DataFrame(single)


def groups_of(results: Collected) -> Iterator[Group]:
    """The groups by HISTORY, then by TARGET, in the order of the plots."""
    train = read_cases(checked_part(results.folder, "train.parquet", results.about), targets=True)
    highest_item = max(int(train.items.max()), int(np.max(train.target)), int(results.target.max()))  # type: ignore[arg-type]
    longest = int(results.about["settings"]["history_length"])
    for name, rows in history_buckets(np.diff(results.cases.offsets), longest):
        yield HISTORY, f"history of {name}", rows
    for name, rows in popularity_buckets(results.target, train, highest_item + 1):
        yield TARGET, name, rows


def history_buckets(lengths: np.ndarray, longest: int) -> list[tuple[str, np.ndarray]]:
    """Cases by history length: up to a quarter, half, all but the whole, and the whole window of `longest` items.

    >>> [name for name, rows in history_buckets(np.array([1, 7, 20]), 20)]
    ['1-4', '5-9', '10-19', '20']
    """
    edges = [*sorted({1, max(1, longest // 4), max(1, longest // 2), longest}), longest + 1]
    out = []
    for start, stop in pairwise(edges):
        name = str(start) if stop == start + 1 else f"{start}-{stop - 1}"
        out.append((name, np.flatnonzero((lengths >= start) & (lengths < stop))))
    return out


def popularity_buckets(target: np.ndarray, train: Cases, n_items: int) -> list[tuple[str, np.ndarray]]:
    """Cases by their target's number of training interactions (distinct user and item pairs): cold, tail, head.

    Cold: never seen in a training case. Head: the most popular items that together hold half of the training
    interactions (ties: the lower item number first). Tail: the rest.
    """
    _, item = train.interactions()
    popularity = np.bincount(item, minlength=n_items)
    order = np.argsort(-popularity, kind="stable")
    n_head = int(np.searchsorted(np.cumsum(popularity[order]), popularity.sum() / 2)) + 1
    head = np.zeros(n_items, dtype=bool)
    head[order[:n_head]] = True
    cold = popularity[target] == 0
    return [
        ("cold target", np.flatnonzero(cold)),
        ("tail target", np.flatnonzero(~cold & ~head[target])),
        ("head target", np.flatnonzero(head[target])),
    ]
