"""Item-kNN: items that the same users had, by cosine similarity. Sarwar et al., WWW 2001; Deshpande and Karypis, TOIS 2004.

A case's score for item v is the sum of v's similarity to the items of the history, each weighted by its recency.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Cases, Recommender, Split


class Params(BaseModel):
    """neighbours: similar items kept per item; shrink: added to the cosine's denominator; decay: weight per step back."""

    model_config = ConfigDict(extra="forbid")
    neighbours: int = Field(default=100, ge=1)
    shrink: float = Field(default=10.0, ge=0)
    decay: float = Field(default=0.9, gt=0, le=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "ItemKNN":
    """Similarities from the binary user x item matrix of the training cases, sparse throughout."""
    settings = Params.model_validate(params)
    users, items = split.train.interactions()
    ones = np.ones(len(users), dtype=np.float32)
    matrix = sp.csc_array((ones, (users, items)), shape=(int(users.max()) + 1, split.n_items))
    norm = np.sqrt(np.asarray(matrix.sum(axis=0)).ravel())
    blocks = []
    for start in range(0, split.n_items, 1024):  # blocks of rows bound the memory: co-counts of 1,024 items at a time
        block = (matrix[:, start : start + 1024].T @ matrix).tocoo()
        rows, columns = block.coords
        value = block.data / (norm[rows + start] * norm[columns] + settings.shrink)
        value[rows + start == columns] = 0
        blocks.append(_strongest(sp.csr_array((value, (rows, columns)), shape=block.shape), settings.neighbours))
    return ItemKNN(sp.vstack(blocks).tocsr(), settings.decay)


def _strongest(matrix: sp.csr_array, k: int) -> sp.csr_array:
    """The k largest entries of each row (ties: the lower item number)."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    place = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    kept = order[(place < k) & (matrix.data[order] > 0)]
    return sp.csr_array((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=matrix.shape)


class ItemKNN(Recommender):
    """Scores are recency-weighted sums of rows of the similarity matrix."""

    def __init__(self, similar: sp.csr_array, decay: float) -> None:
        self.similar = similar  # float32 [n_items, n_items]; row h: the items most like h
        self.decay = decay

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        for batch in cases.batches(1024):
            lengths = np.diff(batch.offsets)
            back = np.repeat(batch.offsets[1:], lengths) - 1 - np.arange(batch.offsets[-1])  # 0 for the newest item
            weights = (self.decay**back).astype(np.float32)
            history = sp.csr_array((weights, batch.items, batch.offsets), shape=(len(batch), self.similar.shape[0]))
            yield (history @ self.similar).toarray()
