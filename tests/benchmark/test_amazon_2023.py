"""Amazon Reviews 2023: both presets on small files of the exact raw form, counted by hand and served by a thread."""

import gzip
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from baselines._writers.sentences import item_texts
from benchmark.config.methods import ROOT
from benchmark.config.read import read_config
from benchmark.data import cleaning, fetch, prepare, protocol
from benchmark.data.settings import DatasetConfig
from benchmark.datasets import Raw, _duckdb, amazon_2023
from benchmark.datasets._amazon_text import attribute
from benchmark.errors import InputError
from benchmark.output.page.labels import OF_SOURCES
from benchmark.speed import __main__ as speed
from benchmark.speed import raw_amazon
from benchmark.storage import download
from benchmark.storage.io import read_json
from tests.benchmark.test_config import readme_rows
from tests.benchmark.test_datasets import command
from tests.support.mirror import serving
from tests.support.planted import settings
from tests.support.tiny_tokenizers import tiny_tokenizer

LONG = " ".join(["word"] * 21)
TWENTY = " ".join(["word"] * 20)


def item(name: str, title: Any, price: Any, **more: Any) -> dict[str, Any]:
    """One line of the metadata, with all columns of the source."""
    return {
        "main_category": "Video Games",
        "title": title,
        "average_rating": 4.5,
        "rating_number": 12,
        "features": [],
        "description": [],
        "price": price,
        "images": [{"thumb": "https://example.org/a.jpg", "variant": "MAIN", "hi_res": None}],
        "videos": [],
        "store": None,
        "categories": ["Video Games", "PC"],
        "details": {"Release date": "October 1, 2022"},
        "parent_asin": name,
        "bought_together": None,
    } | more


ITEMS = [
    item("A", "Alpha", 10, description=["Two discs.", "A &amp; <b>B</b>", "Two discs."], store="Sega"),
    item("B", None, 1),
    item("C", LONG, 1),
    item("D", "Delta", None, average_rating=None, rating_number=None, description="one string"),
    item("E", "Echo &amp; <b>Caf\u00e9</b> \U0001f3b8", "from 3.99"),
    item("F", TWENTY, "5.50"),
    item("G", "Golf", 1),  # nobody takes it
    item("H", "", 1),
    item("I", '<span id="productTitle">India</span>', 1),
    item("J", "Juliet", 2),
]
# user, item, rating, time (UTC)
LOG = [
    ("u1", "A", 4, "2023-08-02"),
    ("u1", "D", 5, "2023-08-03"),
    ("u1", "X", 5, "2023-08-04"),  # no line of the metadata
    ("u1", "F", 1, "2023-09-01"),
    ("u2", "C", 5, "2023-08-30"),
    ("u2", "A", 5, "2023-09-05"),
    ("u2", "E", 3, "2023-09-06"),
    ("u2", "B", 3, "2023-09-07"),
    ("u3", "F", 2, "2023-09-10"),
    ("u3", "A", 5, "2023-09-11 10:00:00.900"),
    ("u3", "A", 2, "2023-09-12"),
    ("u4", "J", 5, "2023-06-15"),
    ("u4", "A", 5, "2023-06-16"),
    ("u5", "I", 5, "2023-08-20"),
    ("u6", "F", 5, "2023-10-01"),  # the window's very end
    ("u6", "A", 5, "2023-10-02"),
    ("u7", "H", 5, "2023-09-01"),
    ("u8", "J", 5, "2023-07-31 23:59:59.999"),
]
LIMITS = settings(earliest="1990-01-01", max_unknown_items=1).limits
WINDOW = {"start": "2023-08-01", "end": "2023-10-01", "min_items": 0}


def lines_of(items: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(entry) for entry in items]


def rows_of(log: list[tuple[str, str, float, str]]) -> list[str]:
    return [f"{u},{i},{float(r)},{int(pd.Timestamp(t, tz='UTC').timestamp() * 1000)}" for u, i, r, t in log]


def packed(lines: list[str] | list[bytes]) -> bytes:
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return gzip.compress(b"\n".join(raw) + b"\n", mtime=0)


