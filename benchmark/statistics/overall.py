"""Compute statistics of the methods over all datasets together: `python -m benchmark.statistics.overall`.

    python -m benchmark.statistics.overall --datasets ml-100k beauty --methods popularity sasrec r2ec --seeds 3

The folder gets overall_methods.csv and overall_tests.csv (`benchmark.statistics.files`). Each dataset weighs the same:
a mean is that of the datasets' means, users are resampled within their datasets, and each user of each dataset has one
sign. Nothing is written unless the runs pass the checks of `benchmark.analysis.collect`.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.arguments import runs_arguments
from benchmark.analysis.collect import Collected, collect_all, shared_methods
from benchmark.errors import InputError, command, command_line
from benchmark.metrics import METRICS
from benchmark.provenance import derive_seed
from benchmark.statistics.against import EVERY
from benchmark.statistics.files import OVERALL_METHODS, OVERALL_TESTS, write_csv

MEANS = ("metric", "method", "mean", "low", "high")  # columns of overall_methods.csv
TESTS = (  # of overall_tests.csv
    *("metric", "method_a", "method_b", "difference", "low", "high", "p", "p_holm", "test"),
    *("family_size", "error", "detectable"),
)


def overall(collected: Sequence[Collected]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames of overall_methods.csv and overall_tests.csv. Only NDCG is tested, by sign flips, in one family."""
    methods = shared_methods(collected)
    if not methods:  # on each dataset others have failed
        return pd.DataFrame(columns=list(MEANS)), pd.DataFrame(columns=list(TESTS))
    collected = [results.of(methods) for results in collected]
    stacked, drawn = [], []
    for results in collected:
        values = results.case_means.reshape(-1, len(results.cases))
        sums, counts = significance.user_sums(values, results.cases.user)
        stacked.append(sums / counts.sum() / len(collected))
        drawn.append(significance.bootstrap_means(sums, counts, derive_seed("bootstrap", results.dataset)))
    sums, replicates = np.concatenate(stacked), np.mean(drawn, axis=0)
    low, high = significance.interval(replicates)
    means = pd.DataFrame(
        {
            "metric": np.repeat(METRICS, len(methods)),
            "method": methods * len(METRICS),
            "mean": sums.sum(axis=0),
            "low": low,
            "high": high,
        }
    )
    return means, _tests(methods, sums, replicates)


def _tests(methods: list[str], sums: np.ndarray, replicates: np.ndarray) -> pd.DataFrame:
    """The frame of every pair by every metric.

    sums: float64 [users of all datasets, metrics x methods]. replicates: float64 [resamples, metrics x methods].
    """
    places = [
        (row, row * len(methods) + a, row * len(methods) + b)
        for row in range(len(METRICS))
        for a, b in combinations(range(len(methods)), 2)
    ]
    tested = [(a, b) for row, a, b in places if METRICS[row].startswith("NDCG")]
    flips = significance.flips_for(len(tested))
    p = significance.randomisation_test(sums, tested, derive_seed("sign flips", EVERY), flips)
    of_tested = dict(zip(tested, zip(p, significance.holm(p), strict=True), strict=True))
    total = sums.sum(axis=0)
    rows = []
    for row, a, b in places:
        differences = replicates[:, [a]] - replicates[:, [b]]
        low, high = significance.interval(differences)
        error = float(differences.std(ddof=1))
        p_of, p_holm = of_tested.get((a, b), (np.nan, np.nan))
        rows.append(
            {
                "metric": METRICS[row],
                "method_a": methods[a % len(methods)],
                "method_b": methods[b % len(methods)],
                "difference": total[a] - total[b] + 0.0,
                "low": low[0],
                "high": high[0],
                "p": p_of,
                "p_holm": p_holm,
                "test": f"{significance.RANDOMISATION}, {flips} flips" if (a, b) in of_tested else "",
                "family_size": len(tested),
                "error": error,
                "detectable": significance.smallest_detectable(error, len(tested)),
            }
        )
    return pd.DataFrame(rows, columns=list(TESTS))


@command
def main() -> None:
    args = runs_arguments(command_line("benchmark.statistics.overall", __doc__))
    if len(args.datasets) == 1 or len(args.methods) == 1:
        raise InputError("--datasets, --methods: one of them names a single one; give at least two of both")
    collected = collect_all(args)
    methods, tests = overall(collected)
    write_csv(args.out / OVERALL_METHODS, methods)
    write_csv(args.out / OVERALL_TESTS, tests)


if __name__ == "__main__":
    main()
