"""No row vanishes and no time is read wrong without a word: small cases by hand, and the whole kinds by hypothesis."""

import csv
import datetime
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from benchmark.config.read import read_config
from benchmark.contract import Cases
from benchmark.data.account import Account
from benchmark.data.cleaning import clean
from benchmark.data.protocol import Prepared, prepare
from benchmark.data.texts import attributes
from benchmark.datasets import Limits, Raw, files
from benchmark.errors import InputError
from benchmark.storage.io import read_json
from tests.benchmark.test_datasets import fetch_and_prepare
from tests.support.planted import planted, settings
from tests.support.tiny_tokenizers import tiny_tokenizer

LIMITS = Limits(first=631_152_000, end=1_830_297_600, unknown_items=0.05)  # 1990 to 2027
NOON = 1_600_000_000
FEW = hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
# 50,000 in all: twice as many of the times.
MANY = hypothesis_settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))


def write(folder: Path, log: str, items: str = "item_id,title\ni0,Lamp\ni1,Chair\ni2,Stool\ni3,Desk\n") -> Path:
    """A folder of the two files, of text; without a header the log's columns are user_id,item_id,timestamp."""
    folder.mkdir(parents=True, exist_ok=True)
    header = "" if log.startswith(("user_id", ",")) else "user_id,item_id,timestamp\n"
    (folder / "interactions.csv").write_text(header + log)
    (folder / "items.csv").write_text(items)
    return folder


def load(folder: Path, limits: Limits = LIMITS, **options: Any) -> Raw:
    given_ = files.Options(folder=folder, **options)
    return files.load(given_, files.inputs(given_), limits)


def walks(step_ms: int, users: int = 4, items: int = 8) -> tuple[str, str]:
    """Every user takes all items in turn, in steps of some ms, each from another one on; the rows are shuffled."""
    rows = [
        f"u{user},i{(user + place) % items},{NOON * 1000 + 10**7 * user + place * step_ms}\n"
        for user in range(users)
        for place in range(items)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    return "".join(rows[row] for row in order), "item_id,title\n" + "".join(f"i{i},Thing {i}\n" for i in range(items))


def histories(prepared: Prepared) -> dict[int, str]:
    """The longest history of each user with its target, by the numbers of the source."""
    names, by_user = prepared.items["item_id"].str[1:].to_numpy(), {}
    parts: list[Cases] = [prepared.train, prepared.valid, prepared.test]
    for cases in parts:
        assert cases.target is not None
        for row in range(len(cases)):
            by_user[int(cases.user[row])] = "".join(names[cases.history(row)]) + names[cases.target[row]]
    return by_user


# Time


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


@pytest.mark.parametrize(
    ("users", "message"),
    [
        # The next whole number, 16777217, would be the same float32.
        (
            np.array([3, 2**24], np.float32),
            r"row 2: user_id 16777216 is of type float, which rounds numbers from 16777",
        ),
        (np.array([2**53 - 1, 2**53], np.float64), r"row 2: user_id 9007199254740992 is of type double, which rounds"),
        (
            np.array([2048, 1], np.float16),
            r"row 1: user_id 2048 is of type halffloat, which rounds numbers from 2048 o",
        ),
        (
            pd.Categorical(np.array([1.0, 2.0**60])),
            r"row 2: user_id 1152921504606846976 is of type double, which round",
        ),
        (np.array([True, False]), r"column 'user_id' has type bool; give ids as text or whole numbers"),
    ],
    ids=["float32", "float64", "float16", "categories", "bool"],
)
def test_ids_of_a_type_that_rounds_them_are_refused(users: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path, "")
    (tmp_path / "interactions.csv").unlink()
    log = pd.DataFrame({"user_id": users, "item_id": "i0", "timestamp": NOON})
    log.to_parquet(tmp_path / "interactions.parquet", index=False)
    with pytest.raises(InputError, match=rf"interactions\.parquet: {message}"):
        load(tmp_path)
    log.assign(user_id=[7.0, 2.0**53 - 1]).to_parquet(tmp_path / "interactions.parquet", index=False)
    assert load(tmp_path).interactions["user_id"].tolist()[0] == "7"


def test_times_that_a_spreadsheet_rounded_are_said(tmp_path: Path) -> None:
    rounded = "".join(f"u{row},i0,1.6000{row}E+09\n" for row in range(10))
    assert any("they seem rounded" in note for note in load(write(tmp_path, rounded)).notes)
    days = "".join(f"u{row},i0,{86_400 * (18_000 + row)}\n" for row in range(10))
    assert not load(write(tmp_path, days)).notes


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (["u", "u "], "1 of 2 user_ids differ from another in spaces or a .0 alone, first 'u '"),
        (["7", "7.0"], "1 of 2 user_ids differ from another in spaces or a .0 alone, first '7.0'"),
        (["u", "u\u200b"], "1 of 2 user_ids differ from another in spaces or a .0 alone, first 'u\\u200b'"),
        (["u", "NULL"], "1 of 2 user_ids read as a missing value, first 'NULL'"),
        (["u", " "], "1 of 2 user_ids read as a missing value, first ' '"),
        (["u", "1.23457E+12"], "1 of 2 user_ids read as a rounded number, first '1.23457E+12'"),
        (["u", "u\x01"], "1 of 2 user_ids differ from another in spaces or a .0 alone, first 'u\\x01'"),
        (["7", "u", "007"], "1 of 3 user_ids differ from another in leading zeros alone, first '007'"),
        (
            ["\u00e9", "e\u0301"],
            "1 of 2 user_ids differ from another in the code of their accents alone, first 'e\u0301'",
        ),
        (["3e10", "07a", "7a", "u", "U"], None),
    ],
)
def test_ids_that_may_be_anothers_are_said(users: list[str], expected: str | None, tmp_path: Path) -> None:
    raw = load(write(tmp_path, "".join(f"{user},i0,{NOON}\n" for user in users)))
    assert raw.notes == (() if expected is None else (f"interactions.csv: {expected}",))


