"""Your own data: a folder with `interactions` and `items`, each .csv or .parquet.

interactions: user_id, item_id, timestamp (Unix seconds, or milliseconds with timestamp_unit: ms), optional rating
items: item_id, title, any further columns; all of them are item attributes for prompts, unless `attributes` names some

Everything but timestamp and rating is text, so that an id 007 or a year 1995 reads the same from csv and parquet.
"""

import csv
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from pydantic import BaseModel, ConfigDict

from benchmark.datasets import Raw
from benchmark.errors import InputError

NUMBERS = ("timestamp", "rating")
LATEST = 2**33  # a second beyond the year 2242; what is larger counts milliseconds or finer


class Options(BaseModel):
    """folder: where the two files lie; attributes: item columns to keep besides the title (null: all)."""

    model_config = ConfigDict(extra="forbid")
    folder: Path
    timestamp_unit: Literal["s", "ms"] = "s"
    attributes: list[str] | None = None


def inputs(options: Options) -> list[Path]:
    """The two files. Raises InputError if one is missing or lies there in both forms."""
    found = []
    for name in ("interactions", "items"):
        here = [path for ending in ("parquet", "csv") if (path := options.folder / f"{name}.{ending}").is_file()]
        if len(here) != 1:
            what = "neither exists" if not here else "both exist"
            raise InputError(f"{options.folder}: need {name}.parquet or {name}.csv, {what}; see config/README.md")
        found += here
    return found


def fetch(options: Options, folder: Path) -> list[Path]:
    """Nothing to fetch: the files are the user's own."""
    return inputs(options)


def load(options: Options, files: list[Path]) -> Raw:
    """Read both files. Raises InputError for a missing column or a missing or bad value, naming file, row and value."""
    interactions_file, items_file = files
    table = _read(interactions_file, ["user_id", "item_id", "timestamp"], ["rating"])
    rating = np.full(len(table), np.nan, np.float32)
    if "rating" in table.columns:
        rating = _numbers(table["rating"], interactions_file).astype(np.float32)
    interactions = pd.DataFrame(
        {
            "user_id": _ids(table["user_id"], interactions_file),
            "item_id": _ids(table["item_id"], interactions_file),
            "timestamp": _seconds(table["timestamp"], options.timestamp_unit, interactions_file),
            "rating": rating,
        }
    )
    wanted = ["item_id", "title", *(options.attributes or [])]
    items = _read(items_file, wanted, None if options.attributes is None else [])
    items = items.assign(item_id=_ids(items["item_id"], items_file))
    twice = items["item_id"].duplicated()
    if twice.any():
        row = int(np.argmax(twice)) + 1
        raise InputError(
            f"{items_file}: row {row}: item_id {items['item_id'].iloc[row - 1]!r} occurs twice; keep one row per item"
        )
    text = [column for column in items.columns if column not in ("item_id", "title")]
    return Raw(interactions=interactions, items=items[["item_id", "title", *text]].fillna(""))


def _read(path: Path, wanted: list[str], optional: list[str] | None) -> pd.DataFrame:
    """The wanted columns, and of the optional (None: all other) ones those that are there. All but NUMBERS are text."""
    try:
        if path.suffix == ".csv":
            with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
                names = next(csv.reader(file), [])
            text = {name: pa.string() for name in names if name not in NUMBERS}
            table = pa.csv.read_csv(
                path,
                read_options=pa.csv.ReadOptions(use_threads=False),  # only so do its errors name the row
                parse_options=pa.csv.ParseOptions(newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(column_types=text),
            )
        else:
            table = pa.parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: can't be read ({str(error).splitlines()[0]})") from None
    found = table.column_names
    if missing := [name for name in wanted if name not in found]:
        raise InputError(f"{path}: column {missing[0]!r} is missing (found {', '.join(found)})")
    if twice := [name for name in found if found.count(name) > 1]:
        raise InputError(f"{path}: column {twice[0]!r} occurs twice; keep one")
    chosen = found if optional is None else [*wanted, *(name for name in optional if name in found)]
    columns = {}
    for name in chosen:
        column = table.column(name)
        if name not in NUMBERS:
            try:
                column = column.cast(pa.string())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise InputError(f"{path}: column {name!r} has type {column.type}; give text or numbers") from None
        columns[name] = column.to_pandas()
    return pd.DataFrame(columns)


def _ids(column: pd.Series, path: Path) -> pd.Series:
    """Ids as strings. Raises InputError for a missing or empty one."""
    bad = column.fillna("") == ""
    if bad.any():
        row = int(np.argmax(bad)) + 1
        raise InputError(f"{path}: row {row}: {column.name} is missing; give every row an id (the first data row is 1)")
    return column.astype(object)


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    """A numeric column, int64 where the source has integers, else float64.

    Raises InputError for a missing value or one that is no finite number, such as a date.
    """
    numeric = pd.api.types.is_numeric_dtype(column) or column.dtype == object
    numbers = pd.to_numeric(column, errors="coerce") if numeric else pd.Series(np.nan, index=column.index)
    bad = ~np.isfinite(numbers.to_numpy(dtype=np.float64, na_value=np.nan))
    if bad.any():
        row = int(np.argmax(bad)) + 1
        raise InputError(
            f"{path}: row {row}: {column.name} is {str(column.iloc[row - 1])!r}; "
            "give a finite number in every row (the first data row is 1)"
        )
    return numbers.to_numpy()


def _seconds(column: pd.Series, unit: str, path: Path) -> np.ndarray:
    """Unix seconds, int64 (fractions cut off). Raises InputError for what is no time in this unit."""
    seconds = _numbers(column, path) // (1000 if unit == "ms" else 1)
    if (bad := np.flatnonzero(np.abs(seconds) > LATEST)).size:
        raise InputError(
            f"{path}: row {bad[0] + 1}: timestamp {column.iloc[bad[0]]} is no time in {unit} (years 1697 to 2242); "
            "give Unix seconds, or milliseconds with timestamp_unit: ms (the first data row is 1)"
        )
    return seconds.astype(np.int64)
