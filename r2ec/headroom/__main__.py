"""Measure RecPO's headroom.

    python -m r2ec.headroom --run results/runs/ml-100k/r2ec/seed1 --data results/data/ml-100k \\
        --out results/headroom/ml-100k

Samples many reasonings for each of some validation cases, ranks the target by each, and says: how much of the variance
of the rank lies within a case; what an oracle that knows the target gains by choosing among 1, 2, 4 ... of them; what
can choose without knowing it: rules, and pickers that learned on half of the users; and whether the best reasoning of a
case is good for the same user's other cases.

--dry-run samples the next part alone, by which it says what the others will take on this machine: how long depends on
the machine more than on anything else. Reading cases with lent reasonings comes on top, as many parts as it says.

--out gets parts of the sampling, from which a stopped run goes on; oracle.csv, pickers.csv, lent.csv, headroom.md and a
plot.
"""

import argparse
from collections.abc import Hashable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from benchmark.data.store import read_split
from benchmark.errors import InputError, command
from benchmark.jobs.estimates import in_words
from benchmark.metrics import log_rank, ndcg
from benchmark.output.markdown import table
from benchmark.output.plots import STYLE, save
from benchmark.storage.io import write_text
from r2ec.headroom.arguments import arguments, chosen


def parse() -> argparse.Namespace:
    parser = arguments("r2ec.headroom", __doc__)
    parser.add_argument("--samples", type=int, default=64, help="reasonings per case (default: 64)")
    parser.add_argument("--cases", type=int, default=500, help="validation cases, at most (default: 500)")
    parser.add_argument("--dry-run", action="store_true", help="sample one part, and say what the others will take")
    return parser.parse_args()


def as_markdown(
    best: pd.DataFrame, picked: pd.DataFrame, borrowed: pd.DataFrame, shares: dict[str, float], about: str
) -> str:
    """The report: shares of variance, and tables of the oracle, of the pickers and of lent reasonings."""
    names = [column for column in best.columns if column not in ("picker", "samples", "gain", "low", "high")]
    lines = [
        [str(row["samples"]), *(f"{row[name]:.4f}" for name in names), f"{row['gain']:+.4f} {interval_of(row)}"]
        for row in best.to_dict("records")
    ]
    head = ["picker", "statistic", "random", "picked", "gain", "95 % interval", "p"]
    rows = [[row["picker"], *gain_of(row)] for row in picked.to_dict("records")]
    lent_rows = [gain_of(row) for row in borrowed.to_dict("records")]
    lent_to = "" if borrowed.empty else f"{borrowed.cases[0]:,} cases of {borrowed.users[0]:,} users with several. "
    inside = "; ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    return "\n\n".join(
        [
            "# RecPO's headroom",
            f"{about} Share of the variance that lies within a case: {inside}.",
            "## An oracle that knows the target",
            table(["best of", *names, "gain in log rank"], lines, left=0),
            "An oracle picks luck, too: it bounds what can be gained.",
            "## What can choose without knowing it",
            table(head, rows, left=2),
            "Gain over a random sample; intervals over users, of one trained model. Learned pickers chose for users "
            "that they had not learned from. A lower log rank is better.",
            "## The best reasoning of the user's case before it",
            table(head[1:], lent_rows, left=1) if lent_rows else "No user has two of these cases.",
            f"{lent_to}Each case is read with the reasoning that was best for the case before it, and with others that "
            "were written for that case (random).",
        ]
    )


def gain_of(row: dict[Hashable, Any]) -> list[str]:
    """The cells of one gain: statistic, both means, gain, interval and p."""
    numbers = [f"{row['random']:.4f}", f"{row['picked']:.4f}", f"{row['gain']:+.4f}"]
    return [row["statistic"], *numbers, interval_of(row), f"{row['p']:.2g}"]


def interval_of(row: dict[Hashable, Any]) -> str:
    """The cell of an interval."""
    return f"[{row['low']:+.4f}, {row['high']:+.4f}]"


@command
def main() -> None:
    args = parse()
    if args.samples < 2 or args.cases < 1:
        raise InputError(f"--samples {args.samples}, --cases {args.cases}; give at least 2 samples and 1 case")
    split = read_split(args.data)
    folder, split_hash = chosen(args)
    # Imported late: torch and transformers take seconds, and what is wrong with the arguments is said before.
    from r2ec.headroom.pickers import STATISTICS, oracle, pickers, within
    from r2ec.headroom.plot import plot
    from r2ec.headroom.sampled import CASES, chosen_cases, folder_of, next_part, sampled
    from r2ec.headroom.transfer import lent, of_lenders, pairs_of
    from r2ec.scoring.reader import Reader

    cases = chosen_cases(split.valid, args.cases, split.name)
    parts = folder_of(args.out, folder, split_hash, cases, args.samples)
    if args.dry_run:
        seconds, left = next_part(Reader.load(folder, split), cases, args.samples, parts)
        then = -(-len(pairs_of(cases.user)) // CASES)
        print(f"{split.name}: the next part took {in_words(seconds)}; {left} more take {in_words(seconds * left)}.")
        print(f"Then come {then} shorter parts, whose cases are read with lent reasonings.")
        return
    reader = Reader.load(folder, split)
    reasonings = sampled(reader, cases, args.samples, parts)
    borrowed = pd.DataFrame(of_lenders(lent(reader, cases, reasonings, parts), STATISTICS))
    best, picked = oracle(reasonings), pickers(reasonings, split.name)
    shares = {"NDCG@1000": within(ndcg(reasonings.rank, 1000)), "log rank": within(log_rank(reasonings.rank))}
    users = len(np.unique(reasonings.user))
    about = f"{split.name}: {len(cases):,} validation cases of {users:,} users, {args.samples} reasonings each."
    for name, frame in (("oracle.csv", best), ("pickers.csv", picked), ("lent.csv", borrowed)):
        write_text(args.out / name, frame.to_csv(index=False, lineterminator="\n", float_format="%.6f"))
    text = as_markdown(best, picked, borrowed, shares, about) + "\n"
    write_text(args.out / "headroom.md", text)
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        save(plot(best, picked, borrowed, about), args.out, "headroom")
    print(text)


if __name__ == "__main__":
    main()
