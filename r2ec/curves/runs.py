"""The runs of a factor with the ranks that their trainings have noted, and what they gained from their own start."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.analysis.discrimination import read_rankings
from benchmark.analysis.trainings import Judged, components, judge
from benchmark.config.factors import Factor
from benchmark.errors import InputError
from benchmark.jobs.records import read_failed, read_run
from benchmark.metrics import statistic

STATISTICS = ("log rank", "NDCG@100")


@dataclass(frozen=True)
class Run:
    """All trainings of a value on a dataset. Its own steps are empty where it was not trained."""

    dataset: str
    value: str
    steps: list[int]  # [k], measured by all trainings
    seconds: np.ndarray  # float64 [trainings, k], of training up to each of them
    users: np.ndarray  # int [n], of the validation cases
    ranks: np.ndarray  # int [trainings, k, n]
    entropy: tuple[float, float] | None  # nats of a token, mean of the first ten steps and of the last ten
    test_users: np.ndarray  # int [m]
    test_ranks: np.ndarray  # int [trainings, m]

    @property
    def trainings(self) -> int:
        """How many there are."""
        return len(self.test_ranks)


def read_factor(factor: Factor, results: Path) -> tuple[list[Run], list[str]]:
    """The runs that are there, and of each dataset a word on the values that aren't: missing, or failed.

    Raises InputError for damaged records, and for trainings of one value that have ranked other cases.
    """
    runs, missing = [], []
    for dataset in factor.datasets:
        absent = []
        for value, name in factor.runs.items():
            folders = [results / "runs" / dataset / name / f"seed{seed}" for seed in range(1, factor.seeds + 1)]
            failed = [one.failed for folder in folders if (one := read_failed(folder / "run.json"))]
            if failed or not all((folder / "run.json").exists() for folder in folders):
                absent.append(f"{value} ({failed[0]})" if failed else value)
                continue
            runs.append(_read(dataset, value, folders))
        if absent:
            missing.append(f"of {dataset} {', '.join(absent)}")
    return runs, missing


def _read(dataset: str, value: str, folders: Sequence[Path]) -> Run:
    reports: list[dict[str, Any]] = [read_run(folder / "run.json").report for folder in folders]
    tables = [read_rankings(folder / "rankings.parquet") for folder in folders]
    curves = [report.get("curve") or {"users": [], "points": []} for report in reports]
    for folder, table, curve in zip(folders, tables, curves, strict=True):
        if not np.array_equal(table["case"], tables[0]["case"]) or curve["users"] != curves[0]["users"]:
            raise InputError(f"{folder}: ranked other cases than {folders[0]}; run both again")
    by_step = [{point["step"]: point for point in curve["points"]} for curve in curves]
    steps = sorted(set.intersection(*(set(points) for points in by_step)))
    return Run(
        dataset=dataset,
        value=value,
        steps=steps,
        seconds=np.array([[points[step]["seconds"] for step in steps] for points in by_step], dtype=np.float64),
        users=np.array(curves[0]["users"], dtype=np.int64),
        ranks=np.array([[points[step]["ranks"] for step in steps] for points in by_step], dtype=np.int64),
        entropy=_entropy(reports),
        test_users=tables[0]["user"],
        test_ranks=np.stack([table["rank"] for table in tables]),
    )


def _entropy(reports: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    logged = [[entry["entropy"] for entry in report.get("recpo_log") or [] if "entropy" in entry] for report in reports]
    if not all(logged):
        return None
    return float(np.mean([one[:10] for one in logged])), float(np.mean([one[-10:] for one in logged]))


def gains(runs: Sequence[Run]) -> pd.DataFrame:
    """What each training gained from its own step 0 on, on validation cases: a row per run, step and statistic.

    Columns: dataset, value, trainings, step, seconds (mean), statistic, mean, difference, low, high (its 95 % interval,
    `benchmark.analysis.trainings`), covers. A run that has no step 0 has no rows.
    """
    rows = []
    for run in runs:
        if 0 not in run.steps:
            continue
        for name in STATISTICS:
            values = statistic(name, run.ranks)  # [trainings, k, n]
            for i, step in enumerate(run.steps):
                one = judge([components(values[:, i], values[:, run.steps.index(0)], run.users, shared=True)])
                row: dict[str, object] = {"dataset": run.dataset, "value": run.value, "trainings": run.trainings}
                row |= {"step": step, "seconds": float(run.seconds[:, i].mean()), "statistic": name}
                rows.append(row | {"mean": float(values[:, i].mean()), **_numbers(one)})
    columns = ["dataset", "value", "trainings", "step", "seconds", "statistic", "mean"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "low", "high", "covers"])


def start_of(factor: Factor) -> str | None:
    """The label of the value that isn't trained; None where there is none."""
    for label, run in factor.runs.items():
        settings = factor.settings.get(run, [])
        if settings and all(one.get("training", {}).get("max_steps") == 0 for one in settings):
            return label
    return None


def on_test(runs: Sequence[Run], start: str) -> pd.DataFrame:
    """Each value less the start on the test cases, at the end of its training.

    Columns: dataset, value, trainings, statistic, mean, mean_start, difference, low, high, covers, p (not corrected).
    Trainings are paired where both have as many: they share their random numbers.
    """
    rows = []
    of_start = {run.dataset: run for run in runs if run.value == start}
    for run in runs:
        if run.value == start or run.dataset not in of_start:
            continue
        begin = of_start[run.dataset]
        if not np.array_equal(run.test_users, begin.test_users):
            raise InputError(f"{run.dataset}: {run.value} and {start} ranked other test cases; run both again")
        for name in STATISTICS:
            first, second = statistic(name, run.test_ranks), statistic(name, begin.test_ranks)
            one = judge([components(first, second, run.test_users, shared=len(first) == len(second))])
            row: dict[str, object] = {"dataset": run.dataset, "value": run.value, "trainings": run.trainings}
            row |= {"statistic": name, "mean": float(first.mean()), "mean_start": float(second.mean())}
            rows.append(row | _numbers(one) | {"p": one.p})
    columns = ["dataset", "value", "trainings", "statistic", "mean", "mean_start"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "low", "high", "covers", "p"])


def _numbers(one: Judged) -> dict[str, object]:
    return {"difference": one.difference, "low": one.low, "high": one.high, "covers": one.covers}
