"""Recommending with a fitted R2ec."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmark.contract import Cases, Learned, Recommender
from r2ec.recpo.objective import scores
from r2ec.scoring.reader import Reader


class R2ecRecommender(Reader, Recommender):
    """Scores the catalogue by the state that has read a case's reasoning."""

    _texts: list[pd.DataFrame]  # of the batches scored last
    _written = 0

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        """Scores float32 [b, n_items], batch by batch."""
        self._texts, self._written = [], 0
        catalogue = self.model.catalogue(self.table.states)
        recpo = self.params.recpo
        for batch in cases.batches(self.params.evaluation_rows):
            states, texts, written = self.read(batch)
            self._texts.append(texts)
            self._written += written
            with torch.no_grad():
                users = self.model.head.user(states)
                found = scores(users, catalogue, tau=recpo.tau, normalize=recpo.normalize, prior=self.model.item_prior)
                yield found.numpy(force=True)

    def texts(self) -> pd.DataFrame:
        """case, prompt, reasoning, cut (`<answer>` had to be appended), of the cases scored last."""
        return pd.concat(self._texts, ignore_index=True)

    def tokens_written(self) -> int:
        return self._written

    def report(self) -> dict[str, Any]:
        return self.found

    def learned(self) -> Learned | None:
        """See `learned_from`; kept with the model."""
        return self.learned_from
