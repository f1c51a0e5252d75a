"""`python -m benchmark.readme`: put the tables of the last full run at the top of README.md.

NDCG@10 of every method on every dataset can be read at a glance; behind a fold stands results/tables/main.md, which has all
metrics and says how they were computed and tested.
"""

import argparse
from pathlib import Path

import pandas as pd

from benchmark.errors import InputError, command
from benchmark.io import write_text
from benchmark.tables import DAGGER, plain_markdown

BEGIN, END = "<!-- table of the last full run: make readme -->", "<!-- end of the table -->"
METRIC = "NDCG@10"


def summary(frame: pd.DataFrame) -> str:
    """METRIC with its interval, a row per method and a column per dataset.

    frame: results/tables/main.csv. Marked as in the whole table: the best bold, a dagger behind what differs from the best
    baseline after the correction.
    """
    datasets = frame.dataset.drop_duplicates().tolist()
    lines = [" | ".join(["", "method", *map(plain_markdown, datasets), ""]).strip()]
    lines.append(" | ".join(["", ":--", *["--:"] * len(datasets), ""]).strip())
    best = frame.groupby("dataset")[METRIC].max()
    for method, rows in frame.groupby("method", sort=False):
        cells = [plain_markdown(str(method))]
        found = rows.set_index("dataset")
        for dataset in datasets:
            if dataset not in found.index:
                cells.append("")
                continue
            row = found.loc[dataset]
            value = f"{row[METRIC]:.4f}"
            value = f"**{value}**" if row[METRIC] == best[dataset] else value
            dagger = DAGGER if row[f"{METRIC}_p_holm"] < 0.05 else ""
            cells.append(f"{value}{dagger} <sub>[{row[f'{METRIC}_low']:.4f}, {row[f'{METRIC}_high']:.4f}]</sub>")
        lines.append(" | ".join(["", *cells, ""]).strip())
    caption = (
        f"{METRIC} of the full catalogue's ranking, mean over seeds, with the 95 % interval of a bootstrap over users. Best bold; "
        f"{DAGGER} differs from the dataset's best baseline, in either direction, p < 0.05 after Holm's correction."
    )
    return "\n".join([*lines, "", caption])


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
    parser.add_argument("--tables", type=Path, default=Path("results/tables"), help="folder of main.csv and main.md")
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
