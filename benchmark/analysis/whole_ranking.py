"""Statistics of the whole ranking, beyond what NDCG@10 sees: `python -m benchmark.analysis.whole_ranking`.

    python -m benchmark.analysis.whole_ranking --datasets ml-100k --methods sasrec r2ec --seeds 3

Per dataset and method these are NDCG@100, by which claims are read (docs/claims.md); NDCG@1000, the paper's own reward;
and the geometric mean rank. Intervals are 95 %. They cover users and trainings where a method has several trainings, or
where nothing in it depends on a seed, and users alone where it has one. The column `covers` says which, and so does the
caption.

--out gets whole_ranking.csv and whole_ranking.md. Columns of the first: dataset, method, trainings, covers, n_cases,
n_users, and per statistic s (NDCG@100, NDCG@1000, geometric mean rank) s, s_low, s_high, and s_sd over trainings.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmark.analysis.arguments import runs_arguments
from benchmark.analysis.collect import Collected, collect_all
from benchmark.analysis.trainings import BOTH, components, judge
from benchmark.errors import command, command_line
from benchmark.metrics import LOG_RANK, WHOLE_RANKING, statistic
from benchmark.output.markdown import plain, table
from benchmark.storage.io import write_text

GEOMETRIC = "geometric mean rank"


def whole_ranking(results: Collected) -> pd.DataFrame:
    """One row per method. Columns as at the top of this file."""
    rows = []
    for method, ranks in zip(results.methods, results.ranks, strict=True):
        row: dict[str, object] = {"dataset": results.dataset, "method": method, "trainings": len(ranks)}
        row |= {"n_cases": len(results.cases), "n_users": results.n_users}
        for name in WHOLE_RANKING:
            values = statistic(name, ranks)
            nothing = np.zeros((1, values.shape[1]))
            alike = len(ranks) > 1 and bool((ranks == ranks[0]).all())  # nothing in it depends on a seed
            judged = judge([components(values, nothing, results.cases.user, seedless=(alike, True))])
            means = values.mean(axis=1)
            label, scale = (GEOMETRIC, np.exp) if name == LOG_RANK else (name, float)
            row |= {"covers": judged.covers, label: scale(judged.difference)}
            row |= {f"{label}_low": scale(judged.low), f"{label}_high": scale(judged.high)}
            shown = np.exp(means) if name == LOG_RANK else means
            row[f"{label}_sd"] = float(shown.std(ddof=1)) if len(means) > 1 else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def as_markdown(frame: pd.DataFrame) -> str:
    """The table and its caption."""
    names = [GEOMETRIC if name == LOG_RANK else name for name in WHOLE_RANKING]
    head = ["dataset", "method", "trainings", *names]
    lines = []
    for row in frame.to_dict("records"):
        cells = [_cell(row, name, 1 if name == GEOMETRIC else 4) for name in names]
        trainings = str(row["trainings"]) if row["covers"] == BOTH else f"{row['trainings']}, users alone"
        lines.append([plain(row["dataset"]), plain(row["method"]), trainings, *cells])
    return f"# What NDCG@10 doesn't see\n\n{table(head, lines, left=2)}\n\n{note(frame)}\n"


def _cell(row: dict, name: str, digits: int) -> str:
    sd = "" if np.isnan(row[f"{name}_sd"]) else f" ± {row[f'{name}_sd']:.{digits}f}"
    return (
        f"{row[name]:.{digits}f}{sd}<br><sub>[{row[f'{name}_low']:.{digits}f}, {row[f'{name}_high']:.{digits}f}]</sub>"
    )


def note(frame: pd.DataFrame) -> str:
    """What the numbers are, and how many trainings stand behind them."""
    single = frame[frame.covers != BOTH]
    cases = "; ".join(
        f"{dataset}: {part.n_cases.iloc[0]:,} cases of {part.n_users.iloc[0]:,} users"
        for dataset, part in frame.groupby("dataset", sort=False)
    )
    text = f"{cases}. Full-catalogue ranking; mean ± sd over trainings, below it the 95 % interval"
    if single.empty:
        return f"{text} over users and trainings. A lower geometric mean rank is better."
    several = " over users and trainings" if len(single) < len(frame) else ""
    separator = "; " if several else ", "
    return (
        f"{text}{several}{separator}of rows with one training over users alone: how far another training would lie "
        "from it is not known, and no interval of theirs says so. A lower geometric mean rank is better."
    )


def tables(collected: Sequence[Collected]) -> pd.DataFrame:
    """All datasets' rows."""
    return pd.concat([whole_ranking(results) for results in collected], ignore_index=True)


@command
def main() -> None:
    args = runs_arguments(command_line("benchmark.analysis.whole_ranking", __doc__), out="tables")
    frame = tables(collect_all(args))
    write_text(args.out / "whole_ranking.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6f"))
    write_text(args.out / "whole_ranking.md", as_markdown(frame))
    print(as_markdown(frame))


if __name__ == "__main__":
    main()
