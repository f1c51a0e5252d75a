"""`python -m benchmark.readme`: put the tables of the last full run at the top of README.md.

NDCG@10 of every method on every dataset can be read at a glance; behind a fold stands results/tables/main.md, which has all
metrics and says how they were computed and tested.
"""

import argparse
from pathlib import Path

import pandas as pd

from benchmark.errors import InputError, command
from benchmark.io import write_text
from benchmark.metrics import METRICS
from benchmark.significance import ALPHA
from benchmark.tables import DAGGER, cells, plain_markdown

BEGIN, END = "<!-- table of the last full run: make readme -->", "<!-- end of the table -->"
METRIC = "NDCG@10"


def summary(frame: pd.DataFrame) -> str:
    """METRIC with its interval, a row per method and a column per dataset.

    frame: results/tables/main.csv. Marked as in the whole table: the best bold, a dagger behind what differs from the best
    baseline after the correction.
    """
    found = {}
    for dataset, method, row in zip(frame.dataset, frame.method, cells(frame), strict=True):
        cell = row[METRICS.index(METRIC)]
        mean = f"**{cell.mean}**" if cell.place == 1 else cell.mean
        found[method, dataset] = f"{mean}{DAGGER if cell.dagger else ''} <sub>[{cell.low}, {cell.high}]</sub>"
    datasets = frame.dataset.unique().tolist()
    lines = [["method", *map(plain_markdown, datasets)], [":--", *["--:"] * len(datasets)]]
    for method in frame.method.unique():
        lines.append([plain_markdown(method), *(found.get((method, dataset), "") for dataset in datasets)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    caption = (
        f"{METRIC} of the full catalogue's ranking, mean over seeds, with the 95 % interval of a bootstrap over users. Best bold; "
        f"{DAGGER} differs from the dataset's best baseline, in either direction, p < {ALPHA} after Holm's correction."
    )
    return f"{table}\n\n{caption}"


def folded(title: str, text: str) -> str:
    """Markdown behind a fold."""
    return f"<details><summary>{title}</summary>\n\n{text.strip()}\n\n</details>"


def with_tables(readme: str, tables: str, where: str) -> str:
    """The README's text with `tables` between its two marks. Raises InputError where they are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{where}: the lines {BEGIN!r} and {END!r} are missing; put them where the tables shall stand")
    return f"{before}{BEGIN}\n{tables.strip()}\n{END}{behind}"


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument(
        "--tables", type=Path, default=Path("results/published/default/tables"), help="folder of main.csv and main.md"
    )
    given = parser.parse_args()
    for name in ("main.csv", "main.md"):
        if not (given.tables / name).is_file():
            raise InputError(f"{given.tables / name}: missing; run `make reproduce` first")
    whole = (given.tables / "main.md").read_text(encoding="utf-8")
    tables = (
        f"{summary(pd.read_csv(given.tables / 'main.csv'))}\n\n{folded('All metrics, and how they were tested', whole)}"
    )
    write_text(given.readme, with_tables(given.readme.read_text(encoding="utf-8"), tables, str(given.readme)))


if __name__ == "__main__":
    main()