def test_a_user_who_may_stand_for_many_is_said(tmp_path: Path) -> None:
    """19 of 20 users have one interaction each. 2 of 21 are less than a tenth, 3 of 22 are more."""
    others = [f"u{user},i0,{NOON + user}\n" for user in range(19)]
    guests = [f"guest,i{item},{NOON + item}\n" for item in range(3)]
    assert load(write(tmp_path, "".join(others + guests[:2]))).notes == ()
    assert load(write(tmp_path, "".join(others[1:] + guests))).notes == ()  # of few users any may have so many
    assert load(write(tmp_path, "".join(others + guests))).notes == (
        "interactions.csv: 3 of 22 interactions are of the one user 'guest'; if it stands for several, such as guests, "
        "leave its rows out",
    )


def test_ids_with_a_zero_byte_are_refused(tmp_path: Path) -> None:
    """pandas takes these two users for one."""
    with pytest.raises(InputError, match=r"row 2: user_id 'u\\x00b' holds a zero byte; write it without \("):
        load(write(tmp_path, f"u,i0,{NOON}\nu\x00b,i1,{NOON}\n"))


def test_other_separators_and_encodings_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="separate columns by commas, not by ';'"):
        load(write(tmp_path, f"user_id;item_id;timestamp\nu;i0;{NOON}\n"))
    with pytest.raises(InputError, match=r"separate columns by commas, not by ';'$"):  # and a decimal comma
        load(write(tmp_path, f"user_id;item_id;timestamp;rating\nu;i0;{NOON};4,5\n"))
    (tmp_path / "interactions.csv").write_text(f"# of 2020\nuser_id,item_id,timestamp\nu,i0,{NOON}\n")
    with pytest.raises(InputError, match=r"the first line has to name the columns$"):
        load(tmp_path)
    write(tmp_path, f"u,i0,{NOON}\n")
    (tmp_path / "items.csv").write_bytes("item_id,title\ni0,Café\n".encode("latin-1"))
    with pytest.raises(InputError, match="save it in UTF-8"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (gzip.compress(b"item_id,title\ni0,Lamp\n", mtime=0), "it is packed by gzip: unpack it"),
        (b"PK\x03\x04\x14\x00\xff\xfe", "it is a zip file or a spreadsheet: unpack it, or save it as csv"),
        (b"PAR1\x15\x04\xff\xfe", "it is a parquet file: name it .parquet"),
    ],
    ids=("gzip", "zip", "parquet"),
)
def test_what_is_only_called_csv_is_named(content: bytes, advice: str, tmp_path: Path) -> None:
    write(tmp_path, f"u,i0,{NOON}\n")
    (tmp_path / "items.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"items\.csv: can't be read \(.*\); {advice}$"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("log", "items", "message"),
    [("", "i0,Lamp\n", "the source has none"), (f"u,i0,{NOON}\n", "i0,\n", "no item has a title: give titles")],
)
def test_what_would_help_where_nothing_is_left_is_named(log: str, items: str, message: str, tmp_path: Path) -> None:
    raw = load(write(tmp_path, log, "item_id,title\n" + items))
    with pytest.raises(InputError, match=f"no interaction is left .*; {message}"):
        prepare(raw, settings(), "here")


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


