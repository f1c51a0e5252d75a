"""What each method computes before it recommends, beside its quality and cost: the numbers of that table and plot.

They come from statistics that are there; nothing here draws, so that the page doesn't wait for what does.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmark.analysis.groups import ALL
from benchmark.config.methods import THINKING
from benchmark.errors import InputError
from benchmark.statistics.against import MAIN
from benchmark.statistics.files import DatasetStatistics

NOTE = (
    "Nothing: a method scores or writes its answer at once. Latent: further states without text, in a model of item "
    "numbers or in the LM. Written: text before the answer. Interval: bootstrap over users, not over trainings; rows "
    "of two kinds differ in other ways, too. Tokens: all that an LM writes, an answer that it writes out (and its "
    "beams) among them. Alone: one case at a time, nothing taken from disk."
)


def thinking(
    datasets: Sequence[DatasetStatistics], overall: pd.DataFrame | None, declared: dict[str, str]
) -> pd.DataFrame:
    """One row per method that has results on all datasets, by what it thinks in the order of THINKING.

    overall: the frame of overall_methods.csv, None for one dataset. Columns: thinking, method; NDCG@10 on each dataset,
    under its name; mean, low, high: over all datasets, each of the same weight, with the 95 % interval over users;
    seconds_alone, seconds_batched (per test case), tokens (per test case): means over the datasets.
    """
    shared = [name for name in datasets[0].methods.method if all(name in set(d.methods.method) for d in datasets)]
    if missing := [name for name in shared if name not in declared]:
        raise InputError(f"--thinking: says nothing of {', '.join(missing)}; name all methods")
    if unknown := sorted({word for word in declared.values() if word not in THINKING}):
        raise InputError(f"--thinking: found {unknown[0]!r}; expected one of {', '.join(THINKING)}")
    shared.sort(key=lambda name: THINKING.index(declared[name]))  # in the datasets' order otherwise
    frame = pd.DataFrame({"thinking": [declared[name] for name in shared], "method": shared})
    costs = [part.costs.set_index("method").loc[shared] for part in datasets]
    cases = [part.methods.n_cases.iloc[0] for part in datasets]
    for part in datasets:
        frame[part.methods.dataset.iloc[0]] = part.methods.set_index("method").loc[shared, MAIN].to_numpy()
    if overall is None:
        intervals = datasets[0].intervals
        of_all = intervals[(intervals.by == ALL) & (intervals.metric == MAIN)].set_index("method")
    else:
        of_all = overall[overall.metric == MAIN].set_index("method")
    for column in ("mean", "low", "high"):
        frame[column] = of_all.loc[shared, column].to_numpy()
    frame["seconds_alone"] = np.mean([part.ms_alone.to_numpy() / 1000 for part in costs], axis=0)
    frame["seconds_batched"] = np.mean([part.ms_batched.to_numpy() / 1000 for part in costs], axis=0)
    frame["tokens"] = np.mean([part.tokens.to_numpy() / n for part, n in zip(costs, cases, strict=True)], axis=0)
    return frame


def left_out(datasets: Sequence[DatasetStatistics]) -> list[str]:
    """A sentence about the methods that have failed on some dataset."""
    failed = [f"{row.method} on {row.dataset}" for part in datasets for row in part.failed.itertuples()]
    return [f"Left out, as a run has failed: {', '.join(failed)}."] if failed else []
