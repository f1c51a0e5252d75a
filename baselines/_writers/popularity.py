"""Mixes popularity into the scores that come from a text, its share chosen on validation cases. Light to import.

A text about one user doesn't say how popular each item is, which decides much of what is taken. R2ec scores with a
prior and ID models learn one from their targets. Without popularity, rows that rank by a text would lose to them for
that reason alone, and not because they write.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Cases, Learned, Recommender, Split
from benchmark.evaluate import validation_ndcg

Mix = Callable[[np.ndarray, float], np.ndarray]  # scores [n, n_items] of the text alone and a share -> scores


class PopularityMix(BaseModel):
    """popularity: shares of the items' popularity beside the text's scores, both standardised (0: none). Of several,
    the one with the best NDCG@10 on `valid_cases` validation cases is taken, the first among equals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    popularity: list[Annotated[float, Field(ge=0)]] = Field(default=[0.0], min_length=1)
    valid_cases: int = Field(default=500, ge=1)


def standardized(scores: np.ndarray) -> np.ndarray:
    """Each row minus its mean, over its standard deviation, float64; 0 where all are equal.

    >>> standardized(np.array([[1.0, 3.0], [2.0, 2.0]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    scores = np.asarray(scores, dtype=np.float64)
    spread = scores.std(axis=1, keepdims=True)
    centred = scores - scores.mean(axis=1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(scores), where=spread > 1e-12)


def popular(split: Split) -> Mix:
    """The mix: standardised scores plus share * the standardised log(1 + users who have the item in training)."""
    counts = np.bincount(split.train.interactions()[1], minlength=split.n_items)
    prior = standardized(np.log1p(counts)[None])

    def mix(scores: np.ndarray, share: float) -> np.ndarray:
        return standardized(scores) + share * prior

    return mix


class WithPopularity(Recommender):
    """Another recommender's scores with popularity mixed in.

    Args:
        inner: whose scores are mixed. mix, share: see `Mix`. tried: share and NDCG@10 of each that was compared.
        learned_from: the cases that `inner` and the popularity learned from.
    """

    def __init__(
        self, inner: Recommender, mix: Mix, share: float, tried: list[dict[str, float]], learned_from: Learned
    ) -> None:
        self.inner, self.mix, self.share, self.tried, self.learned_from = inner, mix, share, tried, learned_from

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        for batch in self.inner.score(cases):
            yield self.mix(batch, self.share)

    def texts(self) -> pd.DataFrame | None:
        return self.inner.texts()

    def tokens_written(self) -> int:
        return self.inner.tokens_written()

    def uncached(self) -> "WithPopularity":
        return WithPopularity(self.inner.uncached(), self.mix, self.share, self.tried, self.learned_from)

    def learned(self) -> Learned:
        return self.learned_from

    def report(self) -> dict[str, Any]:
        """The inner report, and popularity: the share; popularity_tried: see `tried`, empty for a single share."""
        return self.inner.report() | {"popularity": self.share, "popularity_tried": self.tried}


def with_best_share(
    inner: Recommender, split: Split, mix: Mix, shares: Sequence[float], valid_cases: int, *, trained: np.ndarray
) -> WithPopularity:
    """Mix in the share with the best NDCG@10 on a seeded sample of validation cases, which `inner` scores once.

    The first is taken among equals; a single one is taken as it is. trained: rows of `split.llm_train` that `inner` was
    trained on, int, repeats allowed.
    """

    def with_share(share: float, tried: list[dict[str, float]]) -> WithPopularity:
        cases = split.llm_train.take(np.unique(trained))
        return WithPopularity(inner, mix, share, tried, Learned.of_fit(cases, split.train if share else None))

    if len(shares) == 1:
        return with_share(shares[0], [])
    validation_cases = split.valid.sample(valid_cases, split.name, "popularity")
    raw = np.concatenate([np.asarray(batch) for batch in inner.score(replace(validation_cases, target=None))])
    tried = []
    for share in shares:
        value = validation_ndcg(_Scored(mix(raw, share)), validation_cases, split.n_items, f"popularity {share:g}")
        tried.append({"popularity": share, "value": value})
    best = max(tried, key=lambda choice: choice["value"])["popularity"]
    print(
        f"popularity {best:g}; tried: "
        + ", ".join(f"{choice['popularity']:g} {choice['value']:.4f}" for choice in tried)
    )
    return with_share(best, tried)


class _Scored(Recommender):
    """A recommender of scores that are computed already."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        yield self.scores