def test_leave_one_out_that_leaves_nothing_to_train_on_says_what_it_needs() -> None:
    rows = [(f"u{user}", f"i{place}", NOON + 1000 * user + place, 1.0) for user in range(12) for place in range(3)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "rating"]).astype({"rating": "float32"})
    raw = Raw(log, pd.DataFrame({"item_id": ["i0", "i1", "i2"], "title": list("abc")}))
    with pytest.raises(
        InputError,
        match=r"here: the train split is empty .* users with four interactions or more, and the "
        "longest has 3: take split: global-temporal",
    ):
        prepare(raw, settings(split="leave-one-out"), "here")  # fmt: skip
    assert prepare(raw, settings(), "here").counts["train"] == 19


def test_one_test_user_is_said_by_prepare_with_the_datasets_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "mine", *walks(step_ms=10_000, users=1, items=40))
    assert (
        fetch_and_prepare(monkeypatch, tmp_path, folder, options={"folder": str(folder), "timestamp_unit": "ms"}) == 0
    )
    assert "mine: warning: all test cases are one user's; intervals and tests" in capsys.readouterr().out
    assert "one user's" in read_json(tmp_path / "data/mine/dataset.json")["warnings"][0]


# Rows that vanish

PADDED = "".join(f"u{n % 3},{n % 4 if n % 2 else f'000{n % 4}'},{NOON + n * 100}\n" for n in range(60))
NUMBERED = "item_id,title\n0,Lamp\n1,Chair\n2,Stool\n3,Desk\n"


def test_unknown_items_are_said_and_refused_above_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "mine", PADDED, NUMBERED)
    assert fetch_and_prepare(monkeypatch, tmp_path, folder) == 2
    assert (
        "mine: 30 of 60 (50.0 %) interactions name an item that isn't in items, first '0000' in row 1 (items have "
        "'0'); write ids alike in both, or let max_unknown_items accept them (it is 0.05)" in capsys.readouterr().err
    )
    more = "".join(f"v{n},{n % 4},{NOON + 90_000 + n}\n" for n in range(600))
    write(folder, PADDED + more + "".join(f"v{n},{(n + 1) % 4},{NOON + 91_000 + n}\n" for n in range(600)), NUMBERED)
    assert fetch_and_prepare(monkeypatch, tmp_path, folder) == 0
    warning = "30 of 1,260 (2.4 %) interactions name an item that isn't in items, first '0000'; they are dropped"
    assert f"mine: warning: {warning}" in capsys.readouterr().out
    about = read_json(tmp_path / "data/mine/dataset.json")
    assert about["counts"]["dropped_unknown_item"] == 30 and about["warnings"] == [warning]
    assert fetch_and_prepare(monkeypatch, tmp_path, folder, max_unknown_items=0.02) == 2


