"""Rows of one declared version that were made by different code are named beside the tables."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.analysis.collect import collect
from benchmark.analysis.summary import made_of
from benchmark.config.factors import Factor
from benchmark.jobs import code
from benchmark.jobs.code import declared_stages
from benchmark.jobs.records import read_run, write_run
from benchmark.output import ablations, against
from benchmark.output.captions import of_different_code
from benchmark.output.tables import tables_of, tables_of_all
from benchmark.statistics.ablations import statistics as statistics_of_factor
from benchmark.statistics.datasets import statistics
from benchmark.statistics.files import DatasetStatistics
from tests.support.results_tree import record, write_results
from tests.support.statistics import write_statistics

OLD, NEW = "a1" * 32, "b2" * 32
R2EC = {"r2ec": 3, "states": 1}
ROWS = {"popularity": 0.0, "r2ec": 0.7, "r2ec_no_reasoning": 0.6}
SAID = "Made by different code under one declared version: "


def set_code(results: Path, run: str, code: str, stages: dict[str, int]) -> None:
    """Let this run, such as small/r2ec/seed1, be made by this code."""
    path = results / "runs" / run / "run.json"
    write_run(path, read_run(path).model_copy(update={"code": code, "stages": stages}))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two datasets, one seed: all of r2ec's rows of one version and one code, popularity of another method's."""
    write_results(tmp_path, ["small", "other"], ROWS, seeds=1)
    for dataset in ("small", "other"):
        set_code(tmp_path, f"{dataset}/popularity/seed1", "c3" * 32, {"popularity": 1})
        for method in ("r2ec", "r2ec_no_reasoning"):
            set_code(tmp_path, f"{dataset}/{method}/seed1", OLD, R2EC)
    return tmp_path


def made(results: Path, *datasets: str) -> list[DatasetStatistics]:
    return [statistics(collect(results, dataset, dict.fromkeys(ROWS, 1))) for dataset in datasets]


def test_rows_of_one_code_need_no_word(results: Path) -> None:
    (small,) = made(results, "small")
    assert not any(SAID in text for text in tables_of(small, "").values())


def test_a_row_by_other_code_is_named_beside_the_table_and_on_the_screen(results: Path) -> None:
    set_code(results, "small/r2ec_no_reasoning/seed1", NEW, R2EC)
    small, other = made(results, "small", "other")
    sentence = f"{SAID}{OLD[:12]} made r2ec; {NEW[:12]} made r2ec_no_reasoning."
    files = tables_of(small, "")
    assert sentence in files["small.md"] and sentence.replace("_", "\\_") in files["small.tex"]
    assert SAID not in tables_of(other, "")["other.md"]
    files = tables_of_all([small, other], "")
    old = f"{OLD[:12]} made small: r2ec, other: r2ec, other: r2ec_no_reasoning"
    of_both = f"{SAID}{old}; {NEW[:12]} made small: r2ec_no_reasoning."
    assert of_both in files["main.md"] and of_both in " ".join(files["main.txt"].split())


def test_another_version_is_no_other_code(results: Path) -> None:
    """A raised version says that numbers differ: the workflow makes such rows anew."""
    set_code(results, "small/r2ec_no_reasoning/seed1", NEW, R2EC | {"r2ec": 4})
    small = made(results, "small")
    assert not any(SAID in text for text in tables_of_all(small, "").values())


@pytest.mark.parametrize(
    ("stages", "codes", "version", "named"),
    [
        (({"a": 1}, {"a": 1}), (OLD, OLD), "a 1", False),
        (({"a": 1}, {"a": 1}), (OLD, NEW), "a 1", True),
        (({"a": 1, "b": 2}, {"a": 1, "b": 3}), (OLD, NEW), "", True),  # seeds of one row
        (({}, {}), (OLD, NEW), "", True),  # a method that declares nothing
        (({}, {"a": 1}), ("", NEW), "", True),  # of before that was kept
        (({}, {}), ("", ""), "", False),
    ],
)
def test_seeds_of_one_row(stages: Any, codes: Any, version: str, named: bool) -> None:
    runs = [
        record("toy", "sasrec", seed, 5).model_copy(update={"code": code, "stages": of})
        for seed, code, of in zip((1, 2), codes, stages, strict=True)
    ]
    row = made_of(runs)
    assert row["version"] == version and len(row["code"].split()) == len(set(codes))
    frame = pd.DataFrame([{"dataset": "toy", "method": "sasrec"} | row])
    assert bool(of_different_code(frame)) == named


def test_two_methods_that_declare_nothing_are_not_one() -> None:
    rows = [{"dataset": "toy", "method": name, "version": "", "code": name * 12} for name in "ab"]
    assert of_different_code(pd.DataFrame(rows)) == []


def test_values_of_a_factor_and_the_reference_say_it_too(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_code(results, "small/r2ec_no_reasoning/seed1", NEW, R2EC)
    runs = {"R2ec": "r2ec", "w/o Reasoning": "r2ec_no_reasoning"}
    factor = Factor(name="parts", title="parts", datasets=["small"], seeds=1, base="R2ec", runs=runs, claims=[])
    shown = ablations.as_markdown(factor, statistics_of_factor(factor, results))
    assert f"{SAID}{OLD[:12]} made R2ec; {NEW[:12]} made w/o Reasoning." in shown
    write_statistics(results, ["small"], dict.fromkeys(ROWS, 1), reference="r2ec")
    monkeypatch.setattr("sys.argv", ["against", "--results", str(results), "--datasets", "small"])
    against.main()
    assert f"{SAID}{OLD[:12]} made r2ec; {NEW[:12]} made r2ec_no_reasoning." in capsys.readouterr().out


def test_a_run_records_what_its_method_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    assert declared_stages("r2ec").keys() >= {"r2ec", "ranking", "states", "warm start", "writing"}
    real = code.stages_in
    monkeypatch.setattr("benchmark.jobs.code.stages_in", lambda path: () if path.name == "markov.py" else real(path))
    assert declared_stages("markov") == {}  # its runs come from its code, whatever it is
