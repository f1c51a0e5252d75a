"""Say what a run would read, keep and drop of your data, and why, before anything runs.

Nothing is written, but downloads of other sources are kept in --resources.

FOLDER holds interactions.csv (user_id, item_id, timestamp, optional rating) and items.csv (item_id, title, any further
columns), or both as .parquet. Settings of the dataset are given as options, or read from a config.

    r2ec-bench check-data my-shop
    r2ec-bench check-data my-shop --min-user-count 3 --start 2023-01-01 --option timestamp_unit=ms
    r2ec-bench check-data --config my-config.yaml --dataset shop

The exit code is 0 where the data can be used, and 2 where not; then a sentence says why.
"""

import argparse
import datetime
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmark.config.read import composed, read_yaml
from benchmark.config.wording import among, many, printable
from benchmark.data.account import Account, Dropped, percent, share
from benchmark.data.prepare import beside, check_parts
from benchmark.data.protocol import prepare
from benchmark.data.settings import DatasetConfig, source_of
from benchmark.datasets import Raw
from benchmark.errors import InputError, checked, command

APART = ("source", "options")  # settings of a dataset that have an option of their own
WIDE = 10  # characters before the text of a line


@dataclass
class Checked:
    """One dataset as far as it could be read. problem: a sentence why it can't be used; None: it can."""

    name: str
    settings: DatasetConfig
    files: list[Path] = field(default_factory=list)
    raw: Raw | None = None
    account: Account = field(default_factory=Account)
    problem: str | None = None


def check(name: str, settings: DatasetConfig, resources: Path) -> Checked:
    """Read a dataset and prepare it in memory, by the very code that a run prepares it with."""
    dataset = Checked(name, settings)
    try:
        source, options = source_of(settings, name)
        dataset.files = source.fetch(options, resources)
        dataset.raw = source.load(options, dataset.files, settings.limits)
        check_parts(prepare(dataset.raw, settings, name, dataset.account), name)
    except InputError as error:
        dataset.problem = str(error)
    return dataset


# The report


def report(dataset: Checked) -> list[str]:
    """The report on a dataset, line by line, without its problem."""
    lines = [f"{dataset.name}: what a run would read, keep and drop"]
    if dataset.raw is not None:
        lines += _block("Read", _read(dataset))
        lines += _block("Dropped", _dropped(dataset.account, dataset.raw) or ["nothing"])
        lines += _block("Kept", _kept(dataset.account.counts))
        if dataset.raw.expected and dataset.problem is None:
            lines += beside(dataset.raw.expected, dataset.account.counts, dataset.settings)[1].splitlines()
    lines += _block("Warning", dataset.account.warnings)
    return lines


def _block(title: str, sentences: list[str]) -> list[str]:
    return [f"{title if not number else '':{WIDE}}{line}" for number, line in enumerate(sentences)]


def _read(dataset: Checked) -> list[str]:
    assert dataset.raw is not None
    log, items = dataset.raw.interactions, dataset.raw.items
    lines = [", ".join(map(str, dataset.files))] if dataset.files else []
    lines.append(
        f"{many(len(log), 'interaction')} of {many(log['user_id'].nunique(), 'user')}, {many(len(items), 'item')}"
    )
    if len(log):
        first, last = (_moment(value) for value in (log["timestamp"].min(), log["timestamp"].max()))
        rated = int(log["rating"].notna().sum())
        lines.append(f"from {first} to {last} UTC, {f'{rated:,} with a rating' if rated else 'no ratings'}")
    if untitled := dataset.account.counts.get("items_without_title"):
        lines.append(f"{many(untitled, 'item')} without a title")
    if dataset.raw.about:
        lines.append(f"the source itself: {', '.join(f'{key} {value}' for key, value in dataset.raw.about.items())}")
    return lines


def _dropped(account: Account, raw: Raw) -> list[str]:
    return [line for reason, dropped in account.dropped.items() for line in _one_rule(reason, dropped, raw)]


