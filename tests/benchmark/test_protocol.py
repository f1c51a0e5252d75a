"""The protocol's rules on logs small enough to work by hand, and its cases against a slow plain version."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from benchmark.contract import Cases
from benchmark.data.cleaning import Log, clean
from benchmark.data.prepare import split_hash
from benchmark.data.protocol import make_cases, prepare, sample_rows, split_cases
from benchmark.data.store import check_cases
from benchmark.datasets import Raw
from tests.support.logs import DAY, Row, listed, raw_of
from tests.support.planted import as_split, planted, settings


def cases_of(rows: list[Row], **changes: object) -> list[tuple[str, str, int]]:
    chosen = settings(**changes)
    log = clean(raw_of(rows), chosen, "here")
    return listed(make_cases(log, chosen.history_length, chosen.same_time), log.items)


def blank_cases(n: int) -> Cases:
    """n cases of one user, one history item each."""
    numbers = np.arange(n)
    return Cases(
        case=numbers,
        user=np.zeros(n, np.int32),
        time=numbers + 1,
        offsets=np.arange(n + 1),
        items=np.zeros(n, np.int32),
        ratings=np.zeros(n, np.float32),
        times=numbers,
        target=np.ones(n, np.int32),
    )


# One rule, one test


def test_a_case_is_a_history_and_the_next_item_in_time_order_of_all_users() -> None:
    rows = [("u", "a", 10), ("u", "b", 20), ("u", "c", 40), ("w", "d", 5), ("w", "a", 30)]
    assert cases_of(rows) == [("a", "b", 20), ("d", "a", 30), ("ab", "c", 40)]


def test_only_the_first_of_repeats_counts() -> None:
    rows = [("u", "a", 10), ("u", "b", 20), ("u", "a", 30), ("u", "c", 40), ("w", "a", 50)]
    log = clean(raw_of(rows), settings(), "here")
    assert log.counts["dropped_repeats"] == 1
    # Neither a target that is already in the history, nor the same item twice in one; another user's first is kept.
    assert cases_of(rows) == [("a", "b", 20), ("ab", "c", 40)]
    assert log.counts["interactions"] == 4


def test_of_repeats_in_one_second_the_lowest_rating_counts_whatever_the_order_of_rows() -> None:
    rows = [("u", "a", 10), ("u", "a", 10), ("u", "a", 10), ("u", "b", 20)]
    for ratings in ([5, 2, 3, 1], [2, 3, 5, 1], [3, 5, 2, 1]):
        log = clean(raw_of(rows, ratings=ratings), settings(), "here")
        assert log.rating.tolist() == [2, 1]


def test_equal_timestamps_see_none_of_each_other_under_exclude() -> None:
    rows = [("u", "a", 10), ("u", "b", 20), ("u", "c", 20), ("u", "d", 30)]
    cases = cases_of(rows, same_time="exclude")
    assert sorted(cases[:2]) == [("a", "b", 20), ("a", "c", 20)]
    history, target, _ = cases[2]
    assert target == "d" and sorted(history) == ["a", "b", "c"] and history[0] == "a"


def test_equal_timestamps_follow_each_other_under_order() -> None:
    rows = [("u", "a", 10), ("u", "b", 20), ("u", "c", 20), ("u", "d", 30)]
    cases = cases_of(rows, same_time="order")
    first, second = cases[0][1], cases[1][1]
    assert {first, second} == {"b", "c"}
    assert cases == [("a", first, 20), ("a" + first, second, 20), ("a" + first + second, "d", 30)]


def test_a_shared_first_second_has_no_case_unless_ordered() -> None:
    rows = [("u", "a", 10), ("u", "b", 10), ("u", "c", 20)]
    assert [target for _, target, _ in cases_of(rows, same_time="exclude")] == ["c"]
    assert len(cases_of(rows, same_time="order")) == 2


def test_the_order_within_a_second_is_neither_that_of_items_nor_that_of_rows() -> None:
    rows = [row for user in range(200) for row in ((f"u{user}", "a", 10), (f"u{user}", "b", 10))]
    firsts = Counter(history for history, _, _ in cases_of(rows, same_time="order"))
    assert 60 < firsts["a"] < 140 and firsts["a"] + firsts["b"] == 200
    assert Counter(history for history, _, _ in cases_of(rows[::-1], same_time="order")) == firsts


def test_users_with_one_interaction_have_no_case() -> None:
    rows = [("once", "a", 1), ("u", "a", 10), ("u", "b", 20), ("basket", "a", 5), ("basket", "b", 5)]
    rows += [("v", f"i{number}", 100 + number) for number in range(12)]
    prepared = prepare(raw_of(rows), settings(), "here")
    assert prepared.counts["users"] == 4
    assert prepared.counts["users_without_case"] == 2  # "once", and "basket" whose two items share one second
    assert prepared.counts["cases"] == 12


def test_items_without_title_and_unknown_items_are_dropped_with_their_interactions() -> None:
    titles = {"a": "The a", "b": "  ", "c": None, "d": "The d", "e": "never taken"}
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("u", "unknown", 4), ("u", "d", 5)]
    log = clean(raw_of(rows, titles), settings(max_unknown_items=0.2), "here")
    assert log.items["item_id"].tolist() == ["a", "d"]
    assert log.counts["items_read"] == 5
    assert log.counts["items_without_title"] == 2
    assert (log.counts["dropped_unknown_item"], log.counts["dropped_no_title"]) == (1, 2)
    assert listed(make_cases(log, 20, "exclude"), log.items) == [("a", "d", 5)]


def test_items_are_numbered_in_the_order_of_the_catalogue() -> None:
    rows = [("u", "z", 1), ("u", "m", 2), ("u", "a", 3)]
    log = clean(raw_of(rows, {"m": "M", "a": "A", "left out": "L", "z": "Z"}), settings(), "here")
    assert log.items["item_id"].tolist() == ["m", "a", "z"]
    assert log.item.tolist() == [2, 0, 1]


def test_window_keeps_the_start_and_drops_the_end() -> None:
    rows = [("u", name, second) for name, second in zip("abcd", (DAY - 1, DAY, 3 * DAY - 1, 3 * DAY), strict=True)]
    log = clean(raw_of(rows), settings(start="1970-01-02", end="1970-01-04"), "here")
    assert log.items["item_id"].tolist() == ["b", "c"]
    assert log.counts["dropped_outside_window"] == 2
    # What lies before the window is no repeat either: the first inside it counts.
    again = [("u", "a", DAY - 1), ("u", "a", DAY + 5), ("u", "b", DAY + 9)]
    assert clean(raw_of(again), settings(start="1970-01-02"), "here").time.tolist() == [DAY + 5, DAY + 9]


def test_minimum_counts_are_repeated_until_both_hold() -> None:
    # Item z is taken once, so it goes; then user w has one item left and goes; then item c has one left and goes; then
    # user v. Only u and x with a and b stay.
    rows = [("u", "a", 1), ("u", "b", 2), ("x", "a", 3), ("x", "b", 4)]
    rows += [("w", "z", 5), ("w", "c", 6), ("v", "c", 7), ("v", "d", 8)]
    log = clean(raw_of(rows), settings(min_user_count=2, min_item_count=2), "here")
    assert log.items["item_id"].tolist() == ["a", "b"]
    assert log.counts["users"] == 2 and log.counts["dropped_minimum_counts"] == 4
    assert log.counts["interactions_before_minimum_counts"] == 8


def test_minimum_counts_see_repeats_as_one() -> None:
    rows = [("u", "a", 1), ("u", "a", 2), ("u", "a", 3), ("u", "b", 4), ("w", "b", 5), ("w", "c", 6), ("w", "d", 7)]
    log = clean(raw_of(rows), settings(min_user_count=3), "here")
    assert log.counts["users"] == 1 and log.items["item_id"].tolist() == ["b", "c", "d"]


def test_histories_hold_the_newest_twenty() -> None:
    rows = [("u", chr(ord("A") + number), number) for number in range(26)]
    cases = cases_of(rows)
    assert cases[-1] == ("FGHIJKLMNOPQRSTUVWXY", "Z", 25)
    assert cases[19] == ("ABCDEFGHIJKLMNOPQRST", "U", 20)
    assert cases_of(rows, history_length=2)[-1] == ("XY", "Z", 25)


@pytest.mark.parametrize(
    ("n", "counts"),
    [
        (63_502, (50_801, 6_350, 6_351)),  # Video_Games in the paper
        (13_435, (10_748, 1_343, 1_344)),  # CDs_and_Vinyl
        (34_373, (27_498, 3_437, 3_438)),  # Musical_Instruments
        (10, (8, 1, 1)),
    ],
)
def test_shares_are_the_papers(n: int, counts: tuple[int, int, int]) -> None:
    parts = split_cases(blank_cases(n), "global-temporal")
    assert tuple(map(len, parts)) == counts
    assert np.concatenate(parts).tolist() == list(range(n))


def test_leave_one_out_tests_the_last_case_of_each_user() -> None:
    # Cases in time order: u's second item at 2, w's at 3, then u, w, u, and x with a single case.
    rows = [("u", "a", 1), ("w", "a", 1), ("x", "a", 1), ("u", "b", 2), ("w", "b", 3)]
    rows += [("u", "c", 4), ("w", "c", 5), ("u", "d", 6), ("x", "b", 7)]
    log = clean(raw_of(rows), settings(), "here")
    cases = make_cases(log, 20, "exclude")
    assert cases.time.tolist() == [2, 3, 4, 5, 6, 7]
    train, valid, test = split_cases(cases, "leave-one-out")
    assert cases.time[train].tolist() == [2]
    assert cases.time[valid].tolist() == [3, 4]
    assert cases.time[test].tolist() == [5, 6, 7]


@given(st.lists(st.integers(0, 6), max_size=60))
def test_leave_one_out_equals_a_plain_loop(users: list[int]) -> None:
    n = len(users)
    cases = blank_cases(n)
    cases = Cases(**(vars(cases) | {"user": np.array(users, dtype=np.int32)}))
    parts: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for row, user in enumerate(users):
        parts[min(2, users[row + 1 :].count(user))].append(row)
    train, valid, test = split_cases(cases, "leave-one-out")
    assert (train.tolist(), valid.tolist(), test.tolist()) == (parts[2], parts[1], parts[0])


def test_global_split_never_trains_on_the_future() -> None:
    prepared = prepare(planted(), settings(), "here")
    assert prepared.train.time.max() <= prepared.valid.time.min()
    assert prepared.valid.time.max() <= prepared.test.time.min()
    # As in the paper, a test case's history may hold what its user took in the test period.
    assert (prepared.test.times > prepared.valid.time.max()).any()


def test_an_llm_reads_a_seeded_sample_of_the_training_cases_and_others_all() -> None:
    whole = prepare(planted(), settings(), "here")
    cut = prepare(planted(), settings(train_cases=100), "here")
    again = prepare(planted(), settings(train_cases=100), "here")
    assert cut.train.case.tolist() == whole.train.case.tolist() and len(cut.train) == len(whole.train)
    assert len(cut.llm_rows) == 100 and cut.llm_rows.tolist() == again.llm_rows.tolist()
    assert (np.diff(cut.llm_rows) > 0).all() and cut.llm_rows.max() < len(whole.train)
    assert cut.counts["train_llm"] == 100 and cut.counts["train"] == cut.counts["cases_train"] == len(whole.train)
    assert cut.test.case.tolist() == whole.test.case.tolist()
    everything = prepare(planted(), settings(train_cases=10**6), "here")
    assert everything.llm_rows.tolist() == list(range(len(whole.train))) == whole.llm_rows.tolist()
    split = as_split(cut)
    assert split.llm_train.case.tolist() == whole.train.case[cut.llm_rows].tolist()
    assert len(as_split(whole).llm_train) == len(as_split(whole).train)


def test_samples_are_the_same_for_the_same_name() -> None:
    whole = prepare(planted(), settings(), "here")
    first, again, other = (
        prepare(planted(), settings(valid_cases=50, test_cases=60), name).test.case
        for name in ("here", "here", "there")
    )
    assert first.tolist() == again.tolist() != other.tolist()
    assert len(first) == 60 and (np.diff(first) > 0).all() and set(first) < set(whole.test.case)
    rows = np.arange(100, 200)
    assert sample_rows(rows, None, "x") is rows and sample_rows(rows, 100, "x") is rows
    assert sample_rows(rows, 30, "x", "valid").tolist() != sample_rows(rows, 30, "x", "test").tolist()


def test_cold_targets_stay_and_are_counted() -> None:
    # 20 cases of one user: 16 train (targets b..q), 2 valid (r, s), 2 test (t, u). None of r, s, t, u is in training.
    rows = [("u", chr(ord("a") + number), number) for number in range(21)]
    prepared = prepare(raw_of(rows), settings(), "here")
    assert len(prepared.items) == 21
    assert prepared.counts["cold_targets_valid"] == 2 and prepared.counts["cold_targets_test"] == 2
    assert prepared.counts["items_cold"] == 4
    # A history item of training is seen, even if it is never a training target: a is.
    assert 0 in prepared.train.items and 0 not in prepared.train.target
    # What an LLM may read has no part in it.
    assert prepare(raw_of(rows), settings(train_cases=1), "here").counts["items_cold"] == 4


# Against a plain version


def slow_cases(log: Log, length: int, same_time: str) -> list[tuple[int, list[int], int, int]]:
    """(user, history, target, time) of every case, by the rule as it is written."""
    rows = list(zip(log.user, log.time, log.fraction, log.tie, log.item, strict=True))
    out = []
    for user, time, fraction, tie, item in sorted(rows, key=lambda row: row[1:4]):
        past = [
            (t, f, h, v)
            for u, t, f, h, v in rows
            if u == user and (t < time or (same_time == "order" and t == time and (f, h) < (fraction, tie)))
        ]
        if history := [int(v) for *_, v in sorted(past)][-length:]:
            out.append((int(user), history, int(item), int(time)))
    return out


ROWS = st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcdefgh"), st.integers(0, 9))


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    st.lists(ROWS, min_size=1, max_size=60),
    st.integers(1, 4),
    st.sampled_from(["exclude", "order"]),
    st.lists(st.sampled_from([0, 1, 500_000_000]), min_size=60, max_size=60),
)
def test_cases_equal_a_plain_loop(rows: list[Row], length: int, same_time: str, fractions: list[int]) -> None:
    ratings = [float(number % 5) for number in range(len(rows))]
    raw = raw_of(rows, ratings=ratings)
    raw.interactions["fraction"] = np.array(fractions[: len(rows)], np.int32)
    log = clean(raw, settings(), "here")
    cases = make_cases(log, length, same_time)
    assert cases.target is not None
    fast = [
        (int(cases.user[i]), cases.history(i).tolist(), int(cases.target[i]), int(cases.time[i]))
        for i in range(len(cases))
    ]
    assert fast == slow_cases(log, length, same_time)
    assert cases.case.tolist() == list(range(len(cases)))
    if len(cases):
        check_cases(cases, "here")
        row_of = np.repeat(np.arange(len(cases)), np.diff(cases.offsets))
        if same_time == "exclude":
            assert (cases.times < cases.time[row_of]).all()
        # Ratings and times are those of the very interaction: (user, item) is unique in a cleaned log.
        known = {(u, v): (t, r) for u, v, t, r in zip(log.user, log.item, log.time, log.rating, strict=True)}
        given_ = list(zip(cases.times, cases.ratings, strict=True))
        assert given_ == [known[pair] for pair in zip(cases.user[row_of], cases.items, strict=True)]


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["exclude", "order"]))
def test_the_order_of_rows_in_the_source_changes_nothing(seed: int, same_time: str) -> None:
    source = np.random.default_rng(5)
    # Few seconds, items and ratings: ties, repeats, and repeats of one second with another rating abound.
    rows = [(f"u{u}", f"i{v}", int(t)) for u, v, t in source.integers([0, 0, 0], [12, 15, 30], (300, 3))]
    ratings = source.integers(1, 6, 300).astype(float)
    chosen = settings(min_user_count=2, min_item_count=2, same_time=same_time, test_cases=10)
    raw = raw_of(rows, ratings=ratings.tolist())
    plain = prepare(raw, chosen, "here")
    order = np.random.default_rng(seed).permutation(300)
    shuffled = Raw(interactions=raw.interactions.iloc[order].reset_index(drop=True), items=raw.items)
    again = prepare(shuffled, chosen, "here")
    assert split_hash(again) == split_hash(plain)
    assert again.counts == plain.counts
    pd.testing.assert_frame_equal(again.items, plain.items)


def test_split_hash_sees_everything_that_a_method_sees() -> None:
    raw = planted(n_users=20)
    plain = split_hash(prepare(raw, settings(), "here"))
    assert split_hash(prepare(planted(n_users=20), settings(), "there")) == plain

    def changed(frame: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
        out = frame.copy()
        out.loc[0, column] = value
        return out

    for column, value in (("rating", 9.0), ("timestamp", 7)):
        other = Raw(interactions=changed(raw.interactions, column, value), items=raw.items)
        assert split_hash(prepare(other, settings(), "here")) != plain, column
    for column in ("title", "colour"):
        other = Raw(interactions=raw.interactions, items=changed(raw.items, column, "another"))
        assert split_hash(prepare(other, settings(), "here")) != plain, column
