"""Make tables of finished runs from their statistics: `python -m benchmark.output.tables`.

    python -m benchmark.output.tables --datasets ml-100k

The folder gets, per dataset and as `main` for all of them, a table as .csv, .md and .tex (`main` as .txt too), and
{dataset}.tests.csv with each pair of methods, and `costs` as .csv and .md. `python -m benchmark.statistics.datasets` comes first.
"""

import io
from collections.abc import Sequence

import pandas as pd
from rich.console import Console

from benchmark.errors import command, command_line
from benchmark.output.arguments import methods_arguments
from benchmark.output.captions import notes
from benchmark.output.costs import markdown as costs_markdown
from benchmark.output.forms import csv, latex, markdown, show
from benchmark.statistics.files import DatasetStatistics
from benchmark.storage.io import write_text


def _in_every_form(name: str, frame: pd.DataFrame, note: str) -> dict[str, str]:
    """Files by name; `note` stands first in the captions."""
    caption = [note, *notes(frame)] if note else notes(frame)
    return {f"{name}.csv": csv(frame), f"{name}.md": markdown(frame, caption), f"{name}.tex": latex(frame, caption)}


def tables_of(methods: pd.DataFrame, tests: pd.DataFrame, note: str) -> dict[str, str]:
    """The files of one dataset, by name; methods and tests as in its statistics."""
    dataset = methods.dataset.iloc[0]
    return _in_every_form(dataset, methods, note) | {f"{dataset}.tests.csv": csv(tests)}


def tables_of_all(parts: Sequence[pd.DataFrame], spent: Sequence[pd.DataFrame], note: str) -> dict[str, str]:
    """The files of all datasets together, by name. parts: each dataset's methods. spent: each dataset's costs."""
    everything, cost = pd.concat(parts, ignore_index=True), pd.concat(spent, ignore_index=True)
    plain = io.StringIO()  # what `make reproduce` ends with; of one width, so that it is the same everywhere
    show(everything, Console(file=plain, width=110), note)
    more = {"costs.csv": csv(cost), "costs.md": costs_markdown(cost), "main.txt": plain.getvalue()}
    return _in_every_form("main", everything, note) | more


@command
def main() -> None:
    given = methods_arguments(command_line("benchmark.output.tables", __doc__), out="tables", parts=True)
    found = [DatasetStatistics.read(given.statistics, dataset) for dataset in given.datasets]
    files: dict[str, str] = {}
    for one in found if given.only != "main" else ():
        files |= tables_of(one.methods, one.tests, given.note)
    if given.only != "datasets":
        files |= tables_of_all([one.methods for one in found], [one.costs for one in found], given.note)
        print(files["main.txt"])
    for name, text in files.items():
        write_text(given.out / name, text)


if __name__ == "__main__":
    main()
