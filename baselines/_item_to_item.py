"""The recommender that item-kNN and EASE share: it scores by one item x item matrix."""

from collections.abc import Iterator

import numpy as np
import scipy  # not scipy.sparse, which would take its time at each start of the workflow

from benchmark.contract import Cases, Recommender


class ItemToItem(Recommender):
    """A case's scores are the sum of the matrix's rows of the history, each weighted by decay for each newer item."""

    def __init__(self, matrix: "scipy.sparse.csr_array | np.ndarray", decay: float) -> None:
        self.matrix = matrix  # float [n_items, n_items], sparse or dense; row h: item h's part of each item's score
        self.decay = decay  # at most 1; 1: all items of a history count the same

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        for batch in cases.batches(1024):
            lengths = np.diff(batch.offsets)
            back = np.repeat(batch.offsets[1:], lengths) - 1 - np.arange(batch.offsets[-1])  # 0 for the newest item
            weights = (self.decay**back).astype(self.matrix.dtype)
            history = scipy.sparse.csr_array(
                (weights, batch.items, batch.offsets), shape=(len(batch), self.matrix.shape[0])
            )
            scores = history @ self.matrix
            yield scores.toarray() if scipy.sparse.issparse(scores) else scores
