"""Interactions of one second: counted by hand and by the histories themselves, and said where dates stand for times."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.contract import Cases
from benchmark.data import equal_times
from benchmark.data.account import Account
from benchmark.data.cleaning import Log, clean
from benchmark.data.protocol import make_cases, prepare
from benchmark.storage.io import read_json
from tests.benchmark.test_check_data import called
from tests.support.logs import DAY, raw_of
from tests.support.planted import settings, write_files
from tests.support.preparing import fetch_and_prepare

WHOLE_DAYS = (
    "timestamps are whole days, so that same_time: exclude takes 3 of 13 (23.1 %) interactions out of the histories of "
    "cases of their own day; same_time: order would keep them there, in the order of a hash"
)
FIRST = 10_000 * DAY
# u's first day has no case. Of the three of day 5 two are hidden, of the two of day 6 one. v has no equal days.
ROWS = [("u", name, FIRST + day * DAY) for name, day in zip("abcdefgh", (1, 1, 2, 5, 5, 5, 6, 6), strict=True)]
ROWS += [("v", name, FIRST + day * DAY) for name, day in zip("abcde", (1, 2, 3, 4, 5), strict=True)]


def test_doctests() -> None:
    assert doctest.testmod(equal_times).attempted > 0 and doctest.testmod(equal_times).failed == 0


def test_whole_days_by_hand() -> None:
    account = Account()
    prepared = prepare(raw_of(ROWS), settings(), "here", account)
    assert prepared.counts["interactions_hidden"] == 3 and prepared.counts["interactions_in_a_shared_second"] == 7
    assert account.warnings.count(WHOLE_DAYS) == 1
    # With the other rule nothing is hidden, and so nothing is said of it; nor of times that are no dates.
    for rows, rule, hidden in ((ROWS, "order", 0), ([*ROWS[:-1], ("v", "e", FIRST + 5 * DAY + 1)], "exclude", 3)):
        account = Account()
        assert prepare(raw_of(rows), settings(same_time=rule), "here", account).counts["interactions_hidden"] == hidden
        assert not any("whole days" in warning for warning in account.warnings), rule


def test_dates_of_another_time_zone_are_whole_days_too() -> None:
    account = Account()
    prepare(raw_of([(user, item, time + 5 * 3600) for user, item, time in ROWS]), settings(), "here", account)
    assert WHOLE_DAYS in account.warnings


def test_days_without_two_on_one_are_not_said() -> None:
    account = Account()
    prepare(
        raw_of([(user, item, number * DAY) for number, (user, item, _) in enumerate(ROWS)]), settings(), "x", account
    )
    assert not any("whole days" in warning for warning in account.warnings)


def test_prepare_and_check_data_say_so_on_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path / "shop", raw_of(ROWS, ratings=[4.0] * len(ROWS)))
    assert called(monkeypatch, tmp_path / "shop", "--min-user-count", 1, "--min-item-count", 1) == 0
    output = capsys.readouterr().out
    assert f"{WHOLE_DAYS}\n" in output.partition("Warning   ")[2]
    assert "    so same_time: exclude hides them from the cases of their own second: 3 of 13 (23.1 %)" in output
    assert fetch_and_prepare(monkeypatch, tmp_path, tmp_path / "shop", min_user_count=1, min_item_count=1) == 0
    output = capsys.readouterr().out
    assert f"mine: warning: {WHOLE_DAYS}\n" in output  # the workflow takes this line to the screen
    assert "hidden by equal times: 3 of 13 (23.1 %) interactions" in output
    assert read_json(tmp_path / "data/mine/dataset.json")["counts"]["interactions_hidden"] == 3


def shown(log: Log, cases: Cases) -> dict[tuple[int, int], set[int]]:
    """The history of each case, by user and target."""
    assert cases.target is not None
    return {(int(cases.user[i]), int(cases.target[i])): set(cases.history(i).tolist()) for i in range(len(cases))}


@given(
    st.lists(st.tuples(st.sampled_from("uv"), st.sampled_from("abcdefgh"), st.integers(0, 3)), min_size=1, max_size=16)
)
def test_hidden_is_what_histories_lack(rows: list[tuple[str, str, int]]) -> None:
    """For each case of `exclude`, what `order` would show it and `exclude` doesn't; each interaction counts once."""
    log = clean(raw_of(rows), settings(), "here")
    without, ordered = (shown(log, make_cases(log, 20, rule)) for rule in ("exclude", "order"))
    lost = {(user, item) for (user, target), items in without.items() for item in ordered[user, target] - items}
    assert equal_times.hidden(log.user, log.time) == len(lost)
    assert len(np.unique(log.user)) <= 2
