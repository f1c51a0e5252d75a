"""Tests of EASE, the Markov chain and item-kNN against numbers worked by hand, and of the memory that EASE takes."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.config.methods import load_method
from benchmark.contract import Cases, Split
from benchmark.errors import InputError
from tests.support.planted import planted_split

Line = list[tuple[int, int]]  # item and second, oldest first


def cases_of(histories: list[Line], users: list[int], target: list[int] | None, time: list[int]) -> Cases:
    flat = np.array([step for history in histories for step in history], dtype=np.int64).reshape(-1, 2)
    return Cases(
        case=np.arange(len(histories)),
        user=np.array(users, np.int32),
        time=np.array(time),
        offsets=np.cumsum([0, *map(len, histories)]),
        items=flat[:, 0].astype(np.int32),
        ratings=np.full(len(flat), np.nan, np.float32),
        times=flat[:, 1],
        target=None if target is None else np.array(target, np.int32),
    )


def split_of(lines: list[Line], n_items: int) -> Split:
    """A case for each step of a user's line that has one before its second, as `same_time: exclude` makes them."""
    rows = [
        (time, user, item, [step for step in line if step[1] < time])
        for user, line in enumerate(lines)
        for item, time in line
        if time > line[0][1]
    ]
    rows.sort(key=lambda row: row[0])
    time, users, target, histories = (list(column) for column in zip(*rows, strict=True))
    items = pd.DataFrame({"title": [f"Thing {item}" for item in range(n_items)]})
    train = cases_of(histories, users, target, time)
    return Split("by-hand", "thing", 20, items, train, train)


def scores(method: str, split: Split, histories: list[Line], **params: Any) -> np.ndarray:
    cases = cases_of(histories, [0] * len(histories), None, [100] * len(histories))
    recommender = load_method(method).fit(split, seed=1, params=params, workdir=Path("unused"))
    return np.concatenate(list(recommender.score(cases)))


def three() -> Split:
    """Three users, who had the items 0 and 1, 0 and 1, 0 and 2."""
    return split_of([[(0, 1), (1, 2)], [(0, 1), (1, 2)], [(0, 1), (2, 2)]], 3)


def test_ease_by_hand() -> None:
    """X'X + I is [[4, 2, 1], [2, 3, 0], [1, 0, 2]], and its inverse [[6, -4, -3], [-4, 7, 2], [-3, 2, 8]] / 13."""
    single_items = scores("ease", three(), [[(0, 1)], [(1, 1)], [(2, 1)]], l2=1)
    np.testing.assert_allclose(single_items, [[0, 4 / 7, 3 / 8], [4 / 6, 0, -2 / 8], [3 / 6, -2 / 7, 0]], atol=1e-12)
    # The newer item counts twice the older one.
    both_items = scores("ease", three(), [[(0, 1), (1, 2)]], l2=1, decay=0.5)
    np.testing.assert_allclose(both_items, [[2 / 3, 2 / 7, 3 / 16 - 1 / 4]], atol=1e-12)


def test_ease_solves_its_least_squares(tmp_path: Path) -> None:
    """The gradient of ||X - XB||^2 + l2 ||B||^2 is 0 but on the diagonal, which may not move. 60 items, blocks and
    all."""
    split = planted_split()[0]
    users, items = split.train.interactions()
    had = np.zeros((users.max() + 1, split.n_items))
    had[users, items] = 1
    b = load_method("ease").fit(split, seed=1, params={"l2": 7.0}, workdir=tmp_path).matrix
    gradient = had.T @ (had @ b - had) + 7 * b
    assert np.abs(gradient[~np.eye(split.n_items, dtype=bool)]).max() < 1e-9
    assert (b.diagonal() == 0).all() and np.abs(b).max() > 0.05


def test_ease_does_not_count_one_taste_thrice() -> None:
    """0, 1 and 2 always go together, and in 4 of 10 with 3; 4 goes in 7 of 10 with 5, otherwise with 6.

    Of a user who had 0, 1, 2 and 4, neighbours add up to 3 * .4 for item 3 and .7 for item 5. EASE shares the .4 out.
    """
    many = [[0, 1, 2, 3]] * 40 + [[0, 1, 2]] * 60 + [[4, 5]] * 70 + [[4, 6]] * 30
    split = split_of([[(item, 1 + place) for place, item in enumerate(line)] for line in many], 7)
    history: Line = [(0, 1), (1, 2), (2, 3), (4, 4)]
    plain = scores("item_knn", split, [history], similarity="conditional", shrink=0, decay=1)[0]
    np.testing.assert_allclose(plain[[3, 5]], [1.2, 0.7], rtol=1e-6)
    ease = scores("ease", split, [history], l2=1, decay=1)[0]
    assert ease[3] == pytest.approx(0.4, abs=0.01) and ease[5] > 0.7


