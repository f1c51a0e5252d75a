"""The sources of data, one file each.

A source's module has

    Options                     a pydantic model of the source's own settings in the config
    inputs(options)             the user's own files that it reads; none for a download
    fetch(options, folder)      put what is needed into `folder`, checksums verified; returns the files
    load(options, files, limits) -> Raw: interactions and items as the source has them

`files` is a list of paths, in an order of the source's own. No source sorts or splits, and only `amazon_2023` filters:
`benchmark/data/protocol.py` does that, alike for every source. It also refuses what breaks the limits; a source that
can name the file and the row, or that filters, refuses it before.
"""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from benchmark.datasets._texts import TextsOnDisk


@dataclass(frozen=True)
class Expected:
    """What a publication says of the dataset; `benchmark.data.prepare` prints it beside what it found."""

    source: str  # the publication
    counts: dict[str, int]  # by the names of dataset.json
    settings: dict[str, Any]  # the dataset's settings that these counts need
    advice: str  # a sentence on what may be the reason where they differ, without the full stop


@dataclass(frozen=True)
class Limits:
    """The times that a dataset's config takes for possible, and the share of unknown items that it accepts."""

    first: int  # Unix seconds of the earliest interaction
    end: int  # Unix seconds, later than the latest interaction
    unknown_items: float  # share of the interactions whose item may be missing from items


@dataclass(frozen=True)
class Raw:
    """What a source gives.

    interactions: user_id (str), item_id (str), timestamp (int64, Unix seconds), rating (float32, NaN: none given).
        Where the source is finer than seconds, also fraction (int32, nanoseconds within the second): it orders
        interactions, and methods see seconds.
    items: item_id (str), title (str, may be missing), any further text columns (str); one row per item. Methods take
        text columns for attributes, but not numeric ones.
    texts: further text columns of the items, on disk, where there may be too many of them for memory.
    about: what a source did that filters or corrects by itself, for dataset.json. Large sources have to, as not all of
        their data fits in memory.
    notes: sentences about data that the user may not mean, such as a column that was ignored, for the screen.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)
    expected: Expected | None = None
    texts: TextsOnDisk | None = None
    notes: tuple[str, ...] = ()
