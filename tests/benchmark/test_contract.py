"""Cases against plain loops, their files, and every refusal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.contract import Cases, Learned, check_scores, watched
from benchmark.data.prepare import sealed_about
from benchmark.data.protocol import prepare
from benchmark.data.store import check_cases, read_cases, read_split, write_cases
from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from benchmark.storage.io import write_json
from tests.support.planted import as_split, planted, planted_split
from tests.support.planted import settings as planted_settings

HISTORIES = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=7), max_size=12)


def cases_of(histories: list[list[int]], targets: bool = True) -> Cases:
    """Cases with these histories. Times ascend; users repeat; the target is an item that no history holds."""
    lengths = [len(history) for history in histories]
    n, flat = len(histories), [item for history in histories for item in history]
    return Cases(
        case=10 + 3 * np.arange(n),
        user=(np.arange(n) % 3).astype(np.int32),
        time=1000 + np.arange(n),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.array(flat, dtype=np.int32),
        ratings=np.array([item / 2 if item % 2 else np.nan for item in flat], dtype=np.float32),
        times=np.array([100 + place for length in lengths for place in range(length)], dtype=np.int64),
        target=(31 + np.arange(n) % 4).astype(np.int32) if targets else None,
    )


def assert_same(cases: Cases, expected: Cases) -> None:
    for name, value in vars(cases).items():
        if name == "target" and value is None:
            assert expected.target is None
            continue
        np.testing.assert_array_equal(getattr(expected, name), value, err_msg=name)
        assert getattr(expected, name).dtype == value.dtype, name


# Views of cases


@settings(max_examples=100, deadline=None)
@given(st.data(), HISTORIES, st.booleans())
def test_take_gives_the_cases_of_these_rows(data: st.DataObject, histories: list[list[int]], targets: bool) -> None:
    cases = cases_of(histories, targets)
    rows = data.draw(st.lists(st.integers(0, len(cases) - 1))) if histories else []
    part = cases.take(np.array(rows, dtype=np.int64))
    assert len(part) == len(rows)
    for i, row in enumerate(rows):
        start, stop = cases.offsets[row], cases.offsets[row + 1]
        assert part.history(i).tolist() == histories[row] == cases.history(row).tolist()
        own = slice(part.offsets[i], part.offsets[i + 1])
        np.testing.assert_array_equal(part.ratings[own], cases.ratings[start:stop])
        np.testing.assert_array_equal(part.times[own], cases.times[start:stop])
        assert (part.case[i], part.user[i], part.time[i]) == (cases.case[row], cases.user[row], cases.time[row])
        assert (part.target is None) == (not targets)
        if part.target is not None and cases.target is not None:
            assert part.target[i] == cases.target[row]
    for name in ("case", "user", "time", "items", "ratings", "times"):
        assert getattr(part, name).dtype == getattr(cases, name).dtype


@settings(max_examples=50, deadline=None)
@given(HISTORIES, st.integers(1, 15))
def test_batches_are_consecutive_and_hold_every_case(histories: list[list[int]], size: int) -> None:
    cases = cases_of(histories)
    batches = list(cases.batches(size))
    assert [len(batch) for batch in batches] == [min(size, len(cases) - s) for s in range(0, len(cases), size)]
    assert [batch.history(i).tolist() for batch in batches for i in range(len(batch))] == histories
    assert [number for batch in batches for number in batch.case] == cases.case.tolist()


@settings(max_examples=100, deadline=None)
@given(HISTORIES, st.integers(1, 9), st.sampled_from([-1, 0, 99]))
def test_padded_aligns_the_newest_items_to_the_right(histories: list[list[int]], length: int, pad: int) -> None:
    newest = [history[-length:] for history in histories]
    expected = [[pad] * (length - len(history)) + history for history in newest]
    padded = cases_of(histories).padded(pad, length)
    assert padded.shape == (len(histories), length) and padded.dtype == np.int64
    assert padded.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(HISTORIES, st.booleans())
def test_interactions_are_the_distinct_pairs_of_a_plain_loop(histories: list[list[int]], targets: bool) -> None:
    cases = cases_of(histories, targets)
    expected = {(i % 3, item) for i, history in enumerate(histories) for item in history}
    if cases.target is not None:
        expected |= {(i % 3, int(target)) for i, target in enumerate(cases.target)}
    users, items = cases.interactions()
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == sorted(expected)


# Files


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=5), min_size=1, max_size=8), st.booleans())
def test_cases_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, histories: list[list[int]], targets: bool
) -> None:
    path = tmp_path_factory.mktemp("cases") / "cases.parquet"
    cases = cases_of(histories, targets)
    write_cases(path, cases, with_target=targets)
    assert_same(cases, read_cases(path, targets))


def test_a_piece_of_cases_is_written_as_itself(tmp_path: Path) -> None:
    cases = cases_of([[1, 2], [3], [4, 5, 6], [7]])
    write_cases(tmp_path / "piece.parquet", cases.take(np.array([1, 2])), with_target=True)
    read_again = read_cases(tmp_path / "piece.parquet", targets=True)
    assert [read_again.history(i).tolist() for i in range(2)] == [[3], [4, 5, 6]]


def test_test_cases_hold_no_target(tmp_path: Path) -> None:
    cases = cases_of([[1, 2], [3]])
    write_cases(tmp_path / "test.parquet", cases, with_target=False)
    assert "target" not in pq.read_table(tmp_path / "test.parquet").column_names
    assert read_cases(tmp_path / "test.parquet", targets=False).target is None
    with pytest.raises(InputError, match=r"test.parquet: column 'target' is missing"):
        read_cases(tmp_path / "test.parquet", targets=True)


def test_a_leaked_target_is_refused(tmp_path: Path) -> None:
    write_cases(tmp_path / "test.parquet", cases_of([[1, 2]]), with_target=True)
    with pytest.raises(InputError, match=r"test.parquet: test cases must not hold a column 'target'"):
        read_cases(tmp_path / "test.parquet", targets=False)


@pytest.mark.parametrize("column", ["case", "user", "time", "history", "ratings", "times", "target"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    write_cases(tmp_path / "x.parquet", cases_of([[1, 2]]), with_target=True)
    pq.write_table(pq.read_table(tmp_path / "x.parquet").drop_columns([column]), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=rf"x.parquet: column '{column}' is missing"):
        read_cases(tmp_path / "x.parquet", targets=True)


def test_ragged_columns_have_to_agree(tmp_path: Path) -> None:
    write_cases(tmp_path / "x.parquet", cases_of([[1, 2]]), with_target=True)
    table = pq.read_table(tmp_path / "x.parquet")
    at = table.column_names.index("ratings")
    pq.write_table(table.set_column(at, "ratings", pa.array([[1.0]], pa.list_(pa.float32()))), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="history, ratings and times differ in length"):
        read_cases(tmp_path / "x.parquet", targets=True)


def test_a_split_never_reads_the_test_cases(tmp_path: Path) -> None:
    cases = cases_of([[1, 2], [3]])
    for part in ("train", "valid"):
        write_cases(tmp_path / f"{part}.parquet", cases, with_target=True)
    write_cases(tmp_path / "train.parquet", cases, with_target=True, llm_rows=np.array([1]))
    pq.write_table(pa.table({"item_id": ["a"] * 40, "title": ["The a"] * 40}), tmp_path / "items.parquet")
    about = {"dataset": "toy", "settings": {"category": "toy", "history_length": 7}}
    write_json(tmp_path / "dataset.json", about)  # of an earlier version
    with pytest.raises(InputError, match=r"dataset\.json: has no 'rating_scale'; prepare the dataset again"):
        read_split(tmp_path)
    write_json(
        tmp_path / "dataset.json", sealed_about(about | {"rating_scale": 10}, tmp_path)
    )  # there is no test.parquet in this folder
    split = read_split(tmp_path)
    assert split.rating_scale == 10
    assert (split.name, split.category, split.history_length, split.n_items) == ("toy", "toy", 7, 40)
    assert (split.category_plural, split.several) == (None, "toys")
    assert replace(split, category="CD or vinyl", category_plural="CDs and vinyl").several == "CDs and vinyl"
    assert_same(cases, split.train)
    assert_same(cases.take(np.array([1])), split.llm_train)
    assert not any("test" in name for name in vars(split))


def test_training_cases_without_the_llms_sample_are_of_an_earlier_version(tmp_path: Path) -> None:
    cases = cases_of([[1, 2], [3]])
    write_cases(tmp_path / "train.parquet", cases, with_target=True)
    for name in ("valid", "items"):  # which are not reached
        (tmp_path / f"{name}.parquet").write_bytes(b"")
    about = {"dataset": "toy", "settings": {"category": "toy", "history_length": 7}, "rating_scale": 5}
    write_json(tmp_path / "dataset.json", sealed_about(about, tmp_path))
    with pytest.raises(InputError, match=r"train\.parquet: column 'llm' is missing; prepare the dataset again"):
        read_split(tmp_path)


# Sequences


def test_sequences_are_those_by_hand() -> None:
    # User 4: 7, then 8 and 9 in one second, then 5 with a history of two. User 2: 3, then 7.
    cases = Cases(
        case=np.arange(5),
        user=np.array([4, 4, 2, 4, 4], np.int32),
        time=np.array([20, 20, 21, 30, 40]),
        offsets=np.array([0, 1, 2, 3, 5, 7]),
        items=np.array([7, 7, 3, 8, 9, 9, 5], np.int32),
        ratings=np.zeros(7, np.float32),
        times=np.array([10, 10, 11, 20, 20, 20, 30]),
        target=np.array([8, 9, 7, 5, 6], np.int32),
    )
    lines = cases.sequences()
    assert lines.user.tolist() == [2, 4] and lines.offsets.tolist() == [0, 2, 7]
    assert lines.items.tolist() == [3, 7, 7, 8, 9, 5, 6] and lines.times.tolist() == [11, 21, 10, 20, 20, 30, 40]
    # 8 and 9 are both predicted from 7 alone, 5 from 7, 8, 9.
    assert lines.context.tolist() == [2, 2, 0, 4, 5] and lines.target.tolist() == [8, 9, 7, 5, 6]
    assert Learned.of(cases) == Learned(users=2, targets=5, positions=7)
    with pytest.raises(ValueError, match="not all of their users' cases"):
        cases.take(np.array([0, 1, 2, 4])).sequences()


@pytest.mark.parametrize("same_time", ["exclude", "order"])
@pytest.mark.parametrize("split", ["global-temporal", "leave-one-out"])
def test_sequences_hold_every_case(same_time: str, split: str) -> None:
    raw = planted(n_users=40)
    raw.interactions["timestamp"] //= 200_000  # baskets
    train = prepare(raw, planted_settings(same_time=same_time, split=split, history_length=5), "here").train
    lines = train.sequences()
    assert (np.diff(train.user[np.argsort(train.user, kind="stable")]) == 0).any()
    line = np.searchsorted(lines.offsets, lines.context, side="right") - 1
    assert (lines.user[line] == train.user).all()
    for i in range(len(train)):
        end = lines.context[i] + 1
        shown = lines.items[max(lines.offsets[line[i]], end - 5) : end]
        assert shown.tolist() == train.history(i).tolist()
    assert Learned.of(train).positions == len(lines.items) == len(train.interactions()[0])
    shared = len(lines.context) - len(np.unique(lines.context))
    assert (shared > 0) == (same_time == "exclude")


def test_a_watched_split_says_what_of_it_was_learned_from() -> None:
    split = as_split(prepare(planted(), planted_settings(train_cases=50), "here"))
    everything, of_llm = Learned.of(split.train), Learned.of(split.llm_train)
    assert everything.targets == len(split.train) > 50 == of_llm.targets
    watched_split = watched(split)
    assert watched_split.valid is split.valid and watched_split.learned() == Learned(0, 0, 0)
    assert len(watched_split.llm_train) == 50 and watched_split.learned() == of_llm
    assert watched_split.train is split.train and watched_split.learned() == everything
    assert watched(split).learned() == Learned(0, 0, 0)


# Refusals

GOOD = cases_of([[1, 2], [3, 4, 5], [6]])  # offsets 0, 2, 5, 6; targets 31, 32, 33; times 100, 101, 100, ...


def edited(**arrays: list[int]) -> Cases:
    return replace(GOOD, **{k: np.array(v, dtype=getattr(GOOD, k).dtype) for k, v in arrays.items()})


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        (cases_of([]), "here: no cases; widen the time window or lower the minimum counts of this dataset"),
        (edited(case=[1, 2, 2]), "here: row 2: case 2 does not ascend; prepare the dataset again"),
        (edited(case=[5, 1, 6]), "here: row 1: case 1 does not ascend; prepare the dataset again"),
        (edited(time=[1000, 900, 1000]), "here: row 1: time 900 is before its predecessor's; sort by time"),
        (edited(offsets=[0, 2, 2, 6]), "here: row 1: empty history; prepare the dataset again"),
        (
            edited(times=[100, 101, 100, 107, 102, 100]),
            "here: row 1: history times [107, 102] are unsorted",
        ),
        (
            edited(times=[100, 101, 100, 101, 1002, 100]),
            "here: row 1: a history item lies after its case's time 1001",
        ),
        (edited(target=[31, 5, 33]), "here: row 1: target 5 is in its own history"),
    ],
)
def test_every_broken_rule_of_cases_is_named(cases: Cases, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_cases(cases, "here")
    assert str(caught.value) == message


def test_what_the_check_must_let_pass() -> None:
    check_cases(GOOD, "here")
    check_cases(replace(GOOD, target=None), "here")
    check_cases(edited(time=[1000, 1000, 1000]), "here")  # cases of one second
    check_cases(edited(times=[100, 100, 1001, 1001, 1001, 100]), "here")  # same_time: order
    # A time that falls from one case's history to the next one's is no break.
    check_cases(edited(times=[900, 901, 100, 101, 102, 50]), "here")
    check_cases(edited(target=[3, 1, 5]), "here")  # in another case's history


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((2, 4)), r"m: scores have shape \(2, 4\), expected \[cases, 3\]"),
        (np.zeros(3), r"m: score\(\) gave the 3 scores of one case at a time"),
        (np.zeros((1, 2, 3)), r"m: scores have shape \(1, 2, 3\)"),
        (np.array([[0, 1, 2], [0, np.nan, 9]]), "m: a score in row 1 of a batch is nan"),
        (np.array([[0, 1, np.inf]]), "m: a score in row 0 of a batch is inf"),
        (np.array([[np.inf, np.nan, 0]]), "m: a score in row 0 of a batch is nan"),
        (np.array([[0, 1, 2**53 + 2]]), r"m: scores are whole numbers beyond 2\*\*53, which can't be told apart"),
        (np.array([[0, 1, -(2**63)]]), r"m: scores are whole numbers beyond 2\*\*53"),
        (np.array([[0, 1, 2**64 - 1]], dtype="uint64"), r"m: scores are whole numbers beyond 2\*\*53"),
        (np.array([["0", "1", "2"]]), "m: scores are of type <U1, expected numbers such as float32; fix its score"),
        (np.array([[0, 1, None]], dtype=object), "m: scores are of type object, expected numbers"),
        (np.array([[0, 1, 2j]]), "m: scores are of type complex128, expected numbers"),
        ([[0.0, 1.0, 2.0]], "m: score\\(\\) gave list, expected NumPy arrays"),
    ],
)
def test_bad_scores_are_refused(scores: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_scores(scores, 3, "m")


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        *[(small, "float32") for small in ("float16", "float32", "bool", "int8", "uint8")],
        *[(wide, "float64") for wide in ("float64", "int32", "int64", "uint64")],
    ],
)
def test_good_scores_keep_their_order(dtype: str, kept: str) -> None:
    scores = np.array([[3, 1, 2], [1, 0, 5]]).astype(dtype)
    checked = check_scores(scores, 3, "m")
    assert checked.dtype == kept and checked.tolist() == scores.tolist()
    largest = {"float16": 2048, "float32": 2**24, "bool": 1, "int8": 127, "uint8": 255, "int32": 2**31 - 1}.get(
        dtype, 2**53
    )
    close = np.array([[largest - 1, largest, 0]]).astype(dtype)  # the largest neighbours that the type tells apart
    assert check_scores(close, 3, "m").tolist() == close.tolist() and len(np.unique(check_scores(close, 3, "m"))) > 1


def test_not_retrieved_is_allowed() -> None:
    nothing = np.full((2, 3), -np.inf)
    np.testing.assert_array_equal(check_scores(nothing, 3, "m"), nothing)
    assert check_scores(np.empty((0, 3)), 3, "m").shape == (0, 3)


def test_a_sample_is_a_part_of_a_seeded_order() -> None:
    cases = planted_split()[0].train
    few, more = cases.sample(20, "toy", "some"), cases.sample(50, "toy", "some")
    order = np.random.default_rng(derive_seed("toy", "some", len(cases))).permutation(len(cases))
    assert few.case.tolist() == sorted(cases.case[order[:20]].tolist())
    assert len(more) == 50 and set(few.case) < set(more.case)
    assert set(cases.sample(20, "toy", "others").case) != set(few.case)
    assert np.array_equal(cases.sample(len(cases) + 5, "toy").case, cases.case)
