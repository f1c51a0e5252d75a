"""What the command lines of the statistics share: which runs there are, and which of them belong together."""

import argparse
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from benchmark.config.factors import read_factors
from benchmark.config.sections import TABLES_OF_ALL
from benchmark.config.wording import among
from benchmark.errors import InputError, checked

Settings = dict[str, list[dict[str, Any]]]  # by method, as a config has them: without the defaults

STATISTICS = "statistics"  # folder in that of the results
REGISTERED = "registered.csv"
HEADROOM_FILES = ("headroom.json", "gradients.json")  # of a dataset, in headroom/ANY NAME


def registered_files(results: Path, ablations: str) -> list[Path]:
    """The files in which the page looks for registered claims, where `make claims` leaves them.

    The first that exists counts: as part of this run or beside it. ablations: name of the ablations' folders.
    """
    places = [results / ablations / REGISTERED, results / "claims" / "results" / "claims" / REGISTERED]
    return [path for path in places if path.exists()][:1]


def headroom_files(results: Path) -> list[Path]:
    """The measures of what choosing among reasonings could gain, which the page shows where they are."""
    return sorted(path for name in HEADROOM_FILES for path in results.glob(f"headroom/*/{name}"))


def results_argument(parser: argparse.ArgumentParser) -> None:
    """Add --results, the folder with data/ and runs/, to a command line."""
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder with data/ and runs/ (default: results)"
    )


def datasets_argument(parser: argparse.ArgumentParser) -> None:
    """Add --datasets, the names of the datasets, to a command line."""
    parser.add_argument(
        "--datasets", nargs="+", required=True, help="names of the datasets, in the order of the tables"
    )


def check_datasets(datasets: list[str]) -> None:
    """Raise InputError for a dataset that is given twice, or whose name is that of a table of all."""
    _each_once("--datasets", datasets)
    for reserved in TABLES_OF_ALL:
        if reserved in datasets:
            raise InputError(f"--datasets: '{reserved}' is the name of the table of all datasets; rename this dataset")


def runs_arguments(
    parser: argparse.ArgumentParser, argv: list[str] | None = None, out: str = STATISTICS
) -> argparse.Namespace:
    """The runs of methods that a command line names. `seeds` is the number of seeds by method, as `collect` takes it.

    `out` is the folder under --results written by default. A --reference that the parser knows has to be one of the
    methods. Raises InputError for names that are given twice, taken or unknown.
    """
    results_argument(parser)
    datasets_argument(parser)
    parser.add_argument("--methods", nargs="+", required=True, help="names of their rows, in the order of the tables")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        required=True,
        help="how many runs each method has: one number for all, or one for each in their order; seed1 to seedN are "
        "read",
    )
    parser.add_argument(
        "--settings",
        type=_settings,
        default="{}",
        help="refuse runs that were made with other settings: by method, a list of those that are right, as JSON "
        "(default: any)",
    )
    parser.add_argument(
        "--less-information",
        type=_reasons,
        default="{}",
        help="methods that may learn from less than the others, as JSON: by method, the reason (default: none may)",
    )
    args = _with_out(parser, argv, out)
    check_datasets(args.datasets)
    _each_once("--methods", args.methods)
    for name in args.less_information:
        if name not in args.methods:
            raise InputError(f"--less-information: no method {name!r}{among(name, args.methods)}")
    if "reference" in args and args.reference not in (None, *args.methods):
        raise InputError(f"--reference: no method {args.reference!r}{among(args.reference, args.methods)}")
    args.seeds = _by_method(args.methods, args.seeds)
    return args


def factors_arguments(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """The factors of ablations that a command line names, with their runs."""
    results_argument(parser)
    add_factors(parser)
    args = _with_out(parser, argv, STATISTICS)
    args.out = args.out / args.ablations
    return args


def add_factors(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add --factors and --ablations to a command line."""
    parser.add_argument(
        "--factors",
        type=read_factors,
        required=required,
        default="[]",
        help="factors of the ablations and their runs as JSON, as the workflow writes them",
    )
    ablations_argument(parser)


def ablations_argument(parser: argparse.ArgumentParser) -> None:
    """Add --ablations, the name of the ablations' folders, to a command line."""
    parser.add_argument("--ablations", default="ablations", help="name of their folders (default: ablations)")


def _with_out(parser: argparse.ArgumentParser, argv: list[str] | None, out: str) -> argparse.Namespace:
    parser.add_argument("--out", type=Path, help=f"folder to write to (default: {out} in --results)")
    args = parser.parse_args(argv)
    args.out = args.out or args.results / out
    return args


def _each_once(option: str, names: list[str]) -> None:
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{option}: {repeated[0]!r} is given twice; name each once")


class _Settings(BaseModel):
    settings: Settings


def _settings(text: str) -> Settings:
    try:
        return checked(_Settings, {"settings": json.loads(text)}, "--settings").settings
    except json.JSONDecodeError as error:
        raise InputError(f"--settings: not JSON ({error}); give what the workflow gives") from None


class _Reasons(BaseModel):
    less_information: dict[str, str]


def _reasons(text: str) -> dict[str, str]:
    try:
        return checked(_Reasons, {"less_information": json.loads(text)}, "--less-information").less_information
    except json.JSONDecodeError as error:
        raise InputError(f"--less-information: not JSON ({error}); give what the workflow gives") from None


def _by_method(methods: list[str], seeds: list[int]) -> dict[str, int]:
    """The numbers of --seeds by method; a single one is that of all."""
    if min(seeds) < 1:
        raise InputError(f"--seeds is {min(seeds)}; give the number of seeds that were run, at least 1")
    if len(seeds) not in (1, len(methods)):
        raise InputError(
            f"--seeds has {len(seeds)} numbers, but there are {len(methods)} methods; give one number for all of them, "
            "or one for each in their order"
        )
    return dict(zip(methods, seeds if len(seeds) > 1 else seeds * len(methods), strict=True))
