"""Popularity: every user gets the items that most users had in the training period. The floor of all methods."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Cases, Recommender, Split
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, counted

FIT = Stage("popularity", 1, packages=("numpy",))


class Params(BaseModel):
    """half_life_days: an interaction's weight halves with its age before the last training case; null: all count 1."""

    model_config = ConfigDict(extra="forbid")
    half_life_days: float | None = Field(default=None, gt=0)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "Popularity":
    """Count the distinct users of each item; with a half-life, count each training target by its age."""
    half_life = Params.model_validate(params).half_life_days
    if half_life is None:
        _, items = split.train.interactions()
        return Popularity(np.bincount(items, minlength=split.n_items).astype(np.float64))
    assert split.train.target is not None
    age_days = (split.train.time.max() - split.train.time) / 86400
    weight = 0.5 ** (age_days / half_life)
    return Popularity(np.bincount(split.train.target, weights=weight, minlength=split.n_items))


class Popularity(Recommender):
    """The same scores for every case."""

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts  # float64 [n_items]

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        for batch in cases.batches(1024):
            yield np.tile(self.counts, (len(batch), 1))


START_SECONDS = 1.0  # it imports no torch


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return counted(s)
