"""Test the values of ablations against their bases: `python -m benchmark.statistics.ablations`.

The workflow calls this for the section `ablations` of a config, and writes --factors itself. By hand: `snakemake
ablations`.

Per factor the folder gets {factor}.values, .tests, .seeds and .curves as .csv (`benchmark.statistics.files`): every
value's metrics, every value against the base by every metric, Holm-corrected over the factor's family (values x 6
metrics on one dataset), with the smallest difference that the test could have found, and what trainings logged. Nothing
is written unless the runs pass the checks of `benchmark.analysis.collect`.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.analysis.arguments import factors_arguments
from benchmark.analysis.collect import Collected, collect, failures
from benchmark.analysis.comparisons import comparisons, tests_frame
from benchmark.analysis.summary import summarise
from benchmark.config.factors import Factor
from benchmark.errors import command, command_line
from benchmark.statistics.files import FactorStatistics

AGAINST_BASE = "against the base"
# Columns of the files of a factor of which nothing is left to compare: values, tests, seeds, curves.
EMPTY = (
    ("dataset", "value"),
    ("dataset", "metric", "value"),
    ("dataset", "metric", "value", "seed", "mean"),
    ("dataset", "value", "key", "step", "seed", "logged"),
)
LOGGED = ("reward", "reward_ndcg", "length", "entropy")  # keys of a training's log that are kept


def without_failed(factor: Factor, results: Path) -> tuple[Factor, pd.DataFrame]:
    """The factor without the values that have a failed run, and the frame of {factor}.failed.csv.

    A value that failed on one dataset is left out of all.
    """
    rows = [
        (dataset, factor.labels[run], f"{failed.failed} (log: {failed.log})")
        for dataset in factor.datasets
        for run, failed in failures(results / "runs" / dataset, factor.seeds_of_runs).items()
    ]
    kept = factor.without({label for _, label, _ in rows})
    return kept, pd.DataFrame(rows, columns=["dataset", "value", "why"])


def comparable(factor: Factor) -> bool:
    """Whether the base and another value are left."""
    return factor.base in factor.runs and len(factor.runs) > 1


def read_runs(factor: Factor, results: Path) -> list[Collected]:
    """The runs of a factor, dataset by dataset. Raises InputError as `collect` does."""
    return [
        collect(results, dataset, factor.seeds_of_runs, factor.settings, factor.less_information)
        for dataset in factor.datasets
    ]


def against_base(results: Collected, factor: Factor) -> pd.DataFrame:
    """Every value's run against the base's on one dataset, by every metric: one family.

    Columns of `comparisons.tests_frame`; method_a: the value's run, method_b: the base's.
    """
    base = factor.runs[factor.base]
    compared = comparisons(results, [(run, base) for run in factor.runs.values() if run != base])
    return tests_frame(results, {AGAINST_BASE: compared})


def tables_of(factor: Factor, collected: list[Collected]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames of {factor}.values.csv and {factor}.tests.csv, over all datasets, with labels in place of runs.

    The first has one row per dataset and value in the factor's order, with the columns of `summary.summarise`, but
    `value` for `method` and `base` (the base's label) for `best_baseline`; the second is `against_base` with `value`
    and `base`.
    """
    frames, tests = [], []
    for results in collected:
        tested = against_base(results, factor)
        frames.append(summarise(results, tested, AGAINST_BASE, reference=factor.base))
        tests.append(tested.assign(dataset=results.dataset))
    frame = pd.concat(frames, ignore_index=True).rename(columns={"method": "value", "best_baseline": "base"})
    both = pd.concat(tests, ignore_index=True).rename(
        columns={"method_a": "value", "method_b": "base", "mean_a": "mean", "mean_b": "mean_base", "seeds_a": "seeds"}
    )
    both = both.assign(factor=factor.name, value=both.value.map(factor.labels), base=factor.base)
    first = ["factor", "dataset"]
    both = both[[*first, *both.columns.drop([*first, "seeds_b"])]]
    return frame.assign(value=frame.value.map(factor.labels)), both


def statistics(factor_asked: Factor, results: Path) -> FactorStatistics:
    """All statistics of one factor; nothing but the failures where the base, or every other value, has failed.

    Raises InputError as `collect` does.
    """
    factor, failed = without_failed(factor_asked, results)
    if not comparable(factor):
        no_values, no_tests, no_seeds, no_curves = (pd.DataFrame(columns=list(columns)) for columns in EMPTY)
        return FactorStatistics(no_values, no_tests, no_seeds, no_curves, failed)
    collected = read_runs(factor, results)
    values, tests = tables_of(factor, collected)
    seeds, logged = [], []
    for results_read in collected:
        of_methods = results_read.seed_means()
        seeds.append(of_methods[of_methods.method.isin(factor.labels)].assign(dataset=results_read.dataset))
        for label, run in factor.runs.items():
            logged += [_curve(results_read, label, run, key) for key in LOGGED]
    by_seed = pd.concat(seeds, ignore_index=True)
    by_seed = by_seed.assign(value=by_seed.method.map(factor.labels))[["dataset", "metric", "value", "seed", "mean"]]
    return FactorStatistics(values, tests, by_seed, pd.concat(logged, ignore_index=True), failed)


def _curve(results: Collected, label: str, run: str, key: str) -> pd.DataFrame:
    """The rows of {factor}.curves.csv of one run and key, step by step and seed by seed."""
    steps, logged = curves(results, run, key)
    n_seeds = len(logged)
    return pd.DataFrame(
        {
            "dataset": results.dataset,
            "value": label,
            "key": key,
            "step": np.repeat(steps, n_seeds),
            "seed": np.tile(np.arange(1, n_seeds + 1), len(steps)),
            "logged": logged.T.ravel(),
        }
    )


def curves(results: Collected, run: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """What a run's training logged under `key`: steps int64 [n] and numbers float64 [seeds, n]; n may be 0.

    Only steps that every seed logged are taken.
    """
    by_seed = []
    for seed in range(1, results.seeds[run] + 1):
        log = results.records[run, seed].report.get("recpo_log")
        entries = [entry for entry in log if isinstance(entry, dict)] if isinstance(log, list) else []
        by_seed.append({int(entry["step"]): float(entry[key]) for entry in entries if key in entry})  # type: ignore[arg-type]
    steps = sorted(set.intersection(*map(set, by_seed)))
    return np.array(steps, dtype=np.int64), np.array([[by_step[step] for step in steps] for by_step in by_seed])


@command
def main() -> None:
    args = factors_arguments(command_line("benchmark.statistics.ablations", __doc__))
    for factor in args.factors:
        statistics(factor, args.results).write(args.out, factor.name)


if __name__ == "__main__":
    main()
