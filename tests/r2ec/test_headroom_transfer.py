"""Reasonings lent to the user's other cases: which are lent to which, what they are read with, and what is gained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.contract import Cases
from benchmark.data.store import read_split
from r2ec.headroom import transfer
from r2ec.headroom.sampled import Sampled, chosen_cases, sampled
from r2ec.headroom.transfer import Lent, lending, lent, of_lenders, pairs_of
from r2ec.scoring.reader import Reader
from tests.support.planted import planted, write_prepared
from tests.support.tiny_fits import fit_one_step


def test_a_case_borrows_from_its_users_case_before_it() -> None:
    assert pairs_of(np.array([1, 2, 1, 3, 1, 2])).tolist() == [[2, 0], [4, 2], [5, 1]]
    assert pairs_of(np.array([1, 2, 3])).shape == (0, 2)


def test_the_best_is_lent_first_and_then_seeded_others() -> None:
    rank = np.array([9, 3, 7, 3, 5])
    given = lending(rank, case=4, others=3)
    assert given[0] == 1 and len(set(given.tolist())) == 4
    assert lending(rank, case=4, others=3).tolist() == given.tolist()
    assert sorted(lending(rank, case=4).tolist()) == [0, 1, 2, 3, 4]
    assert len({tuple(lending(rank, case=case).tolist()) for case in range(8)}) > 1


def test_the_gain_by_hand() -> None:
    """Two users with two cases each. Log ranks fall from those of 8 and 2 to 4 and 1: by log 2 each."""
    ranks = np.array([[4, 8, 8], [4, 8, 8], [1, 2, 2], [1, 2, 2]], dtype=np.int32)
    (row,) = of_lenders(Lent(np.array([1, 1, 2, 2]), ranks), ("log rank",))
    assert row["random"] == pytest.approx(np.log([8, 2]).mean()) and row["picked"] == pytest.approx(np.log(4) / 2)
    assert row["gain"] == pytest.approx(-np.log(2)) and (row["cases"], row["users"]) == (4, 2)
    assert of_lenders(Lent(np.empty(0, int), np.empty((0, 1), np.int32)), ("log rank",)) == []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = planted(n_users=60)
    return write_prepared(tmp_path_factory.mktemp("data") / "toy", raw, test_cases=60, valid_cases=60, history_length=6)


@pytest.fixture(scope="module")
def reader(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader.load(fit_one_step(data, tmp_path_factory.mktemp("fit")), read_split(data))


@pytest.fixture(scope="module")
def reasonings(reader: Reader, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cases, Sampled]:
    split = read_split(data)
    cases = chosen_cases(split.valid, 30, split.name)
    return cases, sampled(reader, cases, 4, tmp_path_factory.mktemp("parts"))


def test_a_case_is_ranked_as_with_its_own_text_where_it_lends_to_itself(
    reader: Reader, reasonings: tuple[Cases, Sampled], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, own = reasonings
    monkeypatch.setattr(transfer, "pairs_of", lambda users: np.stack([np.arange(len(users))] * 2, axis=1))
    read = lent(reader, cases, own, tmp_path).rank
    order = np.stack([lending(rank, int(case)) for rank, case in zip(own.rank, own.case, strict=True)])
    as_sampled = np.take_along_axis(own.rank, order, axis=1)
    assert np.array_equal(read, as_sampled) and len(np.unique(own.rank)) > 10


def test_other_texts_rank_otherwise_and_a_stopped_reading_goes_on(
    reader: Reader, reasonings: tuple[Cases, Sampled], tmp_path: Path
) -> None:
    cases, own = reasonings
    pairs = pairs_of(own.user)
    assert len(pairs) > 8
    whole = lent(reader, cases, own, tmp_path)
    assert whole.rank.shape == (len(pairs), 4) and whole.user.tolist() == own.user[pairs[:, 0]].tolist()
    parts = sorted(tmp_path.glob("*.npz"))
    kept = parts[0].stat().st_mtime_ns
    parts[-1].unlink()
    assert np.array_equal(lent(reader, cases, own, tmp_path).rank, whole.rank)
    assert parts[0].stat().st_mtime_ns == kept
    # What the lenders' reasonings hold decides: others give other ranks.
    other = replace(own, ids=np.roll(own.ids, 1, axis=0))
    assert not np.array_equal(lent(reader, cases, other, tmp_path / "other").rank, whole.rank)
