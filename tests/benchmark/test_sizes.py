"""Sizes of datasets for the estimates: of prepared ones, of one's own files, and usual ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.config.methods import ROOT
from benchmark.config.read import read_config_file
from benchmark.data.protocol import prepare
from benchmark.data.settings import DatasetConfig
from benchmark.jobs.sizes import UNKNOWN, USUAL, sizes_of
from benchmark.storage.checksums import seal
from benchmark.workload import Sizes, longest_prompt, prompt_tokens
from tests.support.planted import planted, write_files, write_prepared


def test_counts_are_the_prepared_ones_once_they_are_there(tmp_path: Path) -> None:
    config = read_config_file(ROOT / "config" / "config.yaml")
    entry = config.datasets["ml-100k"]
    assert sizes_of("ml-100k", entry, tmp_path) == replace(USUAL["ml_100k"], llm=8000, valid=500, test=1000)
    folder = tmp_path / "data" / "ml-100k"
    folder.mkdir(parents=True)
    counts = {"items": 7, "train": 8, "valid": 9, "test": 10, "users": 11, "train_llm": 6}
    (folder / "dataset.json").write_text(json.dumps(seal({"counts": counts})))
    prepared = Sizes(items=7, train=8, valid=9, test=10, llm=6)
    assert sizes_of("ml-100k", entry, tmp_path) == prepared and prepared.train_llm == 6
    assert (
        sizes_of("x", entry.model_copy(update={"source": "files", "test_cases": None}), tmp_path).test == UNKNOWN.test
    )


def own_dataset(folder: Path, **changes: Any) -> DatasetConfig:
    entry = {"source": "files", "options": {"folder": str(folder)}, "category": "thing"}
    return DatasetConfig.model_validate(entry | changes)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_ones_own_files_tell_their_size_before_they_are_prepared(tmp_path: Path, ending: str) -> None:
    entry = own_dataset(tmp_path / "own")
    assert sizes_of("x", entry, tmp_path) == UNKNOWN
    write_files(tmp_path / "own", planted())
    if ending == "parquet":
        for name in ("interactions", "items"):
            pd.read_csv(tmp_path / "own" / f"{name}.csv").to_parquet(tmp_path / "own" / f"{name}.parquet")
            (tmp_path / "own" / f"{name}.csv").unlink()
    guessed, found = sizes_of("x", entry, tmp_path), prepare(planted(), entry, "x")
    counts = found.counts
    assert (guessed.items, guessed.train) == (counts["items"], counts["train"])
    assert guessed.history == np.diff(found.train.offsets).mean() < entry.history_length
    assert (guessed.valid, guessed.test, guessed.llm) == (counts["valid"], counts["test"], counts["train"])
    (tmp_path / "own" / f"items.{ending}").write_bytes(b"")  # what is wrong with it is said elsewhere
    assert sizes_of("x", entry, tmp_path) == UNKNOWN


@pytest.mark.parametrize(
    ("changes", "train", "valid", "test", "llm"),
    [
        # 10 users with 4 items each that are taken often enough: 3 cases each, of which 8 of 10 train.
        ({}, 24, 3, 3, 24),
        ({"valid_cases": 2, "test_cases": 1, "train_cases": 7}, 24, 2, 1, 7),
        # The last case of each user tests, the one before it validates.
        ({"split": "leave-one-out"}, 10, 10, 10, 10),
        # Of each user the first two interactions alone: one case each.
        ({"end": "2001-09-10"}, 8, 1, 1, 8),
    ],
)
def test_ones_own_files_are_counted_by_the_rules_that_prepare_them(
    tmp_path: Path, changes: dict[str, Any], train: int, valid: int, test: int, llm: int
) -> None:
    """61 rows: ten of rare items, ten that repeat an earlier one, and one of a user who is too short."""
    day, first = 86_400, 1_000_000_000  # 2001-09-09 01:46:40
    rows = [f"u{u},i{k},{first + u + (k // 2) * day + k}" for u in range(10) for k in range(4)]
    rows += [f"u{u},i0,{first + u + 9}" for u in range(10)]  # repeats
    rows += [f"u{u},rare{u},{first + u + 5}" for u in range(10)] + ["short,i0,1000000003"]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows, ""]))
    items = [f"i{k},Title {k}" for k in range(5)] + [f"rare{u},Rare {u}" for u in range(10)]  # nobody takes i4
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *items, ""]))
    entry = own_dataset(tmp_path, min_user_count=2, min_item_count=2, **changes)
    counted = sizes_of("x", entry, tmp_path)
    assert (counted.train, counted.valid, counted.test, counted.train_llm) == (train, valid, test, llm)
    assert counted.items == (2 if "end" in changes else 4)


def test_large_files_of_ones_own_are_estimated_by_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.jobs.sizes.MOST_ROWS", 1000)
    entry = own_dataset(tmp_path, test_cases=100)
    write_files(tmp_path, planted())
    guessed, prepared = sizes_of("x", entry, tmp_path), (60, 1558, 194, 196)
    assert (guessed.items, guessed.train, guessed.valid) == pytest.approx(prepared[:3], rel=0.1)
    assert guessed.test == 100


LETTERS = {
    "title": [16, 48],  # mean 32: 10 tokens
    "brand": [None, 16],  # mean 8: 2.5 tokens, and the name of each second: 4
    "about": [3000, 40],  # of which a prompt has 600; mean 320: 100 tokens, with the name 103
}


@pytest.mark.parametrize("is_prepared", [False, True])
def test_an_lm_s_time_goes_by_the_length_of_texts_and_histories(tmp_path: Path, is_prepared: bool) -> None:
    """A line has 8 + 10 tokens, an item 8 + 3 + 10 + 4 + 103; the planted items repeat two lengths."""
    raw = planted()
    texts = {
        column: [None if length is None else f"{n} ".ljust(length, "x") for n in range(30) for length in lengths]
        for column, lengths in LETTERS.items()
    }
    raw = replace(raw, items=raw.items[["item_id"]].assign(**texts))
    rules = {"min_user_count": 1, "min_item_count": 1}
    entry, results = own_dataset(tmp_path / "own", **rules), tmp_path / "results"
    if is_prepared:
        write_prepared(results / "data" / "x", raw, **rules)
    else:
        write_files(tmp_path / "own", raw)
    sizes, train = sizes_of("x", entry, results), prepare(raw, entry, "x").train
    assert (sizes.items, sizes.line, sizes.item) == (60, 18, 128)
    assert sizes.history == len(train.items) / len(train) < 20
    few = replace(sizes, history=2.5)
    assert [prompt_tokens(few, items) for items in (2, 6)] == [30 + 2 * 18, 30 + 2.5 * 18]
    assert (
        longest_prompt(few, 6) == 30 + 6 * 18 and longest_prompt(few, 6, 100) == 100 and prompt_tokens(few, 6, 70) == 70
    )
    if is_prepared:  # of a damaged one the counts alone are known, until it is made anew
        (results / "data" / "x" / "items.parquet").write_bytes(b"damaged")
        assert sizes_of("x", entry, results) == replace(
            UNKNOWN, items=60, train=sizes.train, valid=sizes.valid, test=sizes.test, llm=sizes.llm
        )


@pytest.mark.parametrize(
    ("title", "tokens"),
    [
        ("Freaks of Nature", 16 / 3.2),
        ("Война и мир, том I", 18 / 3.2 + 0.6 * 12),  # 12 of 18 characters have two bytes
        ("物の怪", 3 / 3.2 + 0.6 * 6),  # three bytes each
    ],
)
def test_texts_beyond_ascii_have_more_tokens(tmp_path: Path, title: str, tokens: float) -> None:
    """A text that no item has counts nothing, its name neither."""
    raw = planted()
    raw = replace(raw, items=raw.items[["item_id"]].assign(title=title, empty=None))
    write_files(tmp_path, raw)
    sizes = sizes_of("x", own_dataset(tmp_path, min_user_count=1, min_item_count=1), tmp_path)
    assert (sizes.line, sizes.item) == (round(8 + tokens), round(8 + 3 + tokens))