def test_ids_that_never_match_name_both_first_values() -> None:
    raw = planted(n_users=5)
    other = Raw(raw.interactions.assign(item_id="x" + raw.interactions["item_id"]), raw.items)
    with pytest.raises(
        InputError, match=r"here: 80 of 80 \(100\.0 %\) .*, first 'xi\d+' in row 1 \(items begin with 'i0'\)"
    ):
        prepare(other, settings(), "here")
    floats = Raw(raw.interactions.assign(item_id=raw.interactions["item_id"] + ".0"), raw.items)
    with pytest.raises(InputError, match=r"first 'i(\d+)\.0' in row 1 \(items have 'i\1'\)"):
        prepare(floats, settings(), "here")


def test_interactions_of_items_without_a_title_are_said() -> None:
    raw, account = planted(n_users=20), Account()
    items = raw.items.assign(title=raw.items["title"].where(raw.items["item_id"] != "i3", " "))
    counts = prepare(Raw(raw.interactions, items), settings(), "here", account).counts
    gone = int((raw.interactions["item_id"] == "i3").sum())
    assert gone == counts["dropped_no_title"] > 0
    assert (
        f"{gone} of 320 ({gone / 3.2:.1f} %) interactions are of an item without a title, first 'i3'"
        in account.warnings[0]
    )


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            'item_id,title\ni0,"Lamp\ni1,Chair\ni2,Stool\n',
            r"items\.csv: line 2: a quote isn't closed at the end of its field",
        ),
        (
            'item_id,title\ni0,Lamp\ni1,"Chair\ni2,"Stool"\n',
            r"items\.csv: line 3: a quote isn't closed at the end of its",
        ),
        (
            'item_id,title\n"i0,Lamp\ni1",Chair\ni2,Stool\n',
            r"items\.csv: row 1: item_id 'i0,Lamp\\ni1' holds a line break",
        ),
    ],
)
def test_a_quote_that_swallows_rows_is_refused(items: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, f"u,i0,{NOON}\n", items))


def test_a_quote_that_swallows_rows_and_closes_again_shows_in_the_log(tmp_path: Path) -> None:
    folder = write(
        tmp_path, "".join(f"u,i{n},{NOON + n}\n" for n in range(4)), 'item_id,title\ni0,"A\ni1,B\ni2,C"\ni3,D\n'
    )
    with pytest.raises(InputError, match=r"here: 2 of 4 \(50\.0 %\) interactions name an item .* first 'i1' in row 2"):
        prepare(load(folder), settings(), "here")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("item_id,title,Title", "columns 'title' and 'Title' differ in spelling alone; keep or rename one"),
        ("Title,item_id,title", "columns 'title' and 'Title' differ in spelling alone; keep or rename one"),
        ("item_id,title,Item ID", "columns 'item_id' and 'Item ID' differ in spelling alone; keep or rename one"),
        ("item_id,Title,note", "column 'Title' must be called 'title'; rename it"),
        ("item_id,title,note,NOTE", "columns 'note' and 'NOTE' differ in spelling alone; keep or rename one"),
    ],
)
def test_columns_that_differ_in_spelling_alone_are_refused(header: str, message: str, tmp_path: Path) -> None:
    cells = ",".join(f"c{n}" for n in range(header.count(",") + 1))
    with pytest.raises(InputError, match=f"items.csv: {message}"):
        load(write(tmp_path, f"u,i0,{NOON}\n", f"{header}\n{cells}\n"))


def test_a_misspelt_rating_is_no_missing_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"interactions\.csv: column 'Rating' must be called 'rating'; rename it"):
        load(write(tmp_path, f"user_id,item_id,timestamp,Rating\nu,i0,{NOON},5\n"))
    # What isn't read at all may be called anything.
    log = load(write(tmp_path, f"user_id,item_id,timestamp,x,X\nu,i0,{NOON},5,5\n")).interactions
    assert "x" not in log and log["rating"].isna().all()


