"""Read the finished runs of one dataset, and check that they may be compared, before any statistic is computed.

All statistics start here, so none of them can be of runs that don't belong together.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.analysis.arguments import Settings
from benchmark.analysis.information import check_information
from benchmark.config.methods import KINDS, Kind
from benchmark.config.overlay import flatten
from benchmark.contract import Cases, Learned
from benchmark.data.store import read_about, read_test
from benchmark.errors import InputError
from benchmark.jobs.records import FailedRun, RunRecord, read_failed, read_run
from benchmark.metrics import METRICS, check_means, per_case
from benchmark.storage.checksums import check_file

RUN_AGAIN = "delete {run} and run this seed again"
# Counts of dataset.json that the tables speak of.
COUNTS = ("items", "interactions", "interactions_hidden", "cold_targets_test")
RANKING_COLUMNS = {"case": "int64", "user": "int32", "target": "int32", "rank": "int32", "candidates": "int32"}


@dataclass(frozen=True)
class Collected:
    """All runs of one dataset on the same n test cases."""

    dataset: str
    folder: Path  # results/data/{dataset}
    runs: Path  # results/runs/{dataset}
    about: dict[str, Any]  # dataset.json
    cases: Cases  # the test cases, without targets
    target: np.ndarray  # int32 [n]
    seeds: dict[str, int]  # number of seeds by method, in the order asked for
    ranks: list[np.ndarray]  # per method int32 [its seeds, n], 1-based
    records: dict[tuple[str, int], RunRecord]  # by (method, seed)
    # By method that learned from less than the others: the config's reason.
    less_information: dict[str, str] = field(default_factory=dict)
    failed: dict[str, FailedRun] = field(default_factory=dict)  # methods that were asked for and have no result

    def of(self, methods: Sequence[str]) -> "Collected":
        """These methods alone."""
        places = [place for place, method in enumerate(self.methods) if method in methods]
        return replace(
            self,
            seeds={method: number for method, number in self.seeds.items() if method in methods},
            ranks=[self.ranks[place] for place in places],
            records={run: record for run, record in self.records.items() if run[0] in methods},
        )

    @property
    def methods(self) -> list[str]:
        return list(self.seeds)

    @property
    def n_users(self) -> int:
        return len(np.unique(self.cases.user))

    @cached_property
    def values(self) -> list[np.ndarray]:
        """Per-case metrics, per method float64 [6 metrics, its seeds, n]."""
        return [per_case(ranks) for ranks in self.ranks]

    def seed_means(self) -> pd.DataFrame:
        """The mean over all cases by metric, method and seed: columns metric, method, seed, mean."""
        return pd.DataFrame(
            {"metric": metric, "method": method, "seed": seed, "mean": float(mean)}
            for row, metric in enumerate(METRICS)
            for method, values in zip(self.methods, self.values, strict=True)
            for seed, mean in enumerate(values[row].mean(axis=-1), 1)
        )

    @cached_property
    def case_means(self) -> np.ndarray:
        """A case's value by a method: its mean over the method's own seeds. float64 [6 metrics, methods, n]."""
        return np.stack([values.mean(axis=1) for values in self.values], axis=1)

    def case_totals(self) -> tuple[np.ndarray, int]:
        """Sums over seeds as if every method had the same number of them, and that number.

        float64 [6 metrics, methods, n]. The number is the least common multiple of the methods' own: hits stay whole
        numbers, as the exact test needs, and methods with more seeds weigh no more.
        """
        common = math.lcm(*self.seeds.values())
        sums = [values.sum(axis=1) * (common // values.shape[1]) for values in self.values]
        return np.stack(sums, axis=1), common

    @cached_property
    def best_baseline(self) -> str | None:
        """The baseline with the highest NDCG@10 (ties: the one listed first); None where no method is a baseline."""
        # Rounded, or equal methods with unequal numbers of seeds would differ in their last bit.
        means = self.case_means[METRICS.index("NDCG@10")].mean(axis=-1).round(12)
        baselines = [i for i, method in enumerate(self.methods) if self.kind(method) == "baseline"]
        return self.methods[max(baselines, key=lambda i: (means[i], -i))] if baselines else None

    def kind(self, method: str) -> Kind:
        """Whether a method is a baseline or a reference. Raises InputError where its run doesn't say."""
        kind = self.records[method, 1].kind
        if kind is None:
            raise InputError(
                f"{self.run_folder(method, 1) / 'run.json'}: kind is missing; run this seed again, or add it: "
                f"{' or '.join(KINDS)}"
            )
        return kind

    @property
    def commits(self) -> list[str]:
        """The distinct commits of the runs, sorted."""
        return sorted({record.commit for record in self.records.values()})

    def run_folder(self, method: str, seed: int) -> Path:
        return self.runs / method / f"seed{seed}"

    def records_of(self, method: str) -> list[RunRecord]:
        """The records of one method, seed by seed."""
        return [self.records[method, seed] for seed in range(1, self.seeds[method] + 1)]


