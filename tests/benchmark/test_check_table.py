"""The checker for printed tables, by hand, against rankings, and on the paper's own tables."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.errors import InputError
from benchmark.metrics import hit, ndcg
from benchmark.provenance import ROOT
from benchmark.statistics.check_table import Row, excess, fits, impossible, read_table, smallest_n

KS = (5, 10, 20)


def row(values: dict[str, float], decimals: int = 4, n: int | None = None) -> Row:
    return Row("m", values, dict.fromkeys(values, 0.5 * 10.0**-decimals), n)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(2, 6))
def test_what_a_ranking_gives_is_possible(ranks: list[int], decimals: int) -> None:
    values = {f"{name}@{k}": float(f(ranks, k).mean()) for k in KS for name, f in (("Hit", hit), ("NDCG", ndcg))}
    printed = row({name: round(value, decimals) for name, value in values.items()}, decimals, len(ranks))
    assert impossible(printed) is None and fits(printed, len(ranks))
    assert (smallest_n(printed) or 0) <= len(ranks)


def test_bounds_are_those_by_hand() -> None:
    # A hit in the first five adds from 1/log2(6) = .3869 to 1; so .1 of hits allow NDCG from .0387 to .1.
    for ndcg_5, possible in ((0.0386, False), (0.0387, True), (0.1, True), (0.1002, False)):
        assert (excess(row({"Hit@5": 0.1, "NDCG@5": ndcg_5})) == 0) == possible, ndcg_5
    # From rank 6 to 10 a hit adds from 1/log2(11) = .2891 to 1/log2(7) = .3562.
    first = {"Hit@5": 0.1, "NDCG@5": 0.05, "Hit@10": 0.2}
    for ndcg_10, possible in ((0.0787, False), (0.0789, True), (0.0856, True), (0.0859, False)):
        assert (excess(row(first | {"NDCG@10": ndcg_10})) == 0) == possible, ndcg_10


def test_the_excess_is_that_by_hand() -> None:
    # NDCG can't exceed Hit: .02 apart, of which each number takes half, less half a unit of rounding.
    assert excess(row({"Hit@5": 0.1, "NDCG@5": 0.12})) == pytest.approx(0.01 - 0.00005)
    assert impossible(row({"Hit@5": 0.1, "NDCG@5": 0.12})) == (
        "impossible: a number is off by at least 0.00995 beyond rounding"
    )


def test_hits_are_whole_numbers() -> None:
    third = {"Hit@5": 0.3333, "NDCG@5": 0.2}
    assert smallest_n(row(third)) == 3
    assert impossible(row(third, n=3)) is None
    assert impossible(row(third, n=4)) == "impossible: Hit times 4 cases is no whole number"
    assert smallest_n(row({"Hit@5": 0.0, "NDCG@5": 0.0})) == 1


def test_the_papers_tables_have_the_impossible_rows_that_docs_name() -> None:
    """21 of the 60 printed rows: what docs/paper-table.md says."""
    rows = read_table(ROOT / "docs/paper-table.csv")
    bad = [row.name for row in rows if impossible(row)]
    assert (len(bad), len(rows)) == (21, 60)
    text = (ROOT / "docs/paper-table.md").read_text()
    assert all(f"| {name.replace('*', chr(92) + '*')} |" in text for name in bad)
    assert sum(line.startswith("| ") for line in text.splitlines()) == 21 + 1  # and the head


def test_the_published_tables_are_possible() -> None:
    for file in sorted((ROOT / "results/published").rglob("tables/main.csv")):
        rows = read_table(file)
        assert rows and not [row.name for row in rows if impossible(row)], file


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no rows; give columns method, dataset, Hit@k and NDCG@k"),
        ("method,Hit@5\nm,0.1\n", r"no cut-off k has both Hit@k and NDCG@k \(found method, Hit@5\); name"),
        ("method;Hit@5;NDCG@5\nm;0.1;0.1\n", r"\(found method;Hit@5;NDCG@5\); name .*, with commas between them"),
        ("method,Hit@5,NDCG@5\nm,0.1,x\n", "row 1: NDCG@5 is 'x'; give a share from 0 to 1"),
        ("method,Hit@5,NDCG@5\nm,12.4,3\n", "row 1: Hit@5 is '12.4'; give a share from 0 to 1"),
        ("method,Hit@5,NDCG@5,n\nm,0.1,0.1,many\n", "row 1: n is 'many'; give a whole number"),
        (f"method,Hit@5,NDCG@5,n\nm,0.1,0.1,{'9' * 400}\n", "row 1: n is '9{30}'; give a whole number"),
        (f"method,Hit@5,NDCG@5,decimals\nm,0.1,0.1,{'9' * 5000}\n", "row 1: decimals is '9{30}'; give a whole number"),
        (f"method,Hit@{'9' * 5000},NDCG@{'9' * 5000}\nm,0.1,0.1\n", "no cut-off k has both"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_table(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"gone\.csv: no such file; give a csv file with columns"):
        read_table(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("method,Hit@5,NDCG@5\nm,,\n", "row 1: no cut-off has both"),
        ("method,Hit@5,NDCG@5\nm,0.1\n", "row 1: no cut-off has both"),
        ("method,Hit@5,NDCG@5\nm,0.1,0.05,0.2\n", "row 1: '0.2' stands behind the last column"),
        ("method,Hit@5,NDCG@5,Hit@5\nm,0.1,0.05,0.2\n", "column 'Hit@5' occurs twice"),
    ],
)
def test_rows_that_say_nothing_or_too_much_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_table(tmp_path / "t.csv")


def test_decimals_may_be_said(tmp_path: Path) -> None:
    """A program that drops a last zero prints fewer digits than it has."""
    (tmp_path / "t.csv").write_text("method,Hit@5,NDCG@5,decimals\nm,0.1,0.1,4\nm,0.1,0.1,\n")
    with_decimals, counted = read_table(tmp_path / "t.csv")
    assert with_decimals.half["Hit@5"] == 0.5e-4 and counted.half["Hit@5"] == 0.05


def test_the_command_prints_a_line_per_row_and_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("method,dataset,Hit@5,NDCG@5\ngood,d,0.1000,0.0500\nbad,d,0.1000,0.1200\n")
    command = [sys.executable, "-m", "benchmark.statistics.check_table", str(tmp_path / "t.csv")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "d, good: possible; Hits fit from 10 cases on",
        "d, bad: impossible: a number is off by at least 0.00995 beyond rounding; Hits fit from 10 cases on",
        "1 of 2 rows are impossible.",
    ]


def test_a_random_change_of_a_digit_is_mostly_seen() -> None:
    """Of random NDCGs that are .01 too high the check finds most."""
    generator, detected = np.random.default_rng(0), 0
    for _ in range(50):
        ranks = generator.integers(1, 200, 1000)
        values = {f"{name}@{k}": float(f(ranks, k).mean()) for k in KS for name, f in (("Hit", hit), ("NDCG", ndcg))}
        wrong = {name: round(value + 0.01 * (name == "NDCG@10"), 4) for name, value in values.items()}
        detected += excess(row(wrong)) > 0
    assert detected >= 45