def test_row_numbers_are_ignored_with_a_word(tmp_path: Path) -> None:
    items = ",item_id,title,index,Unnamed: 7,level_0\n0,i0,Lamp,0,9,5\n1,i1,Chair,1,9,5\n"
    raw = load(write(tmp_path, f",user_id,item_id,timestamp\n0,u,i0,{NOON}\n", items))
    assert raw.items.columns.tolist() == ["item_id", "title", "level_0"]  # which isn't 0, 1, ...
    names = ("", "Unnamed: 7", "index")
    assert raw.notes == tuple(f"items.csv: column {name!r} holds row numbers and is ignored" for name in names)
    chosen = load(tmp_path, attributes=["index"])
    assert chosen.items["index"].tolist() == ["0", "1"] and chosen.notes == ()


def test_notes_of_a_source_are_warnings_of_prepare(tmp_path: Path) -> None:
    account, raw = Account(), planted(n_users=20)
    prepare(Raw(raw.interactions, raw.items, notes=("items.csv: a word",)), settings(), "here", account)
    assert account.warnings == ["items.csv: a word"]


def test_ratings_of_zero_are_none_and_counted(tmp_path: Path) -> None:
    log = f"user_id,item_id,timestamp,rating\nu,i0,{NOON},3\nu,i1,{NOON},0\nu,i2,{NOON},0.0\nu,i3,{NOON},.5\n"
    raw = load(write(tmp_path, log))
    assert raw.interactions["rating"].fillna(-1).tolist() == [3, -1, -1, 0.5]
    warning = (
        "interactions.csv: 2 of 4 ratings are 0, first in row 2: they count as none (zero_ratings: true keeps them)"
    )
    assert raw.notes == (warning,)
    kept = load(tmp_path, zero_ratings=True)
    assert kept.interactions["rating"].tolist() == [3, 0, 0, 0.5] and kept.notes == ()


def test_negative_ratings_are_said(tmp_path: Path) -> None:
    """Some logs write -1 where somebody took an item without rating it."""
    log = f"user_id,item_id,timestamp,rating\nu,i0,{NOON},3\nu,i1,{NOON},-1\nu,i2,{NOON},-1\n"
    assert load(write(tmp_path, log)).notes == (
        "interactions.csv: 2 of 3 ratings are negative, first -1 in row 2: no prompt mentions ratings then, unless "
        "rating_scale is set; write 0 where there is none",
    )


def test_a_rating_that_float32_cannot_hold_is_refused(tmp_path: Path) -> None:
    log = f"user_id,item_id,timestamp,rating\nu,i0,{NOON},3\nu,i1,{NOON},1e39\n"
    with pytest.raises(
        InputError, match=r"interactions\.csv: row 2: rating 1e\+39 is too large; give a number below 3e38"
    ):
        load(write(tmp_path, log))


def test_titles_that_read_as_missing_are_said(tmp_path: Path) -> None:
    raw = load(write(tmp_path, f"u,i0,{NOON}\n", "item_id,title\ni0,Lamp\ni1,nan\ni2,None\ni3,\n"))
    assert raw.notes == ("items.csv: 2 of 4 titles read as a missing value, first 'nan' of 'i1'",)


def test_titles_that_no_person_wrote_and_those_of_several_items_are_said(tmp_path: Path) -> None:
    titles = ["AT&T <3", "Tom &amp; Jerry", "Am\u00c3\u00a9lie", "\u00c5ngstr\u00f6m", "Up", "Up "]
    items = "item_id,title\n" + "".join(f"i{v},{title}\n" for v, title in enumerate(titles))
    assert load(write(tmp_path, f"u,i0,{NOON}\n", items)).notes == (
        "items.csv: 1 of 6 titles hold HTML, first 'Tom &amp; Jerry' of 'i1'",
        "items.csv: 1 of 6 titles seem to be read in a wrong encoding, first 'Am\u00c3\u00a9lie' of 'i2'",
        "items.csv: 2 of 6 titles are another item's, too, which a method that writes titles can't tell apart, first "
        "'Up' of 'i4'",
    )


# Popularity columns


