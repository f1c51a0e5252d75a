"""EASE: each item as a linear model of all others, in closed form.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.

X is the binary user x item matrix of all training interactions. B minimises ||X - XB||^2 + l2 ||B||^2 where its
diagonal is 0: with P = (X'X + l2 I)^-1 it is B = I - P diag(1 / diag P). A case's score for item v is the sum of B[h,
v] over the items h of the history, each weighted by its recency; with decay 1 it is Steck's x B.
"""

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import scipy  # not scipy.sparse, which would take its time at each start of the workflow
from pydantic import BaseModel, ConfigDict, Field

from baselines._item_to_item import ItemToItem
from benchmark.contract import Split
from benchmark.errors import InputError
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, counted

FIT = Stage("ease", 1, packages=("numpy", "scipy"))


class Params(BaseModel):
    """l2: added to the diagonal of X'X; decay: weight per step back in the history."""

    model_config = ConfigDict(extra="forbid")
    l2: float = Field(default=200.0, ge=0.01)
    decay: float = Field(default=0.9, gt=0, le=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> ItemToItem:
    """Invert X'X in its own memory: 8 bytes for each pair of items. Raises InputError where so much isn't free."""
    settings, n = Params.model_validate(params), split.n_items
    needed, free = 8 * n**2, psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"ease: a dense matrix of {n:,} x {n:,} items needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB of "
            f"main memory are free; raise min_item_count of dataset {split.name}, or leave ease out of methods"
        )
    users, items = split.train.interactions()
    had = scipy.sparse.csc_array((np.ones(len(users)), (users, items)), shape=(int(users.max()) + 1, n))
    matrix = np.empty((n, n), order="F")  # the order in which scipy inverts in place
    for start in range(0, n, 1024):
        matrix[:, start : start + 1024] = (had.T @ had[:, start : start + 1024]).toarray()
    matrix[np.diag_indices(n)] += settings.l2
    matrix = scipy.linalg.inv(matrix, overwrite_a=True, check_finite=False, assume_a="pos")
    matrix /= -matrix.diagonal().copy()
    np.fill_diagonal(matrix, 0)
    return ItemToItem(matrix, settings.decay)


START_SECONDS = 1.0  # it imports no torch


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`: a dense matrix, inverted in place."""
    sparse = counted(s)
    return FitCost(sparse.seconds + s.items**3 * 5e-11, sparse.memory + s.items**2 * 8)
