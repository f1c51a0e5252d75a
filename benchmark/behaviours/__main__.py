"""Count behaviours in the texts that runs have kept, as far as two raters agree.

    python -m benchmark.behaviours --runs results/runs/ml-100k/r2ec/seed1 --out somewhere --sample
    python -m benchmark.behaviours --runs results/runs/ml-100k/r2ec/seed1 --out somewhere \\
        --ratings first.csv second.csv

The first writes a blind sample of 100 texts to --out: sheet.csv, which two people fill in apart from each other,
guide.md, which says what they are asked, and key.csv, which says whose texts these are. The second reads their sheets
and writes agreement.csv, behaviours.csv and behaviours.md. A behaviour is reported where Cohen's kappa of the two, and
of its rule with them, is at least .6. Without two sheets nothing is reported.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.behaviours.ratings import (
    ENOUGH,
    KEY,
    NO_RATINGS,
    SIZE,
    agreement,
    draw,
    read_ratings,
    read_texts,
    shares,
    write_sample,
)
from benchmark.behaviours.rules import BEHAVIOURS
from benchmark.errors import InputError, command, command_line
from benchmark.output.markdown import plain, table
from benchmark.storage.io import write_text


def parse() -> argparse.Namespace:
    parser = command_line("benchmark.behaviours", __doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of runs that keep texts")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sample and of what is said of it")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--sample", action="store_true", help=f"write {SIZE} texts to be rated")
    what.add_argument("--ratings", type=Path, nargs="+", default=[], help="the sheets that two raters have filled in")
    return parser.parse_args()


def rated_texts(out: Path, texts: pd.DataFrame) -> tuple[list[int], list[str]]:
    """Ids and texts of the sample in --out. Raises InputError without it, or where it is of other runs."""
    try:
        key = pd.read_csv(out / KEY)[["id", "run", "case"]]
    except (OSError, ValueError, KeyError):
        raise InputError(f"{out / KEY}: missing or unreadable; write a sample by --sample, and have it rated") from None
    found = key.merge(texts, on=["run", "case"], how="left")
    if found.reasoning.isna().any():
        row = found[found.reasoning.isna()].iloc[0]
        raise InputError(
            f"{out / KEY}: text {row.id} is case {row.case} of {row.run}, which --runs don't hold; give it"
        )
    return found.id.tolist(), found.reasoning.tolist()


def as_markdown(agreed: pd.DataFrame, counted: pd.DataFrame) -> str:
    """How far the raters agree, and the shares of what they agree on."""

    def number(value: float) -> str:
        return "none" if np.isnan(value) else f"{value:.2f}"

    lines = [
        [
            plain(row["behaviour"]),
            *(f"{100 * row[name]:.0f} %" for name in ("yes_first", "yes_second", "agree")),
            *(number(row[name]) for name in ("kappa", "kappa_rule")),
            "yes" if row["reported"] else "no",
        ]
        for row in agreed.to_dict("records")
    ]
    head = ["behaviour", "first rater", "second rater", "agree", "kappa", "kappa of the rule", "reported"]
    text = (
        f"Two raters of {SIZE} texts, blind to runs, ranks and rules. Kappa: Cohen's; none where both gave one answer "
        f"to all. A behaviour is reported where both kappas are at least {ENOUGH}."
    )
    parts = ["# Behaviours of the texts", table(head, lines), text]
    if counted.empty:
        return "\n\n".join([*parts, "No behaviour is agreed on, so that none is reported."]) + "\n"
    rows = [
        [
            *(plain(row[name]) for name in ("run", "behaviour")),
            f"{row['n_texts']:,}",
            f"{100 * row['share']:.0f} %",
            f"[{100 * row['low']:.0f}, {100 * row['high']:.0f}]",
        ]
        for row in counted.to_dict("records")
    ]
    shown = table(["run", "behaviour", "texts", "share", "95 % interval over users"], rows, left=2)
    rules = "\n".join(
        f"- {one.name}: `{one.pattern.pattern}`" for one in BEHAVIOURS if one.name in set(counted.behaviour)
    )
    return "\n\n".join([*parts, shown, f"By these patterns, which are not the paper's categories:\n\n{rules}"]) + "\n"


@command
def main() -> None:
    args = parse()
    if not args.sample and not args.ratings:
        raise InputError(NO_RATINGS)
    texts = read_texts(args.runs)
    if args.sample:
        if (args.out / KEY).exists():
            raise InputError(f"{args.out / KEY}: a sample is there already; give another --out, or remove it")
        write_sample(draw(texts), args.out)
        print(f"{SIZE} texts to be rated: {args.out}")
        return
    ids, reasonings = rated_texts(args.out, texts)
    agreed = agreement(read_ratings(args.ratings, ids), reasonings)
    counted = shares(texts, agreed.behaviour[agreed.reported].tolist())
    for name, frame in (("agreement.csv", agreed), ("behaviours.csv", counted)):
        write_text(args.out / name, frame.to_csv(index=False, lineterminator="\n", float_format="%.4f"))
    text = as_markdown(agreed, counted)
    write_text(args.out / "behaviours.md", text)
    print(text)


if __name__ == "__main__":
    main()
