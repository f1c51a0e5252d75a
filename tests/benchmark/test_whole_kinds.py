"""Times, ids, columns and titles of every kind, by hypothesis: each is read as it is meant, or said."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from benchmark.data.account import Account
from benchmark.data.protocol import prepare
from benchmark.errors import InputError
from tests.support.csv_files import LIMITS, NOON, load, write
from tests.support.planted import settings

FEW = hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
# 50,000 in all: twice as many of the times.
MANY = hypothesis_settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))

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
