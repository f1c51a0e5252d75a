"""Your own data: a folder with `interactions` and `items`, each .csv or .parquet.

interactions: user_id, item_id, timestamp (Unix seconds, or finer with timestamp_unit), optional rating
items: item_id, title, any further columns; all of them are item attributes for prompts, unless `attributes` names some

Everything but timestamp and rating is text, so that an id 007 or a year 1995 reads the same from csv and parquet. Times
keep the precision that they are given in: it orders what happened within one second. A rating of 0 is none, unless
zero_ratings.
"""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict

from benchmark.datasets import Limits, Raw
from benchmark.datasets._tables import read
from benchmark.datasets._times import (
    USUAL,
    WORDS,
    as_day,
    impossible,
    of_two_units,
    other_unit,
    said_of,
    seconds_and_fraction,
)
from benchmark.errors import InputError

MANY_USERS, MOST_OF_ONE = 20, 0.1  # of so many users, none has a larger share of the interactions without a warning
ODD_TIME = 10  # times as common as any other is a time that may stand for missing ones
COUNTED = "(the first data row is 1)"
LONGEST_NUMBER = 100  # characters of a number that is text; longer ones are refused before pandas reads them
# Titles that an LLM reads, but no person would write.
HTML = r"(?i)&(?:[a-z]{2,8}|#x?[0-9a-f]{2,5});|</?(?:br|b|i|p|em|strong|span|div)\b[^<>]*>"
MISREAD = "[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\ufffd"  # UTF-8 that was read as Latin-1, or not at all
INVISIBLE = "[\u200b\u200c\u200d\u2060\ufeff\u00ad\x01-\x08\x0e-\x1f\x7f]"
NO_TITLES = ("nan", "none", "null", "<na>")  # what is left of a missing title that was turned into text


def _of_home(folder: Path) -> Path:
    try:
        return folder.expanduser()
    except RuntimeError:
        raise ValueError(f"folder {str(folder)!r} names the home of a user that isn't here") from None


def _without_braces(folder: Path) -> Path:
    if set("{}") & set(str(folder)):
        raise ValueError(f"folder {str(folder)!r} has braces in its name; rename it")
    return folder


class Options(BaseModel):
    """folder: where the two files lie; attributes: item columns to keep besides the title (null: all)."""

    model_config = ConfigDict(extra="forbid")
    # A shell expands ~ before a command sees it; YAML doesn't. Snakemake reads braces in a file's name as a pattern.
    folder: Annotated[Path, AfterValidator(_of_home), AfterValidator(_without_braces)]
    timestamp_unit: Literal["s", "ms", "us", "ns"] = "s"
    attributes: list[str] | None = None
    zero_ratings: bool = False


def inputs(options: Options) -> list[Path]:
    """The two files. Raises InputError if one is missing or lies there in both forms."""
    files = []
    for name in ("interactions", "items"):
        candidates = [path for ending in ("parquet", "csv") if (path := options.folder / f"{name}.{ending}").is_file()]
        if len(candidates) != 1:
            problem = "neither exists" if not candidates else "both exist: remove one"
            if options.folder.is_file():
                problem += "; give the folder of this file"
            elif not options.folder.is_dir():
                problem += f", nor does the folder{'' if options.folder.is_absolute() else f' in {Path.cwd()}'}"
            elif not candidates and (near := _named_alike(options.folder, name)):
                problem += f" (found {', '.join(near)})"
            raise InputError(f"{options.folder}: need {name}.parquet or {name}.csv, {problem}; see config/README.md")
        files += candidates
    return files


def _named_alike(folder: Path, name: str, most: int = 3) -> list[str]:
    """Files of the folder that may be meant, such as Interactions.csv or interactions.csv.gz."""
    return sorted(path.name for path in folder.iterdir() if path.name.lower().startswith(name))[:most]


def fetch(options: Options, folder: Path) -> list[Path]:
    """Nothing to fetch: the files are the user's own."""
    return inputs(options)


