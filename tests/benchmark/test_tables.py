"""Tables from a small made-up results tree: the numbers, the marks, and the files."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from benchmark.analysis.collect import collect
from benchmark.analysis.comparisons import AGAINST_BEST, ALL_PAIRS, compare
from benchmark.analysis.summary import summarise
from benchmark.metrics import METRICS
from benchmark.output.cells import cells
from benchmark.output.forms import latex, markdown, show
from tests.support.results_tree import write_by_hand, write_results
from tests.support.small_tables import METHODS, SKILL, TWO_SEEDS, run_tables


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(tmp_path / "results", ["small", "other"], SKILL)
    return tmp_path / "results"


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


def test_columns_of_the_fixture_are_those_of_the_contract(results: Path) -> None:
    schema = pq.read_schema(results / "runs" / "small" / "sasrec" / "seed1" / "rankings.parquet")
    types = {field.name: field.type for field in schema}
    assert types["case"] == pa.int64()
    assert all(types[name] == pa.int32() for name in ("user", "target", "rank", "candidates"))
    assert types["top_items"] == pa.list_(pa.int32())
