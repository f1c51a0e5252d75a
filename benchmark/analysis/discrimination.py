"""Measure how many pairs of methods each statistic tells apart: `python -m benchmark.analysis.discrimination`.

    python -m benchmark.analysis.discrimination --runs results/published/baselines/runs --out somewhere

A statistic's discriminative power is the share of all pairs of a dataset's methods that it calls different at p < 0.05:
Sakai, "Evaluating evaluation metrics based on the bootstrap", SIGIR 2006. The test is that of the tables, signs flipped
per user, without a correction. Power alone would favour a statistic that measures something else than what
recommendations are read for. So the table also says how often a statistic contradicts NDCG@10 where both are below
0.05, and how often it points the other way, whatever NDCG@10's p. It says, too, how many cases NDCG@10 needs to see as
much as one case by this statistic: the ratio of the squared z of a pair, its median over pairs that either calls
different.

The claims' statistic was chosen by this table, of baselines that no claim is about (docs/claims.md). --out gets
discrimination.csv, a row per pair and statistic, and discrimination.md.
"""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.analysis import significance
from benchmark.analysis.trainings import components
from benchmark.errors import InputError, command, command_line
from benchmark.jobs.records import check_beside
from benchmark.metrics import direction, statistic
from benchmark.output.markdown import plain, table
from benchmark.provenance import derive_seed
from benchmark.storage.io import write_text

CANDIDATES = ("Hit@10", "NDCG@5", "NDCG@10", "NDCG@20", "NDCG@100", "NDCG@1000", "log rank")
HELD_AGAINST = "NDCG@10"
COLUMNS = ("case", "user", "rank")


@dataclass(frozen=True)
class Ranks:
    """The ranks of one dataset's test cases by several methods, one training of each."""

    dataset: str
    users: np.ndarray  # int [n]
    ranks: dict[str, np.ndarray]  # by method, int [n]


def read_ranks(runs: Path) -> list[Ranks]:
    """All of `runs/{dataset}/{method}/seed1/rankings.parquet`, by dataset and method in the order of their names.

    Raises InputError where a file isn't readable, none is there, or methods of a dataset ranked other cases.
    """
    out = []
    for folder in sorted(path for path in runs.glob("*") if path.is_dir()):
        tables = {file.parents[1].name: read_rankings(file) for file in sorted(folder.glob("*/seed1/rankings.parquet"))}
        if len(tables) < 2:
            raise InputError(f"{folder}: rankings of {len(tables)} methods; give at least two to compare")
        first, first_ranks = next(iter(tables.items()))
        for method, ranks in tables.items():
            if not np.array_equal(ranks["case"], first_ranks["case"]):
                raise InputError(f"{folder}: {method} ranked other cases than {first}; give runs on the same data")
        out.append(Ranks(folder.name, first_ranks["user"], {method: ranks["rank"] for method, ranks in tables.items()}))
    if not out:
        raise InputError(f"{runs}: no folder of a dataset; give a folder such as results/runs")
    return out


def read_rankings(path: Path) -> dict[str, np.ndarray]:
    """Columns `case`, `user` and `rank` of a rankings.parquet, int [n] each. InputError without them, and where the
    run.json beside it says that it was another file."""
    check_beside(path)
    try:
        columns = pq.read_table(path, columns=list(COLUMNS))
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path}: can't be read ({said}); evaluate this run again") from None
    for name in COLUMNS:
        column = columns.column(name)
        if not pa.types.is_integer(column.type) or column.null_count:
            raise InputError(f"{path}: column {name!r} is not of whole numbers alone; evaluate this run again")
    return {name: columns.column(name).to_numpy() for name in COLUMNS}


def pairs_of(results: Ranks) -> pd.DataFrame:
    """Every pair of methods by every statistic; differences and z are positive where `a` ranks better.

    Columns: dataset, a, b, statistic, difference, z, p.
    """
    rows = []
    methods = list(results.ranks)
    pairs = list(combinations(range(len(methods)), 2))
    for name in CANDIDATES:
        values = direction(name) * np.stack([statistic(name, ranks) for ranks in results.ranks.values()])
        sums, _ = significance.user_sums(values, results.users)
        p = significance.randomisation_test(sums, pairs, derive_seed("discrimination", results.dataset))
        for (i, j), value in zip(pairs, p.tolist(), strict=True):
            parts = components(values[[i]], values[[j]], results.users, seedless=(True, True))
            error = np.sqrt(parts.users.variance)
            z = parts.difference / error if error else 0.0
            rows.append((results.dataset, methods[i], methods[j], name, parts.difference, z, value))
    return pd.DataFrame(rows, columns=["dataset", "a", "b", "statistic", "difference", "z", "p"])