def load(options: Options, files: list[Path], limits: Limits) -> Raw:
    """Read both files. Raises InputError for a missing column or a missing or bad value, naming file, row and value."""
    interactions_file, items_file = files
    table, notes = read(interactions_file, ["user_id", "item_id", "timestamp"], ["rating"])
    rating, more = _ratings(table, options.zero_ratings, interactions_file)
    seconds, fraction = _times(table["timestamp"], options.timestamp_unit, limits, interactions_file)
    interactions = pd.DataFrame(
        {
            "user_id": _ids(table["user_id"], interactions_file),
            "item_id": _ids(table["item_id"], interactions_file),
            "timestamp": seconds,
            "rating": rating,
        }
    )
    if fraction.any():
        interactions["fraction"] = fraction
    items, of_items = read(
        items_file,
        ["item_id", "title", *(options.attributes or [])],
        None if options.attributes is None else [],
    )
    items = items.assign(item_id=_ids(items["item_id"], items_file))
    twice = items["item_id"].duplicated()
    if twice.any():
        row = int(np.argmax(twice)) + 1
        raise InputError(
            f"{items_file}: row {row}: item_id {items['item_id'].iloc[row - 1]!r} occurs twice; keep one row per item"
        )
    text = [column for column in items.columns if column not in ("item_id", "title")]
    items = items[["item_id", "title", *text]].fillna("")
    odd = [
        *_rounded_times(seconds, interactions_file),
        *_one_time(interactions, interactions_file),
        *_odd_ids(interactions["user_id"], interactions_file),
        *_one_for_many(interactions["user_id"], interactions_file),
        *_odd_ids(items["item_id"], items_file),
    ]
    return Raw(interactions, items, notes=(*notes, *more, *of_items, *odd, *_odd_titles(items, items_file)))


def _ids(column: pd.Series, path: Path) -> pd.Series:
    """Ids as strings. Raises InputError for a missing or empty one, one with a zero byte, and one with a line break."""
    known = column.fillna("")
    if (bad := known == "").any():
        row = int(np.argmax(bad)) + 1
        raise InputError(f"{path}: row {row}: {column.name} is missing; give every row an id {COUNTED}")
    # pandas itself takes ids for one that differ behind a zero byte alone.
    if (bad := known.str.contains(r"[\r\n\x00]", regex=True)).any():
        row = int(np.argmax(bad)) + 1
        value = column.iloc[row - 1]
        what = "a zero byte; write it without" if "\x00" in value else "a line break; close its quote"
        raise InputError(f"{path}: row {row}: {column.name} {value[:60]!r} holds {what} {COUNTED}")
    return column.astype(object)


def _odd_ids(column: pd.Series, path: Path) -> list[str]:
    """Warnings of ids that look like missing values, rounded numbers, or another spelling of other ids."""
    ids = pd.Series(column.unique(), dtype=object)
    bare = ids.str.replace(INVISIBLE, "", regex=True).str.strip()
    whole = bare.str.replace(r"(?<=\d)\.0+$", "", regex=True)
    composed = whole.str.normalize("NFC")
    spaced, encoded = whole.duplicated(), composed.duplicated()
    padded = composed.str.replace(r"^0+(?=\d+$)", "", regex=True).duplicated()
    # Random ids may differ so, but then few do.
    cased = composed.str.casefold().duplicated() & ~encoded
    if len(ids) < MANY_USERS or cased.sum() <= MOST_OF_ONE * len(ids):
        cased[:] = False
    kinds = {
        "read as a missing value": bare.str.lower().isin(("", *NO_TITLES)),
        "read as a rounded number": ids.str.fullmatch(r"[+-]?\d(?:\.\d+[eE]\+?|[eE]\+)\d+"),
        "differ from another in spaces or a .0 alone": spaced,
        "differ from another in the code of their accents alone": encoded & ~spaced,
        "differ from another in leading zeros alone": padded & ~encoded,
        "differ from another in small and capital letters alone": cased,
    }
    return [
        f"{path.name}: {odd.sum()} of {len(ids)} {column.name}s {reading}, first {ids.iloc[int(np.argmax(odd))]!r}"
        for reading, odd in kinds.items()
        if odd.any()
    ]


