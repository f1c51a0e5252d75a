"""Your own data: a folder with `interactions` and `items`, each .csv or .parquet.

interactions: user_id, item_id, timestamp (seconds, or milliseconds with timestamp_unit: ms), optional rating
items: item_id, title, any further columns; all of them are item attributes for prompts, unless `attributes` names some
"""

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
    wanted = ["user_id", "item_id", "timestamp"]
    table = _read(interactions_file, wanted, ["rating"])
    unit = 1000 if options.timestamp_unit == "ms" else 1
    rating = np.full(len(table), np.nan, np.float32)
    if "rating" in table.columns:
        rating = _numbers(table["rating"], interactions_file).astype(np.float32)
    interactions = pd.DataFrame(
        {
            "user_id": _ids(table["user_id"], interactions_file),
            "item_id": _ids(table["item_id"], interactions_file),
            "timestamp": (_numbers(table["timestamp"], interactions_file) // unit).astype(np.int64),
            "rating": rating,
        }
    )
    items = _read(
        items_file, ["item_id", "title", *(options.attributes or [])], None if options.attributes is None else []
    )
    items = items.assign(item_id=_ids(items["item_id"], items_file))
    twice = items["item_id"].duplicated()
    if twice.any():
        row = int(np.argmax(twice)) + 1
        raise InputError(
            f"{items_file}: row {row}: item_id {items['item_id'].iloc[row - 1]!r} occurs twice; keep one row per item"
        )
    text = [column for column in items.columns if column not in ("item_id", "title")]
    items = items[["item_id", "title", *text]]
    for column in ("title", *text):
        missing = items[column].isna()
        items[column] = items[column].astype(str).where(~missing, "" if column != "title" else None)
    return Raw(interactions=interactions, items=items)


def _read(path: Path, wanted: list[str], optional: list[str] | None) -> pd.DataFrame:
    """The wanted columns, and those of the optional ones (None: all others) that are there. Ids stay strings."""
    try:
        if path.suffix == ".csv":
            text = {name: pa.string() for name in ("user_id", "item_id", "title")}
            table = pa.csv.read_csv(
                path,
                convert_options=pa.csv.ConvertOptions(column_types=text, strings_can_be_null=False),
                parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            )
        else:
            table = pa.parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: can't be read ({str(error).splitlines()[0]})") from None
    if missing := [name for name in wanted if name not in table.column_names]:
        raise InputError(f"{path}: column {missing[0]!r} is missing (found {', '.join(table.column_names)})")
    if optional is None:
        chosen = table.column_names
    else:
        chosen = [*wanted, *(name for name in optional if name in table.column_names)]
    return table.select(chosen).to_pandas()


def _ids(column: pd.Series, path: Path) -> pd.Series:
    """Ids as strings. Raises InputError for a missing or empty one."""
    text = column.astype(str)
    bad = column.isna() | (text == "")
    if bad.any():
        row = int(np.argmax(bad)) + 1
        raise InputError(f"{path}: row {row}: {column.name} is missing; give every row an id (the first data row is 1)")
    return text


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    """A numeric column, int64 where the source has integers, else float64. Raises InputError for a bad or missing value."""
    numbers = pd.to_numeric(column, errors="coerce")
    bad = ~np.isfinite(numbers.to_numpy(dtype=np.float64, na_value=np.nan))
    if bad.any():
        row = int(np.argmax(bad)) + 1
        raise InputError(
            f"{path}: row {row}: {column.name} is {column.iloc[row - 1]!r}; give a finite number in every row (the first data row is 1)"
        )
    return numbers.to_numpy()