def collect(
    results: Path,
    dataset: str,
    seeds: dict[str, int],
    settings: Settings | None = None,
    less_information: dict[str, str] | None = None,
) -> Collected:
    """Read the runs seed1..seedN of each method in `results/runs/{dataset}` and check that they may be compared.

    seeds: N by method. settings: by method, a list of which each run must have one; a method that is not in it may have
    any. less_information: by method that may learn from less than the others, the reason. A method with a failed run is
    left out of the comparison; `failed` holds the first of its failures.
    Raises InputError for a missing or unreadable run, cases that differ from test.parquet, targets that differ between
    runs, ranks outside 1..candidates, another data hash than dataset.json's, other settings, metrics that ranks can't
    give, or methods that learned from unequal data (`benchmark.analysis.information`).
    """
    folder, runs = results / "data" / dataset, results / "runs" / dataset
    about = _read_about(folder / "dataset.json")
    failed = failures(runs, seeds)
    if len(failed) == len(seeds):
        name, failure = next(iter(failed.items()))
        raise InputError(f"{dataset}: no method has a result; {name} has failed: {failure.failed} (log: {failure.log})")
    seeds = {method: number for method, number in seeds.items() if method not in failed}
    cases = read_test(folder, about)
    records: dict[tuple[str, int], RunRecord] = {}
    ranks = [np.empty((number, len(cases)), dtype=np.int32) for number in seeds.values()]
    target: np.ndarray | None = None
    for (method, number), method_ranks in zip(seeds.items(), ranks, strict=True):
        for seed in range(1, number + 1):
            run = runs / method / f"seed{seed}"
            record = read_run(run / "run.json")
            _check_record(run / "run.json", record, (dataset, method, seed), about["split_hash"], len(cases))
            if settings and (allowed := settings.get(method)):
                _check_settings(run / "run.json", record.params, allowed)
            if record.files is not None:
                check_file(run / "rankings.parquet", record.files.get("rankings.parquet"), RUN_AGAIN.format(run=run))
            columns = _read_rankings(run / "rankings.parquet", cases)
            target = columns["target"] if target is None else target
            _same(run / "rankings.parquet", "target", columns["target"], target, "those of the other runs")
            method_ranks[seed - 1] = columns["rank"]
            records[method, seed] = record
            check_means(per_case(method_ranks[seed - 1]).mean(axis=1), len(cases), str(run))
    assert target is not None  # the command line asks for at least one method and one seed
    learned = {run: Learned(**record.learned.model_dump()) for run, record in records.items()}
    less = check_information(dataset, learned, less_information or {})
    return Collected(dataset, folder, runs, about, cases, target, seeds, ranks, records, less, failed)


def failures(runs: Path, seeds: dict[str, int]) -> dict[str, FailedRun]:
    """The methods that have a failed run in the folder `runs`, each with the first of its failed runs."""
    first_failures: dict[str, FailedRun] = {}
    for method, seed in ((method, seed) for method, number in seeds.items() for seed in range(number, 0, -1)):
        if (failed := read_failed(runs / method / f"seed{seed}" / "run.json")) is not None:
            first_failures[method] = failed
    return first_failures


def shared_methods(collected: Sequence[Collected]) -> list[str]:
    """The methods that have results on each of these datasets, in their order."""
    return [method for method in collected[0].methods if all(method in results.methods for results in collected)]


def collect_all(args: argparse.Namespace) -> list[Collected]:
    """The runs that a command line of `runs_arguments` names, dataset by dataset. Raises InputError as `collect`
    does."""
    return [
        collect(args.results, dataset, args.seeds, args.settings, args.less_information) for dataset in args.datasets
    ]


