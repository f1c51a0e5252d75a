"""Compute all statistics of finished runs, once: `python -m benchmark.statistics.datasets`.

    python -m benchmark.statistics.datasets --datasets ml-100k --methods popularity sasrec r2ec --seeds 3

Per dataset the folder gets {dataset}.methods, .tests, .intervals, .seeds, .pairs, .costs, .runs and .failed as .csv
(`benchmark.statistics.files` says what is in them). Nothing is written unless every dataset passes the checks of
`benchmark.analysis.collect`: all runs are there, on the same data and cases, with numbers that can be.
"""

import json

import pandas as pd

from benchmark.analysis.arguments import runs_arguments
from benchmark.analysis.collect import Collected, collect
from benchmark.analysis.comparisons import compare
from benchmark.analysis.costs import costs
from benchmark.analysis.groups import measured
from benchmark.analysis.summary import intervals, summarise
from benchmark.errors import InputError, command, command_line
from benchmark.metrics import METRICS
from benchmark.statistics.check_table import Row, impossible
from benchmark.statistics.files import DatasetStatistics


def statistics(results: Collected) -> DatasetStatistics:
    """All statistics of one dataset. Raises InputError where a row has numbers that no ranking can have."""
    tests, bounds = compare(results), intervals(results)
    methods = summarise(results, tests, bounds=bounds)
    check_printed(methods)
    methods.insert(2, "kind", [results.kind(method) for method in methods.method])
    groups = measured(results, bounds)
    costs_of_methods, failed = costs(results), failures(results)
    return DatasetStatistics(
        methods, tests, groups.intervals, groups.seeds, groups.pairs, costs_of_methods, runs(results), failed
    )


def failures(results: Collected) -> pd.DataFrame:
    """The methods without a result, and why: the frame of {dataset}.failed.csv."""
    rows = [
        (results.dataset, method, f"{failure.failed} (log: {failure.log})")
        for method, failure in results.failed.items()
    ]
    return pd.DataFrame(rows, columns=["dataset", "method", "why"])


def check_printed(frame: pd.DataFrame) -> None:
    """Raise InputError for numbers that no ranking can have, by `benchmark.statistics.check_table`."""
    half = dict.fromkeys(METRICS, 0.5e-6)
    for line in frame.to_dict("records"):
        values = {metric: line[metric] for metric in METRICS}
        row = Row(f"{line['dataset']}, {line['method']}", values, half, line["n_cases"] * line["seeds"])
        if why := impossible(row):
            raise InputError(f"{row.name}: {why}; evaluate this method's runs again")


def runs(results: Collected) -> pd.DataFrame:
    """One row per run, seed by seed: the frame of {dataset}.runs.csv."""
    return pd.DataFrame(
        {
            "dataset": run.dataset,
            "method": run.method,
            "kind": run.kind,
            "seed": run.seed,
            "seed_value": run.seed_value,
            "commit": run.commit,
            "code": run.code,
            "data_hash": run.data_hash,
            "users": run.learned.users,
            "targets": run.learned.targets,
            "positions": run.learned.positions,
            "settings": len(run.tuning.trials) if run.tuning else 1,
            "fit_s": run.seconds.fit,
            "score_s": run.seconds.score,
            "reused_s": run.seconds.reused,
            "tokens": run.tokens_written,
            "ms_batched": run.latency_ms_per_case,
            "ms_alone": run.latency_ms_alone,
            "peak_mib": run.peak_memory_mib,
            "finished_at": run.finished_at.isoformat(timespec="seconds"),
            "params": json.dumps(run.params),
            "versions": json.dumps(run.versions),
            "hardware": json.dumps(run.hardware),
        }
        for method in results.methods
        for run in results.records_of(method)
    )


@command
def main() -> None:
    args = runs_arguments(command_line("benchmark.statistics.datasets", __doc__))
    statistics_of = {}  # all are computed before any is written
    for dataset in args.datasets:
        results = collect(args.results, dataset, args.seeds, args.settings, args.less_information)
        statistics_of[dataset] = statistics(results)
    for dataset, computed in statistics_of.items():
        computed.write(args.out, dataset)


if __name__ == "__main__":
    main()
