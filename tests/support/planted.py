"""A made-up log in which the next item mostly follows from the last one, for tests in which a method has to learn.

`python -m tests.support.planted FOLDER` writes it as interactions.csv and items.csv, as config/smoke.yaml wants it.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.contract import Split
from benchmark.data.prepare import split_hash, write_dataset
from benchmark.data.protocol import Prepared, prepare, without_targets
from benchmark.data.settings import DatasetConfig
from benchmark.datasets import Raw

N_ITEMS = 60
FOLLOWS = 0.75  # how often a user takes the successor of the last item; otherwise a popular item


def planted(n_users: int = 150, length: int = 16, seed: int = 0) -> Raw:
    """Users walk along one cycle through all items, and leave it for an item drawn by popularity (1 / rank)."""
    generator = np.random.default_rng(seed)
    cycle = generator.permutation(N_ITEMS)
    successor = np.empty(N_ITEMS, dtype=np.int64)
    successor[cycle] = np.roll(cycle, -1)
    popular = 1 / (1 + generator.permutation(N_ITEMS))
    rows = []
    for user in range(n_users):
        time = 1_000_000_000 + int(generator.integers(10_000_000))
        item = int(generator.integers(N_ITEMS))
        for _ in range(length):
            rows.append((f"u{user}", f"i{item}", time, float(generator.integers(1, 6))))
            time += int(generator.integers(60, 400_000))
            if generator.random() < FOLLOWS:
                item = int(successor[item])
            else:
                item = int(generator.choice(N_ITEMS, p=popular / popular.sum()))
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "rating"])
    names = [f"i{item}" for item in range(N_ITEMS)]
    items = pd.DataFrame({"item_id": names, "title": [f"Thing, number {item}" for item in range(N_ITEMS)]})
    items["colour"] = [("red", "green", "blue")[item % 3] for item in range(N_ITEMS)]
    return Raw(interactions=interactions.astype({"rating": "float32"}), items=items)


def settings(**changes: object) -> DatasetConfig:
    """Settings of a dataset that keep everything, also of the first seconds of 1970, but for the changes."""
    keeps_all = {"min_user_count": 1, "min_item_count": 1, "earliest": "1970-01-01"}
    return DatasetConfig.model_validate({"source": "files", "category": "thing"} | keeps_all | changes)


def prepare_planted(raw: Raw, **changes: object) -> Prepared:
    """These interactions, prepared with `settings`."""
    return prepare(raw, settings(**changes), "planted")


def as_split(prepared: Prepared, name: str = "planted") -> Split:
    """What a method would get of a prepared dataset."""
    return Split(
        name=name,
        category="thing",
        history_length=20,
        items=prepared.items,
        train=prepared.train,
        llm_rows=prepared.llm_rows if len(prepared.llm_rows) < len(prepared.train) else None,
        valid=prepared.valid,
        rating_scale=prepared.rating_scale,
    )


def planted_split() -> tuple[Split, Prepared]:
    """The planted log as a split, and prepared with its test targets."""
    prepared = prepare(planted(), settings(), "planted")
    assert without_targets(prepared.test).target is None
    return as_split(prepared), prepared


def write_files(folder: Path, raw: Raw) -> None:
    """The two files of the `files` source."""
    folder.mkdir(parents=True, exist_ok=True)
    raw.interactions.to_csv(folder / "interactions.csv", index=False)
    raw.items.to_csv(folder / "items.csv", index=False)


def write_prepared(folder: Path, raw: Raw, **changes: object) -> Path:
    """A prepared dataset as `benchmark.data.prepare` writes it, named after its folder; changes: see `settings`."""
    chosen = settings(**changes)
    prepared = prepare(raw, chosen, folder.name)
    about = {"dataset": folder.name, "settings": chosen.model_dump(mode="json"), "counts": prepared.counts}
    write_dataset(prepared, about | {"sources": [], "split_hash": split_hash(prepared)}, folder)
    return folder


if __name__ == "__main__":
    write_files(Path(sys.argv[1]), planted())
