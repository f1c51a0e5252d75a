"""Make tables and significance tests of finished runs: `python -m benchmark.output.tables`.

    python -m benchmark.output.tables --datasets ml-100k --methods popularity sasrec r2ec --seeds 3

The folder gets, per dataset and as `main` for all of them, a table as .csv, .md and .tex (`main` as .txt too), and
{dataset}.tests.csv with each pair of methods, and `costs` as .csv and .md. Nothing is written unless every dataset passes the
checks of `benchmark.analysis.collect`: all runs are there, on the same data and cases, with numbers that can be.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from benchmark.analysis import costs
from benchmark.analysis.check_table import Row, impossible
from benchmark.analysis.collect import Collected, arguments, collect_all
from benchmark.analysis.comparisons import compare
from benchmark.errors import InputError, command, command_line
from benchmark.metrics import METRICS
from benchmark.output.captions import notes
from benchmark.output.forms import FailedRow, csv, latex, markdown, show
from benchmark.output.summary import summarise
from benchmark.storage.io import write_text


def check_printed(frame: pd.DataFrame) -> None:
    """Refuse a table with numbers that no ranking has, by the check of others' tables (benchmark.analysis.check_table)."""
    half = dict.fromkeys(METRICS, 0.5e-6)
    for line in frame.to_dict("records"):
        values = {metric: line[metric] for metric in METRICS}
        row = Row(f"{line['dataset']}, {line['method']}", values, half, line["n_cases"] * line["seeds"])
        if why := impossible(row):
            raise InputError(f"{row.name}: {why}; evaluate this method's runs again")


def _in_every_form(name: str, frame: pd.DataFrame, failed: Sequence[FailedRow], note: str) -> dict[str, str]:
    """Files by name; `note` stands first in the captions."""
    caption = [note, *notes(frame)] if note else notes(frame)
    return {
        f"{name}.csv": with_failed(csv(frame), failed),
        f"{name}.md": markdown(frame, caption, failed=failed),
        f"{name}.tex": latex(frame, caption, failed=failed),
    }


def failed_rows(results: Collected) -> list[FailedRow]:
    """The methods of one dataset that have no result."""
    return [
        FailedRow(results.dataset, method, f"{one.failed} (log: {one.log})") for method, one in results.failed.items()
    ]


def with_failed(text: str, failed: Sequence[FailedRow]) -> str:
    """A table's csv with the rows that failed behind all others: a dataset, a name, and why in a column of its own, `failed`."""
    if not failed:
        return text
    whole = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False).assign(failed="")
    rows = [{"dataset": one.dataset, "method": one.method, "failed": one.why} for one in failed]
    both = pd.concat([whole, pd.DataFrame(rows)], ignore_index=True)
    made: str = both.to_csv(index=False, lineterminator="\n")
    return made


def tables_of(results: Collected, note: str) -> dict[str, str]:
    """The files of one dataset, by name."""
    tests = compare(results)
    frame = summarise(results, tests)
    check_printed(frame)
    return _in_every_form(results.dataset, frame, failed_rows(results), note) | {
        f"{results.dataset}.tests.csv": csv(tests)
    }


def tables_of_all(
    parts: Sequence[pd.DataFrame], spent: Sequence[pd.DataFrame], failed: Sequence[FailedRow], note: str
) -> dict[str, str]:
    """The files of all datasets together, by name. parts: each dataset's csv. spent: each dataset's costs."""
    everything, cost = pd.concat(parts, ignore_index=True), pd.concat(spent, ignore_index=True)
    plain = io.StringIO()  # what `make reproduce` ends with; of one width, so that it is the same everywhere
    show(everything, Console(file=plain, width=110), note, failed)
    more = {"costs.csv": csv(cost), "costs.md": costs.markdown(cost), "main.txt": plain.getvalue()}
    return _in_every_form("main", everything, failed, note) | more


def read_csv(path: Path) -> pd.DataFrame:
    """A dataset's table as `summarise` made it, without rows that failed. Raises InputError without it."""
    if not path.exists():
        raise InputError(
            f"{path}: missing; run `python -m benchmark.output.tables` with the same arguments and --only datasets"
        )
    text = ("dataset", "method", "best_baseline", "commit", "less_information")
    whole = pd.read_csv(path, keep_default_na=False, dtype=str)
    if "failed" in whole.columns:
        whole = whole[whole.failed == ""].drop(columns="failed")
    done = io.StringIO(whole.to_csv(index=False))
    frame = pd.read_csv(done, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(text, str))
    return frame.fillna({"best_baseline": "", "commit": "", "less_information": ""})


@command
def main() -> None:
    given = arguments(command_line("benchmark.output.tables", __doc__), out="tables", parts=True)
    collected = collect_all(given)
    for results in collected if given.only != "main" else ():
        for name, text in tables_of(results, given.note).items():
            write_text(given.out / name, text)
    if given.only != "datasets":
        parts = [read_csv(given.out / f"{dataset}.csv") for dataset in given.datasets]
        spent = [costs.costs(results) for results in collected]
        failed = [row for results in collected for row in failed_rows(results)]
        for name, text in tables_of_all(parts, spent, failed, given.note).items():
            write_text(given.out / name, text)
        print((given.out / "main.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
