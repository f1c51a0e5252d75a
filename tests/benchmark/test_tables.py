"""Tables from a small made-up results tree: the numbers, the marks, the files, and all that has to be refused."""

import io
import json
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from benchmark.analysis import collect as collect_module
from benchmark.analysis.arguments import runs_arguments
from benchmark.analysis.collect import collect
from benchmark.analysis.comparisons import AGAINST_BEST, ALL_PAIRS, compare
from benchmark.analysis.summary import summarise
from benchmark.errors import InputError
from benchmark.jobs.records import RunRecord, Trial, Tuning, read_run, write_run
from benchmark.metrics import METRICS, per_case
from benchmark.output import tables
from benchmark.output.cells import cells
from benchmark.output.forms import latex, markdown, show
from benchmark.statistics import datasets as statistics
from benchmark.storage.checksums import seal
from benchmark.storage.io import read_json, write_json
from tests.support.results_tree import noted_again, record, write_by_hand, write_results

SKILL = {"popularity": 0.0, "item_knn": 0.3, "sasrec": 0.8, "r2ec": 0.85}
METHODS = list(SKILL)
TWO_SEEDS = dict.fromkeys(METHODS, 2)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(tmp_path / "results", ["small", "other"], SKILL)
    return tmp_path / "results"


def run_tables(monkeypatch: pytest.MonkeyPatch, results: Path, *more: str) -> None:
    shown = ["x", "--results", str(results), "--datasets", "small", "other"]
    monkeypatch.setattr(sys, "argv", [*shown, "--methods", *METHODS, "--seeds", "2"])
    statistics.main()
    monkeypatch.setattr(sys, "argv", [*shown, *more])
    tables.main()


# --- the numbers
# -------------------------------------------------------------------------------------------------------


def test_the_numbers_of_a_table_are_those_by_hand(tmp_path: Path) -> None:
    write_by_hand(tmp_path, "a", "r2ec")
    collected = collect(tmp_path, "tiny", {"a": 2, "r2ec": 2})
    tests = compare(collected)
    row = summarise(collected, tests).iloc[0]
    # NDCG@10: seed 1 (1 + 1/3)/4 = 1/3, seed 2 (1 + 1/2)/4 = 3/8; mean 17/48, sd |3/8 - 1/3|/sqrt(2)
    assert row["NDCG@10"] == pytest.approx(17 / 48, abs=1e-6)
    assert row["NDCG@10_sd"] == pytest.approx((1 / 24) / np.sqrt(2), abs=1e-6)
    # Hit@5: 1/4 and 2/4; the interval over two users reaches from user 1's mean, 0, to user 0's, 3/4
    assert (row["Hit@5"], row["Hit@5_low"], row["Hit@5_high"]) == (0.375, 0.0, 0.75)
    assert (row.best_baseline, row.n_cases, row.n_users, row.seeds) == ("a", 4, 2, 2)

    hit5 = tests[(tests.family == AGAINST_BEST) & (tests.metric == "Hit@5")].iloc[0]
    assert (hit5.method_a, hit5.method_b, hit5.difference) == ("r2ec", "a", 0.625)
    # D = (1, 4) hits of the two users; both signs equal has chance 1/2. Six tests, two users: Holm gives 1.
    assert (hit5.p, hit5.p_holm, hit5.family_size) == (0.5, 1.0, 6)
    back = tests[(tests.family == ALL_PAIRS) & (tests.metric == "Hit@5")].iloc[0]
    assert (back.method_a, back.difference, back.low, back.high) == ("a", -0.625, -hit5.high, -hit5.low)


def test_families_hold_every_pair_by_every_metric(results: Path) -> None:
    collected = collect(results, "small", TWO_SEEDS)
    tests = compare(collected)
    assert collected.best_baseline == "sasrec"  # r2ec is better but no baseline
    for family, size in ((AGAINST_BEST, 3 * 6), (ALL_PAIRS, 6 * 6)):
        assert tests.family_size[tests.family == family].tolist() == [size] * size
    assert (tests.p_holm >= tests.p).all()
    assert tests[tests.metric.str.startswith("Hit")]["test"].str.startswith("McNemar").all()
    assert tests[tests.metric.str.startswith("NDCG")]["test"].str.startswith("paired randomisation").all()
    worse = tests[(tests.family == AGAINST_BEST) & (tests.method_a == "popularity") & (tests.metric == "NDCG@10")].iloc[
        0
    ]
    assert worse.difference < 0
    assert worse.p_holm < 0.05
    assert worse.low < worse.difference < worse.high < 0