def summary(pairs: pd.DataFrame) -> pd.DataFrame:
    """A row per statistic.

    Columns: statistic, pairs, a column per dataset and `all` with the share of pairs below 0.05, `agree` and
    `contradict` (pairs that NDCG@10 calls different, too, the same or the other way round), `opposed` (the share of the
    pairs that are called different where NDCG@10 points the other way), `cases` (see the top of this file).
    """
    keys = ["dataset", "a", "b"]
    base = pairs[pairs.statistic == HELD_AGAINST].set_index(keys)
    rows = []
    for name, part in pairs.groupby("statistic", sort=False):
        part_by_pair = part.set_index(keys).loc[base.index]
        significant, base_significant = part_by_pair.p < significance.ALPHA, base.p < significance.ALPHA
        same = np.sign(part_by_pair.difference) == np.sign(base.difference)
        either = (significant | base_significant) & (base.z != 0)
        row: dict[str, object] = {"statistic": name, "pairs": len(part_by_pair)}
        row |= {
            str(dataset): share for dataset, share in significant.groupby(level="dataset", sort=False).mean().items()
        }
        row |= {"all": significant.mean(), "agree": int((significant & base_significant & same).sum())}
        row |= {
            "contradict": int((significant & base_significant & ~same).sum()),
            "opposed": float((~same)[significant].mean()),
        }
        rows.append(row | {"cases": float(((part_by_pair.z / base.z) ** 2)[either].median())})
    return pd.DataFrame(rows)


def as_markdown(frame: pd.DataFrame) -> str:
    """The summary as a table with its caption."""
    datasets = [column for column in frame.columns if column not in FIXED]
    head = ["statistic", *map(plain, datasets), "all", "as NDCG@10", "the other way", "opposed", "worth of a case"]
    lines = []
    for row in frame.to_dict("records"):
        shares = [f"{100 * row[name]:.0f} %" for name in (*datasets, "all")]
        lines.append([row["statistic"], *shares, str(row["agree"]), str(row["contradict"])])
        lines[-1] += [f"{100 * row['opposed']:.0f} %", f"{row['cases']:.2f}"]
    return f"# How much each statistic sees\n\n{table(head, lines)}\n\n{note(int(frame.pairs.iloc[0]))}\n"


FIXED = ("statistic", "pairs", "all", "agree", "contradict", "opposed", "cases")


def note(n_pairs: int) -> str:
    """What the columns are."""
    return (
        f"Share of {n_pairs} pairs of methods that are different at p < {significance.ALPHA}, two-sided paired "
        "randomisation tests with signs flipped per user, uncorrected; one training of each method, so that users "
        "alone are covered. As NDCG@10, the other way: pairs that NDCG@10 calls different, too, in the same direction "
        "and in the other one. Opposed: of the pairs that this statistic calls different, those where NDCG@10 points "
        "the other way, whatever its p. Worth of a case: cases of NDCG@10 that see as much as one case by this "
        "statistic, the median ratio of squared z over pairs that either calls different."
    )


@command
def main() -> None:
    parser = command_line("benchmark.analysis.discrimination", __doc__)
    parser.add_argument(
        "--runs", type=Path, required=True, help="folder with {dataset}/{method}/seed1/rankings.parquet"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    pairs = pd.concat([pairs_of(results) for results in read_ranks(args.runs)], ignore_index=True)
    text = as_markdown(summary(pairs))
    digits = pairs.assign(z=pairs.z.round(4), difference=pairs.difference.round(6), p=pairs.p.map("{:.4g}".format))
    write_text(args.out / "discrimination.csv", digits.to_csv(index=False, lineterminator="\n"))
    write_text(args.out / "discrimination.md", text)
    print(text)


if __name__ == "__main__":
    main()
