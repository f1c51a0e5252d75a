"""Comparisons of pairs of methods, from their statistics: over all cases, by slice of the cases, over all datasets."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.analysis.groups import ALL, HISTORY, TARGET
from benchmark.analysis.significance import FEW_USERS as FEW  # a slice of fewer users gets no interval
from benchmark.metrics import METRICS
from benchmark.statistics.against import EVERY
from benchmark.statistics.files import OVERALL_METHODS, OVERALL_TESTS, DatasetStatistics, read_csv

MAIN = METRICS.index("NDCG@10")
GROUPS = {HISTORY: "length of the history", TARGET: "popularity of the target"}
__all__ = ["EVERY", "FEW", "MAIN", "by_slice", "digits", "over_all", "pairs_of", "places", "rounded"]


def digits(value: float) -> float | None:
    """Six digits behind the point, as the csv files have; None for NaN, which JSON hasn't."""
    return None if np.isnan(value) else round(float(value), 6) + 0.0


def rounded(values: np.ndarray) -> list[float | None]:
    return [digits(value) for value in values.tolist()]


def places(methods: Sequence[str]) -> list[tuple[int, int]]:
    """Every pair of methods by their places, in the order of every list of pairs on the page."""
    return list(combinations(range(len(methods)), 2))


def pairs_of(tests: pd.DataFrame, methods: Sequence[str], numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """Every pair a - b with its difference, interval, p, p_holm, detectable and test per metric, None if not tested.

    tests: a row per metric and pair, as in {dataset}.tests.csv. numbers: of the methods on the whole page.
    """
    wanted = [(methods[a], methods[b], metric) for a, b in places(methods) for metric in METRICS]
    frame = tests.set_index(["method_a", "method_b", "metric"]).loc[wanted]
    assert len(frame) == len(wanted), "a pair stands twice in its tests"
    numeric = {name: rounded(frame[name].to_numpy(float)) for name in ("difference", "low", "high", "detectable")}
    # Four digits say enough of a p.
    numeric |= {
        name: [None if np.isnan(p) else float(f"{p:.4g}") for p in frame[name].tolist()] for name in ("p", "p_holm")
    }
    tested = [test or None for test in frame.test]
    out = []
    for pair, (a, b) in enumerate(places(methods)):
        part = slice(pair * len(METRICS), (pair + 1) * len(METRICS))
        out.append(
            {name: values[part] for name, values in numeric.items()}
            | {"a": numbers[methods[a]], "b": numbers[methods[b]], "test": tested[part]}
        )
    return out


def by_slice(statistics: DatasetStatistics, methods: Sequence[str]) -> dict[str, Any]:
    """NDCG@10 by slice: the slices, every method's mean, and every pair's difference with its interval.

    The order of `differences` is that of `pairs_of`; low and high are None in a slice of fewer than FEW users. Nothing
    here is corrected for the number of slices.
    """
    shown = statistics.intervals[(statistics.intervals.by != ALL) & (statistics.intervals.n_cases > 0)]
    of_group = {group: rows for group, rows in statistics.pairs.groupby(["by", "group"])}
    named: list[dict[str, Any]] = []
    means: list[list[float | None]] = []
    differences: list[list[list[float | None]]] = []
    for (by, group), rows in shown.groupby(["by", "group"], sort=False):
        n_users = int(rows.n_users.iloc[0])
        name = str(group).removeprefix("history of ").removesuffix(" target")
        named.append({"group": GROUPS[str(by)], "name": name, "cases": int(rows.n_cases.iloc[0]), "users": n_users})
        means.append(rounded(rows.set_index("method").loc[list(methods), "mean"].to_numpy()))
        if len(methods) == 1:
            differences.append([])
            continue
        pairs = of_group[by, group].set_index(["method_a", "method_b"])[["difference", "low", "high"]]
        pairs = pairs.loc[[(methods[a], methods[b]) for a, b in places(methods)]]
        if n_users < FEW:
            pairs = pairs.assign(low=np.nan, high=np.nan)
        differences.append([rounded(row) for row in pairs.to_numpy()])
    return {"slices": named, "means": means, "differences": differences}


def over_all(
    folder: Path, methods: Sequence[str], numbers: Mapping[str, int]
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """The methods over all datasets: mean, low and high, float64 [6, methods] each, and their pairs as `pairs_of`.

    folder: of the statistics.
    """
    frame = read_csv(folder / OVERALL_METHODS)
    values = {
        name: frame.pivot(index="metric", columns="method", values=name).loc[METRICS, list(methods)].to_numpy()
        for name in ("mean", "low", "high")
    }
    return values, pairs_of(read_csv(folder / OVERALL_TESTS), methods, numbers)
