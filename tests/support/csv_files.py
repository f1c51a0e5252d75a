"""The two files of the `files` source, written as text in a few lines, and read."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmark.datasets import Limits, Raw, files

LIMITS = Limits(first=631_152_000, end=1_830_297_600, unknown_items=0.05)  # 1990 to 2027
NOON = 1_600_000_000


def write(folder: Path, log: str, items: str = "item_id,title\ni0,Lamp\ni1,Chair\ni2,Stool\ni3,Desk\n") -> Path:
    """A folder of the two files, of text; without a header the log's columns are user_id,item_id,timestamp."""
    folder.mkdir(parents=True, exist_ok=True)
    header = "" if log.startswith(("user_id", ",")) else "user_id,item_id,timestamp\n"
    (folder / "interactions.csv").write_text(header + log)
    (folder / "items.csv").write_text(items)
    return folder


def load(folder: Path, limits: Limits = LIMITS, **options: Any) -> Raw:
    given_ = files.Options(folder=folder, **options)
    return files.load(given_, files.inputs(given_), limits)


def walks(step_ms: int, users: int = 4, items: int = 8) -> tuple[str, str]:
    """Every user takes all items in turn, in steps of some ms, each from another one on; the rows are shuffled."""
    rows = [
        f"u{user},i{(user + place) % items},{NOON * 1000 + 10**7 * user + place * step_ms}\n"
        for user in range(users)
        for place in range(items)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    return "".join(rows[row] for row in order), "item_id,title\n" + "".join(f"i{i},Thing {i}\n" for i in range(items))