def write_mirror(folder: Path, log: list[str] | None = None, items: list[Any] | None = None) -> Path:
    """A mirror's folder of Video_Games; the same interactions as 0core and as 5core."""
    interactions = packed(["user_id,parent_asin,rating,timestamp", *(rows_of(LOG) if log is None else log)])
    for name, data in (
        ("benchmark/0core/rating_only/Video_Games.csv.gz", interactions),
        ("benchmark/5core/rating_only/Video_Games.csv.gz", interactions),
        ("raw/meta_categories/meta_Video_Games.jsonl.gz", packed(lines_of(ITEMS) if items is None else items)),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mirror(tmp_path_factory.mktemp("mirror"))


def options(folder: Path, /, **more: Any) -> amazon_2023.Options:
    return amazon_2023.Options.model_validate({"category": "Video_Games", "mirror": str(folder)} | WINDOW | more)


def load_as_it_is(folder: Path, /, **more: Any) -> Raw:
    checked_options = options(folder, **more)
    return amazon_2023.load(checked_options, amazon_2023.inputs(checked_options), LIMITS)


def load(folder: Path, /, **more: Any) -> Raw:
    """The source with its attributes, which stay on disk, as further columns in memory."""
    raw = load_as_it_is(folder, **more)
    if raw.texts is None:
        return raw
    texts = pa.Table.from_batches(raw.texts.batches()).to_pandas(types_mapper=pd.ArrowDtype)
    return replace(raw, items=raw.items.join(texts), texts=None)


def pairs(raw: Raw) -> str:
    """The interactions in words, by time."""
    return " ".join(
        f"{user[1:]}{item}" for user, item in zip(*(raw.interactions[k] for k in ("user_id", "item_id")), strict=True)
    )


# What the presets keep, counted by hand


def test_the_papers_preset_keeps_what_its_text_says(mirror: Path) -> None:
    raw = load(mirror, attributes=["description", "store", "categories", "details"])
    assert raw.about["window"] == ["2023-08-01", "2023-10-01"]
    assert raw.about["counts"] == {
        "interactions_read": 18,
        "ratings_of_zero": 0,
        "items_read": 10,
        "lines_broken": 0,
        "titles_no_text": 0,
        "items_without_interaction": 1,  # G
        "items_without_title": 2,  # B, H
        "items_title_too_long": 1,  # C
        "items_without_price": 0,
        "items_repeated": 0,
        "dropped_unknown_item": 1,  # X
        "dropped_of_dropped_items": 3,  # C, B, H
        "dropped_outside_window": 5,  # u4 and u6 twice, u8
        "dropped_repeats": 1,  # u3 and A
        "dropped_k_core": 0,
        "interactions": 8,
        "items": 5,
        "months_widened": 0,
    }
    assert pairs(raw) == "1A 1D 5I 1F 2A 2E 3F 3A"
    last = raw.interactions.iloc[-1]
    assert last["rating"] == 5 and last["timestamp"] == pd.Timestamp("2023-09-11 10:00:00").timestamp()
    assert raw.interactions.dtypes.astype(str).to_dict() == {
        "user_id": "string[pyarrow]",
        "item_id": "string[pyarrow]",
        "timestamp": "int64",
        "rating": "float32",
        "fraction": "int32",
    }
    assert last["fraction"] == 900_000_000  # .9 s
    by_id = raw.items.set_index("item_id")
    assert by_id["title"].to_dict() == {
        "A": "Alpha",
        "D": "Delta",
        "E": "Echo & Caf\u00e9 \U0001f3b8",
        "F": TWENTY,
        "I": "India",
    }
    assert by_id.loc["A"].tolist() == [
        "Alpha",
        4.5,
        12,
        "Two discs. A & B",
        "Sega",
        "Video Games > PC",
        "Release date: October 1, 2022",
    ]
    assert by_id.loc["D", "description"] == "one string" and by_id.loc["D", "store"] == ""
    assert pd.isna(by_id.loc["D", "average_rating"]) and by_id.loc["D", "rating_number"] == 0


def test_the_released_preset_keeps_what_its_code_does(mirror: Path) -> None:
    raw = load(mirror, preset="released")
    counts = raw.about["counts"]
    assert {name: counts[name] for name in counts if name.startswith("items_")} == {
        "items_read": 10,
        "items_without_interaction": 1,
        "items_without_title": 3,  # B, H and I, which is a piece of the page
        "items_title_too_long": 1,
        "items_without_price": 2,  # D and E, which is "from" a price
        "items_repeated": 0,
    }
    # u6's F at the very midnight counts here.
    assert pairs(raw) == "1A 1F 2A 3F 3A 6F"
    assert (counts["dropped_of_dropped_items"], counts["dropped_outside_window"]) == (6, 4)
    assert raw.items["item_id"].tolist() == ["A", "F"]
    assert raw.items["description"][0] == "Two discs. A &amp; <b>B</b>"  # released code cleans strings, not lists


def test_released_titles_are_ascii(tmp_path: Path) -> None:
    items = [item("A", "Echo &amp; <b>Caf\u00e9</b>", 1), item("F", "\u65e5\u672c", 1), item("J", "one  two " * 10, 1)]
    raw = load(write_mirror(tmp_path, items=lines_of(items)), preset="released")
    assert raw.items["title"].tolist() == ["Echo & Caf"]
    # Of F nothing but spaces is left; J has 20 words but 29 gaps.
    counts = raw.about["counts"]
    assert (counts["items_without_title"], counts["items_title_too_long"]) == (1, 1)
    wider = load(tmp_path, preset="released", start="2023-06-01", title_words=30)
    assert wider.items["item_id"].tolist() == ["A", "J"] and wider.about["counts"]["items_title_too_long"] == 0
    assert load(tmp_path, start="2023-06-01").items["title"].tolist() == [
        "Echo & Caf\u00e9",
        "\u65e5\u672c",
        "one two " * 9 + "one two",
    ]


def test_the_window_is_widened_month_by_month(mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = load(mirror, min_items=6)  # J's last is of the 31st of July
    assert raw.about["window"] == ["2023-07-01", "2023-10-01"] and raw.about["counts"]["months_widened"] == 1
    assert pairs(raw) == "8J 1A 1D 5I 1F 2A 2E 3F 3A"
    assert load(mirror, min_items=5).about["counts"]["months_widened"] == 0
    assert "although" not in capsys.readouterr().out
    # Six items are all there are: it ends where the first interaction is reached.
    raw = load(mirror, min_items=7)
    assert raw.about["window"][0] == "2023-06-01" and pairs(raw).startswith("4J 4A 8J")
    assert (
        "window: 6 items although it goes back to the first interaction; min_items asks for 7"
        in capsys.readouterr().out
    )


def test_the_released_window_is_widened_by_three_months(mirror: Path) -> None:
    raw = load(mirror, preset="released", min_items=3)
    assert raw.about["window"][0] == "2023-05-01" and raw.about["counts"]["months_widened"] == 3
    assert load(mirror, preset="released", min_items=3, widen_months=1).about["window"][0] == "2023-07-01"


def test_k_core_drops_rare_items_and_users_until_it_holds(mirror: Path) -> None:
    # Items of one go: D, E, I; then u2, of whom A alone is left. A and F of u1 and u3 stay.
    raw = load(mirror, k_core=2)
    assert pairs(raw) == "1A 1F 3F 3A" and raw.items["item_id"].tolist() == ["A", "F"]
    assert raw.about["counts"]["dropped_k_core"] == 4 and raw.about["counts"]["items"] == 2
    # Five items have an interaction in the window, but it is widened until three are left after the k-core: u4 with A
    # and J, u8 with J alone, u2 with A: J is taken by u4 and u8, of whom u8 goes, and J with it.
    assert load(mirror, k_core=2, min_items=3).about["window"][0] == "2023-06-01"


def test_repeats_at_one_time_keep_the_lowest_rating(tmp_path: Path) -> None:
    log = [
        ("u1", "A", 5, "2023-09-01 10:00:00.100"),
        ("u1", "A", 3, "2023-09-01 10:00:00.100"),
        ("u1", "A", 1, "2023-09-01 10:00:00.900"),
        ("u1", "A", 2, "2023-09-02"),
    ]
    raw = load(write_mirror(tmp_path, rows_of(log)))
    assert raw.interactions["rating"].tolist() == [3] and raw.about["counts"]["dropped_repeats"] == 3


def test_the_order_within_a_second_is_the_true_one(tmp_path: Path) -> None:
    """Clicks are 150 ms apart: no hash orders them, and methods see seconds."""
    log = [("u1", name, 5, f"2023-09-01 10:00:00.{150 * place:03}") for place, name in enumerate("FAEJDI")]
    raw = load(write_mirror(tmp_path, rows_of(log[::-1])))
    assert pairs(raw) == "1F 1A 1E 1J 1D 1I"
    assert set(raw.interactions["timestamp"]) == {1_693_562_400}
    assert raw.interactions["fraction"].tolist() == [place * 150_000_000 for place in range(6)]
    cleaned = cleaning.clean(raw, settings(), "here")
    assert "".join(cleaned.items["item_id"].iloc[cleaned.item]) == "FAEJDI"


def test_nan_is_no_title_and_no_price_and_0_no_rating(tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "A": ["a", "list"],
        "D": float("nan"),
        "E": 12,
        "F": " NaN ",
        "I": {"a": 1},
        "J": "Nan Goldin",
    }
    items = [item(name, title, "NaN" if name == "J" else 3) for name, title in odd.items()]
    items.append(item("K", "Kilo", float("nan"), description=["Loud.", float("nan")]))
    items.append(item("L", "Lima", "5.50"))
    log = [(f"u{number}", entry["parent_asin"], number % 2, "2023-09-01") for number, entry in enumerate(items)]
    raw = load(write_mirror(tmp_path, rows_of(log), lines_of(items)))
    counts = raw.about["counts"]
    assert raw.items["title"].tolist() == ["Nan Goldin", "Kilo", "Lima"]
    assert (counts["titles_no_text"], counts["items_without_title"], counts["lines_broken"]) == (4, 5, 0)
    assert raw.items["description"].tolist() == ["", "Loud.", ""]
    assert counts["ratings_of_zero"] == 4  # A, E, I, K
    assert raw.interactions["rating"].isna().tolist() == [False, True, False]
    released = load(tmp_path, preset="released")
    assert released.items["title"].tolist() == ["Lima"] and released.about["counts"]["items_without_price"] == 2


def test_items_that_the_metadata_lacks_are_counted_and_refused_if_many(tmp_path: Path) -> None:
    folder = write_mirror(tmp_path)
    checked_options = options(folder)
    with pytest.raises(
        InputError, match=r"Video_Games\.csv\.gz: 1 of 18 \(5\.6 %\) interactions name an item .* 'X'; take"
    ):
        amazon_2023.load(checked_options, amazon_2023.inputs(checked_options), settings(earliest="1990-01-01").limits)


def test_nothing_depends_on_the_order_of_the_lines(tmp_path: Path) -> None:
    items = [*ITEMS, item("A", "Another Alpha", 10), item("A", "Alpha", 11)]
    raws = []
    for seed in range(3):
        shuffled, log = list(items), list(LOG)
        random.Random(seed).shuffle(shuffled)
        random.Random(seed).shuffle(log)
        raw = load(write_mirror(tmp_path / str(seed), rows_of(log), lines_of(shuffled)))
        assert raw.about["counts"]["items_repeated"] == 2
        raws.append(raw)
    for raw in raws[1:]:
        pd.testing.assert_frame_equal(raw.items, raws[0].items)
        pd.testing.assert_frame_equal(raw.interactions, raws[0].interactions)


def test_attributes_are_cut_and_crawl_time_numbers_are_no_text(mirror: Path) -> None:
    raw = load(mirror, attribute_words=3)
    assert raw.items["description"][0] == "Two discs. A"
    assert item_texts(raw.items, tiny_tokenizer("llama"))[0] == "Alpha. description: Two discs. A"
    assert attribute('["b", "a", "b", "c"]', None) == "b a c"


def test_prepared_from_text_on_disk_from_arrows_and_from_pythons_is_the_same(enough: Path, tmp_path: Path) -> None:
    raw = load(enough, min_items=6)
    settings = DatasetConfig(source="amazon_2023", category="game", min_user_count=2, min_item_count=2)
    as_python = []
    for frame in (raw.interactions, raw.items):
        arrows = [name for name, dtype in frame.dtypes.items() if isinstance(dtype, pd.ArrowDtype)]
        assert {"item_id"} <= set(arrows)
        as_python.append(frame.astype(dict.fromkeys(arrows, object)))
    all_prepared = [
        protocol.prepare(source, settings, "x") for source in (load_as_it_is(enough, min_items=6), raw, Raw(*as_python))
    ]
    assert len({prepare.split_hash(source) for source in all_prepared}) == 1
    # The attributes go from disk to disk, without those of the items that the minimum counts drop.
    on_disk, in_memory = all_prepared[:2]
    assert on_disk.texts is not None and "description" not in on_disk.items and len(on_disk.items) < len(raw.items)
    for name, prepared in (("on disk", on_disk), ("in memory", in_memory)):
        prepare.write_dataset(prepared, {"dataset": name, "split_hash": prepare.split_hash(prepared)}, tmp_path / name)
    first, second = (pd.read_parquet(tmp_path / name / "items.parquet") for name in ("on disk", "in memory"))
    assert first["description"].str.len().max() > 0
    pd.testing.assert_frame_equal(first, second)


def test_missing_ratings_are_nan(tmp_path: Path) -> None:
    raw = load(write_mirror(tmp_path, ["u1,A,,1693526400000", "u1,F,3.5,1693526400000"]))
    assert raw.interactions["rating"].isna().tolist() == [True, False]


# Files that aren't what they should be

BROKEN = ['{"parent_asin": "Y", "title": "brok', "[1, 2]", "{}", '{"parent_asin": null}', b'{"parent_asin": "\xff"}']


@pytest.mark.parametrize(
    "line", [*BROKEN, '{"parent_asin": "Y", "title": "\\ud800"}', '{"parent_asin": ""}'], ids=range(7)
)
def test_a_broken_line_is_named(tmp_path: Path, line: Any) -> None:
    folder = write_mirror(tmp_path, items=[*lines_of(ITEMS[:3]), line, *lines_of(ITEMS[3:])])
    with pytest.raises(
        InputError, match=r"meta_Video_Games\.jsonl\.gz: line 4: .*; broken lines: 1, of 11: fetch the file"
    ):
        load(folder)
    assert load(folder, broken_lines=1).about["counts"]["lines_broken"] == 1


def test_more_broken_lines_than_tolerated_are_refused(tmp_path: Path) -> None:
    folder = write_mirror(tmp_path, items=[*lines_of(ITEMS), *BROKEN])
    with pytest.raises(
        InputError, match=r"line 11: .*; broken lines: 5, of 15: .* broken_lines tolerate them \(it is 4\)"
    ):
        load(folder, broken_lines=4)
    raw = load(folder, broken_lines=5)
    assert raw.about["counts"]["lines_broken"] == 5 and pairs(raw) == "1A 1D 5I 1F 2A 2E 3F 3A"


def test_blank_lines_and_surrogate_pairs_are_fine(tmp_path: Path) -> None:
    folder = write_mirror(tmp_path, items=["", *lines_of(ITEMS), "", ""])
    assert "\\ud83c\\udfb8" in lines_of(ITEMS)[4]
    assert load(folder).about["counts"]["items_read"] == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u1,A,5.0", r"line 3: 3 columns instead of 4 \('u1,A,5\.0'\); fetch the file again"),
        ("u1,A,5.0,1,2", "line 3: 5 columns instead of 4"),
        ("u1,A,5.0,yesterday", "line 3: invalid literal for int.* 'yesterday'"),
        ("u1,A,good,1693526400000", "line 3: could not convert string to float: 'good'"),
        ("u1,A,inf,1693526400000", "line 3: rating is no finite number"),
        ("u1,A,1e39,1693526400000", "line 3: rating is no finite number"),
        (",A,5.0,1693526400000", "line 3: user_id is missing"),
        ("u1,,5.0,1693526400000", "line 3: parent_asin is missing"),
        ("u1,A,5.0,", "line 3: timestamp is missing"),
        (f"u1,A,5.0,{'9' * 400}", "line 3: integer division result too large for a float"),
        (f"u1,A,5.0,{'9' * 5000}", "line 3: Exceeds the limit"),
    ],
)
def test_bad_interactions_are_named(tmp_path: Path, line: str, message: str) -> None:
    folder = write_mirror(tmp_path, ["u1,A,5.0,1693526400000", line, "u2,F,5.0,1693526400000"])
    with pytest.raises(InputError, match=rf"Video_Games\.csv\.gz: {message}"):
        load(folder)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (f"{'[' * 900}{']' * 900}", "maximum recursion depth"),
        ("9" * 5000, "Exceeds the limit"),
        ('"\\ud800"', "surrogates not allowed|surrogate"),
    ],
)
def test_metadata_that_is_json_and_no_text_is_one_sentence(tmp_path: Path, value: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"the metadata's attribute .*({reason}).*; leave its line out"):
        attribute(value, None)
    line = f'{{"parent_asin": "A", "title": "Alpha", "price": 1, "details": {value}}}'
    folder = write_mirror(tmp_path, items=[line, *lines_of(ITEMS)[1:]])
    try:
        load(folder, attributes=["details"])
    except InputError as problem:
        assert "\n" not in str(problem)


