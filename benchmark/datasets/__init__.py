"""One file per source. A source module has

    Options                     a pydantic model of the source's own settings in the config
    inputs(options)             the user's own files that it reads; none for a download
    fetch(options, folder)      put what is needed into `folder`, checksums verified; returns the files
    load(options, files, limits) -> Raw: interactions and items as the source has them

`files` is a list of paths; what they are is the source's own business. Nothing here sorts or splits, and only
`amazon_2023` filters: that is `benchmark/data/protocol.py`, the same for every source. It refuses what breaks the
limits, too; a source that can name the file and the row, or that filters, does so before.
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
    """What a dataset's config takes for possible."""

    first: int  # Unix seconds of the earliest interaction
    end: int  # Unix seconds, later than the latest interaction
    unknown_items: float  # share of the interactions whose item may be missing from items


@dataclass(frozen=True)
class Raw:
    """What a source gives.

    interactions: user_id (str), item_id (str), timestamp (int64, Unix seconds), rating (float32, NaN: none given), and
    where the
        source is finer than seconds fraction (int32, nanoseconds within the second): it orders, and methods see seconds
    items: item_id (str), title (str, may be missing), any further text columns (str); one row per item. Methods take
    text
        columns for attributes, numeric ones not.
    texts: further text columns, behind those of items, where there may be too many of them for memory
    about: what a source that filters or corrects by itself did, for dataset.json (large sources must: not all of it
    fits in
        memory)
    notes: sentences about what may not be meant, such as a column that was ignored, for the screen
    """

    interactions: pd.DataFrame
    items: pd.DataFrame
    about: dict[str, Any] = field(default_factory=dict)
    expected: Expected | None = None
    texts: TextsOnDisk | None = None
    notes: tuple[str, ...] = ()
