"""A first-order Markov chain: which items users took right after their last ones. Rendle et al., WWW 2010 (FPMC's MC).

The state is all items of the newest second of a history, with equal weight, as a basket has no order:
p(v | history) = mean over its items h of (count(h, v) + smoothing * share(v)) / (count(h) + smoothing),
where share is an item's share of all training interactions. This is the Dirichlet smoothing of Zhai and Lafferty, TOIS
2004.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # not scipy.sparse, which would take its time at each start of the workflow
from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Cases, Recommender, Split
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, counted

FIT = Stage("markov", 1, packages=("numpy", "scipy"))


class Params(BaseModel):
    """smoothing: how many transitions that follow popularity are added to those of each item."""

    model_config = ConfigDict(extra="forbid")
    smoothing: float = Field(default=10.0, gt=0)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "Markov":
    """Count the transitions of all training cases: one of weight 1 / k from each of a state's k items to the target."""
    train, n = split.train, split.n_items
    taken = scipy.sparse.csr_array(
        (np.ones(len(train)), train.target, np.arange(len(train) + 1)), shape=(len(train), n)
    )
    counts = (state(train, n).T @ taken).tocsr()  # sparse: at most as many entries as the states have items
    popular = np.bincount(train.interactions()[1], minlength=n)
    return Markov(counts, popular / popular.sum(), Params.model_validate(params).smoothing)


def state(cases: Cases, n_items: int) -> "scipy.sparse.csr_array":
    """The items of each history's newest second, weights adding up to 1: float64 [cases, n_items]."""
    row = np.repeat(np.arange(len(cases)), np.diff(cases.offsets))
    newest = cases.times == cases.times[cases.offsets[1:] - 1][row]
    row, item = row[newest], cases.items[newest]
    return scipy.sparse.csr_array((1 / np.bincount(row)[row], (row, item)), shape=(len(cases), n_items))


class Markov(Recommender):
    """Scores are probabilities of the next item."""

    def __init__(self, counts: "scipy.sparse.csr_array", popular: np.ndarray, smoothing: float) -> None:
        left = counts.sum(axis=1) + smoothing
        # float64 [n_items, n_items], row h: what followed item h
        self.chance = scipy.sparse.diags_array(1 / left) @ counts
        self.smoothed = smoothing / left  # float64 [n_items]: the part of each row that popularity has
        self.popular = popular  # float64 [n_items], adds up to 1

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        for batch in cases.batches(1024):
            last = state(batch, len(self.popular))
            yield (last @ self.chance).toarray() + np.outer(last @ self.smoothed, self.popular)


START_SECONDS = 1.0  # it imports no torch


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return counted(s)
