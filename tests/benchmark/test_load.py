"""The measurement of a large table, at a tiny size: its runs are valid, and its commands are the workflow's."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmark.analysis.collect import collect
from benchmark.metrics import METRICS
from benchmark.provenance import ROOT
from benchmark.speed import __main__ as speed
from benchmark.speed import load
from benchmark.speed.made_load import DATASET, commands_of, names_of, outputs_of
from tests.support.preparing import command

METHODS, SEEDS, CASES, USERS = 3, 2, 300, 40
SIZES = ("--methods", METHODS, "--seeds", SEEDS, "--cases", CASES, "--users", USERS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """The folder of a tiny measurement, the modules that it ran, each in a process of its own, and what it printed."""
    folder, ran = tmp_path_factory.mktemp("load") / "kept", []
    run_alone = load.run_alone
    with pytest.MonkeyPatch.context() as patch, (folder.parent / "printed").open("w+", encoding="utf-8") as printed:
        patch.setattr(load, "run_alone", lambda *given, **how: ran.append(given[1]) or run_alone(*given, **how))
        patch.setattr(sys, "stdout", printed)
        assert command(patch, load.main, *SIZES, "--folder", folder) in (0, None)
        printed.seek(0)
        return folder, ran, printed.read()


def test_every_step_is_measured(made: tuple[Path, list[str], str]) -> None:
    """Each is a process of its own, with its seconds and memory in the output, and the sum is that of the steps."""
    folder, ran, printed = made
    output = "benchmark.output"
    steps = [f"{output}.tables", f"{output}.tables", f"{output}.plots", f"{output}.page"]
    assert ran == ["benchmark.speed.made_load", "benchmark.statistics.datasets", *steps]
    measured = re.findall(r"^load: (\w+) in ([\d.]+) s, peak ([\d,]+) MB$", printed, re.MULTILINE)
    assert [name for name, _, _ in measured] == ["statistics", "table", "tables", "plots", "page"]
    assert all(float(seconds) > 0 and int(peak.replace(",", "")) > 20 for _, seconds, peak in measured)
    whole = re.search(r"^load: ([\d.]+) s in all; the page is a file of ([\d.]+) MB$", printed, re.MULTILINE)
    assert whole is not None
    # Each is rounded to a tenth.
    assert float(whole[1]) == pytest.approx(sum(float(seconds) for _, seconds, _ in measured), abs=0.31)
    size = (folder / "results" / "report" / "index.html").stat().st_size / 1e6
    assert float(whole[2]) == pytest.approx(size, abs=0.051)


def test_the_tables_have_what_was_asked_for(made: tuple[Path, list[str], str]) -> None:
    results = made[0] / "results"
    table = pd.read_csv(results / "tables" / f"{DATASET}.csv")
    assert table.method.tolist() == names_of(METHODS)
    assert (table.seeds == SEEDS).all() and (table.n_cases == CASES).all() and (table.n_users == USERS).all()
    assert table["NDCG@10"].is_monotonic_increasing and table["NDCG@10"].nunique() == METHODS  # as planted
    tests = pd.read_csv(results / "tables" / f"{DATASET}.tests.csv")
    pairs = METHODS * (METHODS - 1) // 2
    assert (tests.family == "all pairs").sum() == pairs * len(METRICS)
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    assert all(f'"{method}"' in page for method in names_of(METHODS))
    assert (results / "plots" / f"{DATASET}.slices.png").stat().st_size > 10_000


def test_made_up_runs_are_as_real_ones(made: tuple[Path, list[str], str]) -> None:
    """Users have several cases, runs have checksums, and the best items agree with rank, target and history."""
    results = made[0] / "results"
    collected = collect(results, DATASET, dict.fromkeys(names_of(METHODS), SEEDS))
    assert len({len(collected.cases.history(row)) for row in range(CASES)}) > 10
    for method in collected.methods:
        for seed in range(1, SEEDS + 1):
            assert set(collected.records[method, seed].files or ()) == {"rankings.parquet"}
            table = pq.read_table(collected.run_folder(method, seed) / "rankings.parquet").to_pydict()
            for row, (rank, target, top) in enumerate(
                zip(table["rank"], table["target"], table["top_items"], strict=True)
            ):
                assert len(set(top)) == len(top) == 20
                assert (top[rank - 1] == target) if rank <= 20 else (target not in top)
                assert not set(top) & set(collected.cases.history(row).tolist())
    ranks = np.stack(collected.ranks)
    assert (ranks[:, 0] != ranks[:, 1]).any(axis=1).all()  # a seed is a run of its own
    # A case is as hard for one method as for another.
    assert np.corrcoef(np.log(ranks[0, 0]), np.log(ranks[1, 0]))[0, 1] > 0.5


def test_the_commands_are_those_of_the_workflow() -> None:
    """Word for word the shell command of each rule, with its parameters filled in."""
    rules = (ROOT / "workflow" / "rules" / "output.smk").read_text(encoding="utf-8")
    commands = commands_of(outputs_of(METHODS, SEEDS))
    for name, given in commands.items():
        rule = rules[rules.index(f"rule {name}:\n") :]
        shell = rule[rule.index("    shell:\n") :].split("\n\n")[0]
        text = "".join(re.findall(r'^ +"(.*)"$', shell, re.MULTILINE))
        text = text[text.index("-m ") : text.index(" && {params.record}")]
        pattern = "".join(".*" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[^}]*\})", text))
        # A parameter that is empty here leaves its space behind.
        assert re.fullmatch(pattern, given) or re.fullmatch(pattern.replace(r"\ .*\ ", r".*\ "), given), (text, given)


def test_a_folder_that_is_there_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept", encoding="utf-8")
    assert command(monkeypatch, load.main, *SIZES, "--folder", tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("size", ["--methods", "--seeds", "--cases", "--users"])
def test_a_size_of_nothing_is_refused(
    size: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, load.main, size, 0, "--folder", tmp_path / "new") == 2
    assert f"{size} 0: " in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_the_log_to_prepare_has_the_size_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, speed.main, "prepare", "--interactions", 20_000) == 0
    printed = capsys.readouterr().out
    measured = re.match(r"prepare: ([\d,]+) cases of 20,000 interactions in [\d.]+ s, peak \d+ MiB$", printed)
    assert measured is not None and 1_000 < int(measured[1].replace(",", "")) < 20_000
    assert command(monkeypatch, speed.main, "prepare", "--interactions", 0) == 2
    assert "--interactions 0: " in capsys.readouterr().err