def _read_about(path: Path) -> dict[str, Any]:
    about = read_about(path.parent, "split_hash", "counts", "settings")
    if missing := [name for name in COUNTS if name not in about["counts"]]:
        raise InputError(f"{path}: counts: {missing[0]!r} is missing; prepare the dataset again")
    return about


def _check_record(path: Path, record: RunRecord, place: tuple[str, str, int], split_hash: str, n_cases: int) -> None:
    if (record.dataset, record.method, record.seed) != place:
        recorded = f"{record.dataset}/{record.method}/seed{record.seed}"
        raise InputError(f"{path}: is the record of {recorded}; delete the folder and run this seed again")
    if record.data_hash != split_hash:
        raise InputError(
            f"{path}: ran on data {record.data_hash!r}, but dataset.json has {split_hash!r}; run this seed again"
        )
    if record.n_cases != n_cases:
        raise InputError(f"{path}: n_cases is {record.n_cases}, but test.parquet has {n_cases}; run this seed again")


def _holds(recorded: Any, configured: Any) -> bool:
    """Whether a run's settings hold all those of the config, which may leave defaults out, also inside lists."""
    if isinstance(configured, dict):
        return isinstance(recorded, dict) and all(
            key in recorded and _holds(recorded[key], value) for key, value in configured.items()
        )
    if isinstance(configured, list):
        return (
            isinstance(recorded, list) and len(recorded) == len(configured) and all(map(_holds, recorded, configured))
        )
    return bool(recorded == configured)


def _check_settings(path: Path, params: dict[str, Any], allowed: list[dict[str, Any]]) -> None:
    """Raise InputError for a run whose settings the config no longer has: it is of an earlier config."""
    if any(_holds(params, setting) for setting in allowed):
        return
    recorded, configured = flatten(params), flatten(allowed[0])
    key = next(key for key, value in configured.items() if key not in recorded or not _holds(recorded[key], value))
    had = repr(recorded[key]) if key in recorded else "no such setting"
    raise InputError(
        f"{path}: was run with {'.'.join(key)} {had}, but the config has {configured[key]!r}; delete the folder and "
        "run this seed again"
    )


def _read_rankings(path: Path, cases: Cases) -> dict[str, np.ndarray]:
    """The integer columns of one rankings.parquet, checked against the test cases."""
    if not path.exists():
        raise InputError(f"{path}: missing; run this method and seed before making tables")
    try:
        file = pq.ParquetFile(path)
        if missing := [name for name in RANKING_COLUMNS if name not in file.schema_arrow.names]:
            raise InputError(f"{path}: column {missing[0]!r} is missing; evaluate this run again")
        table = file.read(columns=list(RANKING_COLUMNS))
    except (pa.ArrowInvalid, OSError):
        raise InputError(f"{path}: not readable as parquet; delete it and evaluate this run again") from None
    columns = {}
    for name, dtype in RANKING_COLUMNS.items():
        column = table.column(name)
        if not pa.types.is_integer(column.type) or column.null_count:
            kind = f"{column.null_count} missing values" if column.null_count else f"type {column.type}"
            raise InputError(f"{path}: column {name!r} has {kind}, expected {dtype}; evaluate this run again")
        columns[name] = column.to_numpy().astype(dtype, copy=False)
    _same(path, "case", columns["case"], cases.case, "those of test.parquet")
    _same(path, "user", columns["user"], cases.user, "those of test.parquet")
    outside = (columns["rank"] < 1) | (columns["rank"] > columns["candidates"])
    if outside.any():
        row = int(np.argmax(outside))
        rank, last = columns["rank"][row], columns["candidates"][row]
        raise InputError(f"{path}: row {row}: rank {rank} is outside 1..{last} candidates; evaluate this run again")
    return columns


def _same(path: Path, name: str, values: np.ndarray, expected: np.ndarray, source: str) -> None:
    if len(values) != len(expected):
        raise InputError(
            f"{path}: {len(values)} rows, but test.parquet has {len(expected)} cases; evaluate this run on all of them"
        )
    if (bad := np.flatnonzero(values != expected)).size:
        row = int(bad[0])
        raise InputError(
            f"{path}: row {row}: {name} {values[row]} differs from {source} ({expected[row]}); evaluate this run again"
        )
