"""Tests of ID methods on a few items, users and steps, and that padding behind a short history changes no score."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.config.methods import load_method
from benchmark.contract import Cases, Recommender, Split, check_scores
from tests.support.planted import planted_split

RECBOLE = ("gru4rec", "caser", "sasrec", "bert4rec")
ID_METHODS = ("popularity", "item_knn", "ease", "markov", *RECBOLE)
WORLDS = [(2, 2, 1), (3, 2, 2), (5, 3, 3), (8, 4, 4), (9, 5, 2), (12, 3, 4)]  # items, users, the longest history


def world(n_items: int, n_users: int, longest: int) -> Split:
    """Return a split in which every user takes the items in turn; histories have one item up to `longest`."""

    def cases(first: int, number: int) -> Cases:
        number = min(number, n_users * (n_items - 1))  # nobody takes an item twice
        users, taken = np.arange(number) % n_users, 1 + np.arange(number) // n_users
        histories = [(user + np.arange(max(0, k - longest), k)) % n_items for user, k in zip(users, taken, strict=True)]
        lengths = np.array([len(history) for history in histories])
        return Cases(
            case=first + np.arange(number),
            user=users.astype(np.int32),
            time=10**9 + 100 * (first + np.arange(number)),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            items=np.concatenate(histories).astype(np.int32),
            ratings=np.full(lengths.sum(), np.nan, np.float32),
            times=np.full(lengths.sum(), 10**9),
            target=((users + taken) % n_items).astype(np.int32),
        )

    items = pd.DataFrame(
        {"item_id": [f"i{i}" for i in range(n_items)], "title": [f"Thing {i}" for i in range(n_items)]}
    )
    return Split("small", "thing", 20, items, cases(0, 8), cases(8, 3))


@pytest.mark.parametrize("size", WORLDS, ids=str)
@pytest.mark.parametrize("name", ID_METHODS)
def test_a_small_world_is_fitted_and_scored(name: str, size: tuple[int, int, int], tmp_path: Path) -> None:
    split = world(*size)
    params = {"epochs": 1} if name in RECBOLE else {}
    recommender: Recommender = load_method(name).fit(split, seed=1, params=params, workdir=tmp_path / "work")
    # Cases as long as the dataset allows, longer than any that was trained on, and of a user never seen.
    test = replace(split.valid, target=None)
    longer = replace(
        test.take(np.array([0])),
        offsets=np.array([0, 6]),
        items=np.arange(6, dtype=np.int32) % split.n_items,
        ratings=np.zeros(6, np.float32),
        times=np.full(6, 10**9),
        user=np.array([99], np.int32),
    )
    for cases in (test, longer):
        scores = np.concatenate([check_scores(batch, split.n_items, name).copy() for batch in recommender.score(cases)])
        assert scores.shape == (len(cases), split.n_items) and np.isfinite(scores).all()


@pytest.mark.parametrize("name", RECBOLE)
def test_the_paddings_vector_changes_no_score(name: str, tmp_path: Path) -> None:
    """RecBole draws a random vector for padding; another one, however large, changes no score."""
    import torch

    split, prepared = planted_split()
    recommender = load_method(name).fit(split, seed=3, params={"epochs": 1}, workdir=tmp_path / "work")
    cases = replace(prepared.test, target=None)
    assert np.diff(cases.offsets).min() < 5  # shorter than what Caser reads

    def scores() -> np.ndarray:
        return np.concatenate([batch.copy() for batch in recommender.score(cases)])

    before = scores()
    embeddings = [module for module in recommender.net.modules() if isinstance(module, torch.nn.Embedding)]
    padded = [module for module in embeddings if module.padding_idx == 0]
    assert padded
    with torch.no_grad():
        for module in padded:
            module.weight[0] += 3 * module.weight.std()
    np.testing.assert_array_equal(scores(), before)
    with torch.no_grad():  # an item's vector does count
        padded[-1].weight[1:] += 3 * padded[-1].weight.std()
    assert (scores() != before).any()
