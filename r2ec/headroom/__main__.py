"""Measure RecPO's headroom.

    python -m r2ec.headroom --run results/runs/ml-100k/r2ec/seed1 --data results/data/ml-100k \\
        --out results/headroom/ml-100k

Samples many reasonings for each of some validation cases, ranks the target by each, and says: how much of the variance
of the rank lies within a case; what an oracle that knows the target gains by choosing among 1, 2, 4 ... of them; what
can choose without knowing it: rules, and pickers that learned on half of the users; and whether the best reasoning of a
case is good for the same user's other cases.

--dry-run samples the next part alone, by which it says what the others will take on this machine: how long depends on
the machine more than on anything else. Reading cases with lent reasonings comes on top, as many parts as it says.

--out gets parts of the sampling, from which a stopped run goes on; oracle.csv, pickers.csv, lent.csv, headroom.md, a
plot, and headroom.json for the page: below the folder of the results, as in results/headroom/ml-100k, the next run of
the workflow shows it there.
"""

import argparse

import matplotlib
import pandas as pd

from benchmark.data.store import read_split
from benchmark.errors import InputError, command
from benchmark.jobs.estimates import in_words
from benchmark.metrics import log_rank, ndcg
from benchmark.output.plots import STYLE, save
from benchmark.storage.io import write_json, write_text
from r2ec.headroom.arguments import arguments, chosen, measured_run


def parse() -> argparse.Namespace:
    parser = arguments("r2ec.headroom", __doc__)
    parser.add_argument("--samples", type=int, default=64, help="reasonings per case (default: 64)")
    parser.add_argument("--cases", type=int, default=500, help="validation cases, at most (default: 500)")
    parser.add_argument("--dry-run", action="store_true", help="sample one part, and say what the others will take")
    return parser.parse_args()


@command
def main() -> None:
    args = parse()
    if args.samples < 2 or args.cases < 1:
        raise InputError(f"--samples {args.samples}, --cases {args.cases}; give at least 2 samples and 1 case")
    split = read_split(args.data)
    folder, split_hash = chosen(args)
    run = measured_run(args)
    # Imported late: torch and transformers take seconds, and what is wrong with the arguments is said before.
    from r2ec.headroom.pickers import STATISTICS, oracle, pickers, within
    from r2ec.headroom.plot import plot
    from r2ec.headroom.report import as_markdown, measure_of
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
    measure = measure_of(run, reasonings, (best, picked, borrowed), shares)
    about = f"{split.name}: {len(cases):,} validation cases of {measure.users:,} users, {args.samples} reasonings each."
    for name, frame in (("oracle.csv", best), ("pickers.csv", picked), ("lent.csv", borrowed)):
        write_text(args.out / name, frame.to_csv(index=False, lineterminator="\n", float_format="%.6f"))
    text = as_markdown(best, picked, borrowed, shares, about) + "\n"
    write_text(args.out / "headroom.md", text)
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        save(plot(best, picked, borrowed, about), args.out, "headroom")
    write_json(args.out / "headroom.json", measure.model_dump())
    print(text)


if __name__ == "__main__":
    main()