def test_ease_refuses_a_matrix_beyond_free_memory(tmp_path: Path) -> None:
    split = replace(three(), items=pd.DataFrame(index=range(10**6)))
    sentence = (
        r"^ease: a dense matrix of 1,000,000 x 1,000,000 items needs 7450\.6 GiB and "
        r"\d+\.\d GiB of main memory are free; raise min_item_count of dataset by-hand, or leave ease out of methods$"
    )
    with pytest.raises(InputError, match=sentence):
        load_method("ease").fit(split, seed=1, params={}, workdir=tmp_path)


def test_ease_inverts_in_place(tmp_path: Path) -> None:
    """The fit takes at most half as much again as the matrix, for the block of counts that is being written."""
    n = 2500
    generator = np.random.default_rng(0)
    walks = [generator.choice(n, 10, replace=False) for _ in range(200)]
    split = split_of([[(int(item), 1 + place) for place, item in enumerate(walk)] for walk in walks], n)
    tracemalloc.start()
    load_method("ease").fit(split, seed=1, params={}, workdir=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1 < peak / (8 * n**2) < 1.5


def baskets() -> Split:
    """Two users begin with the items 0 and 1 at once, and one of them ends with 2 and 3 at once."""
    return split_of([[(0, 1), (1, 1), (2, 2), (3, 3)], [(0, 1), (2, 2)], [(0, 1), (1, 1), (2, 2), (3, 2)]], 4)


def test_markov_by_hand() -> None:
    """A basket's items share a transition: 0 -> 2 has 1/2 + 1 + 1/2, 0 -> 3 has 1/2, 1 -> 2 has 1, 1 -> 3 has 1/2, 2 ->
    3 has 1.

    The 10 interactions are of items 0, 1, 2, 3 in 3, 2, 3, 2; with smoothing 2.5 they count .75, .5, .75, .5 in each
    row.
    """
    histories: list[Line] = [[(0, 1)], [(1, 1)], [(0, 1), (2, 2)], [(3, 1)], [(2, 4), (0, 5), (1, 5)]]
    probabilities = scores("markov", baskets(), histories, smoothing=2.5)
    after_0, after_1 = np.array([0.75, 0.5, 2.75, 1.0]) / 5, np.array([0.75, 0.5, 1.75, 1.0]) / 4
    after_2, popular = np.array([0.75, 0.5, 0.75, 1.5]) / 3.5, np.array([0.3, 0.2, 0.3, 0.2])
    np.testing.assert_allclose(probabilities, [after_0, after_1, after_2, popular, (after_0 + after_1) / 2], atol=1e-12)


def test_a_chain_with_little_smoothing_is_what_followed_and_with_much_popularity() -> None:
    little, much = (scores("markov", baskets(), [[(0, 1)]], smoothing=value)[0] for value in (1e-9, 1e9))
    np.testing.assert_allclose(little, [0, 0, 0.8, 0.2], atol=1e-8)
    np.testing.assert_allclose(much, [0.3, 0.2, 0.3, 0.2], atol=1e-8)


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        ("cosine", [[0, 2 / (6**0.5 + 1), 1 / (3**0.5 + 1)], [2 / (6**0.5 + 1), 0, 0], [1 / (3**0.5 + 1), 0, 0]]),
        ("jaccard", [[0, 2 / 4, 1 / 4], [2 / 4, 0, 0], [1 / 4, 0, 0]]),
        ("conditional", [[0, 2 / 4, 1 / 4], [2 / 3, 0, 0], [1 / 2, 0, 0]]),
        ("lift", [[0, 2 / 3, 1 / 2], [2 / 3, 0, 0], [1 / 2, 0, 0]]),
    ],
)
def test_similarities_by_hand(similarity: str, expected: list[list[float]]) -> None:
    """Users of the items: 3, 2, 1 of 3; of 0 and 1: 2, of 0 and 2: 1, of 1 and 2: none. shrink adds 1 to each
    denominator."""
    item_scores = scores("item_knn", three(), [[(0, 1)], [(1, 1)], [(2, 1)]], similarity=similarity, shrink=1)
    np.testing.assert_allclose(item_scores, expected, rtol=1e-6)
