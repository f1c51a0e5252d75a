"""Files of one's own: csv and parquet are read as they were written, and a dataset is made of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.data.store import read_split
from benchmark.datasets import files
from benchmark.errors import InputError
from benchmark.output.page.labels import RULES
from benchmark.storage.io import read_json, sha256_of
from tests.support.planted import planted, write_files
from tests.support.preparing import LIMITS, fetch_and_prepare


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


def test_written_csv_is_read_back(tmp_path: Path) -> None:
    raw = planted(n_users=20)
    write_files(tmp_path, raw)
    interactions, items = load(tmp_path)
    pd.testing.assert_frame_equal(interactions, raw.interactions)
    pd.testing.assert_frame_equal(items, raw.items)


def test_a_number_of_many_digits_is_refused_before_pandas_reads_it() -> None:
    column = pd.Series(["1", "1" * 100], name="timestamp", dtype=object)
    assert files._numbers(column, Path("x.csv"), "").tolist() == [1, pytest.approx(1.111111e99)]
    column[1] += "1"
    with pytest.raises(
        InputError, match=r"x.csv: row 2: timestamp is '1{100}\.\.\. \(101 characters\)'; give a finite"
    ):
        files._numbers(column, Path("x.csv"), "")