def _one_for_many(users: pd.Series, path: Path) -> list[str]:
    """A warning of a user with so many interactions that it may stand for several, such as a shop's guests."""
    counts = users.value_counts()
    if len(counts) < MANY_USERS or counts.iloc[0] <= MOST_OF_ONE * len(users):
        return []
    return [
        f"{path.name}: {counts.iloc[0]} of {len(users)} interactions are of the one user {counts.index[0]!r}; if it "
        "stands for several, such as guests, leave its rows out"
    ]


def _numbers(column: pd.Series, path: Path, unit: str) -> np.ndarray:
    """A numeric column, int64 where the source has integers, else float64.

    Raises InputError for a missing value or one that is no finite number, such as a date.
    """
    numeric = pd.api.types.is_numeric_dtype(column) or column.dtype == object
    if pd.api.types.is_bool_dtype(column):  # `true` would be read as 1
        numeric = False
    readable = column
    if column.dtype == object:
        readable = column.mask(column.map(lambda value: isinstance(value, str) and len(value) > LONGEST_NUMBER))
    numbers = pd.to_numeric(readable, errors="coerce") if numeric else pd.Series(np.nan, index=column.index)
    bad = ~np.isfinite(numbers.to_numpy(dtype=np.float64, na_value=np.nan))
    if bad.any():
        row = int(np.argmax(bad)) + 1
        value = column.iloc[row - 1]
        give = f"give a finite number{unit}{_such_as(value)} in every row"
        if column.name == "rating":
            give += ", 0 where there is no rating"
        found = "missing" if pd.isna(value) else repr(_shortened(value))
        raise InputError(f"{path}: row {row}: {column.name} is {found}; {give} {COUNTED}")
    return numbers.to_numpy()


def _shortened(value: object) -> str:
    """The value as text, of which LONGEST_NUMBER characters are shown."""
    text = str(value)
    return text if len(text) <= LONGEST_NUMBER else f"{text[:LONGEST_NUMBER]}... ({len(text):,} characters)"


def _such_as(value: object) -> str:
    """The Unix seconds of a date, as part of a sentence; "" where the value is no date."""
    text = str(value)
    is_date = text[:4].isdigit() and len(text) <= LONGEST_NUMBER
    moment = pd.to_datetime(text, errors="coerce", utc=True) if is_date else pd.NaT
    return "" if pd.isna(moment) else f", such as {int(moment.timestamp())} for {moment:%Y-%m-%d %H:%M:%S} UTC,"


def _ratings(table: pd.DataFrame, zeros: bool, path: Path) -> tuple[np.ndarray, list[str]]:
    """Ratings as float32, NaN for none, and warnings of them. Raises InputError for a value that float32 can't hold."""
    if "rating" not in table.columns:
        return np.full(len(table), np.nan, np.float32), []
    exact = _numbers(table["rating"], path, "")
    with np.errstate(over="ignore"):
        rating = exact.astype(np.float32)
    if (bad := np.flatnonzero(~np.isfinite(rating))).size:
        raise InputError(
            f"{path}: row {bad[0] + 1}: rating {table['rating'].iloc[bad[0]]} is too large; give a number below 3e38 "
            f"{COUNTED}"
        )
    sentences = []
    if (below := np.flatnonzero(rating < 0)).size:
        sentences.append(
            f"{path.name}: {len(below)} of {len(rating)} ratings are negative, first {rating[below[0]]:g} in row "
            f"{below[0] + 1}: no prompt mentions ratings then, unless rating_scale is set; write 0 where there is none"
        )
    if not zeros and (none := np.flatnonzero(rating == 0)).size:
        rating[none] = np.nan
        sentences.append(
            f"{path.name}: {len(none)} of {len(rating)} ratings are 0, first in row {none[0] + 1}: they count as none "
            "(zero_ratings: true keeps them)"
        )
    return rating, sentences


