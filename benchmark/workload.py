"""Count the work of a fit from its settings, for benchmark/jobs/estimates.py: tokens of an LM, seconds and bytes.

Each method's file counts its own: `work(sizes, params, processes)` the tokens that its LM reads, learns from and
writes, and `fit_cost(sizes, params)` the rest. This module has what several of them share. No reasoning is assumed to
end early.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """Counts of a prepared dataset, and tokens of its texts: of a history line, and of an item's own prompt.

    history: items that a case's history has on average.
    """

    items: int
    train: int
    valid: int
    test: int
    line: int = 17
    item: int = 25
    llm: int | None = None  # training cases that an LLM may read; None: all
    history: float = math.inf

    @property
    def train_llm(self) -> int:
        """Training cases that an LLM may read."""
        return self.train if self.llm is None else self.llm


@dataclass(frozen=True)
class Work:
    """Tokens of one process: read, learned from, and written (`rows` at a time); `held`: learned from in one batch.

    again: read by the layers above the `frozen` ones alone, as what those say of these tokens is kept in memory.
    lower: read by the `frozen` ones alone, for the first time in this process.

    kept: the name of the result, if it is kept on disk for later fits, as `named` gives it; else empty. `STATES` serve
    all fits on a dataset, `TUNING` those of one repetition, `WARM_START` those of one row and repetition, with their
    ablations; `PROCESS` is kept in memory for the fits of one job. backbone: the settings of the LM that does it, where
    it is another than the row's own.
    """

    read: float = 0
    again: float = 0
    lower: float = 0
    learned: float = 0
    written: float = 0
    rows: float = 1
    held: float = 0
    twice: bool = False  # activations are computed again in the backward pass
    frozen: int = 0  # lowest layers without adapters, which have no backward pass
    maps: float = 0  # float32 operations on the CPU beside the LM: of the warm start's maps
    kept: tuple[str, ...] = ()
    backbone: Mapping[str, Any] | None = None


# Bytes that a process keeps of what the lower layers say of a catalogue (r2ec/model/lower_layers.py). A larger one is
# read by all layers each time.
KEPT_BELOW = 2**30
STATES, TUNING, WARM_START, PROCESS = "states", "tuning", "warm start", "process"  # kinds of kept results, see `Work`


def named(kind: str, *parts: Any) -> tuple[str, ...]:
    """The name of a kept result: its kind, and all that it depends on beside the dataset."""
    return kind, json.dumps(parts, sort_keys=True)


def prompt_tokens(s: Sizes, items: int, limit: int = 10**9) -> int:
    """Tokens that a user's prompt has on average behind the beginning that all prompts share."""
    return min(limit, round(30 + s.line * min(items, s.history)))


def longest_prompt(s: Sizes, items: int, limit: int = 10**9) -> int:
    """The same of a user whose history has all the items that a prompt shows."""
    return min(limit, 30 + s.line * items)


def texts_of(s: Sizes, p: dict[str, Any], cases: int, rows: int = 64) -> Work:
    """The work of writing a text for each of so many cases."""
    return Work(read=cases * prompt_tokens(s, p["max_items"]), written=cases * p["max_new_tokens"], rows=rows)


def chosen_by(s: Sizes, p: dict[str, Any], shares: str) -> int:
    """Validation cases for which a text is written to choose among several shares of popularity; 0 for one share."""
    return min(p["valid_cases"], s.valid) if len(p[shares]) > 1 else 0


@dataclass(frozen=True)
class FitCost:
    """The cost of one fit beside an LM, on one thread, without imports and the dataset itself."""

    seconds: float
    memory: float  # bytes


# Seconds of scoring one item in a training's loss, and epochs after which early stopping has ended most fits.
ITEM, EPOCHS = 7e-9, 20


def trained(s: Sizes, fits: Sequence[Mapping[str, Any]], per_case: float, rows: int = 2048) -> FitCost:
    """The cost of training networks that score the whole catalogue for each training case in each epoch.

    fits: their settings, of which `epochs` is read. per_case: further seconds of a training case and epoch. rows: rows
    of float32 scores, and of arrays like them, that are in memory at a time.
    """
    per_epoch = s.train * (per_case + ITEM * s.items) + s.valid * 3 * ITEM * s.items
    epochs = sum(min(EPOCHS, settings.get("epochs", EPOCHS)) for settings in fits)
    return FitCost(epochs * per_epoch, 4 * s.items * rows)


def counted(s: Sizes) -> FitCost:
    """The cost of sparse counts over the training interactions, of which some are kept for each item."""
    return FitCost(s.train * 2e-5, s.items * 100_000)
