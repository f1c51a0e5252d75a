"""The tables at the top of the README: by hand, between their marks, and the command."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmark.errors import InputError
from benchmark.methods import ROOT
from benchmark.metrics import METRICS
from benchmark.readme import BEGIN, END, folded, summary, with_tables

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


def test_tables_stand_between_their_marks() -> None:
    text = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert with_tables(text, "new\n", "README.md") == f"above\n{BEGIN}\nnew\n{END}\nbelow\n"
    with pytest.raises(InputError, match=r"^README\.md: the lines .* are missing; put them where"):
        with_tables("above", "new", "README.md")


def test_the_command(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    command = [sys.executable, "-m", "benchmark.readme", "--readme", str(readme), "--tables", str(tmp_path)]
    failed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 2 and "main.csv: missing; run `make reproduce` first" in failed.stderr
    FRAME.to_csv(tmp_path / "main.csv", index=False)
    (tmp_path / "main.md").write_text("| all |\n", encoding="utf-8")
    subprocess.run(command, cwd=ROOT, check=True)
    expected = f"{BEGIN}\n{summary(FRAME)}\n\n{folded('All metrics, and how they were tested', '| all |')}\n{END}\n"
    assert readme.read_text(encoding="utf-8") == expected
