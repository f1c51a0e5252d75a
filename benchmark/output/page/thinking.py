"""The page's part on what each method computes before it recommends: quality beside seconds and tokens per case."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from benchmark.config.methods import THINKING
from benchmark.output.costs import on_seconds_of
from benchmark.output.page.pairs import EVERY, digits
from benchmark.statistics.files import DatasetStatistics
from benchmark.statistics.thinking import NOTE, left_out, thinking

VALUES = ("mean", "low", "high")
COSTS = ("seconds_alone", "seconds_batched", "tokens")  # per case


def part_of(
    datasets: Sequence[DatasetStatistics],
    overall: pd.DataFrame | None,
    declared: Mapping[str, str],
    numbers: Mapping[str, int],
) -> dict[str, Any] | None:
    """The rows of `benchmark.statistics.thinking.thinking` of each dataset, and behind them those over all.

    None where `declared`, what each method thinks, is empty. overall: the frame of overall_methods.csv, None without
    one. numbers: of the methods on the whole page. Raises InputError as `thinking` does.
    """
    if not declared:
        return None
    frames = {part.methods.dataset.iloc[0]: thinking([part], None, dict(declared)) for part in datasets}
    if overall is not None:
        frames[EVERY] = thinking(datasets, overall, dict(declared))
    rows = {name: [_row(row, numbers) for row in frame.to_dict("records")] for name, frame in frames.items()}
    return {"kinds": list(THINKING), "rows": rows, "notes": [NOTE, *left_out(datasets), *on_seconds_of(datasets)]}


def _row(row: Mapping[Any, Any], numbers: Mapping[str, int]) -> dict[str, Any]:
    """One method: its number, the place of what it thinks in THINKING, NDCG@10 with its interval, costs per case."""
    of_method = {"method": numbers[row["method"]], "kind": THINKING.index(row["thinking"])}
    costs = {name: float(f"{row[name]:.6g}") for name in COSTS}  # rounded once more where shown
    return of_method | {name: digits(float(row[name])) for name in VALUES} | costs
