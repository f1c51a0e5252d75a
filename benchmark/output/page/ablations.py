"""The ablations' part of the page, from the files that their commands wrote."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.config.factors import Factor
from benchmark.errors import InputError
from benchmark.output.ablations import HEAD, as_rows, differences, note_of_differences, notes, read_table
from benchmark.output.claims import RULE, read_claims, sentences
from benchmark.output.page.images import plot_uri
from benchmark.output.summary import cells


def part_of(factor: Factor, folder: Path, plots: Path) -> dict[str, Any]:
    """Everything that the page shows of one factor."""
    frame = read_table(_made(folder / f"{factor.name}.csv", "benchmark.output.ablations"))
    tests = read_table(_made(folder / f"{factor.name}.tests.csv", "benchmark.output.ablations"))
    several = len(factor.datasets) > 1
    names = [
        f"{row.dataset}: {row.value}" if several else row.value for row in frame[["dataset", "value"]].itertuples()
    ]
    return {
        "title": factor.title,
        "anchor": "factor-" + "".join(c if c.isalnum() else "-" for c in factor.name),
        "rows": list(zip(names, cells(as_rows(frame)), strict=True)),
        "notes": notes(frame),
        "head": HEAD,
        "differences": differences(tests),
        "note_of_differences": note_of_differences(tests),
        "plot": plot_uri(plots / f"{factor.name}.png", "benchmark.output.ablation_plots"),
    }


def claims(factors: Sequence[Factor], folder: Path) -> dict[str, Any] | None:
    """The claims with their verdicts and sentences; None where no factor has any."""
    if not any(factor.claims for factor in factors):
        return None
    rows = read_claims(_made(folder / "claims.csv", "benchmark.output.claims")).to_dict("records")
    return {"rule": RULE, "rows": [row | {"sentences": sentences(row)} for row in rows]}


def _made(path: Path, command: str) -> Path:
    """The path of a file that this command writes. Raises InputError where it hasn't."""
    if not path.exists():
        raise InputError(f"{path}: missing; run `python -m {command}` with the same factors first")
    return path