def test_popularity_columns_are_hidden_from_all_unless_the_config_says_otherwise() -> None:
    raw = planted(n_users=20)
    more = raw.items.assign(average_rating="4.5", **{"Rating Number": range(len(raw.items)), "rating": "PG"})
    account = Account()
    hidden = prepare(Raw(raw.interactions, more), settings(), "here", account)
    assert hidden.items.columns.tolist() == ["item_id", "title", "colour", "rating"]
    assert account.warnings == [
        "item columns average_rating, Rating Number are hidden from all methods, as they tell what came later "
        "(popularity_columns)"
    ]
    shown = prepare(Raw(raw.interactions, more), settings(popularity_columns=True), "here")
    # As text, which is an attribute for every method.
    assert shown.items.loc[3, ["average_rating", "Rating Number"]].tolist() == ["4.5", "3"]
    read = attributes(shown.items, tiny_tokenizer("llama"))
    assert read["average_rating"][3] == "4.5" and read["Rating Number"][3] == "3"
    assert list(attributes(hidden.items, tiny_tokenizer("llama"))) == ["colour", "rating"]


# The whole kinds. None is silent: each example is read as it is meant, or said.

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
WRONG: dict[str, Callable[[int, str], str]] = {
    "another unit": lambda second, unit: str(second * UNITS[{"s": "ms", "ms": "s", "us": "ms"}[unit]]),
    "nanoseconds": lambda second, unit: str(second * 10**9),
    "zero": lambda second, unit: "0",
    "minus one": lambda second, unit: "-1",
    "negative": lambda second, unit: str(-second * UNITS[unit]),
    "a day": lambda second, unit: f"{pd.Timestamp(second, unit='s'):%Y%m%d}",
    "a year": lambda second, unit: f"{pd.Timestamp(second, unit='s'):%Y}",
    "ISO": lambda second, unit: f"{pd.Timestamp(second, unit='s'):%Y-%m-%dT%H:%M:%S}",
    "later": lambda second, unit: str((LIMITS.end + second) * UNITS[unit]),
    "nothing": lambda second, unit: "",
    "endless": lambda second, unit: "inf",
}
MOMENTS = st.tuples(st.integers(LIMITS.first, LIMITS.end - 1), st.integers(0, 999_999))


