"""What the command lines of tables, plots and claims share, read: none of them reads runs, only statistics of them."""

import argparse
from pathlib import Path

from benchmark.analysis.arguments import (
    STATISTICS,
    ablations_argument,
    add_factors,
    check_datasets,
    datasets_argument,
    results_argument,
    runs_arguments,
)


def methods_arguments(
    parser: argparse.ArgumentParser, out: str, argv: list[str] | None = None, parts: bool = False
) -> argparse.Namespace:
    """For what is shown of methods; `out` is the folder under --results written by default, `statistics` that of their
    statistics.

    parts: whether it takes --only, which tables are made.
    """
    results_argument(parser)
    datasets_argument(parser)
    note_argument(parser)
    if parts:
        parser.add_argument(
            "--only",
            choices=["datasets", "main"],
            help="make the datasets' own tables alone, or `main` and `costs` alone (default: all)",
        )
    given = _with_out(parser, out, argv)
    check_datasets(given.datasets)
    return given


def page_arguments(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """For the page, which reads the runs' cases and texts besides statistics of methods and ablations."""
    note_argument(parser)
    add_factors(parser, required=False)
    parser.add_argument("--reference", help="the row that is held against each of the others (default: none)")
    return runs_arguments(parser, argv, out="report")


def ablations_arguments(
    parser: argparse.ArgumentParser, out: str = "", argv: list[str] | None = None, factors: bool = True
) -> argparse.Namespace:
    """For what is shown of ablations: it is written to a folder of their name in --out, or in `out` under --results.

    factors: whether it takes --factors.
    """
    results_argument(parser)
    (add_factors if factors else ablations_argument)(parser)
    given = _with_out(parser, out, argv)
    given.out, given.statistics = given.out / given.ablations, given.statistics / given.ablations
    return given


def note_argument(parser: argparse.ArgumentParser) -> None:
    """--note."""
    parser.add_argument(
        "--note", default="", help="a line to print with them: what a reader has to know of these results"
    )


def _with_out(parser: argparse.ArgumentParser, out: str, argv: list[str] | None) -> argparse.Namespace:
    place = f"{out} in --results" if out else "--results"
    parser.add_argument("--out", type=Path, help=f"folder to write to (default: {place})")
    given = parser.parse_args(argv)
    given.out, given.statistics = given.out or given.results / out, given.results / STATISTICS
    return given