def _one_rule(reason: str, dropped: Dropped, raw: Raw) -> list[str]:
    row = raw.interactions.iloc[dropped.first]
    first = f"row {dropped.first + 1}: user {row['user_id']!r}, item {row['item_id']!r}, {_moment(row['timestamp'])}"
    note = f"; {dropped.note}" if dropped.note else ""
    rows = f"{many(dropped.rows, 'interaction')} ({percent(dropped.rows, len(raw.interactions))})"
    return [f"{rows}: {reason}", f"    first {first}{note}"]


def _moment(seconds: int) -> str:
    """A time in Unix seconds, for a reader; also of years that pandas has no timestamp for."""
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(seconds))
    return moment.isoformat(sep=" ")


def _kept(counts: dict[str, int]) -> list[str]:
    """The counts of dataset.json in words, as far as they were reached."""
    lines = []
    if "users" in counts:
        users, items = many(counts["users"], "user"), many(counts["items"], "item")
        lines.append(f"{many(counts['interactions'], 'interaction')} of {users} with {items}")
        if unused := counts["items_read"] - counts["items_without_title"] - counts["items"]:
            lines.append(f"    outside the ranked catalogue, as no kept interaction is of them: {many(unused, 'item')}")
    if "cases" not in counts:
        return lines
    without, shared = counts["interactions"] - counts["cases"], counts["interactions_in_a_shared_second"]
    lines.append(f"{many(counts['cases'], 'case')}, each a history and the item that follows it")
    lines.append(f"    no case, as nothing lies before it: {many(without, 'interaction')}, which histories still hold")
    if counts["users_without_case"]:
        lines.append(
            f"    no case at all, as all that they took is of one second: {many(counts['users_without_case'], 'user')}"
        )
    if shared:
        lines.append(f"    share user and second with another one: {many(shared, 'interaction')}")
    if lost := counts["interactions_hidden"]:
        of_all = share(lost, counts["interactions"])
        lines.append(f"    so same_time: exclude hides them from the cases of their own second: {of_all}")
    return lines + [f"    {_part(part, counts)}" for part in ("train", "valid", "test")]


def _part(part: str, counts: dict[str, int]) -> str:
    """A line on one part of the split: its cases, and its targets that occur in no training case."""
    used, available = counts[part], counts[f"cases_{part}"]
    users = f" of {many(counts['test_users'], 'user')}" if part == "test" else ""
    sentence = f"{part:6}{many(used, 'case')}{users}" + (f", a sample of {available:,}" if used < available else "")
    if part == "train":
        return sentence
    cold = counts[f"cold_targets_{part}"]
    return f"{sentence}; {many(cold, 'target')} ({percent(cold, used)}) never seen in training"


def entry(settings: DatasetConfig) -> dict[str, Any]:
    """The dataset's entry for a config: what differs from the defaults."""
    return settings.model_dump(mode="json", exclude_defaults=True)