def times_hold(folder: Path, moments: list[tuple[int, int]], unit: str, wrong: str | None, place: int) -> None:
    """Seconds and microseconds written in a unit, one perhaps wrong: read exactly and in order, or refused by row."""
    texts = [str(second * UNITS[unit] + micro * UNITS[unit] // 1_000_000) for second, micro in moments]
    place %= len(texts)
    if wrong is not None:
        texts[place] = WRONG[wrong](moments[place][0], unit)
    write(folder, "".join(f"u,i0,{text}\n" for text in texts))
    if wrong is not None:
        with pytest.raises(InputError) as caught:
            load(folder, timestamp_unit=unit)
        assert f"interactions.csv: row {place + 1}: timestamp" in str(caught.value) and "(the first" in str(
            caught.value
        )
        return
    log = load(folder, timestamp_unit=unit).interactions
    fraction = log["fraction"] if "fraction" in log else np.zeros(len(log), np.int64)
    assert log["timestamp"].tolist() == [second for second, _ in moments]
    step = 10**9 // UNITS[unit]
    assert [int(nano) // step for nano in fraction] == [micro * UNITS[unit] // 1_000_000 for _, micro in moments]
    assert all(int(nano) % step == 0 for nano in fraction)


TIME = (
    st.lists(MOMENTS, min_size=2, max_size=6),
    st.sampled_from(list(UNITS)),
    st.sampled_from([None, *WRONG]),
    st.integers(0, 5),
)


@FEW
@given(*TIME)
def test_no_times_vanish_without_a_word(
    tmp_path: Path, moments: list[tuple[int, int]], unit: str, wrong: str | None, place: int
) -> None:
    times_hold(tmp_path, moments, unit, wrong, place)


@pytest.mark.slow
@hypothesis_settings(MANY, max_examples=20_000)
@given(*TIME)
def test_no_times_vanish_without_a_word_at_length(
    tmp_path: Path, moments: list[tuple[int, int]], unit: str, wrong: str | None, place: int
) -> None:
    times_hold(tmp_path, moments, unit, wrong, place)


BENT: tuple[Callable[[str], str], ...] = (
    lambda name: name,
    lambda name: f"00{name}",
    lambda name: f"{name}.0",
    lambda name: f" {name}",
    str.swapcase,
    lambda name: name[1:] or "other",
)
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=6)


def ids_hold(folder: Path, names: list[str], taken: list[tuple[int, int]]) -> None:
    """Ids of any text, some bent: each interaction is kept with its very item, or counted, said, and refused if
    many."""
    folder.mkdir(exist_ok=True)
    pairs = [(row, BENT[how](names[row % len(names)])) for row, how in taken]
    pd.DataFrame({"item_id": names, "title": "A thing"}).to_csv(folder / "items.csv", index=False)
    log = [(f"u{row % 3}", name, NOON + number) for number, (row, name) in enumerate(pairs)]
    pd.DataFrame(log, columns=["user_id", "item_id", "timestamp"]).to_csv(folder / "interactions.csv", index=False)
    raw = load(folder)
    assert raw.items["item_id"].tolist() == names and raw.interactions["item_id"].tolist() == [
        name for _, name in pairs
    ]
    unknown = sum(name not in names for _, name in pairs)
    account = Account()
    for most in (1.0, LIMITS.unknown_items):
        try:
            prepare(raw, settings(max_unknown_items=most), "here", account := Account())
        except InputError as error:
            if unknown > most * len(pairs):
                assert f"{unknown} of {len(pairs)} (" in str(error)
                # Accepting them helps only where others are left.
                assert ("max_unknown_items" in str(error)) == (unknown < len(pairs))
                continue
        assert account.counts["dropped_unknown_item"] == unknown <= most * len(pairs)
        counts = account.counts
        remaining = counts["interactions_read"] - sum(counts[name] for name in counts if name.startswith("dropped_"))
        assert remaining == counts.get("interactions", 0)
        if unknown and "cases_train" in counts:
            assert any(warning.startswith(f"{unknown} of {len(pairs)} (") for warning in account.warnings)


IDS = (
    st.lists(NAMES, min_size=1, max_size=6, unique=True),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, len(BENT) - 1)), min_size=1, max_size=25),
)


@FEW
@given(*IDS)
def test_no_ids_vanish_without_a_word(tmp_path: Path, names: list[str], taken: list[tuple[int, int]]) -> None:
    ids_hold(tmp_path / "mine", names, taken)


@pytest.mark.slow
@MANY
@given(*IDS)
def test_no_ids_vanish_without_a_word_at_length(tmp_path: Path, names: list[str], taken: list[tuple[int, int]]) -> None:
    ids_hold(tmp_path / "mine", names, taken)


COLUMNS = ("title", "Title", " title", "item_id", "Item ID", "", "Unnamed: 0", "index", "colour", "Colour", "colour ",
           "average_rating", "Average Rating", "rating_number", "num_reviews", "note", "$", "_")  # fmt: skip


def columns_hold(folder: Path, more: list[str], lead: int) -> None:
    """Columns of any names: each is an attribute, or named in a sentence, or in the error."""
    names = ["item_id", "title", *more]
    names = names[lead % len(names) :] + names[: lead % len(names)]
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(names)
    out.writerows([f"i{row}" if name == "item_id" else f"text {row}" for name in names] for row in range(20))
    write(folder, "".join(f"u{n % 4},i{n % 20},{NOON + n * 7}\n" for n in range(80)), text.getvalue())
    account = Account()
    try:
        prepared = prepare(load(folder), settings(), "here", account)
    except InputError as error:
        assert any(repr(name) in str(error) for name in more)
        return
    warnings = " ".join(account.warnings)
    for name in names:
        ignored = (
            f"column {name!r} holds row numbers" in warnings
            or f" {name}," in warnings
            or f" {name} are hidden" in warnings
        )
        assert (name in prepared.items.columns) != ignored
    plain = [name.lower().replace(" ", "").replace("_", "") for name in prepared.items.columns]
    assert len(set(plain)) == len(plain)
    assert not {"averagerating", "ratingnumber", "numreviews", "unnamed:0"} & set(plain)


