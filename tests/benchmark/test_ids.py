"""No id is taken for another's without a word: types that round, spellings, and items that nothing describes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from benchmark.data.protocol import prepare
from benchmark.datasets import Raw
from benchmark.datasets.files import Options, inputs
from benchmark.errors import InputError
from benchmark.storage.io import read_json
from tests.support.csv_files import NOON, load, write
from tests.support.planted import planted, settings, write_files
from tests.support.preparing import fetch_and_prepare


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


def test_a_folder_of_ones_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "shop", planted(n_users=20))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert inputs(Options(folder=Path("~/shop")))[0] == tmp_path / "shop/interactions.csv"
    with pytest.raises(ValidationError, match="folder '~nobody-of-this-name/shop' names the home of a user that isn't"):
        Options(folder=Path("~nobody-of-this-name/shop"))


def test_swapped_columns_are_named() -> None:
    raw = planted(n_users=20)
    swapped = raw.interactions.rename(columns={"user_id": "item_id", "item_id": "user_id"})
    with pytest.raises(
        InputError,
        match=r"first 'u0' in row 1 \(items begin with 'i0'; the user_ids are ids of items: if the two columns "
        r"are swapped, swap their ",
    ):
        prepare(Raw(swapped, raw.items), settings(), "mine")


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