# The command


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shape(annotation: Any) -> str:
    """What to write for a setting of this type.

    >>> _shape(int | None), _shape(Literal["s", "ms"]), _shape(datetime.date | None), _shape(bool), _shape(float)
    ('N', 's|ms', 'YYYY-MM-DD', 'true|false', 'NUMBER')
    """
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(member for member in typing.get_args(annotation) if member is not type(None))
    if typing.get_origin(annotation) is Literal:
        return "|".join(typing.get_args(annotation))
    shapes = {int: "N", float: "NUMBER", bool: "true|false", datetime.date: "YYYY-MM-DD"}
    return shapes.get(annotation, "TEXT")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line. A setting of the dataset is its text, None where it isn't given."""
    parser = argparse.ArgumentParser(
        prog="r2ec-bench check-data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="the folder with the two files")
    parser.add_argument("--config", type=Path, metavar="FILE", help="take the datasets of this config")
    parser.add_argument("--dataset", metavar="NAME", help="with --config: this one alone")
    parser.add_argument(
        "--source", metavar="NAME", help="where the data comes from (default: files, which reads FOLDER)"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the source, such as timestamp_unit=ms",
    )
    parser.add_argument(
        "--resources",
        type=Path,
        default=Path("resources"),
        metavar="FOLDER",
        help="where downloads of other sources are kept (default: resources)",
    )
    group = parser.add_argument_group("settings of the dataset, as in a config")
    for name, about in DatasetConfig.model_fields.items():
        if name not in APART:
            shape, help_text = _shape(about.annotation), about.description or ""
            if name == "category":
                help_text = f"{help_text}; nothing here depends on it"
            elif (default := about.get_default()) is not None:
                help_text = f"{help_text} (default: {str(default).lower()})"
            group.add_argument(_option(name), dest=f"set_{name}", metavar=shape, help=help_text.replace("%", "%%"))
    return parser.parse_args(argv)


def changes_of(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the dataset that the command line gives, and those of its source. Raises InputError."""
    named = {name: getattr(args, f"set_{name}") for name in DatasetConfig.model_fields if name not in APART}
    settings = {name: _value(_option(name), text) for name, text in named.items() if text is not None}
    if args.source is not None:
        settings["source"] = args.source
    options: dict[str, Any] = {} if args.folder is None else {"folder": str(args.folder)}
    for text in args.option:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--option {text}: expected KEY=VALUE, such as timestamp_unit=ms")
        options[key] = _value(f"--option {key}", value)
    return settings, options


def _value(option: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise InputError(f"{option}: {text!r} can't be read; put it in quotes") from None
    except ValueError as error:  # a day that no calendar has
        raise InputError(f"{option}: {text!r} can't be read: {error}") from None


def entries(args: argparse.Namespace) -> dict[str, DatasetConfig]:
    """The datasets to check by name, with what the command line changes. Raises InputError."""
    settings, options = changes_of(args)
    if args.config is None:
        if args.folder is None and args.source in (None, "files"):
            raise InputError("no data is named; give FOLDER with interactions.csv and items.csv, or --config FILE")
        name = args.dataset or (args.folder.resolve().name if args.folder else args.source)
        datasets: Any = {name: {"source": "files", "category": "item"}}
        place = "check-data"
    else:
        datasets = read_yaml(args.config).get("datasets")
        place = f"{args.config}: datasets"
        if not isinstance(datasets, dict) or not datasets:
            raise InputError(f"{args.config}: names no datasets; see config/README.md")
        datasets = composed({"datasets": datasets}, str(args.config))["datasets"]
        if args.dataset is not None:
            if args.dataset not in datasets:
                raise InputError(f"{place}: no dataset {args.dataset!r}{among(args.dataset, datasets)}")
            datasets = {args.dataset: datasets[args.dataset]}
    read = {}
    for name, value in datasets.items():
        whole = value
        if isinstance(value, dict):
            of_source = value.get("options") or {}
            whole = value | settings | ({"options": of_source | options} if options else {})
        read[str(name)] = checked(DatasetConfig, whole, place if args.config is None else f"{place}.{name}")
    return read


@command
def main() -> None:
    args = parse()
    datasets, problems = entries(args), []
    for name, settings in datasets.items():
        dataset = check(name, settings, args.resources)
        print(printable("\n".join(report(dataset))))
        if dataset.problem is None:
            print(f"\n{name} can be used. Its entry in a config:\n")
            print(yaml.safe_dump({name: entry(settings)}, sort_keys=False, default_flow_style=False))
        else:
            problems.append(dataset.problem)
            if len(datasets) > 1:
                print(printable(f"{'Problem':{WIDE}}{dataset.problem}\n"))
    if problems:
        raise InputError(
            problems[0] if len(datasets) == 1 else f"{len(problems)} of {len(datasets)} datasets can't be used"
        )


if __name__ == "__main__":
    main()