MORE = (st.lists(st.sampled_from(COLUMNS), max_size=5), st.integers(0, 9))


@FEW
@given(*MORE)
def test_no_columns_vanish_without_a_word(tmp_path: Path, more: list[str], lead: int) -> None:
    columns_hold(tmp_path, more, lead)


@pytest.mark.slow
@MANY
@given(*MORE)
def test_no_columns_vanish_without_a_word_at_length(tmp_path: Path, more: list[str], lead: int) -> None:
    columns_hold(tmp_path, more, lead)


WORDS = st.lists(
    st.sampled_from(["Lamp", '"', ",", "\n", " ", "nan", "é", "i1,Chair", "<b>", "'"]), min_size=1, max_size=6
).map("".join)


def titles_hold(folder: Path, titles: list[str], cut: int | None) -> None:
    """Titles of any text are read as they were written; with one quote gone every item is there, or a sentence says
    not."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [["item_id", "title"], *([f"i{n}", t] for n, t in enumerate(titles))]
    )
    written = text.getvalue()
    quotes = [place for place, sign in enumerate(written) if sign == '"']
    if cut is not None and quotes:
        place = quotes[cut % len(quotes)]
        written = written[:place] + written[place + 1 :]
    write(folder, "".join(f"u{n // len(titles)},i{n % len(titles)},{NOON + n * 7}\n" for n in range(90)), written)
    account = Account()
    try:
        raw = load(folder)
        kept_titles = raw.items["title"].tolist()
        prepare(raw, settings(), "here", account)
    except InputError as error:
        blank = sum(not title.strip() for title in titles)
        assert (cut is not None and quotes) or blank, error
        return
    if cut is None or not quotes:
        assert kept_titles == titles
    # A quote that is gone may make a line of its own out of a title; it takes no other's place.
    ids = {f"i{n}" for n in range(len(titles))}
    assert ids <= set(raw.items["item_id"]) or any("isn't in items" in warning for warning in account.warnings)


TITLES = (st.lists(WORDS, min_size=4, max_size=9), st.none() | st.integers(0, 40))


@FEW
@given(*TITLES)
def test_no_titles_vanish_without_a_word(tmp_path: Path, titles: list[str], cut: int | None) -> None:
    titles_hold(tmp_path, titles, cut)


@pytest.mark.slow
@MANY
@given(*TITLES)
def test_no_titles_vanish_without_a_word_at_length(tmp_path: Path, titles: list[str], cut: int | None) -> None:
    titles_hold(tmp_path, titles, cut)


def test_a_scale_that_few_ratings_set_and_an_order_that_a_hash_sets_are_said() -> None:
    def warned(raw: Raw, **changes: object) -> list[str]:
        account = Account()
        prepare(raw, settings(**changes), "shop", account)
        return account.warnings

    raw = planted(n_users=40, length=8)
    assert not warned(raw) and not warned(raw, same_time="order")
    slip = raw.interactions.copy()
    slip.loc[3, "rating"] = 99
    warnings = warned(Raw(slip, raw.items))
    assert warnings == [
        "ratings count as out of 100, because 1 of them are above 10, the highest 99; mend those, or set rating_scale"
    ]
    assert not warned(Raw(slip, raw.items), rating_scale=100)
    ten = raw.interactions.assign(rating=raw.interactions["rating"] * 2)  # many above 5: a scale of 10
    assert not warned(Raw(ten, raw.items))
    equal = raw.interactions.assign(timestamp=1_400_000_000)
    (said_of_order,) = warned(Raw(equal, raw.items), same_time="order")
    assert said_of_order.endswith(
        "interactions have the very time of another of their user, so that a hash orders them"
    )
