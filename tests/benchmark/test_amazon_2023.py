"""Amazon Reviews 2023: what both presets keep of small files of the exact raw form, counted by hand."""

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from baselines._writers.sentences import item_texts
from benchmark.data import cleaning
from benchmark.datasets import amazon_2023
from benchmark.datasets._amazon_text import attribute
from benchmark.errors import InputError
from tests.support.amazon_2023 import ITEMS, LOG, TWENTY, item, lines_of, load, options, pairs, rows_of, write_mirror
from tests.support.planted import settings
from tests.support.tiny_tokenizers import tiny_tokenizer


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mirror(tmp_path_factory.mktemp("mirror"))


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


def test_missing_ratings_are_nan(tmp_path: Path) -> None:
    raw = load(write_mirror(tmp_path, ["u1,A,,1693526400000", "u1,F,3.5,1693526400000"]))
    assert raw.interactions["rating"].isna().tolist() == [True, False]