def test_other_files_are_refused(tmp_path: Path) -> None:
    folder = write_mirror(tmp_path)
    path = folder / "benchmark/0core/rating_only/Video_Games.csv.gz"
    path.write_bytes(packed(["user,item,rating,timestamp", "u1,A,5.0,1693526400000"]))
    with pytest.raises(
        InputError, match="line 1: columns are 'user,item,rating,timestamp', expected 'user_id,parent_asin"
    ):
        load(folder)
    path.write_bytes(packed(["user_id,parent_asin,rating,timestamp", "u1,A,5.0,1693526400"]))
    # Seconds, a time that stands for "unknown", and dates: none is read as a time of 1970.
    for value, read in ((1693526400, "1970-01-20"), (-1, "1969-12-31"), (0, "1970-01-01"), (20140820, "1970-01-01")):
        path.write_bytes(
            packed(["user_id,parent_asin,rating,timestamp", "u1,A,5.0,1693526400000", f"u1,F,5.0,{value}"])
        )
        message = (
            rf"line 3: timestamp {value} is no time in milliseconds \(it reads as {read}, .*, lines like it: 1; take"
        )
        with pytest.raises(InputError, match=message):
            load(folder)
    path.write_bytes(b"user_id,parent_asin,rating,timestamp\n")
    with pytest.raises(InputError, match=r"Video_Games\.csv\.gz: no whole gzip file"):
        load(folder)
    with pytest.raises(InputError, match="no item with an interaction before the window's end passes the rules"):
        load(write_mirror(tmp_path / "x", items=lines_of([item("Z", "Zulu", 1)])))
    with pytest.raises(InputError, match="no interaction is left by the rules"):
        load(write_mirror(tmp_path / "y"), start="2023-09-29", min_items=0)