def _times(column: pd.Series, unit: str, limits: Limits, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Unix seconds (int64) and nanoseconds within them (int32). Raises InputError for what is no time in this unit."""
    if column.dtype in (np.float16, np.float32):
        raise InputError(
            f"{path}: column 'timestamp' has type {column.dtype}, which rounds times; write it as int64 or float64"
        )
    values = _numbers(column, path, " of Unix seconds")
    if two := of_two_units(values, unit, USUAL):
        well, row, other = two
        raise InputError(
            f"{path}: row {row + 1}: timestamp {column.iloc[row]} is a time in {WORDS[other]}, and that of row "
            f"{well + 1}, {column.iloc[well]}, one in {WORDS[unit]}; give one unit in all rows {COUNTED}"
        )
    seconds, fraction = seconds_and_fraction(values, unit)
    if not (bad := impossible(seconds, limits)).size:
        return seconds.astype(np.int64), fraction
    value = column.iloc[bad[0]]
    if unit_ := other_unit(value, unit, limits):
        advice = f"if the file counts {WORDS[unit_]}, set timestamp_unit: {unit_}"
    elif day := as_day(value):
        advice = f"it spells the day {day}: give Unix seconds"
    else:
        advice = "give its true Unix seconds or leave the row out; earliest and latest of the dataset say what can be"
    raise InputError(f"{path}: row {bad[0] + 1}: {said_of(value, unit, limits)}; {advice} {COUNTED}")


def _rounded_times(seconds: np.ndarray, path: Path) -> list[str]:
    """A sentence about times such as 1.60009E+09, which a spreadsheet rounded."""
    if (seconds % 1_000).any() or len(np.unique(seconds)) < 10:
        return []
    return [
        f"{path.name}: all times are whole thousands of seconds, first {seconds[0]}: they seem rounded, as by a "
        "spreadsheet"
    ]


def _one_time(interactions: pd.DataFrame, path: Path) -> list[str]:
    """A sentence about a time of so many interactions of so many users that it may stand for missing ones.

    Within a few days a day may hold as many, but then the others do, too.
    """
    counts = interactions["timestamp"].value_counts()
    often, next_often = counts.iloc[:1].sum(), counts.iloc[1:2].sum()
    if often <= MOST_OF_ONE * len(interactions) or often <= ODD_TIME * next_often:
        return []
    seconds = counts.index[0]
    users = interactions["user_id"][interactions["timestamp"] == seconds].nunique()
    if users < MANY_USERS:
        return []
    return [
        f"{path.name}: {often} of {len(interactions)} interactions, of {users} users, are of the one time {seconds} "
        f"({pd.Timestamp(seconds, unit='s')} UTC); if it stands for missing ones, leave those rows out"
    ]


def _odd_titles(items: pd.DataFrame, path: Path) -> list[str]:
    """Sentences about titles that read as if they had been missing or misread, and about those of several items."""
    titles = items["title"].str.strip()
    # A film may be called 300, and a catalogue of numbers has no names.
    wordless = titles.str.fullmatch(r"[\d\W]+") | (titles == items["item_id"].str.strip())
    kinds = {
        "read as a missing value": titles.str.lower().isin(NO_TITLES),
        "hold HTML": titles.str.contains(HTML, regex=True),
        "seem to be read in a wrong encoding": titles.str.contains(MISREAD, regex=True),
        "are another item's, too, which a method that writes titles can't tell apart": titles.duplicated(keep=False)
        & (titles != ""),
        "are numbers or the items' ids, which say nothing to a method that reads titles": wordless
        & (wordless.sum() > len(items) / 2),
    }
    return [
        f"{path.name}: {odd.sum()} of {len(items)} titles {reading}, first "
        f"{items['title'].iloc[int(np.argmax(odd))]!r} of {items['item_id'].iloc[int(np.argmax(odd))]!r}"
        for reading, odd in kinds.items()
        if odd.any()
    ]
