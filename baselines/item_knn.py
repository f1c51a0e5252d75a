"""Item-kNN: items that the same users had. Sarwar et al., WWW 2001; Deshpande and Karypis, TOIS 2004.

A case's score for item v is the sum of v's similarity to the items h of the history, each weighted by its recency. The
similarity is the number of users of both items over (below + shrink). `below` is, for cosine, the geometric mean of the
numbers of h's and of v's users (Sarwar et al.); for jaccard, the number of users of either; for conditional, that of
h's users (Deshpande and Karypis); for lift, the number of users that both would share by chance (Brin et al., SIGMOD
1997).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy  # not scipy.sparse, which would take its time at each start of the workflow
from pydantic import BaseModel, ConfigDict, Field

from baselines._item_to_item import ItemToItem
from benchmark.contract import Split
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, counted

FIT = Stage("item_knn", 1, packages=("numpy", "scipy"))

BELOW: dict[str, Callable[..., np.ndarray]] = {
    "cosine": lambda both, h, v, n: np.sqrt(h * v),
    "jaccard": lambda both, h, v, n: h + v - both,
    "conditional": lambda both, h, v, n: h,
    "lift": lambda both, h, v, n: h * v / n,
}


class Params(BaseModel):
    """similarity: see above; neighbours: similar items kept per item; shrink: users added below; decay: weight per step
    back."""

    model_config = ConfigDict(extra="forbid")
    similarity: Literal["cosine", "jaccard", "conditional", "lift"] = "cosine"
    neighbours: int = Field(default=100, ge=1)
    shrink: float = Field(default=10.0, ge=0)
    decay: float = Field(default=0.9, gt=0, le=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> ItemToItem:
    """Similarities from the binary user x item matrix of the training cases, sparse throughout."""
    settings = Params.model_validate(params)
    users, items = split.train.interactions()
    ones = np.ones(len(users), dtype=np.float32)
    matrix = scipy.sparse.csc_array((ones, (users, items)), shape=(int(users.max()) + 1, split.n_items))
    count, n_users, blocks = matrix.sum(axis=0), len(np.unique(users)), []
    for start in range(0, split.n_items, 1024):  # blocks of rows bound the memory: co-counts of 1,024 items at a time
        block = (matrix[:, start : start + 1024].T @ matrix).tocoo()
        rows, columns = block.coords
        below = BELOW[settings.similarity](block.data, count[rows + start], count[columns], n_users)
        value = np.where(rows + start == columns, 0, block.data / (below + settings.shrink))
        blocks.append(
            _strongest(scipy.sparse.csr_array((value, (rows, columns)), shape=block.shape), settings.neighbours)
        )
    return ItemToItem(scipy.sparse.vstack(blocks).tocsr(), settings.decay)


def _strongest(matrix: "scipy.sparse.csr_array", k: int) -> "scipy.sparse.csr_array":
    """The k largest entries of each row (ties: the lower item number)."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    place = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    kept = order[(place < k) & (matrix.data[order] > 0)]
    return scipy.sparse.csr_array((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=matrix.shape)


START_SECONDS = 1.0  # it imports no torch


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return counted(s)
