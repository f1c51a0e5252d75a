"""Check on real trainings how often a test calls equal methods different: `python -m benchmark.analysis.null_check`.

Trainings of one setting with other seeds differ by luck alone. Two groups of them that share none have to be called
different in 5 % of the draws. The runs are those of config/null.yaml (`make null`): two small networks, 20 seeds each.

    python -m benchmark.analysis.null_check --runs results/published/null/runs --out somewhere

--out gets null.csv and null.md: per dataset, method, statistic and number of trainings on a side the share of draws
with p < 0.05, by the test over users and trainings (`benchmark.analysis.trainings`), and by that of the tables, over
users. Draws of the same trainings are not independent, so that a share is known less well than its number of draws
suggests.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.discrimination import read_rankings
from benchmark.analysis.trainings import components, p_value
from benchmark.errors import InputError, command, command_line
from benchmark.metrics import statistic
from benchmark.output.markdown import plain, table
from benchmark.provenance import derive_seed
from benchmark.storage.io import write_text

STATISTICS = ("NDCG@10", "NDCG@100", "NDCG@1000", "log rank")
SIDES = (1, 3, 5, 10)  # trainings on a side
DRAWS = 1_000
FLIPS = 2**10 - 1  # of the test over users alone; its p needs to be right about 0.05 only


def shares(
    ranks: np.ndarray, users: np.ndarray, name: str, side: int, seed: int, draws: int = DRAWS
) -> tuple[float, float, float]:
    """Shares of draws that three tests call different: over users and trainings, over paired trainings, over users.

    The first two are NaN for one training on a side. ranks: int [trainings, n], of one setting; two groups of `side`
    are drawn from them. users: int [n]. Raises InputError for fewer than 2 * side trainings.
    """
    if len(ranks) < 2 * side:
        raise InputError(f"{len(ranks)} trainings for two groups of {side}; run more seeds")
    values = statistic(name, ranks)
    sums, _ = significance.user_sums(values, users)  # [users, trainings]
    generator = np.random.default_rng(seed)
    drawn = np.array([generator.permutation(len(ranks))[: 2 * side] for _ in range(draws)])
    groups = np.stack([sums[:, part].mean(axis=2) for part in (drawn[:, :side], drawn[:, side:])])  # [2, users, draws]
    columns = np.concatenate([groups[0], groups[1]], axis=1)
    pairs = np.column_stack([np.arange(draws), draws + np.arange(draws)])
    by_users = significance.randomisation_test(columns, pairs, seed, FLIPS) < significance.ALPHA
    if side == 1:
        return float("nan"), float("nan"), float(by_users.mean())
    different = np.array(
        [
            [
                p_value([components(values[row[:side]], values[row[side:]], users, shared=shared)]) < significance.ALPHA
                for shared in (False, True)
            ]
            for row in drawn
        ]
    )
    both, paired = different.mean(axis=0).tolist()
    return both, paired, float(by_users.mean())


def check(runs: Path) -> pd.DataFrame:
    """The shares of `shares` for every dataset and method of `runs/{dataset}/{method}/seed*`.

    Columns: dataset, method, trainings, n_cases, n_users, statistic, side, both, paired, alone, draws.
    """
    rows = []
    for folder in sorted(path for path in runs.glob("*/*") if path.is_dir()):
        tables = [read_rankings(file) for file in sorted(folder.glob("seed*/rankings.parquet"))]
        users, ranks = tables[0]["user"], np.stack([table["rank"] for table in tables])
        dataset, method = folder.parts[-2:]
        for name in STATISTICS:
            for side in SIDES:
                if 2 * side > len(ranks):
                    continue
                seed = derive_seed("null", dataset, method, name, side)
                called_different = shares(ranks, users, name, side, seed, DRAWS)
                n_users = len(np.unique(users))
                rows.append((dataset, method, len(ranks), len(users), n_users, name, side, *called_different, DRAWS))
    if not rows:
        raise InputError(f"{runs}: no two trainings of one method; run config/null.yaml")
    columns = ["dataset", "method", "trainings", "n_cases", "n_users", "statistic", "side"]
    columns += ["both", "paired", "alone", "draws"]
    return pd.DataFrame(rows, columns=columns)


def as_markdown(frame: pd.DataFrame) -> str:
    """The shares as a table, with what they are."""
    head = ["trainings of", "statistic", "on a side", "users and trainings", "the same, in pairs", "users alone"]
    lines = []
    for row in frame.to_dict("records"):
        shares_of = ["" if np.isnan(row[key]) else f"{100 * row[key]:.1f} %" for key in ("both", "paired", "alone")]
        lines.append([plain(f"{row['dataset']}: {row['method']}"), row["statistic"], str(row["side"]), *shares_of])
    first = frame.iloc[0]
    text = (
        f"Trainings of one setting with other seeds ({frame.trainings.min()} of each, {first.n_cases:,} test cases of "
        f"{first.n_users:,} users), drawn {DRAWS:,} times into two groups that share none: the share of draws that are "
        f"called different at p < {significance.ALPHA}. It should be 5 %. The test over users alone takes the luck of "
        "trainings for a difference; of one training on a side nothing else can be made. In pairs: as registered "
        "claims, whose trainings share their random numbers; here the pairs are drawn. Draws from the same trainings "
        "are not independent."
    )
    return f"# Trainings that differ by luck alone\n\n{table(head, lines, left=2)}\n\n{text}\n"


@command
def main() -> None:
    parser = command_line("benchmark.analysis.null_check", __doc__)
    parser.add_argument(
        "--runs", type=Path, required=True, help="folder with {dataset}/{method}/seed*/rankings.parquet"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    frame = check(args.runs)
    write_text(args.out / "null.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.4f"))
    write_text(args.out / "null.md", as_markdown(frame))
    print(as_markdown(frame))


if __name__ == "__main__":
    main()
