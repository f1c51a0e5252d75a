"""Make tables of finished runs from their statistics: `python -m benchmark.output.tables`.

    python -m benchmark.output.tables --datasets ml-100k

The folder gets, per dataset and as `main` for all of them, a table as .csv, .md and .tex (`main` as .txt too), and
{dataset}.tests.csv with each pair of methods, and `costs` as .csv and .md. `python -m benchmark.statistics.datasets`
comes first.
"""

import io
from collections.abc import Sequence

import pandas as pd
from rich.console import Console

from benchmark.errors import command, command_line
from benchmark.output.arguments import methods_arguments
from benchmark.output.captions import notes
from benchmark.output.costs import markdown as costs_markdown
from benchmark.output.forms import csv, csv_with_failed, failed_rows, latex, markdown, show
from benchmark.statistics.files import DatasetStatistics
from benchmark.storage.io import write_text


def _in_every_form(name: str, frame: pd.DataFrame, failed: pd.DataFrame, note: str) -> dict[str, str]:
    """The files of a table by name. note: stands first in the captions. failed: the frame of {dataset}.failed.csv."""
    caption, rows = [note, *notes(frame)] if note else notes(frame), failed_rows(failed)
    return {
        f"{name}.csv": csv_with_failed(frame, failed),
        f"{name}.md": markdown(frame, caption, failed=rows),
        f"{name}.tex": latex(frame, caption, failed=rows),
    }


def tables_of(statistics: DatasetStatistics, note: str) -> dict[str, str]:
    """The files of one dataset, by name."""
    dataset = statistics.methods.dataset.iloc[0]
    return _in_every_form(dataset, statistics.methods, statistics.failed, note) | {
        f"{dataset}.tests.csv": csv(statistics.tests)
    }


def tables_of_all(statistics: Sequence[DatasetStatistics], note: str) -> dict[str, str]:
    """The files of all datasets together, by name."""
    everything, cost, runs, failed = (
        pd.concat([getattr(dataset, part) for dataset in statistics], ignore_index=True)
        for part in ("methods", "costs", "runs", "failed")
    )
    plain = io.StringIO()  # for the last lines of `make reproduce`; of a fixed width, so that it is alike everywhere
    show(everything, Console(file=plain, width=110), note, failed_rows(failed))
    more = {"costs.csv": csv(cost), "costs.md": costs_markdown(cost, runs.hardware), "main.txt": plain.getvalue()}
    return _in_every_form("main", everything, failed, note) | more


@command
def main() -> None:
    args = methods_arguments(command_line("benchmark.output.tables", __doc__), out="tables", parts=True)
    statistics = [DatasetStatistics.read(args.statistics, dataset) for dataset in args.datasets]
    files: dict[str, str] = {}
    for part in statistics if args.only != "main" else ():
        files |= tables_of(part, args.note)
    if args.only != "datasets":
        files |= tables_of_all(statistics, args.note)
        print(files["main.txt"])
    for name, text in files.items():
        write_text(args.out / name, text)


if __name__ == "__main__":
    main()
