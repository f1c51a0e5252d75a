"""Small files of Amazon Reviews 2023 in the exact raw form, of which one can count by hand what is kept."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from benchmark.datasets import Raw, amazon_2023
from tests.support.planted import settings

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
