"""How much a fit takes, counted from the config: what benchmark/jobs/estimates.py weighs.

A method says in its file what only it knows: what its LM reads, learns from and writes, in `work(sizes, params, processes)`, and
what else its fit takes, in `fit_cost(sizes, params)`. What several of them share is here. No reasoning is taken to end early.
Counts of cases and items are those of `results/data/{dataset}/dataset.json` once it is there, until then those that the source
usually gives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from benchmark.data.settings import DatasetConfig
from benchmark.storage.io import read_json


@dataclass(frozen=True)
class Sizes:
    """Counts of a prepared dataset, and tokens of its texts: of a history line, and of an item's own prompt."""

    items: int
    train: int
    valid: int
    test: int
    line: int = 17
    item: int = 25
    llm: int | None = None  # training cases that an LLM may read; None: all

    @property
    def train_llm(self) -> int:
        """Training cases that an LLM may read."""
        return self.train if self.llm is None else self.llm


# Items and cases of the sources with their usual settings; of the Amazon categories arXiv 2505.16994 gives them.
AMAZON = {"line": 40, "item": 150}
USUAL = {
    "ml_100k": Sizes(1_349, 77_725, 9_715, 9_717),
    "movielens_2016": Sizes(3_496, 71_021, 8_877, 8_878),
    "complete_journey": Sizes(1_568, 104_000, 13_000, 13_000),
    "Video_Games": Sizes(10_144, 50_801, 6_350, 6_351, **AMAZON),
    "CDs_and_Vinyl": Sizes(12_024, 10_748, 1_343, 1_344, **AMAZON),
    "Musical_Instruments": Sizes(10_320, 27_498, 3_437, 3_438, **AMAZON),
}
UNKNOWN = Sizes(10_000, 80_000, 10_000, 10_000, **AMAZON)


@dataclass(frozen=True)
class Work:
    """Tokens of one process: read, learned from, and written (`rows` at a time); `held`: learned from in one batch.

    kept: the name under which what comes of it lies on disk for later fits, empty where it doesn't: `STATES` and what they depend
    on serve all fits on a dataset, `WARM_START` those of one row and repetition, with their ablations.
    """

    read: float = 0
    learned: float = 0
    written: float = 0
    rows: float = 1
    held: float = 0
    twice: bool = False  # activations are computed again in the backward pass
    frozen: int = 0  # lowest layers without adapters, which have no backward pass
    maps: float = 0  # float32 operations on the CPU beside the LM: of the warm start's maps
    kept: tuple[str, ...] = ()


STATES, WARM_START = "states", "warm start"  # what is kept, see `Work`


def sizes_of(name: str, dataset: DatasetConfig, results: Path) -> Sizes:
    """Counts of a dataset: those of its dataset.json if it is prepared, or the source's usual ones, or by the user's own files."""
    category = str(dataset.options.get("category", ""))
    usual = USUAL.get(category) or USUAL.get(dataset.source) or _own_sizes(dataset)
    path = results / "data" / name / "dataset.json"
    if path.exists():
        counts = read_json(path)["counts"]
        found = replace(usual, **{part: counts[part] for part in ("items", "train", "valid", "test")})
        return replace(found, llm=counts.get("train_llm"))  # absent where it has to be prepared again
    limits = {"valid": dataset.valid_cases, "test": dataset.test_cases}
    found = replace(usual, **{part: min(n, getattr(usual, part)) for part, n in limits.items() if n is not None})
    return replace(found, llm=None if dataset.train_cases is None else min(dataset.train_cases, found.train))


def _own_sizes(dataset: DatasetConfig) -> Sizes:
    """Those of the user's own two files, if they are there: four of five rows of interactions become cases."""
    folder = dataset.options.get("folder")
    if dataset.source != "files" or folder is None:
        return UNKNOWN
    counts = {}
    for name in ("interactions", "items"):
        for path in (Path(folder) / f"{name}.csv", Path(folder) / f"{name}.parquet"):
            if path.is_file() and (rows := _rows(path, path.stat().st_size)):
                counts[name] = rows
    if len(counts) < 2:
        return UNKNOWN
    cases = max(10, int(0.8 * counts["interactions"]))
    return replace(UNKNOWN, items=counts["items"], train=cases * 8 // 10, valid=cases // 10, test=cases // 10)


@cache
def _rows(path: Path, size: int) -> int:
    """About how many rows a table has: those of a csv by the length of its first ones; 0 of what can't be read."""
    try:
        if path.suffix == ".parquet":
            return int(pyarrow.parquet.read_metadata(path).num_rows)
        with path.open("rb") as file:
            start = file.read(2**20)
    except (OSError, pyarrow.ArrowException):
        return 0  # the job that prepares it says what is wrong
    lines = start.count(b"\n")
    return max(1, round(lines * size / max(1, len(start))) - 1) if lines else 0


def prompt_tokens(s: Sizes, items: int, limit: int = 10**9) -> int:
    """Tokens of a user's prompt beyond the beginning that all share."""
    return min(limit, 30 + s.line * items)


def longest(p: dict[str, Any], s: Sizes) -> int:
    """Tokens of a prompt and what is written behind it."""
    prompts = p.get("prompts", {})
    items, limit = prompts.get("max_items", p.get("max_items", 0)), prompts.get("max_prompt_tokens", 10**9)
    length: int = p.get("rollouts", p).get("max_new_tokens", s.line)
    return prompt_tokens(s, items, limit) + length


def texts_of(s: Sizes, p: dict[str, Any], cases: int, rows: int = 64) -> Work:
    """A text for each of so many cases."""
    return Work(read=cases * prompt_tokens(s, p["max_items"]), written=cases * p["max_new_tokens"], rows=rows)


def chosen_by(s: Sizes, p: dict[str, Any], shares: str) -> int:
    """Validation cases for which a text is written, where a share of popularity is a choice."""
    return min(p["valid_cases"], s.valid) if len(p[shares]) > 1 else 0


@dataclass(frozen=True)
class FitCost:
    """What one fit takes beside an LM, on one thread, imports and the dataset itself left out."""

    seconds: float
    memory: float  # bytes


# Seconds of scoring one item in a training's loss, and epochs after which early stopping has ended most fits.
ITEM, EPOCHS = 7e-9, 20


def trained(s: Sizes, fits: Sequence[Mapping[str, Any]], per_case: float, rows: int = 2048) -> FitCost:
    """Networks that learn all training cases in each epoch and score the catalogue for each.

    fits: their settings, of which `epochs` is read. per_case: seconds of a training case and epoch beside it. rows: of scores, and
    of what is made of them, that are in memory at a time, float32.
    """
    per_epoch = s.train * (per_case + ITEM * s.items) + s.valid * 3 * ITEM * s.items
    epochs = sum(min(EPOCHS, one.get("epochs", EPOCHS)) for one in fits)
    return FitCost(epochs * per_epoch, 4 * s.items * rows)


def counted(s: Sizes) -> FitCost:
    """Sparse counts over the training interactions, and what is kept of them for each item."""
    return FitCost(s.train * 2e-5, s.items * 100_000)
