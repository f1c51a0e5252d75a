"""Tests of popularity mixed into a text's scores: by hand, chosen where it helps, left out where it doesn't."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from baselines._writers.popularity import PopularityMix, popular, standardized, with_best_share
from benchmark.contract import Cases, Learned, Recommender, Split
from tests.support.tiny_fits import split

SHARES = [0.0, 0.5, 2.0]
NONE = np.array([], dtype=np.int64)  # trained on nothing


class Fixed(Recommender):
    """A recommender that gives fixed scores by case number and counts its calls."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.calls = scores, 0

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        assert cases.target is None
        self.calls += 1
        for batch in cases.batches(16):
            yield self.scores[batch.case]

    def tokens_written(self) -> int:
        return 7

    def report(self) -> dict[str, float]:
        return {"losses": 1.0}


def counted(split: Split) -> np.ndarray:
    """Count each item's users in the training cases, one by one."""
    pairs = {(int(u), int(t)) for u, t in zip(split.train.user, split.train.target, strict=True)}  # type: ignore[arg-type]
    pairs |= {(int(split.train.user[i]), int(v)) for i in range(len(split.train)) for v in split.train.history(i)}
    return np.bincount([item for _, item in pairs], minlength=split.n_items)


def test_the_mix_by_hand() -> None:
    data = split()
    logs = np.log(1 + counted(data))
    prior = (logs - logs.mean()) / logs.std()
    scores = np.random.default_rng(0).normal(size=(3, data.n_items))
    own = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    mix = popular(data)
    np.testing.assert_allclose(mix(scores, 2.0), own + 2 * prior)
    np.testing.assert_array_equal(mix(scores, 0.0).argsort(axis=1), scores.argsort(axis=1))
    # A text that says nothing of any item, such as a query of unknown words, leaves popularity alone.
    np.testing.assert_allclose(mix(np.zeros((1, data.n_items)), 1.0)[0], prior)
    assert standardized(np.full((2, 3), 4.0)).tolist() == [[0.0] * 3] * 2


def informed(data: Split, strength: float) -> Fixed:
    """Return a recommender of noise that gives `strength` more to the target of each validation case."""
    cases = data.valid
    assert cases.target is not None
    scores = np.random.default_rng(1).normal(size=(int(cases.case.max()) + 1, data.n_items))
    scores[cases.case, cases.target] += strength
    return Fixed(scores)


def skewed(data: Split) -> Split:
    """The same, but every validation case takes one of the three items that most users have and that it hasn't had
    itself."""
    best = np.argsort(-counted(data))
    cases, rng = data.valid, np.random.default_rng(2)
    free = [best[~np.isin(best, cases.history(i))][:3] for i in range(len(cases))]
    target = np.array([rng.choice(popular_items) for popular_items in free], dtype=np.int32)
    return replace(data, valid=replace(cases, target=target))


def test_the_share_follows_what_validation_says() -> None:
    data = skewed(split())
    noise = with_best_share(informed(data, 0.0), data, popular(data), SHARES, 100, trained=NONE)
    assert noise.share == 2.0  # nothing but popularity says anything there
    assert [choice["popularity"] for choice in noise.tried] == SHARES
    assert noise.tried[2]["value"] > 0.5 > 0.1 > noise.tried[0]["value"]
    oracle = with_best_share(informed(data, 50.0), data, popular(data), SHARES, 100, trained=NONE)
    assert oracle.share == 0.0 and oracle.tried[0]["value"] == 1.0  # the first among equals
    assert noise.report() == {"losses": 1.0, "popularity": 2.0, "popularity_tried": noise.tried}
    assert noise.tokens_written() == 7 and noise.texts() is None and noise.uncached().share == 2.0


def test_scores_are_mixed_batch_by_batch() -> None:
    data = split()
    inner = informed(data, 1.0)
    mixed = with_best_share(inner, data, popular(data), [0.5], 100, trained=NONE)
    assert inner.calls == 0 and (mixed.share, mixed.tried) == (0.5, [])  # one share is no choice
    cases = replace(data.valid.take(np.arange(40)), target=None)
    mixed_scores = np.concatenate(list(mixed.score(cases)))
    np.testing.assert_allclose(mixed_scores, popular(data)(inner.scores[cases.case], 0.5))
    tried = with_best_share(inner, data, popular(data), SHARES, 30, trained=NONE)
    assert inner.calls == 2 and len(tried.tried) == 3  # scored once for all shares


def test_settings_are_checked() -> None:
    assert PopularityMix().popularity == [0.0]
    for wrong in ({"popularity": []}, {"popularity": [-1]}, {"valid_cases": 0}, {"popularty": [1]}):
        with pytest.raises(ValidationError):
            PopularityMix.model_validate(wrong)


def test_popularity_counts_as_learned_only_without_a_training() -> None:
    """Behind a training the share adds nothing to its cases. Without one, all training cases count, not only the ten
    that an LLM may read."""
    data = replace(split(), llm_rows=np.arange(30, 40))
    rows = np.array([3, 1, 3])

    def learned(trained: np.ndarray, share: float) -> Learned:
        return with_best_share(informed(data, 0), data, popular(data), [share], 1, trained=trained).learned()

    assert learned(NONE, 0.0) == Learned(0, 0, 0)
    assert learned(NONE, 2.0) == Learned.of(data.train) and Learned.of(data.train).targets > 1000
    two_cases = data.train.take(np.array([31, 33]))
    assert learned(rows, 2.0) == learned(rows, 0.0) == Learned.of(two_cases) and Learned.of(two_cases).targets == 2
