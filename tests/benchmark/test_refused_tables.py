"""Runs of which no table is made: broken ones, impossible metrics, bad arguments, and runs of other settings."""

import json
import re
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.analysis import collect as collect_module
from benchmark.analysis.arguments import runs_arguments
from benchmark.analysis.collect import collect
from benchmark.analysis.comparisons import compare
from benchmark.errors import InputError
from benchmark.jobs.records import read_run, write_run
from benchmark.metrics import per_case
from benchmark.storage.checksums import seal
from benchmark.storage.io import read_json, write_json
from tests.support.results_tree import noted_again, write_results
from tests.support.small_tables import METHODS, SKILL, TWO_SEEDS, run_tables


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(tmp_path / "results", ["small", "other"], SKILL)
    return tmp_path / "results"


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], results: Path, *more: str) -> str:
    """Run the command, expect exit code 2, one line and nothing written; return the line."""
    with pytest.raises(SystemExit) as stop:
        run_tables(monkeypatch, results, *more)
    assert stop.value.code == 2
    assert not (results / "statistics").exists() and not (results / "tables").exists()
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line


def change_rankings(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        frame = change(pd.read_parquet(run / "rankings.parquet"))
        frame.to_parquet(run / "rankings.parquet")
        noted_again(run)

    return apply


def change_record(**fields: object) -> Callable[[Path], None]:
    def apply(run: Path) -> None:
        write_json(run / "run.json", seal(read_json(run / "run.json") | fields))

    return apply


def at(column: str, row: int, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def apply(frame: pd.DataFrame) -> pd.DataFrame:
        values = frame[column].tolist()
        values[row] = value
        return frame.assign(**{column: values})

    return apply


def not_parquet(run: Path) -> None:
    (run / "rankings.parquet").write_text("x")
    noted_again(run)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing run": (lambda run: (run / "run.json").unlink(), r"run.json: missing; run this method and seed"),
    "missing ranks": (
        lambda run: (run / "rankings.parquet").unlink(),
        r"rankings.parquet: can't be read \(No such file",
    ),
    "not parquet": (lambda run: (run / "rankings.parquet").write_text("x"), "rankings.parquet: damaged or replaced"),
    "not parquet, and so noted": (not_parquet, "not readable as parquet"),
    "one number of the record": (
        lambda run: write_json(run / "run.json", read_json(run / "run.json") | {"latency_ms_alone": 1.0}),
        "run.json: its content is not what was written there; delete its folder and run this seed again",
    ),
    "not json": (lambda run: (run / "run.json").write_text("{\n oops"), "line 2 is not JSON"),
    "no column": (change_rankings(lambda f: f.drop(columns="rank")), "column 'rank' is missing"),
    "NaN rank": (change_rankings(at("rank", 3, np.nan)), "column 'rank' has 1 missing values, expected int32"),
    "half a rank": (change_rankings(at("rank", 3, 2.5)), "column 'rank' has type double, expected int32"),
    "null rank": (change_rankings(lambda f: at("rank", 3, None)(f).astype({"rank": "Int32"})), "has 1 missing values"),
    "rank 0": (change_rankings(at("rank", 3, 0)), r"row 3: rank 0 is outside 1..59 candidates"),
    "rank high": (change_rankings(at("rank", 5, 60)), r"row 5: rank 60 is outside 1..59 candidates"),
    "other case": (change_rankings(at("case", 2, 999)), r"row 2: case 999 differs from those of test.parquet \(222\)"),
    "other user": (change_rankings(at("user", 2, 999)), r"row 2: user 999 differs from those of test.parquet"),
    "other target": (change_rankings(at("target", 7, 99)), r"row 7: target 99 differs from those of the other runs"),
    "dropped case": (change_rankings(lambda f: f.iloc[:-1]), "119 rows, but test.parquet has 120 cases"),
    "other data": (change_record(data_hash="stale"), r"ran on data 'stale', but dataset.json has 'hash-small'"),
    "other n": (change_record(n_cases=7), "n_cases is 7, but test.parquet has 120"),
    "misplaced": (change_record(method="caser"), "is the record of small/caser/seed2"),
    "unknown field": (
        change_record(colour="red"),
        "run.json: record: unknown setting 'colour'. Known: dataset, method, ",
    ),
    "wrong type": (
        change_record(peak_memory_mib=-1),
        "run.json: peak_memory_mib: expected at least 0, found -1; run this seed again",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_runs_are_refused(
    fault: str, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = BROKEN[fault]
    damage(results / "runs" / "small" / "sasrec" / "seed2")
    line = refused(monkeypatch, capsys, results)
    assert re.search(message, line), line
    assert "runs/small/sasrec/seed2" in line


def test_broken_datasets_are_refused(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = results / "data" / "other" / "dataset.json"
    whole = read_json(about)
    write_json(about, {key: value for key, value in whole.items() if key != "split_hash"})
    assert "has no 'split_hash'; prepare" in refused(monkeypatch, capsys, results)  # small is fine, yet not written
    about.unlink()
    assert "dataset.json: missing; prepare the dataset first" in refused(monkeypatch, capsys, results)
    write_json(about, whole)
    (results / "data" / "other" / "test.parquet").unlink()
    assert "test.parquet: can't be read (No such file or directory); delete it and prepare" in refused(
        monkeypatch, capsys, results
    )


def test_impossible_metrics_are_refused(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ranks can't give them, so the arithmetic has to be broken: swap Hit and NDCG.
    monkeypatch.setattr(collect_module, "per_case", lambda ranks: per_case(ranks)[[1, 0, 3, 2, 5, 4]])
    with pytest.raises(InputError, match="exceeds Hit@5"):
        collect(results, "small", TWO_SEEDS)


SELECTED = ["--datasets", "a", "--methods", "m", "--seeds", "1"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--datasets", "a", "a", "--methods", "m", "--seeds", "1"], "--datasets: 'a' is given twice"),
        (["--datasets", "a", "--methods", "m", "m", "--seeds", "1"], "--methods: 'm' is given twice"),
        ([*SELECTED, "--settings", "{"], "--settings: not JSON"),
        ([*SELECTED, "--settings", '{"m": 3}'], "--settings: settings.m"),
        (["--datasets", "main", "--methods", "m", "--seeds", "1"], "'main' is the name of the table of all"),
        (["--datasets", "a", "--methods", "m", "--seeds", "0"], "--seeds is 0"),
        (["--datasets", "a", "--methods", "m", "n", "--seeds", "3", "0"], "--seeds is 0"),
        (
            ["--datasets", "a", "--methods", "m", "n", "o", "--seeds", "3", "1"],
            "--seeds has 2 numbers, but there are 3 methods; give one number for all of them, or one for each in their "
            "order",
        ),
    ],
)
def test_bad_arguments_are_refused(argv: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        runs_arguments(ArgumentParser(), argv)


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        (
            [{"layers": 3}],
            r"r2ec/seed1/run\.json: was run with layers 2, but the config has 3; delete the folder and run",
        ),
        ([{"lora": {"r": 8}}], r"was run with lora\.r no such setting, but the config has 8"),
        ([{"layers": 3}, {"layers": 4}], "was run with layers 2, but the config has 3"),
    ],
)
def test_runs_of_other_settings_are_refused(results: Path, allowed: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        collect(results, "small", TWO_SEEDS, {"r2ec": allowed})
    args = runs_arguments(ArgumentParser(), [*SELECTED, "--settings", json.dumps({"m": allowed})])
    assert args.settings == {"m": allowed}


def test_runs_of_one_of_the_settings_are_taken(results: Path) -> None:
    settings: dict[str, list[dict[str, Any]]] = {"r2ec": [{"layers": 3}, {"layers": 2}], "sasrec": [{}]}
    assert collect(results, "small", TWO_SEEDS, settings).methods == METHODS


@pytest.mark.parametrize(
    ("recorded", "configured", "holds"),
    [
        ([{"rate": 0.1, "epochs": 5}, {"rate": 0.3, "epochs": 5}], [{"rate": 0.1}, {"rate": 0.3}], True),
        ([{"rate": 0.1, "epochs": 5}], [{"rate": 0.1}, {"rate": 0.3}], False),
        ([{"rate": 0.1, "epochs": 5}, {"rate": 0.2, "epochs": 5}], [{"rate": 0.1}, {"rate": 0.3}], False),
        ([0, 1], [0, 1.0], True),
        ([0, 1], [0, 2], False),
    ],
)
def test_defaults_may_be_left_out_within_a_list(results: Path, recorded: Any, configured: Any, holds: bool) -> None:
    for path in (results / "runs" / "small" / "r2ec").glob("seed*/run.json"):
        write_run(path, read_run(path).model_copy(update={"params": {"layers": 2, "within": recorded}}))
    if holds:
        collect(results, "small", TWO_SEEDS, {"r2ec": [{"within": configured}]})
    else:
        with pytest.raises(InputError, match="was run with within"):
            collect(results, "small", TWO_SEEDS, {"r2ec": [{"within": configured}]})


def test_what_a_run_says_of_its_kind_counts_and_not_its_name(results: Path) -> None:
    assert collect(results, "small", TWO_SEEDS).best_baseline == "sasrec"
    for seed in ("seed1", "seed2"):
        change_record(kind="reference")(results / "runs" / "small" / "sasrec" / seed)
    assert collect(results, "small", TWO_SEEDS).best_baseline == "item_knn"
    change_record(kind=None)(results / "runs" / "small" / "sasrec" / "seed1")
    message = r"sasrec/seed1/run\.json: kind is missing; run this seed again, or add it: baseline or reference"
    with pytest.raises(InputError, match=message):
        compare(collect(results, "small", TWO_SEEDS))
