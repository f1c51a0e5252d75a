"""The tables of README.md and docs/results.md: by hand, between their marks, and the command."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmark.config.methods import ROOT
from benchmark.errors import InputError
from benchmark.metrics import METRICS
from benchmark.output.readme import BEGIN, END, summary, with_table

FRAME = pd.DataFrame(
    [
        ("one", "item_knn", 0.05, 0.01, 0.09, 0.2),
        ("one", "r2ec", 0.06, 0.02, 0.1, float("nan")),
        ("two", "item_knn", 0.03, 0.0, 0.06, float("nan")),
        ("two", "r2ec", 0.01, 0.0, 0.02, 0.049),
        ("two", "new", 0.02, 0.01, 0.03, 0.05),
    ],
    columns=["dataset", "method", "NDCG@10", "NDCG@10_low", "NDCG@10_high", "NDCG@10_p_holm"],
)
FRAME["NDCG@10_sd"] = 0.001
for metric in METRICS:  # of the other metrics nothing is shown
    if metric != "NDCG@10":
        FRAME[[metric, f"{metric}_sd", f"{metric}_low", f"{metric}_high", f"{metric}_p_holm"]] = 0.9


def test_the_summary_by_hand() -> None:
    table, caption = summary(FRAME).split("\n\n")
    assert table.splitlines() == [
        "| method | one | two |",
        "| :-- | --: | --: |",
        r"| item\_knn | 0.0500 <sub>[0.0100, 0.0900]</sub> | **0.0300** <sub>[0.0000, 0.0600]</sub> |",
        "| r2ec | **0.0600** <sub>[0.0200, 0.1000]</sub> | 0.0100† <sub>[0.0000, 0.0200]</sub> |",
        "| new |  | 0.0200 <sub>[0.0100, 0.0300]</sub> |",
    ]
    assert "† differs from the dataset's best baseline" in caption


def test_a_table_stands_between_its_marks() -> None:
    text = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert with_table(text, "new\n", "README.md") == f"above\n{BEGIN}\nnew\n{END}\nbelow\n"
    with pytest.raises(InputError, match=r"^README\.md: the lines .* are missing; put them where"):
        with_table("above", "new", "README.md")


def test_the_command_changes_both_pages_or_none(tmp_path: Path) -> None:
    readme, page = tmp_path / "README.md", tmp_path / "results.md"
    readme.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    page.write_text("no marks\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "benchmark.output.readme",
        "--readme",
        readme,
        "--page",
        page,
        "--tables",
        tmp_path,
    ]
    failed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 2 and "main.csv: missing; run `make publish NAME=default` first" in failed.stderr
    FRAME.to_csv(tmp_path / "main.csv", index=False)
    (tmp_path / "main.md").write_text("| all |\n", encoding="utf-8")
    failed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 2 and "results.md: the lines" in failed.stderr
    assert readme.read_text(encoding="utf-8") == f"{BEGIN}\n{END}\n"  # neither or both
    page.write_text(f"above\n{BEGIN}\n{END}\n", encoding="utf-8")
    subprocess.run(command, cwd=ROOT, check=True)
    assert readme.read_text(encoding="utf-8") == f"{BEGIN}\n{summary(FRAME)}\n{END}\n"
    assert page.read_text(encoding="utf-8") == f"above\n{BEGIN}\n| all |\n{END}\n"


def test_the_committed_pages_have_the_published_tables(tmp_path: Path) -> None:
    """The pages have what `make readme` would write, and no table of an older run."""
    pages = {name: tmp_path / Path(name).name for name in ("README.md", "docs/results.md")}
    for name, copy in pages.items():
        copy.write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "benchmark.output.readme",
        "--readme",
        pages["README.md"],
        "--page",
        pages["docs/results.md"],
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    for name, copy in pages.items():
        assert copy.read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8"), (
            f"{name}: run `make readme`"
        )
