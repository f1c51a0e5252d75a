"""Tables of four methods on two small datasets, made by the two commands that make them."""

import sys
from pathlib import Path

import pytest

from benchmark.output import tables
from benchmark.statistics import datasets as statistics

SKILL = {"popularity": 0.0, "item_knn": 0.3, "sasrec": 0.8, "r2ec": 0.85}
METHODS = list(SKILL)
TWO_SEEDS = dict.fromkeys(METHODS, 2)


def run_tables(monkeypatch: pytest.MonkeyPatch, results: Path, *more: str) -> None:
    shown = ["x", "--results", str(results), "--datasets", "small", "other"]
    monkeypatch.setattr(sys, "argv", [*shown, "--methods", *METHODS, "--seeds", "2"])
    statistics.main()
    monkeypatch.setattr(sys, "argv", [*shown, *more])
    tables.main()
