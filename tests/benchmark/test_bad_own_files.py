"""Files of one's own that are no such files, and wrong settings: one sentence each, and nothing is left behind."""

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmark.data import fetch, prepare
from benchmark.errors import InputError
from tests.benchmark.test_own_files import frames, load, write
from tests.support.preparing import SETTINGS, command, fetch_and_prepare

Edit = Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]]
NEXT_YEAR = datetime.date.today().year + 1


def edit(row: int, column: str, value: object, table: int = 0) -> Edit:
    """One cell of the interactions (0) or the items (1) changed; the first data row is 1."""

    def change(*both: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        copies = [frame.copy() for frame in both]
        if not isinstance(value, float):
            copies[table][column] = copies[table][column].astype(object)
        copies[table].loc[row - 1, column] = value
        return copies[0], copies[1]

    return change


BAD: dict[str, tuple[Edit, str]] = {
    "no user_id": (lambda a, b: (a.drop(columns="user_id"), b), "interactions.csv: column 'user_id' is missing (found"),
    "no item_id": (lambda a, b: (a.drop(columns="item_id"), b), "interactions.csv: column 'item_id' is missing (found"),
    "no timestamp": (lambda a, b: (a.drop(columns="timestamp"), b), "interactions.csv: column 'timestamp' is missing"),
    "no title": (lambda a, b: (a, b.drop(columns="title")), "items.csv: column 'title' is missing (found item_id, col"),
    "no id of items": (
        lambda a, b: (a, b.drop(columns="item_id")),
        "items.csv: column 'item_id' is missing (found title, colour); add it, or rename the column that has it",
    ),
    "duplicate item": (edit(9, "item_id", "i2", table=1), "items.csv: row 9: item_id 'i2' occurs twice; keep one row"),
    "NaN rating": (edit(5, "rating", float("nan")), "interactions.csv: row 5: rating is missing; give a finite number"),
    "truth for a rating": (
        lambda a, b: (a.assign(rating=a["rating"] > 3), b),
        "interactions.csv: row 1: rating is ",
    ),
    "text rating": (edit(6, "rating", "good"), "interactions.csv: row 6: rating is 'good'; give a finite number"),
    "endless rating": (
        edit(7, "rating", float("inf")),
        "interactions.csv: row 7: rating is 'inf'; give a finite number",
    ),
    "missing user": (edit(3, "user_id", ""), "interactions.csv: row 3: user_id is missing; give every row an id"),
    "missing item": (edit(4, "item_id", None), "interactions.csv: row 4: item_id is missing; give every row an id"),
    "missing id of item": (
        edit(2, "item_id", "", table=1),
        "items.csv: row 2: item_id is missing; give every row an id",
    ),
    "text timestamp": (edit(8, "timestamp", "yesterday"), "interactions.csv: row 8: timestamp is 'yesterday'; give a"),
    "missing timestamp": (
        edit(2, "timestamp", None),
        "interactions.csv: row 2: timestamp is missing; give a finite number",
    ),
    "dates": (
        lambda a, b: (a.assign(timestamp="2015-03-01 10:00:00"), b),
        "interactions.csv: row 1: timestamp is '2015-03-01 10:00:00'; give a finite number",
    ),
    "days": (
        lambda a, b: (a.assign(timestamp="2015-03-01"), b),
        "interactions.csv: row 1: timestamp is '2015-03-01'; give a finite number",
    ),
    "milliseconds": (
        lambda a, b: (a.assign(timestamp=1_500_000_000_123), b),
        "interactions.csv: row 1: timestamp 1500000000123 is no time in seconds (it reads as the year 49503, outside "
        f"1990-01-01 to {NEXT_YEAR}-12-31); if the file counts milliseconds, set timestamp_unit: ms",
    ),
    "no interaction": (
        lambda a, b: (a.iloc[:0], b),
        "mine: no interaction is left after title, window and minimum counts",
    ),
    "no items": (
        lambda a, b: (a, b.iloc[:0]),
        "mine: there are 320 interactions and no items; give the items a row each",
    ),
    "too few": (lambda a, b: (a.iloc[:5], b), "mine: the valid split is empty (4 cases in all)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_sentence_and_leave_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = BAD[name]
    folder = write(tmp_path / "mine", *change(*frames()))
    assert fetch_and_prepare(monkeypatch, tmp_path, folder) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert message in printed
    if "mine:" not in message:
        assert f"error: {folder}{os.sep}" in printed  # the whole path of the file
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_bad_files_through_the_command_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", *edit(5, "rating", float("nan"))(*frames()))
    text = json.dumps(SETTINGS | {"options": {"folder": str(folder)}})
    out = tmp_path / "out"
    common = [sys.executable, "-m"]
    fetched = [*common, "benchmark.data.fetch", "--settings", text, "--out", str(out / "fetched.json")]
    subprocess.run(fetched, check=True)
    prepared = [*common, "benchmark.data.prepare", "--dataset", "mine", "--settings", text, "--out", str(out / "mine")]
    done = subprocess.run([*prepared, "--manifest", str(out / "fetched.json")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {folder / 'interactions.csv'}: row 5: rating is missing; give a finite")
    assert "number in every row, 0 where there is no rating (the first data row is 1)" in done.stderr
    assert [path.name for path in out.iterdir()] == ["fetched.json"]


def test_bad_parquet_is_named_by_row_and_value(tmp_path: Path) -> None:
    interactions, items = frames()
    cases: list[tuple[pd.DataFrame, pd.DataFrame, str]] = [
        (
            interactions.assign(timestamp=pd.Timestamp("2015-03-01")),
            items,
            r"row 1: timestamp is '2015-03-01 00:00:00\.000'",
        ),
        (interactions.assign(rating=[None, *interactions["rating"][1:]]), items, r"row 1: rating is missing"),
        (interactions.assign(user_id=[None, *interactions["user_id"][1:]]), items, r"row 1: user_id is missing"),
        (interactions, items.assign(tags=[["a", "b"]] * len(items)), r"items.parquet: column 'tags' has type list<"),
    ]
    for number, (one, two, message) in enumerate(cases):
        with pytest.raises(InputError, match=message):
            load(write(tmp_path / str(number), one, two, "parquet"))


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, *frames())
    (folder / "items.csv").write_text("")
    with pytest.raises(InputError, match=r"items.csv: can't be read \(Empty CSV file\); its first line has to name"):
        load(folder)
    (folder / "items.csv").write_text("i1,One\ni2,Two\n")
    with pytest.raises(
        InputError, match=r"'item_id' is missing \(found i1, One\); the first line has to name the columns"
    ):
        load(folder)
    (folder / "items.csv").write_text("item_id,title\na,b\nc,d,e\n")
    with pytest.raises(
        InputError, match=r"items.csv: can't be read \(.*Row #3: Expected 2 columns, got 3.*; put a text that"
    ):
        load(folder)
    (folder / "items.csv").write_bytes(b"item_id,title\na,\xff\xfe\n")
    with pytest.raises(
        InputError, match=r"items.csv: can't be read \('utf-8' codec can't decode byte 0xff.*; save it in UTF-8$"
    ):
        load(folder)
    (folder / "items.csv").write_text("item_id,title,title\na,b,c\n")
    with pytest.raises(InputError, match=r"items.csv: column 'title' occurs twice; keep one"):
        load(folder)
    (folder / "items.csv").rename(folder / "items.parquet")
    with pytest.raises(
        InputError, match=r"items.parquet: can't be read \(.*; it is cut short or no parquet file: copy it again$"
    ):
        load(folder)


def test_neither_or_both_forms_of_a_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "mine", *frames())
    write(folder, *frames(), ending="parquet")
    assert fetch_and_prepare(monkeypatch, tmp_path, folder) == 2
    assert f"{folder}: need interactions.parquet or interactions.csv, both exist" in capsys.readouterr().err
    (folder / "interactions.csv").unlink()
    assert fetch_and_prepare(monkeypatch, tmp_path, folder) == 2
    assert f"{folder}: need items.parquet or items.csv, both exist" in capsys.readouterr().err
    for path in folder.glob("items.*"):
        path.unlink()
    assert fetch_and_prepare(monkeypatch, tmp_path, folder) == 2
    assert f"{folder}: need items.parquet or items.csv, neither exists; see" in capsys.readouterr().err
    for name in ("Items.csv", "items.csv.gz"):
        (folder / name).touch()
    assert fetch_and_prepare(monkeypatch, tmp_path, folder) == 2
    assert "neither exists (found Items.csv, items.csv.gz); see" in capsys.readouterr().err
    assert fetch_and_prepare(monkeypatch, tmp_path, folder / "Items.csv") == 2
    assert "neither exists; give the folder of this file; see" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_that_changed_or_went_after_fetching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "mine", *frames())
    assert fetch_and_prepare(monkeypatch, tmp_path, folder) == 0
    text = json.dumps(SETTINGS | {"options": {"folder": str(folder)}})
    again = (
        "--dataset",
        "mine",
        "--settings",
        text,
        "--manifest",
        tmp_path / "fetched.json",
        "--out",
        tmp_path / "new",
    )
    with open(folder / "items.csv", "a") as file:
        file.write("i99,another,red\n")
    capsys.readouterr()
    assert command(monkeypatch, prepare.main, *again) == 2
    message = capsys.readouterr().err
    assert "items.csv: sha256 is" in message and "fetch it again" in message and "delete" not in message
    (folder / "items.csv").unlink()
    assert command(monkeypatch, prepare.main, *again) == 2
    assert "items.csv: missing; fetch the dataset again" in capsys.readouterr().err
    (tmp_path / "fetched.json").unlink()
    assert command(monkeypatch, prepare.main, *again) == 2
    assert "fetched.json: missing; run benchmark.data.fetch first" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "--settings: not JSON"),
        (
            {"source": "file", "category": "x"},
            "--settings: no source 'file'; did you mean 'files'? Known: amazon_2023, complete_journey, files, ml_100k",
        ),
        ({"source": "files", "category": "x"}, "--settings.options: setting 'folder' is missing; add it"),
        ({"source": "ml_100k", "category": "x", "options": {"a": 1}}, "--settings.options: unknown setting 'a'"),
        ({"source": "ml_100k", "category": "x", "min_users": 1}, "--settings: unknown setting 'min_users'"),
    ],
)
def test_bad_settings_of_both_commands(
    settings: object, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = settings if isinstance(settings, str) else json.dumps(settings)
    assert command(monkeypatch, fetch.main, "--settings", text, "--out", tmp_path / "m.json") == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    arguments = ("--dataset", "d", "--settings", text, "--manifest", tmp_path / "m.json", "--out", tmp_path / "out")
    assert command(monkeypatch, prepare.main, *arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())
