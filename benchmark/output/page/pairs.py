"""Methods held against each other: paired differences over all cases, by slice of the cases, and over all datasets."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.collect import Collected
from benchmark.analysis.comparisons import ALL_PAIRS
from benchmark.data.store import read_cases
from benchmark.metrics import METRICS
from benchmark.output.plots import history_buckets, popularity_buckets
from benchmark.provenance import derive_seed

MAIN = METRICS.index("NDCG@10")
EVERY = "all datasets"
FEW = significance.FEW_USERS  # users below which a slice gets no interval: resampling so few says too little
Slice = tuple[str, str, np.ndarray]  # group, name, rows of the cases


def digits(value: float) -> float | None:
    """Six digits behind the point, as the csv files have; None for NaN, which JSON hasn't."""
    return None if np.isnan(value) else round(float(value), 6) + 0.0


def rounded(values: np.ndarray) -> list[float | None]:
    return [digits(value) for value in values.tolist()]


def places(results: Collected) -> list[tuple[int, int]]:
    """Every pair of methods by their numbers, the order of all that is given by pair."""
    return list(combinations(range(len(results.methods)), 2))


def pairs_of(results: Collected, tests: pd.DataFrame) -> list[dict[str, Any]]:
    """Every pair a - b with, per metric, difference, interval, p, p_holm (of the family of all pairs), and detectable.

    tests: `comparisons.compare`. detectable: `significance.smallest_detectable` at Holm's first step over that family.
    """
    every = tests[tests.family == ALL_PAIRS]
    n_methods, n_cases = len(results.methods), len(results.cases)
    sums, counts = significance.user_sums(results.case_means.reshape(-1, n_cases), results.cases.user)
    drawn = significance.bootstrap_means(sums, counts, derive_seed("bootstrap", results.dataset))
    drawn = drawn.reshape(len(drawn), len(METRICS), n_methods)
    out = []
    for a, b in places(results):
        rows = every[(every.method_a == results.methods[a]) & (every.method_b == results.methods[b])]
        rows = rows.set_index("metric").loc[METRICS]
        errors = (drawn[:, :, a] - drawn[:, :, b]).std(axis=0, ddof=1)
        found = [significance.smallest_detectable(error, len(every)) for error in errors]
        out.append(
            {name: rounded(rows[name].to_numpy()) for name in ("difference", "low", "high")}
            | {name: rows[name].tolist() for name in ("p", "p_holm", "test")}
            | {"a": a, "b": b, "detectable": [digits(value) for value in found]}
        )
    return out


def slices_of(results: Collected) -> list[Slice]:
    """The cases by length of their history and by popularity of their target; slices without cases are left out."""
    train = read_cases(results.folder / "train.parquet", targets=True)
    assert train.target is not None
    lengths = np.diff(results.cases.offsets)
    last = max(int(train.items.max()), int(train.target.max()), int(results.target.max()))
    by_history = history_buckets(lengths, int(results.about["settings"]["history_length"]))
    by_target = popularity_buckets(results.target, train, last + 1)
    found = [("length of the history", name, rows) for name, rows in by_history]
    found += [("popularity of the target", name.removesuffix(" target"), rows) for name, rows in by_target]
    return [one for one in found if len(one[2])]


def by_slice(results: Collected) -> dict[str, Any]:
    """NDCG@10 by slice: the slices, every method's mean, and every pair's difference with its interval.

    The order of `differences` is that of `pairs_of`; low and high are None in a slice of fewer than FEW users, and where no case
    differs, as nothing is known then of how differences spread. Nothing here is corrected for the number of slices.
    """
    slices = slices_of(results)
    means, differences = [], []
    for _, _, rows in slices:
        values, users = results.case_means[MAIN][:, rows], results.cases.user[rows]
        mean = values.mean(axis=1)
        means.append(rounded(mean))
        few = len(np.unique(users)) < FEW
        if not few:
            sums, counts = significance.user_sums(values, users)
            drawn = significance.bootstrap_means(sums, counts, derive_seed("bootstrap", results.dataset))
        mine = []
        for a, b in places(results):
            differ = bool((values[a] != values[b]).any())
            none = np.array([np.nan]), np.array([np.nan])
            low, high = none if few or not differ else significance.interval(drawn[:, [a]] - drawn[:, [b]])
            mine.append([digits(mean[a] - mean[b]), digits(low[0]), digits(high[0])])
        differences.append(mine)
    named = [
        {"group": group, "name": name, "cases": len(rows), "users": len(np.unique(results.cases.user[rows]))}
        for group, name, rows in slices
    ]
    return {"slices": named, "means": means, "differences": differences}


@dataclass(frozen=True)
class Overall:
    """Means over datasets, each of which weighs the same: users are resampled within their datasets, each has one sign."""

    mean: np.ndarray  # float64 [6, methods]
    low: np.ndarray
    high: np.ndarray
    pairs: list[dict[str, Any]]  # as `pairs_of`


def over_all(collected: Sequence[Collected]) -> Overall:
    """The methods over all datasets by every metric; tests of NDCG alone, by sign flips, Holm-corrected over all of them."""
    methods = collected[0].methods
    stacked, drawn = [], []
    for results in collected:
        values = results.case_means.reshape(-1, len(results.cases))
        sums, counts = significance.user_sums(values, results.cases.user)
        stacked.append(sums / counts.sum() / len(collected))
        drawn.append(significance.bootstrap_means(sums, counts, derive_seed("bootstrap", results.dataset)))
    sums, replicates = np.concatenate(stacked), np.mean(drawn, axis=0)
    low, high = significance.interval(replicates)
    shape = (len(METRICS), len(methods))
    both = places(collected[0])
    ndcg = [row for row, metric in enumerate(METRICS) if metric.startswith("NDCG")]
    columns = [(row * len(methods) + a, row * len(methods) + b) for row in ndcg for a, b in both]
    flips = significance.flips_for(len(columns))
    p = significance.randomisation_test(sums, columns, derive_seed("sign flips", EVERY), flips)
    corrected = significance.holm(p).reshape(len(ndcg), -1)
    p = p.reshape(len(ndcg), -1)
    mean = sums.sum(axis=0).reshape(shape)
    found = []
    for number, (a, b) in enumerate(both):
        apart = replicates.reshape(-1, *shape)[:, :, a] - replicates.reshape(-1, *shape)[:, :, b]
        bounds = significance.interval(apart)
        detectable = [significance.smallest_detectable(one, len(columns)) for one in apart.std(axis=0, ddof=1)]
        one: dict[str, Any] = {
            "a": a,
            "b": b,
            "difference": rounded(mean[:, a] - mean[:, b]),
            "test": [None] * len(METRICS),
        }
        one |= {"low": rounded(bounds[0]), "high": rounded(bounds[1]), "detectable": [digits(x) for x in detectable]}
        one |= {"p": [None] * len(METRICS), "p_holm": [None] * len(METRICS)}
        for place, row in enumerate(ndcg):
            one["p"][row] = float(f"{p[place, number]:.4g}")
            one["p_holm"][row] = float(f"{corrected[place, number]:.4g}")
            one["test"][row] = f"{significance.RANDOMISATION}, {flips} flips"
        found.append(one)
    return Overall(mean, low.reshape(shape), high.reshape(shape), found)
