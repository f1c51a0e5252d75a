"""The csv files of statistics: read as written, the only source of all outputs, and safe from hostile labels."""

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.analysis import significance
from benchmark.analysis.collect import collect
from benchmark.config.factors import Factor
from benchmark.config.schema import ClaimConfig
from benchmark.errors import InputError
from benchmark.output import ablation_plots, ablations, forms, markdown, plots, tables
from benchmark.output import against as against_table
from benchmark.output import claims as claims_page
from benchmark.output.cells import cells
from benchmark.provenance import ROOT
from benchmark.statistics import ablations as factors
from benchmark.statistics import against, claims, files, overall
from benchmark.statistics import datasets as statistics
from benchmark.statistics.files import TEXT, DatasetStatistics, FactorStatistics, read_csv, write_csv
from tests.support.results_tree import write_results

SKILL = {"popularity": 0.0, "sasrec": 0.8, "r2ec": 0.85}
# What breaks a row of Markdown, a row of LaTeX, a spreadsheet or a terminal, and what YAML or pandas might read as
# nothing.
LABELS = ["=1+1|x", "[2pt]", "*a_b*", "None", "a\nb | c\x1b[31m", "<b>&amp;"]


def run(command: Any, results: Path, *argv: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", "--results", str(results), *argv])
        command.main()


def hostile() -> Factor:
    """A factor whose values have these labels; each is a row of the tree."""
    claim = ClaimConfig(says="=says | *so*", value=LABELS[0], against=LABELS[1])
    runs = dict(zip(LABELS, (f"m{i}" for i in range(len(LABELS))), strict=True))
    return Factor(name="x", title="=title", datasets=["small"], seeds=1, base=LABELS[1], runs=runs, claims=[claim])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("statistics") / "results"
    skill = SKILL | {f"m{i}": i / 10 for i in range(len(LABELS))}
    write_results(folder, ["small", "other"], skill, seeds=1, n_cases=80)
    return folder


def test_doctests() -> None:
    for module in (files, markdown, forms):
        assert doctest.testmod(module).attempted > 0 and doctest.testmod(module).failed == 0


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "value": [*LABELS, "'quoted", '"', "0.10", "", "-0.5"],
            "low": [0.1 + 0.2, np.nan, 1 / 3, 1e-300, -0.0, *np.arange(6.0)],
            "seeds": range(11),
        }
    )
    write_csv(tmp_path / "a.csv", frame)
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), frame, check_exact=True)
    cells_ = (tmp_path / "a.csv").read_text().split("\n")
    assert not any(line.startswith(("=", '"=', "@", "+")) for line in cells_) and "-0.5" in cells_[-2]


def test_all_of_a_dataset_is_read_as_it_was_computed(results: Path) -> None:
    computed = statistics.statistics(collect(results, "small", dict.fromkeys(SKILL, 1)))
    computed.write(results / "out", "small")
    read = DatasetStatistics.read(results / "out", "small")
    for name, frame in vars(computed).items():
        text = [column for column in frame if frame[column].dtype == object]
        assert set(text) == set(frame.columns) & set(TEXT), name
        pd.testing.assert_frame_equal(getattr(read, name), frame, check_exact=True, check_column_type=False)


def test_a_missing_or_broken_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.csv: missing; make the statistics of these runs first$"):
        read_csv(tmp_path / "x.csv")
    for broken in (b"", b'a,b\n1,2,3,4\n"', b"\xff\xfe\x00"):
        (tmp_path / "x.csv").write_bytes(broken)
        with pytest.raises(
            InputError, match=r"x\.csv: can't be read as csv .*; delete it and make the statistics again$"
        ):
            read_csv(tmp_path / "x.csv")


