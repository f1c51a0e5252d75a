"""How many different items a row recommends over all cases, and how often it repeats a few."""

import numpy as np
import pyarrow.parquet as pq

from benchmark.analysis.collect import Collected
from benchmark.errors import InputError


def distinct_items(results: Collected, method: str) -> float:
    """How many different items stand among the best 20 of any case, as a mean over the method's seeds."""
    return float(np.mean([len(counts) for counts in _times_recommended(results, method)]))


def three_items_share(results: Collected, method: str) -> float:
    """The share of all places of these lists that the three commonest items take, as a mean over seeds.

    SPRec's over-recommendation ratio (arXiv 2412.09243) at the evaluator's lists: 3 / 20 where all cases have the same
    one.
    """
    shares = [np.sort(counts)[-3:].sum() / counts.sum() for counts in _times_recommended(results, method)]
    return float(np.mean(shares))


def _times_recommended(results: Collected, method: str) -> list[np.ndarray]:
    """How often each recommended item stands in a list, int64, seed by seed. Raises InputError without lists."""
    by_seed = []
    for seed in range(1, results.seeds[method] + 1):
        path = results.run_folder(method, seed) / "rankings.parquet"
        if "top_items" not in pq.read_schema(path).names:
            raise InputError(f"{path}: column 'top_items' is missing; evaluate this run again")
        lists = pq.read_table(path, columns=["top_items"]).column("top_items").combine_chunks()
        by_seed.append(np.unique(lists.flatten().to_numpy(), return_counts=True)[1])
    return by_seed
