"""Put the published tables into README.md and docs/results.md: `python -m benchmark.output.readme`.

README.md gets NDCG@10 of every method on every dataset, to be read at a glance; docs/results.md the whole of main.md,
which has all metrics and says how they were computed and tested.
"""

import argparse
from pathlib import Path

import pandas as pd

from benchmark.analysis.significance import ALPHA
from benchmark.errors import InputError, command
from benchmark.metrics import METRICS
from benchmark.output.captions import DAGGER
from benchmark.output.cells import cells
from benchmark.output.markdown import plain, table
from benchmark.storage.io import write_text

BEGIN, END = "<!-- BEGIN table: make readme -->", "<!-- END table -->"
METRIC = "NDCG@10"


def summary(frame: pd.DataFrame) -> str:
    """METRIC with its interval, a row per method and a column per dataset.

    frame: results/tables/main.csv. Marked as in the whole table: the best bold, a dagger behind what differs from the
    best baseline after the correction.
    """
    text_of = {}
    for dataset, method, row in zip(frame.dataset, frame.method, cells(frame), strict=True):
        cell = row[METRICS.index(METRIC)]
        mean = f"**{cell.mean}**" if cell.place == 1 else cell.mean
        text_of[method, dataset] = f"{mean}{DAGGER if cell.dagger else ''} <sub>[{cell.low}, {cell.high}]</sub>"
    datasets = frame.dataset.unique().tolist()
    body = [
        [plain(method), *(text_of.get((method, dataset), "") for dataset in datasets)]
        for method in frame.method.unique()
    ]
    caption = (
        f"{METRIC} of the full catalogue's ranking, mean over seeds, with the 95 % interval of a bootstrap over users. "
        f"Best bold; {DAGGER} differs from the dataset's best baseline, in either direction, p < {ALPHA} after Holm's "
        "correction."
    )
    return f"{table(['method', *map(plain, datasets)], body)}\n\n{caption}{_with_less(frame)}"


def _with_less(frame: pd.DataFrame) -> str:
    """A sentence on the rows that learned from less than the others, with their reasons; "" where there are none."""
    reasons = frame.get("less_information", pd.Series(dtype=str)).dropna()
    if reasons.empty:
        return ""
    rows: dict[tuple[str, str], list[str]] = {}  # the datasets, by method and reason
    less = frame.loc[reasons.index]
    for method, reason, dataset in zip(less["method"], reasons, less["dataset"], strict=True):
        rows.setdefault((method, reason), []).append(dataset)
    texts = []
    for (method, reason), datasets in rows.items():
        everywhere = len(datasets) == (frame.method == method).sum()
        where = "" if everywhere else f" on {', '.join(map(plain, datasets))}"
        texts.append(f"{plain(method)}{where} ({plain(reason)})")
    return f" Learned from less than the others: {'; '.join(texts)}."


def with_table(page: str, table: str, where: str) -> str:
    """The page's text with the table `shown` between its two marks. Raises InputError where they are missing."""
    before, begin, remainder = page.partition(BEGIN)
    _, end, behind = remainder.partition(END)
    if not begin or not end:
        raise InputError(f"{where}: the lines {BEGIN!r} and {END!r} are missing; put them where the table shall stand")
    return f"{before}{BEGIN}\n{table.strip()}\n{END}{behind}"


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.output.readme",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="gets NDCG@10 alone")
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"), help="gets all metrics")
    parser.add_argument(
        "--tables", type=Path, default=Path("results/published/default/tables"), help="folder of main.csv and main.md"
    )
    args = parser.parse_args()
    for name in ("main.csv", "main.md"):
        if not (args.tables / name).is_file():
            raise InputError(f"{args.tables / name}: missing; run `make publish NAME=default` first")
    frame = pd.read_csv(args.tables / "main.csv")
    if "failed" in frame:
        raise InputError(f"{args.tables / 'main.csv'}: holds rows that failed; mend them and publish again")
    tables = {
        args.readme: summary(frame),
        args.page: (args.tables / "main.md").read_text(encoding="utf-8"),
    }
    # Both texts before either file is written: a page without marks leaves the other one as it was.
    texts = {path: with_table(path.read_text(encoding="utf-8"), table, str(path)) for path, table in tables.items()}
    for path, text in texts.items():
        write_text(path, text)


if __name__ == "__main__":
    main()
