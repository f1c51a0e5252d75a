"""Arguments that the command lines of tables, plots, claims and the page share.

But for the page's, they read statistics of runs and no runs.
"""

import argparse
import json
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
    """Read the command line of an output about methods; `statistics` is the folder of their statistics.

    out: the folder under --results that is written by default. parts: whether there is --only, which chooses tables.
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
    args = _with_out(parser, out, argv)
    check_datasets(args.datasets)
    return args


def page_arguments(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line of the page, which needs the runs' cases and texts besides all statistics."""
    note_argument(parser)
    add_factors(parser, required=False)
    parser.add_argument("--reference", help="the row that is held against each of the others (default: none)")
    add_thinking(parser, required=False)
    return runs_arguments(parser, argv, out="report")


def add_thinking(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add --thinking to a command line; without it, where it isn't required, nothing is shown of that."""
    help = "what each method thinks before it recommends, as JSON"
    parser.add_argument("--thinking", type=json.loads, required=required, default={}, help=help)


def ablations_arguments(
    parser: argparse.ArgumentParser, out: str = "", argv: list[str] | None = None, factors: bool = True
) -> argparse.Namespace:
    """Read the command line of an output about ablations, which has a folder of their name in --out.

    out: the folder under --results that is written by default. factors: whether there is --factors.
    """
    results_argument(parser)
    (add_factors if factors else ablations_argument)(parser)
    args = _with_out(parser, out, argv)
    args.out, args.statistics = args.out / args.ablations, args.statistics / args.ablations
    return args


def note_argument(parser: argparse.ArgumentParser) -> None:
    """Add --note, a line for the reader of the results, to a command line."""
    parser.add_argument(
        "--note", default="", help="a line to print with them: what a reader has to know of these results"
    )


def _with_out(parser: argparse.ArgumentParser, out: str, argv: list[str] | None) -> argparse.Namespace:
    place = f"{out} in --results" if out else "--results"
    parser.add_argument("--out", type=Path, help=f"folder to write to (default: {place})")
    args = parser.parse_args(argv)
    args.out, args.statistics = args.out or args.results / out, args.results / STATISTICS
    return args