@pytest.mark.parametrize(
    "name", ["benchmark/0core/rating_only/Video_Games.csv.gz", "raw/meta_categories/meta_Video_Games.jsonl.gz"]
)
def test_half_a_file_is_refused(tmp_path: Path, name: str) -> None:
    path = write_mirror(tmp_path) / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"{path.name}: no whole gzip file"):
        load(tmp_path)
    with pytest.raises(InputError, match=rf"{path.name}: no whole gzip file"):
        amazon_2023.fetch(options(tmp_path), tmp_path / "resources")


def test_too_little_room_for_the_tables_is_refused(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = _duckdb.shutil.disk_usage("/")
    monkeypatch.setattr(_duckdb.shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(InputError, match=r"0\.00 GB are left and up to .*; free some, or set TMPDIR to a larger disk"):
        load(mirror)


def test_a_disk_that_gets_full_is_one_sentence(tmp_path: Path) -> None:
    """The limit on a file's size, below what the tables take, stands for a quota of the temporary folder."""
    raw_amazon.write_category(tmp_path, "Video_Games", "0core", 200_000)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from benchmark.datasets import Limits, amazon_2023 as a; o = a.Options(category='Video_Games', "
        "mirror=sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000));"
        "a.load(o, a.inputs(o), Limits(0, 2**33, 1))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert "InputError" in done.stderr and "; free some, or set TMPDIR to a larger disk" in done.stderr


# Fetching


def server_files(folder: Path) -> dict[str, bytes]:
    return {f"data/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.gz")}


def test_files_are_fetched_from_a_server(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT", 0.0)
    with serving() as server:
        server.files = server_files(mirror)
        server.plan = ["503", "cut", "ok", "cut"]
        checked_options = options(mirror, mirror=f"{server.url}/data")
        assert amazon_2023.inputs(checked_options) == []
        files = amazon_2023.fetch(checked_options, tmp_path)
        assert [str(file.relative_to(tmp_path / "amazon-2023")) for file in files] == list(checked_options.names)
        requests = len(server.seen)
        amazon_2023.fetch(checked_options, tmp_path)
        released = amazon_2023.fetch(options(mirror, mirror=f"{server.url}/data/", preset="released"), tmp_path)
        assert released[1] == files[1] and released[0] != files[0] and len(server.seen) == requests + 1 == 6
        # Fetched again, the recorded checksum holds.
        files[0].unlink()
        server.files[f"data/{checked_options.names[0]}"] = packed(["user_id,parent_asin,rating,timestamp"])
        with pytest.raises(InputError, match=r"Video_Games\.csv\.gz: sha256 is .*, recorded in .*\.sha256 is "):
            amazon_2023.fetch(checked_options, tmp_path)
    raw = amazon_2023.load(checked_options, amazon_2023.inputs(options(mirror)), LIMITS)
    assert pairs(raw) == "1A 1D 5I 1F 2A 2E 3F 3A"


def test_a_mirror_without_the_file_is_refused(tmp_path: Path) -> None:
    with (
        serving() as server,
        pytest.raises(InputError, match=r"rating_only/Video_Games\.csv\.gz: status 404 Not Found"),
    ):
        amazon_2023.fetch(options(tmp_path, mirror=server.url), tmp_path)


def test_a_folder_is_read_in_place_and_pinned_too(tmp_path: Path) -> None:
    folder = write_mirror(tmp_path / "mirror")
    checked_options = options(folder)
    assert amazon_2023.fetch(checked_options, tmp_path / "resources") == amazon_2023.inputs(checked_options)
    assert not list((tmp_path / "resources").rglob("*.gz")) and not list(folder.rglob("*.sha256"))
    path = folder / checked_options.names[1]
    path.write_bytes(packed(lines_of(ITEMS[:4])))
    with pytest.raises(InputError, match=r"recorded in .*meta_Video_Games\.jsonl\.gz\.sha256"):
        amazon_2023.fetch(checked_options, tmp_path / "resources")
    wrong = options(folder, sha256={checked_options.names[0]: "0" * 64})
    with pytest.raises(InputError, match="pinned in the config's sha256"):
        amazon_2023.fetch(wrong, tmp_path / "other")
    path.unlink()
    with pytest.raises(
        InputError, match=r"meta_Video_Games\.jsonl\.gz: missing; the mirror's folder needs it at this place"
    ):
        amazon_2023.inputs(checked_options)


# The commands, and the paper's counts beside ours


def run_commands(monkeypatch: pytest.MonkeyPatch, root: Path, mirror: Path, **changes: Any) -> dict[str, Any]:
    entry = {"source": "amazon_2023", "category": "game", "min_user_count": 1, "min_item_count": 1} | changes
    entry["max_unknown_items"] = 0.06  # one of 18 names X
    text = json.dumps(entry | {"options": {"category": "Video_Games", "mirror": str(mirror)} | WINDOW})
    manifest = root / "fetched.json"
    assert not command(
        monkeypatch, fetch.main, "--settings", text, "--resources", root / "resources", "--out", manifest
    )
    arguments = ("--dataset", "games", "--settings", text, "--manifest", manifest, "--out", root / "data" / "games")
    assert not command(monkeypatch, prepare.main, *arguments)
    return read_json(root / "data" / "games" / "dataset.json")


@pytest.fixture
def enough(tmp_path: Path) -> Path:
    """The log of above ten times over, with other users each time: 40 users, 5 items, 40 cases."""
    log = [(f"{user}{copy}", name, rating, time) for copy in range(10) for user, name, rating, time in LOG]
    return write_mirror(tmp_path / "mirror", rows_of(log))


def test_the_papers_counts_are_printed_beside_ours(
    enough: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = run_commands(monkeypatch, tmp_path, enough, same_time="order")
    assert about["source"]["counts"]["interactions"] == about["counts"]["interactions_read"] == 80
    assert about["expected"]["counts"]["users"] == 29_230 and not about["expected"]["equal"]
    out = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "users items cases cases_train cases_valid cases_test" in rows
    assert "arXiv 2505.16994v3 29,230 10,144 63,502 50,801 6,350 6,351" in rows
    # u1 has two cases, u2 and u3 one, u5 none.
    assert "ours 40 5 40 32 4 4" in rows
    assert (
        "OUR COUNTS DIFFER from arXiv 2505.16994v3 in users, items, cases, cases_train, cases_valid, cases_test. The"
        in out
    )
    assert "preset released is the other reading; the preset's own start, min_items would be nearer." in out


def test_settings_that_the_papers_counts_need_are_named(
    enough: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_commands(monkeypatch, tmp_path, enough, min_user_count=2)
    out = capsys.readouterr().out
    assert (
        "They need min_user_count 1, min_item_count 1, split global-temporal, same_time order; the config has " in out
    )
    assert "the config has min_user_count 2, same_time exclude." in out


def test_equal_counts_are_said_too(
    enough: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(amazon_2023.PAPER, "Video_Games", (40, 5, 40, 32, 4, 4))
    assert run_commands(monkeypatch, tmp_path, enough, same_time="order")["expected"]["equal"]
    assert "Our counts are those of arXiv 2505.16994v3." in capsys.readouterr().out


def test_the_papers_counts_are_those_of_its_split() -> None:
    for users, items, cases, *parts in amazon_2023.PAPER.values():
        assert parts == [cases * 8 // 10, cases // 10, cases - cases * 8 // 10 - cases // 10] and min(users, items) > 0


def test_other_categories_have_no_expected_counts() -> None:
    assert amazon_2023.expected(amazon_2023.Options(category="Books")) is None
    expected = amazon_2023.expected(amazon_2023.Options(category="CDs_and_Vinyl", preset="released"))
    assert expected is not None and "would be nearer" not in expected.advice


# Options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"category": "Videogames"},
            "category: no category 'Videogames'; did you mean 'Video_Games'? Known: All_Beauty, Amazon_Fashion, ",
        ),
        ({"preset": "mine"}, "preset: expected 'paper' or 'released', found 'mine'"),
        ({"mirror": "ftp://a/b"}, "mirror: 'ftp://a/b' is neither an http(s) address nor a folder"),
        ({"core": "3core"}, "core: expected '0core' or '5core', found '3core'"),
        (
            {"category": "Appliances", "preset": "released"},
            "category Appliances has no 5core file; take preset paper or",
        ),
        ({"start": "2023-10-01"}, "start 2023-10-01 is not before end 2023-10-01"),
        ({"end": "soon"}, "end: expected a date such as 2023-01-31, found 'soon'"),
        ({"min_items": -1}, "min_items: expected at least 0, found -1"),
        ({"widen_months": 0}, "widen_months: expected at least 1, found 0"),
        ({"k_core": 0}, "k_core: expected at least 1, found 0"),
        ({"title_words": 0}, "title_words: expected at least 1, found 0"),
        ({"attributes": ["colour"]}, "attributes.0: expected 'description', 'features', "),
        ({"attribute_words": 0}, "attribute_words: expected at least 1, found 0"),
        ({"broken_lines": -1}, "broken_lines: expected at least 0, found -1"),
        (
            {"sha256": {"x": "0" * 64}},
            "sha256 of 'x', which is not read; the files are benchmark/0core/rating_only/Video_",
        ),
        ({"sha256": {"x": "abc"}}, "sha256: 'abc' of x is no sha256 (64 digits of 0-9 and a-f)"),
        ({"rate": 1}, "unknown setting 'rate'. Known: category, preset, "),
    ],
)
def test_wrong_options_end_before_any_job(changes: dict[str, Any], message: str) -> None:
    entry = {"source": "amazon_2023", "category": "game", "options": {"category": "Video_Games"} | changes}
    with pytest.raises(InputError) as caught:
        read_config({"datasets": {"games": entry}, "methods": {"popularity": None}})
    assert f"datasets.games.options: {message}" in str(caught.value)


def test_config_readme_explains_every_option() -> None:
    rows = readme_rows("## Amazon Reviews 2023")
    fields = amazon_2023.Options.model_fields
    assert [name for name in rows if name in fields] == list(fields)
    for name, field in fields.items():
        default = "required" if field.is_required() else field.default
        as_written = default if isinstance(default, str) else json.dumps(default, default=str).strip('"')
        assert rows[name] == as_written, name


def test_config_readme_explains_every_count(mirror: Path) -> None:
    text = (ROOT / "config" / "README.md").read_text().partition("## Amazon Reviews 2023")[2].partition("\n## ")[0]
    for name in load(mirror).about["counts"]:
        assert f"`{name}`" in text, name
        assert name in OF_SOURCES, name  # its words on the page


def test_the_presets_files_are_those_of_paper_and_code() -> None:
    checked_options = amazon_2023.Options(category="CDs_and_Vinyl")
    assert checked_options.names == (
        "benchmark/0core/rating_only/CDs_and_Vinyl.csv.gz",
        "raw/meta_categories/meta_CDs_and_Vinyl.jsonl.gz",
    )
    assert checked_options.mirror + checked_options.names[0] == (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/benchmark/0core/rating_only/CDs_and_Vinyl.csv.gz"
    )
    assert "5core" in amazon_2023.Options(category="CDs_and_Vinyl", preset="released").names[0]
    assert "5core" in amazon_2023.Options(category="CDs_and_Vinyl", core="5core").names[0]
    with pytest.raises(ValidationError):
        amazon_2023.Options.model_validate({})


# Made-up files of any size


def test_made_up_files_have_the_raw_form(tmp_path: Path) -> None:
    items, n = raw_amazon.write_category(tmp_path, "Video_Games", "0core", 200_000)
    with gzip.open(tmp_path / "raw/meta_categories/meta_Video_Games.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    assert len(lines) == len({line["parent_asin"] for line in lines}) == items >= 500
    assert all(line.keys() == ITEMS[0].keys() for line in lines)
    with gzip.open(tmp_path / "benchmark/0core/rating_only/Video_Games.csv.gz", "rt") as file:
        rows = file.read().splitlines()
    assert rows[0] == "user_id,parent_asin,rating,timestamp" and len(rows) == n + 1
    user, name, rating, time = rows[1].split(",")
    assert len(user) == 28 and len(name) == 10 and rating in "12345" and len(time) in (12, 13)
    raw = load(tmp_path, start="2022-10-01")
    counts = raw.about["counts"]
    assert counts["items_read"] == items and counts["interactions_read"] == n and counts["interactions"] > 0
    assert min(counts["items_without_title"], counts["items_title_too_long"], counts["items_without_interaction"]) > 0
    assert (
        load(tmp_path, start="2022-10-01", preset="released", core="0core").about["counts"]["items_without_price"] > 0
    )
    again = tmp_path / "again"
    raw_amazon.write_category(again, "Video_Games", "0core", 200_000)
    for path in again.rglob("*.gz"):
        assert gzip.decompress(path.read_bytes()) == gzip.decompress((tmp_path / path.relative_to(again)).read_bytes())


def test_each_part_of_raw_speed_runs_in_a_process_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part runs alone: a process's peak counts for those that it starts, and making files up takes memory too."""
    run_alone, started = speed.run_alone, []
    monkeypatch.setattr(speed, "run_alone", lambda *command: started.append(command[1]) or run_alone(*command))
    speed.raw_files(0.0002)
    assert started == ["benchmark.speed.raw_amazon", "benchmark.data.fetch", "benchmark.data.prepare"]
    out = capsys.readouterr().out
    assert "raw: 500 items and 2,500 interactions in 0.00 GB packed" in out and "prepared to" in out and "peak" in out


@pytest.mark.parametrize("main", [speed.main, raw_amazon.main])
def test_a_size_of_nothing_is_refused(
    main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    where = [tmp_path] if main is raw_amazon.main else ["raw"]
    assert command(monkeypatch, main, *where, "--gigabytes", 0) == 2
    assert not list(tmp_path.iterdir()) and sys.argv[0] == "command"
