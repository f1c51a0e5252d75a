"""The recommender of a fitted R2ec: scores of the catalogue by the state that has read a case's reasoning."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from benchmark.contract import Cases, Learned, Recommender, Split
from benchmark.storage.checksums import check_kept
from benchmark.storage.io import read_json
from r2ec.model.ranking import scores
from r2ec.scoring.reader import SETTINGS, Reader
from r2ec.settings import EvaluationSettings


class R2ecRecommender(Recommender):
    """Scores the catalogue by the state that has read a case's reasoning.

    Args:
        reader: with an encoded item table. report, learned_from: of its fit, once that is done.
    """

    def __init__(
        self, reader: Reader, report: dict[str, Any] | None = None, learned_from: Learned | None = None
    ) -> None:
        self.reader, self._report, self._learned = reader, report or {}, learned_from
        self._texts: list[pd.DataFrame] = []  # of the batches scored last
        self._written = 0

    @classmethod
    def load(cls, folder: Path, split: Split, evaluation: EvaluationSettings | None = None) -> Self:
        """What `Reader.save` wrote, for the same dataset; see `Reader.load`."""
        check_kept(folder)
        about = read_json(folder / SETTINGS)
        learned = about.get("learned")  # absent where the model is older than that
        reader = Reader.load(folder, split, evaluation)
        return cls(reader, about["report"], Learned(**learned) if learned else None)

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        """Scores float32 [b, n_items], batch by batch."""
        self._texts, self._written = [], 0
        model, recpo = self.reader.model, self.reader.params.recpo
        catalogue = model.catalogue(self.reader.table.states)
        for batch in cases.batches(self.reader.params.evaluation_rows):
            states, texts, written = self.reader.read(batch)
            self._texts.append(texts)
            self._written += written
            with torch.no_grad():
                users = model.head.user(states)
                item_scores = scores(users, catalogue, tau=recpo.tau, normalize=recpo.normalize, prior=model.item_prior)
                yield item_scores.numpy(force=True)

    def texts(self) -> pd.DataFrame:
        """case, prompt, reasoning, cut (`<answer>` had to be appended), of the cases scored last."""
        return pd.concat(self._texts, ignore_index=True)

    def tokens_written(self) -> int:
        return self._written

    def report(self) -> dict[str, Any]:
        return self._report

    def learned(self) -> Learned | None:
        """What its fit has learned from; kept with the model."""
        return self._learned