def test_every_form_says_the_same(results: Path) -> None:
    collected = collect(results, "small", TWO_SEEDS)
    frame = summarise(collected, compare(collected))
    numbers = [f"{value:.4f}" for method in range(len(METHODS)) for value in frame.loc[method, METRICS]]
    in_markdown = re.findall(r"(?:\| |\*\*|<ins>)(\d\.\d{4})", markdown(frame))
    in_latex = re.findall(r"shortstack\[r\]\{(?:\\textbf\{|\\underline\{)?(\d\.\d{4})", latex(frame))
    assert in_markdown == in_latex == numbers
    assert markdown(frame).count("†") - 1 == latex(frame).count(r"$^\dagger$") > 0  # one more in the caption
    for text in ("paired", "Holm", "sasrec", "18 tests", "120 cases", "2 trainings of each row", "commit 0123456789"):
        assert text in markdown(frame)
        assert text in latex(frame)


def test_marks_are_of_best_second_and_significant_means(results: Path) -> None:
    frame = summarise(collected := collect(results, "small", TWO_SEEDS), compare(collected))
    frame["Hit@5"] = [0.12341, 0.30002, 0.30004, 0.2]  # two print as 0.3000 and share the first place
    frame["Hit@10"] = 0.0  # nothing to praise
    frame["Hit@5_p_holm"] = [0.049, 0.05, np.nan, 0.9]
    places = [[cell.place for cell in row[:3:2]] for row in cells(frame)]
    assert places == [[0, 0], [1, 0], [1, 0], [2, 0]]
    assert [row[0].dagger for row in cells(frame)] == [True, False, False, False]


def test_popularity_has_a_row_and_no_spread(results: Path) -> None:
    frame = summarise(collected := collect(results, "small", TWO_SEEDS), compare(collected))
    assert frame.loc[0, "method"] == "popularity"
    assert (frame.loc[0, [f"{metric}_sd" for metric in METRICS]] == 0).all()


def test_one_seed_has_no_sd_and_r2ec_alone_no_test(results: Path) -> None:
    collected = collect(results, "small", {"r2ec": 1})
    tests = compare(collected)
    frame = summarise(collected, tests)
    assert len(tests) == 0
    assert frame["Hit@5_sd"].isna().all()
    assert "±" not in markdown(frame).split("\n\n")[0]
    assert "no baseline among the methods" in markdown(frame)


def test_one_of_something_is_named_so(tmp_path: Path) -> None:
    write_by_hand(tmp_path, "a", "r2ec")
    collected = collect(tmp_path, "tiny", {"a": 2, "r2ec": 2})
    caption = markdown(summarise(collected, compare(collected)))
    assert "4 cases of 2 users" in caption and "family of 6 tests (1 method x 6 metrics)" in caption


MARKS = {"†": "† differs", "<ins>": "second underlined", "±": "± sd over seeds", "**": "Best bold"}


def test_a_legend_explains_the_marks_that_its_table_has_and_no_others(results: Path) -> None:
    def explained(frame: pd.DataFrame) -> list[str]:
        table, legend = markdown(frame).split("\n\n", 1)
        for mark, words in MARKS.items():
            assert (mark in table) == (words in legend), mark
        assert ("No value differs" in legend) == ("†" not in table and "test in this table" not in legend)
        return [mark for mark in MARKS if mark in table]

    frame = summarise(collected := collect(results, "small", TWO_SEEDS), compare(collected))
    assert explained(frame) == list(MARKS)
    tests = [f"{metric}_p_holm" for metric in METRICS]
    assert explained(frame.assign(**{test: frame[test] * 0 + 0.9 for test in tests})) == ["<ins>", "±", "**"]
    single_row = summarise(collected := collect(results, "small", {"r2ec": 1}), compare(collected))
    assert explained(single_row) == ["**"] and "Two-sided" not in markdown(single_row)
    # What nothing scores in praises nothing.
    assert explained(frame.assign(**dict.fromkeys(METRICS, 0.0))) == ["†", "±"]


def test_the_plain_tables_legend_names_no_mark_that_text_lacks(results: Path) -> None:
    frame = summarise(collected := collect(results, "small", TWO_SEEDS), compare(collected))
    printed = io.StringIO()
    show(frame, Console(file=printed, width=200))
    table, legend = printed.getvalue().split("Full-catalogue")
    assert "†" in table and "† differs" in legend and "Holm" in legend
    for absent in ("bold", "underlined", "±", "no sd"):
        assert absent not in legend
    assert "below it the 95 % interval" in legend


