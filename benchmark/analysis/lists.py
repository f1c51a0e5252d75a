"""How many different items a row recommends over all cases, and how often it repeats a few."""

from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from benchmark.analysis.collect import Collected
from benchmark.errors import InputError


class Repeated(NamedTuple):
    """What the best 20 items of all cases have in common, as means over a method's seeds.

    three_items_share is SPRec's over-recommendation ratio (arXiv 2412.09243) at the evaluator's lists: 3 / 20 where all
    cases have the same one.
    """

    distinct_items: float  # that stand in a list of any case
    three_items_share: float  # of all places, that the three commonest items take


def repeated(results: Collected, method: str) -> Repeated:
    """Count a method's lists. Raises InputError for a run without any."""
    by_seed = [_times_recommended(results, method, seed) for seed in range(1, results.seeds[method] + 1)]
    shares = [np.sort(counts)[-3:].sum() / counts.sum() for counts in by_seed]
    return Repeated(float(np.mean([len(counts) for counts in by_seed])), float(np.mean(shares)))


def _times_recommended(results: Collected, method: str, seed: int) -> np.ndarray:
    """How often each recommended item stands in a list of this run, int64. Raises InputError without lists."""
    path = results.run_folder(method, seed) / "rankings.parquet"
    if "top_items" not in pq.read_schema(path).names:
        raise InputError(f"{path}: column 'top_items' is missing; evaluate this run again")
    lists = pq.read_table(path, columns=["top_items"]).column("top_items").combine_chunks()
    times = np.bincount(lists.flatten().to_numpy())
    return times[times > 0]
