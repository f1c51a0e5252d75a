"""Logs small enough to write row by row, and their cases as a person writes them down."""

import numpy as np
import pandas as pd

from benchmark.contract import Cases
from benchmark.datasets import Raw

DAY = 86400
Row = tuple[str, str, int]


def raw_of(rows: list[Row], titles: dict[str, str | None] | None = None, ratings: list[float] | None = None) -> Raw:
    """A source's log; without titles every item that occurs gets one, in alphabetical order."""
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    log = log.astype({"user_id": object, "item_id": object, "timestamp": "int64"})
    log["rating"] = np.asarray(ratings if ratings is not None else [np.nan] * len(rows), dtype=np.float32)
    if titles is None:
        titles = {item: f"The {item}" for item in sorted({row[1] for row in rows})}
    return Raw(interactions=log, items=pd.DataFrame({"item_id": list(titles), "title": list(titles.values())}))


def listed(cases: Cases, items: pd.DataFrame) -> list[tuple[str, str, int]]:
    """Cases as (history, target, time), items by their source ids, to compare with what a person wrote down."""
    names = items["item_id"].to_numpy()
    assert cases.target is not None
    rows = zip(range(len(cases)), cases.target, cases.time, strict=True)
    return [("".join(names[cases.history(i)]), names[target], int(time)) for i, target, time in rows]
