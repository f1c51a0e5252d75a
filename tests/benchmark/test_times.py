"""No time is read wrong without a word: units, fractions of seconds, ties, and times that cannot be."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.config.read import read_config
from benchmark.contract import Cases
from benchmark.data.cleaning import clean
from benchmark.data.protocol import Prepared, prepare
from benchmark.datasets import Limits, Raw
from benchmark.errors import InputError
from tests.support.csv_files import LIMITS, NOON, load, walks, write
from tests.support.planted import planted, settings
from tests.support.preparing import fetch_and_prepare


def histories(prepared: Prepared) -> dict[int, str]:
    """The longest history of each user with its target, by the numbers of the source."""
    names, by_user = prepared.items["item_id"].str[1:].to_numpy(), {}
    parts: list[Cases] = [prepared.train, prepared.valid, prepared.test]
    for cases in parts:
        assert cases.target is not None
        for row in range(len(cases)):
            by_user[int(cases.user[row])] = "".join(names[cases.history(row)]) + names[cases.target[row]]
    return by_user


def test_clicks_within_a_second_keep_their_order(tmp_path: Path) -> None:
    raw = load(write(tmp_path, *walks(step_ms=150)), timestamp_unit="ms")
    prepared = prepare(raw, settings(same_time="order"), "ms")
    assert histories(prepared) == {user: "".join(str((user + place) % 8) for place in range(8)) for user in range(4)}
    # Methods see whole seconds: 0, .15, .3, .45, .6, .75, .9 and 1.05 s.
    last = prepared.test
    assert last.times[last.offsets[-2] :].tolist() == [NOON + 30_000] * 7 and last.time[-1] == NOON + 30_001


def test_a_history_excludes_its_cases_second_however_fine_the_times_are(tmp_path: Path) -> None:
    log = "".join(
        f"u{user},i{place},{NOON * 1000 + ms}\n" for user in range(12) for place, ms in enumerate((0, 600, 1200))
    )
    prepared = prepare(load(write(tmp_path, log), timestamp_unit="ms"), settings(), "ms")
    # i1 shares i0's second, so it has no case; i2's history has both, in their order.
    assert histories(prepared) == dict.fromkeys(range(12), "012")
    assert prepared.counts["cases"] == 12 and prepared.counts["interactions_in_a_shared_second"] == 24


def test_fractions_of_seconds_and_finer_units_order_too(tmp_path: Path) -> None:
    for unit, times in (
        ("s", ["1600000000.75", "1600000000.5", "1600000000.25"]),
        ("us", ["1600000000750000", "1600000000500000", "1600000000250000"]),
        ("ns", ["1600000000000000003", "1600000000000000002", "1600000000000000001"]),
    ):
        log = "".join(f"u,i{place},{time}\n" for place, time in enumerate(times))
        interactions = load(write(tmp_path / unit, log), timestamp_unit=unit).interactions
        assert interactions["timestamp"].tolist() == [NOON] * 3
        assert interactions.sort_values("fraction")["item_id"].tolist() == ["i2", "i1", "i0"]
    assert "fraction" not in load(write(tmp_path / "whole", f"u,i0,{NOON}\n")).interactions


def test_only_true_ties_are_broken_by_the_hash() -> None:
    """Of repeats the first in full time stays, whatever its rating; at equal times the lowest rating."""
    log = pd.DataFrame({"user_id": "u", "item_id": ["a", "a", "b", "b"], "timestamp": NOON, "rating": [5, 1, 4, 2]})
    log = log.assign(rating=log["rating"].astype("float32"), fraction=np.array([100, 200, 50, 50], np.int32))
    items = pd.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"]})
    cleaned = clean(Raw(log, items), settings(), "here")
    assert (cleaned.item.tolist(), cleaned.rating.tolist(), cleaned.fraction.tolist()) == ([1, 0], [2, 5], [50, 100])


TIMES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "seconds as ms": (
        "u,i0,1408506242\n",
        "row 1: timestamp 1408506242 is no time in milliseconds (it reads as 1970-01-17, outside 1990-01-01 to "
        "2027-12-31); if the file counts seconds, set timestamp_unit: s",
        {"timestamp_unit": "ms"},
    ),
    "ms as seconds": (
        "u,i0,1408506242000\n",
        "is no time in seconds (it reads as the year 46604, outside 1990-01-01 to 2027-12-31); if the file counts "
        "milliseconds, set timestamp_unit: ms",
        {},
    ),
    "both": (
        f"u,i0,{NOON}\nu,i1,{NOON}150\n",
        f"row 2: timestamp {NOON}150 is a time in milliseconds, and that of row 1, {NOON}, one in seconds; give one "
        "unit",
        {},
    ),
    "days": ("u,i0,20140820\n", "row 1: timestamp 20140820 is no time in seconds (it reads as 1970-08-22, ", {}),
    "days say which": ("u,i0,20140820\n", "it spells the day 2014-08-20: give Unix seconds", {}),
    "unknown": (
        f"u,i0,{NOON}\nu,i1,0\n",
        "row 2: timestamp 0 is no time in seconds (it reads as 1970-01-01, outside 1990-01-01 to 2027-12-31); give its "
        "true Unix seconds or leave the row out; earliest and latest of the dataset say what can be",
        {},
    ),
    "minus one": (f"u,i0,{NOON}\nu,i1,-1\n", "row 2: timestamp -1 is no time in seconds (it reads as 1969-12-31", {}),
    "year 0": (
        "u,i0,-62167219200\n",
        "row 1: timestamp -62167219200 is no time in seconds (it reads as the year 0, ",
        {},
    ),
    "a year": ("u,i0,2014\n", "row 1: timestamp 2014 is no time in seconds (it reads as 1970-01-01, ", {}),
    "next century": ("u,i0,4102444800\n", "timestamp 4102444800 is no time in seconds (it reads as 2100-01-01, ", {}),
    "endless": ("u,i0,1e300\n", "timestamp 1e+300 is no time in seconds (it reads as the year ", {}),
    "ISO": (
        "u,i0,2015-03-01 10:00:00\n",
        "timestamp is '2015-03-01 10:00:00'; give a finite number of Unix seconds, such as 1425204000 for 2015-03-01 "
        "10:00:00 UTC, in every row (the first data row is 1)",
        {},
    ),
    "ISO with a zone": (
        "u,i0,2015-03-01T10:00:00+01:00\n",
        "Unix seconds, such as 1425200400 for 2015-03-01 09:00:00",
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TIMES)
def test_times_that_cannot_be_are_refused_with_file_row_and_value(name: str, tmp_path: Path) -> None:
    log, message, options = TIMES[name]
    folder = write(tmp_path, log)
    with pytest.raises(InputError) as caught:
        load(folder, **options)
    assert str(caught.value).startswith(f"{folder / 'interactions.csv'}: row ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_timestamps_are_refused_in_unix_seconds(tmp_path: Path) -> None:
    write(tmp_path, "")
    (tmp_path / "interactions.csv").unlink()
    log = pd.DataFrame({"user_id": ["u"], "item_id": ["i0"], "timestamp": [pd.Timestamp("2015-03-01 10:00", tz="UTC")]})
    log.to_parquet(tmp_path / "interactions.parquet", index=False)
    with pytest.raises(
        InputError, match=r"interactions\.parquet: row 1: .* number of Unix seconds, such as 1425204000 for"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.array([NOON], np.float32), "has type float32, which rounds times"),
        ([True], "timestamp is 'True'; give a finite"),
    ],
)
def test_types_that_hold_no_time_are_refused(times: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path, "")
    (tmp_path / "interactions.csv").unlink()
    log = pd.DataFrame({"user_id": ["u"], "item_id": ["i0"], "timestamp": times})
    log.to_parquet(tmp_path / "interactions.parquet", index=False)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_times_that_a_spreadsheet_rounded_are_said(tmp_path: Path) -> None:
    rounded = "".join(f"u{row},i0,1.6000{row}E+09\n" for row in range(10))
    assert any("they seem rounded" in note for note in load(write(tmp_path, rounded)).notes)
    days = "".join(f"u{row},i0,{86_400 * (18_000 + row)}\n" for row in range(10))
    assert not load(write(tmp_path, days)).notes


def test_the_config_says_what_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    log, items = walks(step_ms=86_400_000)
    old = "".join(f"{row[: row.rindex(',')]},{int(row.split(',')[2]) - 1_200_000_000_000}\n" for row in log.split())
    folder = write(tmp_path / "mine", old, items)  # 1982
    given_ = {"options": {"folder": str(folder), "timestamp_unit": "ms"}}
    assert fetch_and_prepare(monkeypatch, tmp_path, folder, **given_) == 2
    assert "is no time in milliseconds (it reads as 1982-09-" in capsys.readouterr().err
    assert fetch_and_prepare(monkeypatch, tmp_path, folder, **given_, earliest="1980-01-01") == 0
    assert fetch_and_prepare(monkeypatch, tmp_path, folder, **given_, earliest="1980-01-01", latest="1981-01-01") == 2
    assert "outside 1980-01-01 to 1981-01-01" in capsys.readouterr().err
    # Two units in one file stay refused: seconds read as milliseconds are of January 1970.
    mixed = write(tmp_path / "mixed", f"u,i0,{NOON}\nu,i1,{NOON}000\n")
    with pytest.raises(InputError, match=r"row 1: timestamp 1600000000 is a time in seconds, and that of row 2, 16000"):
        load(mixed, Limits(0, LIMITS.end, 0), timestamp_unit="ms")


def test_limits_are_days_and_the_last_one_counts() -> None:
    limits = settings(earliest="1999-12-31", latest="2000-01-01").limits
    assert (limits.first, limits.end) == (946_598_400, 946_771_200)
    year = datetime.date.today().year
    usual = settings(earliest="1990-01-01").limits
    assert usual.first == 631_152_000 and usual.end == int(pd.Timestamp(f"{year + 2}-01-01", tz="UTC").timestamp())
    entry = {"source": "ml_100k", "category": "x", "earliest": "2001-01-01", "latest": "2000-01-01"}
    with pytest.raises(InputError, match="latest 2000-01-01 is before earliest 2001-01-01"):
        read_config({"datasets": {"d": entry}, "methods": {"popularity": None}})


def test_times_of_any_source_are_held_to_the_limits() -> None:
    raw = planted(n_users=20)
    raw.interactions.loc[7, "timestamp"] = 0
    with pytest.raises(
        InputError, match=r"here: interactions: row 7: timestamp 0 is no time in seconds \(it reads as 1970"
    ):
        prepare(raw, settings(earliest="1990-01-01"), "here")


@pytest.mark.parametrize("split", ["global-temporal", "leave-one-out"])
def test_when_all_times_of_each_user_are_equal_same_time_is_named(split: str) -> None:
    raw = planted(n_users=12)
    flat = Raw(raw.interactions.assign(timestamp=NOON + raw.interactions["user_id"].str[1:].astype(int)), raw.items)
    with pytest.raises(
        InputError,
        match=r"mine: the train split is empty \(0 cases in all\); (\d+) of \1 interactions share "
        r"their second with another of their user: same_time: order gives them an order",
    ):
        prepare(flat, settings(split=split), "mine")  # fmt: skip
    assert prepare(flat, settings(split=split, same_time="order"), "mine").counts["train"] > 0
