"""Measure RecPO's headroom.

    python -m r2ec.headroom --run results/runs/ml-100k/r2ec/seed1 --data results/data/ml-100k \\
        --out results/headroom/ml-100k

Samples many reasonings for each of some validation cases, ranks the target by each, and says: how much of the variance
of the rank lies within a case; what an oracle that knows the target gains by choosing among 1, 2, 4 ... of them; and
what can choose without knowing it: rules, and pickers that learned on half of the users.

--dry-run samples the next part alone, by which it says what the others will take on this machine: how long depends on
the machine more than on anything else.

--out gets parts of the sampling, from which a stopped run goes on; oracle.csv, pickers.csv and headroom.md.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.data.store import read_about, read_split
from benchmark.errors import InputError, command, command_line
from benchmark.jobs.estimates import in_words
from benchmark.metrics import log_rank, ndcg
from benchmark.output.markdown import table
from benchmark.storage.io import write_text
from r2ec.recommend import model_of


def parse() -> argparse.Namespace:
    parser = command_line("r2ec.headroom", __doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", type=Path, help="a finished run, such as results/runs/ml-100k/r2ec/seed1")
    model.add_argument("--model", type=Path, help="a model folder, as a fit writes it")
    parser.add_argument("--data", type=Path, required=True, help="its dataset, such as results/data/ml-100k")
    parser.add_argument("--samples", type=int, default=64, help="reasonings per case (default: 64)")
    parser.add_argument("--cases", type=int, default=500, help="validation cases, at most (default: 500)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, such as results/headroom/ml-100k")
    parser.add_argument("--dry-run", action="store_true", help="sample one part, and say what the others will take")
    return parser.parse_args()


def as_markdown(best: pd.DataFrame, picked: pd.DataFrame, shares: dict[str, float], about: str) -> str:
    """The report: shares of variance, a table of the oracle, and a table of the pickers."""
    names = [column for column in best.columns if column not in ("picker", "samples")]
    lines = [[str(row["samples"]), *(f"{row[name]:.4f}" for name in names)] for row in best.to_dict("records")]
    head, rows = ["picker", "statistic", "random", "picked", "gain", "95 % interval", "p"], []
    for row in picked.to_dict("records"):
        numbers = [f"{row['random']:.4f}", f"{row['picked']:.4f}", f"{row['gain']:+.4f}"]
        interval = f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        rows.append([row["picker"], row["statistic"], *numbers, interval, f"{row['p']:.2g}"])
    inside = "; ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    return "\n\n".join(
        [
            "# RecPO's headroom",
            f"{about} Share of the variance that lies within a case: {inside}.",
            "## An oracle that knows the target",
            table(["best of", *names], lines, left=0),
            "An oracle picks luck, too: it bounds what can be gained.",
            "## What can choose without knowing it",
            table(head, rows, left=2),
            "Gain over a random sample; intervals over users, of one trained model. Learned pickers chose for users "
            "that they had not learned from. A lower log rank is better.",
        ]
    )


@command
def main() -> None:
    args = parse()
    if args.samples < 2 or args.cases < 1:
        raise InputError(f"--samples {args.samples}, --cases {args.cases}; give at least 2 samples and 1 case")
    split = read_split(args.data)
    split_hash = read_about(args.data, "split_hash")["split_hash"]
    folder = args.model or model_of(args.run, split_hash)
    if not (folder / "settings.json").is_file():
        raise InputError(f"{folder}: holds no model; fit again, or give the folder by --model if it was moved")
    # Imported late: torch and transformers take seconds, and what is wrong with the arguments is said before.
    from r2ec.headroom.pickers import oracle, pickers, within
    from r2ec.headroom.sampled import chosen_cases, folder_of, next_part, sampled
    from r2ec.scoring.reader import Reader

    cases = chosen_cases(split.valid, args.cases, split.name)
    parts = folder_of(args.out, folder, split_hash, cases, args.samples)
    if args.dry_run:
        seconds, left = next_part(Reader.load(folder, split), cases, args.samples, parts)
        print(f"{split.name}: the next part took {in_words(seconds)}; {left} more take {in_words(seconds * left)}.")
        return
    reasonings = sampled(Reader.load(folder, split), cases, args.samples, parts)
    best, picked = oracle(reasonings), pickers(reasonings, split.name)
    shares = {"NDCG@1000": within(ndcg(reasonings.rank, 1000)), "log rank": within(log_rank(reasonings.rank))}
    users = len(np.unique(reasonings.user))
    about = f"{split.name}: {len(cases):,} validation cases of {users:,} users, {args.samples} reasonings each."
    for name, frame in (("oracle.csv", best), ("pickers.csv", picked)):
        write_text(args.out / name, frame.to_csv(index=False, lineterminator="\n", float_format="%.6f"))
    text = as_markdown(best, picked, shares, about) + "\n"
    write_text(args.out / "headroom.md", text)
    print(text)


if __name__ == "__main__":
    main()