def test_the_plain_tables_title_speaks_of_seeds_that_there_are(results: Path) -> None:
    frame = summarise(collected := collect(results, "small", TWO_SEEDS), compare(collected))
    for seeds, title in ((2, "small, mean over seeds"), (1, "small, one seed")):
        printed = io.StringIO()
        show(frame.assign(seeds=seeds), Console(file=printed, width=200))
        assert printed.getvalue().splitlines()[0].strip() == title


def test_names_are_escaped(results: Path) -> None:
    frame = summarise(collected := collect(results, "small", TWO_SEEDS), compare(collected)).assign(method="a_b|c&d%")
    assert r"a\_b\|c&d%" in markdown(frame)
    assert r"a\_b|c\&d\%" in latex(frame)


# --- the command
# -------------------------------------------------------------------------------------------------------


def test_command_writes_byte_equal_files(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_tables(monkeypatch, results)
    first = {path.name: path.read_bytes() for path in (results / "tables").iterdir()}
    names = [f"{name}.{kind}" for name in ("main", "small", "other") for kind in ("csv", "md", "tex")]
    assert sorted(first) == sorted([*names, "main.txt", "costs.csv", "costs.md", "small.tests.csv", "other.tests.csv"])
    run_tables(monkeypatch, results)
    assert {path.name: path.read_bytes() for path in (results / "tables").iterdir()} == first

    main = pd.read_csv(io.BytesIO(first["main.csv"]))
    assert main.groupby("dataset").method.apply(list).to_dict() == {"small": METHODS, "other": METHODS}
    assert first["main.csv"].decode().splitlines()[1:5] == first["small.csv"].decode().splitlines()[1:]
    assert "sasrec" in capsys.readouterr().out


def test_the_text_has_intervals_and_fits_a_terminal(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tables(monkeypatch, results)
    lines = (results / "tables" / "main.txt").read_text(encoding="utf-8").splitlines()
    frame = pd.read_csv(results / "tables" / "main.csv")
    for row in frame.to_dict("records"):
        at = next(i for i, line in enumerate(lines) if line.split()[:1] == [row["method"]])
        lines = lines[at:]
        printed = [tuple(map(float, cell.split("–"))) for cell in lines[1].split()]
        expected = [(row[f"{metric}_low"], row[f"{metric}_high"]) for metric in METRICS]
        assert np.array(printed) == pytest.approx(np.array(expected), abs=0.00056)  # rounded twice
        assert max(len(line.rstrip()) for line in lines[:2]) <= 90


def test_a_note_stands_above_the_text_and_first_in_each_caption(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in (results / "tables").iterdir()}

    run_tables(monkeypatch, results)
    plain = written()
    run_tables(monkeypatch, results, "--note", "A look, not a result: 5 % of it.")
    noted = written()
    assert noted["main.txt"] == f"A look, not a result: 5 % of it.\n\n{plain['main.txt']}"
    for name in ("main", "small", "other"):
        assert "\n\nA look, not a result: 5 % of it.\n\nFull-catalogue" in noted[f"{name}.md"]
        assert r"\caption{A look, not a result: 5 \% of it. Full-catalogue" in noted[f"{name}.tex"]
    assert all(noted[name] == plain[name] for name in plain if name.endswith(".csv"))


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


# --- the record
# --------------------------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    tuning = Tuning(criterion="valid NDCG@10", trials=[Trial(params={"lr": 0.1}, value=0.2, seconds=3)], chosen=0)
    tuned_record = record("d", "m", 1, 10).model_copy(update={"tuning": tuning})
    write_run(tmp_path / "run.json", tuned_record)
    read_again = read_run(tmp_path / "run.json")
    assert read_again.model_copy(update={"files": None, "sha256": None}) == tuned_record and read_again.files == {}
    assert read_json(tmp_path / "run.json")["finished_at"] == "2025-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 0}, "seed"),
        ({"finished_at": "2025-01-01T00:00:00+02:00"}, "not in UTC"),
        ({"finished_at": "2025-01-01T00:00:00"}, "timezone"),
        ({"latency_ms_per_case": float("nan")}, "latency_ms_per_case"),
        ({"tuning": {"criterion": "c", "trials": [{"params": {}, "value": 1, "seconds": 1}], "chosen": 1}}, "1 trials"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_bad_records_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunRecord.model_validate(record("d", "m", 1, 10).model_dump(mode="json") | fields)


def test_columns_of_the_fixture_are_those_of_the_contract(results: Path) -> None:
    schema = pq.read_schema(results / "runs" / "small" / "sasrec" / "seed1" / "rankings.parquet")
    types = {field.name: field.type for field in schema}
    assert types["case"] == pa.int64()
    assert all(types[name] == pa.int32() for name in ("user", "target", "rank", "candidates"))
    assert types["top_items"] == pa.list_(pa.int32())
