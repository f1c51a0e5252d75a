"""The paper's ablation in per cent beside ours: `python -m benchmark.analysis.gains --runs FOLDER --out FOLDER`.

Table 2 of the paper leaves parts of R2ec out. The gain of a part is (value of R2ec) / (value without the part) - 1, on
each of the paper's datasets; the paper gives no intervals. Our gains are ratios of means over cases, with 95 %
bootstrap intervals over users. They are of the runs in --runs/{dataset}/{run}/seed1, one training each, so that the
intervals don't cover trainings. The third finding of the paper's Section 4.3 is that the rank part of the reward alone
(w/o R_c) beats the softmax part alone (w/o R_d); it has a row of its own. A row of the paper that no ranking can have
is marked (docs/paper-table.md).

--out gets gains.csv and gains.md.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.discrimination import read_rankings
from benchmark.errors import InputError, command, command_line
from benchmark.metrics import statistic
from benchmark.output.markdown import plain, table
from benchmark.provenance import ROOT, derive_seed
from benchmark.statistics.check_table import Row, impossible, read_table
from benchmark.storage.io import write_text

PAPER = ROOT / "docs" / "paper-table.csv"
TABLE = "Table 2: "
METRICS = ("Hit@5", "NDCG@5", "Hit@10", "NDCG@10", "Hit@20", "NDCG@20")


@dataclass(frozen=True)
class Gain:
    """One comparison: two rows of the paper's Table 2, and our two runs of the same."""

    says: str
    value: str  # of Table 2
    against: str
    run: str  # folder in --runs/{dataset}
    run_against: str


BARE = "r2ec--recpo.prior=0.0,warm_start.adapters.steps=0,warm_start.cases=0"
CLS_HEAD = (
    "r2ec--recpo.cls_head=true,recpo.prior=0.0,training.head_learning_rate=0.01,warm_start.adapters.steps=0,"
    "warm_start.cases=0"
)

GAINS = (
    Gain("reasoning", "R2ec", "w/o Reasoning", "r2ec", "r2ec--recpo.reasoning=false"),
    Gain("softmax part of the reward, R_c", "R2ec", "w/o R_c", "r2ec", "r2ec--recpo.beta=0.0"),
    Gain("rank part of the reward, R_d", "R2ec", "w/o R_d", "r2ec", "r2ec--recpo.beta=1.0"),
    # A classification head has no warm start, and would be ranked for by the prior: ours is of both without either.
    Gain("item states in place of a classification head", "R2ec", "w/ ClsHead", BARE, CLS_HEAD),
    Gain("R_d alone against R_c alone", "w/o R_c", "w/o R_d", "r2ec--recpo.beta=0.0", "r2ec--recpo.beta=1.0"),
)


def of_the_paper(rows: list[Row]) -> pd.DataFrame:
    """Columns: says, source, metric, gain, low, high (NaN), possible (whether a ranking can have both of its rows)."""
    by_name = {row.name: row for row in rows}
    datasets = sorted({name.split(", ", 1)[0] for name in by_name})
    out = []
    for gain in GAINS:
        for dataset in datasets:
            pair = [by_name.get(f"{dataset}, {TABLE}{name}") for name in (gain.value, gain.against)]
            if pair[0] is None or pair[1] is None:
                raise InputError(f"{PAPER}: no rows {TABLE}{gain.value} and {gain.against} of {dataset}; add them")
            possible = not any(impossible(row) for row in pair if row)
            for metric in METRICS:
                value = pair[0].values[metric] / pair[1].values[metric] - 1
                out.append((gain.says, f"paper, {dataset}", metric, value, np.nan, np.nan, possible))
    return pd.DataFrame(out, columns=["says", "source", "metric", "gain", "low", "high", "possible"])


def of_ours(runs: Path, dataset: str) -> pd.DataFrame:
    """The same of our runs of one dataset, with intervals over users. Raises InputError for a missing run."""
    out = []
    for gain in GAINS:
        tables = [
            read_rankings(runs / dataset / run / "seed1" / "rankings.parquet") for run in (gain.run, gain.run_against)
        ]
        if not np.array_equal(tables[0]["case"], tables[1]["case"]):
            raise InputError(f"{runs / dataset}: {gain.run} and {gain.run_against} ranked other cases; run both again")
        values = np.stack([statistic(name, table["rank"]) for table in tables for name in METRICS])
        sums, counts = significance.user_sums(values, tables[0]["user"])
        drawn = significance.bootstrap_means(sums, counts, derive_seed("gains", dataset))
        half = len(METRICS)
        with np.errstate(divide="ignore"):  # a resample without a single hit: the gain is larger than any number
            low, high = significance.interval(drawn[:, :half] / drawn[:, half:] - 1)
        means = values.mean(axis=1)
        for i, metric in enumerate(METRICS):
            value = means[i] / means[half + i] - 1
            out.append((gain.says, f"here, {dataset}", metric, value, low[i], high[i], True))
    return pd.DataFrame(out, columns=["says", "source", "metric", "gain", "low", "high", "possible"])


def as_markdown(frame: pd.DataFrame) -> str:
    """A row per comparison and source, and its caption."""
    lines = []
    for (says, source), part in frame.groupby(["says", "source"], sort=False):
        mark = "" if part.possible.all() else r" \*"
        cells = [f"{100 * row['gain']:+.0f} %" + _interval(row["low"], row["high"]) for row in part.to_dict("records")]
        lines.append([plain(str(says)), f"{plain(str(source))}{mark}", *cells])
    text = (
        "The gain of a part is the value with it divided by the value without it, minus 1. Ours: below it the 95 % "
        "interval over users of these trained models, one training of each; how far other trainings would move it is "
        "not covered. The paper gives no intervals; its backbone has 2B parameters and its texts up to 512 tokens, "
        "ours 135M and 16. Both of our heads go without warm start and popularity prior, of which a classification "
        "head has none. * One of the two printed rows can't be the Hit and NDCG of any ranking (docs/paper-table.md)."
    )
    shown = table(["gain of", "source", *METRICS], lines, left=2)
    return f"# What the parts gain, in the paper and here\n\n{shown}\n\n{text}\n"


def _interval(low: float, high: float) -> str:
    return "" if np.isnan(low) else f"<br><sub>[{100 * low:+.0f}, {100 * high:+.0f}]</sub>"


@command
def main() -> None:
    parser = command_line("benchmark.analysis.gains", __doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder with {dataset}/{run}/seed1/rankings.parquet")
    parser.add_argument("--dataset", default="ml-100k", help="the dataset of our runs (default: ml-100k)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    frames = [of_the_paper(read_table(PAPER)), of_ours(args.runs, args.dataset)]
    frame = pd.concat(frames, ignore_index=True)
    order = {gain.says: i for i, gain in enumerate(GAINS)}
    frame = frame.sort_values("says", key=lambda says: says.map(order), kind="stable")
    write_text(args.out / "gains.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.4f"))
    write_text(args.out / "gains.md", as_markdown(frame))
    print(as_markdown(frame))


if __name__ == "__main__":
    main()
