"""The numbers that the paper prints, for rows and datasets that are the paper's."""

import csv
from functools import cache
from importlib.resources import files
from typing import Any

from benchmark.analysis.collect import Collected
from benchmark.metrics import METRICS


@cache
def printed() -> dict[tuple[str, str], list[float | None]]:
    """Tables 1 and 2 of arXiv 2505.16994, by category of the data and row of config/paper.yaml, in the order of
    METRICS.
    """
    text = files("benchmark.output.page").joinpath("paper.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {
        (row["category"], row["row"]): [float(row[metric]) if row[metric] else None for metric in METRICS]
        for row in rows
    }


def category_of(results: Collected) -> str | None:
    """The category of a dataset of Amazon 2023 that is prepared as by the released code; None for any other data."""
    settings: dict[str, Any] = results.about["settings"]
    options = settings.get("options") or {}
    if settings.get("source") != "amazon_2023" or options.get("preset") != "released":
        return None
    return options.get("category")


def of_row(results: Collected, method: str) -> list[float | None] | None:
    """What the paper prints for a row on this dataset, in the order of METRICS; None where it has none."""
    category = category_of(results)
    return None if category is None else printed().get((category, method))