def test_what_shows_statistics_computes_none(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = ["--methods", *SKILL, "--seeds", "1"]
    both, factor_arguments = (
        ["--datasets", "small", "other"],
        ["--factors", json.dumps([hostile().model_dump(mode="json")])],
    )
    run(statistics, results, *both, *runs)
    run(overall, results, *both, *runs)
    run(against, results, *both, *runs, "--reference", "r2ec")
    run(factors, results, *factor_arguments)
    run(claims, results, *factor_arguments)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a statistic is computed again")

    for name in ("user_sums", "bootstrap_means", "randomisation_test", "mcnemar_test", "holm", "interval"):
        monkeypatch.setattr(significance, name, refuse)
    (results / "runs").rename(results / "runs_elsewhere")
    try:
        run(tables, results, *both)
        run(plots, results, "--datasets", "small")
        run(against_table, results, *both)
        run(ablations, results, *factor_arguments)
        run(ablation_plots, results, *factor_arguments)
        run(claims_page, results)
    finally:
        (results / "runs_elsewhere").rename(results / "runs")
    assert (results / "plots" / "ablations" / "x.png").stat().st_size > 1000


def test_what_shows_statistics_starts_without_what_computes_them() -> None:
    """It would take twice the time, in every job of an output; and the page draws no plot."""
    shown = "from benchmark.output import ablation_plots, ablations, against, claims, plots, tables"
    loaded = "print({'scipy.stats', 'statsmodels'} & {*sys.modules})"
    drawing = "print('matplotlib' in sys.modules)"
    code = f"import sys, benchmark.output.page.__main__; {drawing}; {shown}; {loaded}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False\nset()\n"


def columns_of(line: str) -> int:
    """Cells of a row of Markdown: what stands between bars that nothing escapes."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1


def test_labels_break_no_row_of_any_form(results: Path) -> None:
    factor_arguments = ["--factors", json.dumps([hostile().model_dump(mode="json")])]
    run(factors, results, *factor_arguments)
    run(claims, results, *factor_arguments)
    run(ablations, results, *factor_arguments)
    run(claims_page, results)
    computed = FactorStatistics.read(results / "statistics" / "ablations", "x")
    assert computed.values["value"].tolist() == LABELS
    folder = results / "ablations"
    for name in ("x.md", "claims.md"):
        text = (folder / name).read_text(encoding="utf-8")
        blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
        assert [len(block) for block in blocks] == ([8, 7] if name == "x.md" else [3])
        for block in blocks:
            assert len({columns_of(line) for line in block}) == 1 and all(line.endswith(" |") for line in block)
        assert "\x1b" not in text and "<b>" not in text.replace("\\<b\\>", "")
    # Behind the end of a row a bracket or a star would be an argument of it.
    tex = (folder / "x.tex").read_text(encoding="utf-8")
    rows = [line for line in tex.splitlines() if line.endswith((r"\\", r"\\[2pt]"))]
    assert len(rows) == 1 + 6 + 1 + 5 and not any(row.lstrip().startswith(("[", "*")) for row in rows)
    assert sum(row.startswith(("{}[2pt]", "{}*a")) for row in rows) == 3  # the base is in the first table alone
    assert "\x1b" not in tex and "\n\n" not in tex.strip().replace("\\end{table*}\n\n", "")
    for name in ("x.csv", "x.tests.csv", "claims.csv"):
        frame = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
        for text in frame.to_numpy().ravel():
            assert not text.startswith(("=", "@", "\t", "\r")), (name, text)
            assert not text.startswith(("+", "-")) or re.fullmatch(r"[-+\d.e ]+", text), (name, text)


def test_a_row_of_another_length_or_of_two_lines_is_no_row() -> None:
    assert markdown.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| :-- | --: |\n| 1 | 2 |"
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        markdown.table(["a", "b"], [["1"]])
    with pytest.raises(ValueError, match="has a break of the line"):
        markdown.table(["a"], [["1\n2"]])


def test_names_that_markdown_would_read_stay_as_they_are() -> None:
    frame = statistics_frame(method=["a|b", "x_y"])
    rows = forms.markdown(frame, ["a_b *and* <i>, p < 0.05"]).splitlines()
    assert rows[2].startswith(r"| a\|b |") and rows[3].startswith(r"| x\_y |")
    assert rows[-1] == r"a_b \*and\* \<i\>, p < 0.05"


def statistics_frame(method: list[str]) -> pd.DataFrame:
    """As small a frame as the forms take."""
    frame = pd.DataFrame({"dataset": "d", "method": method})
    for metric in ("Hit@5", "NDCG@5", "Hit@10", "NDCG@10", "Hit@20", "NDCG@20"):
        for end in ("", "_sd", "_low", "_high", "_p_holm"):
            frame[metric + end] = 0.5
    assert len(cells(frame)) == len(method)
    return frame
