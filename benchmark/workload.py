"""How much a fit takes, counted from the config: what benchmark/jobs/estimates.py weighs.

A method says in its file what only it knows: what its LM reads, learns from and writes, in `work(sizes, params,
processes)`, and what else its fit takes, in `fit_cost(sizes, params)`. What several of them share is here. No reasoning
is taken to end early.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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


@dataclass(frozen=True)
class Work:
    """Tokens of one process: read, learned from, and written (`rows` at a time); `held`: learned from in one batch.

    kept: the name under which what comes of it lies on disk for later fits, empty where it doesn't: `STATES` and what
    they depend on serve all fits on a dataset, `TUNING` those of one repetition, `WARM_START` those of one row and
    repetition, with their ablations.
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


STATES, TUNING, WARM_START = "states", "tuning", "warm start"  # what is kept, see `Work`


def named(kind: str, *parts: Any) -> tuple[str, ...]:
    """What is kept, by all that it depends on beside the dataset."""
    return kind, json.dumps(parts, sort_keys=True)


def prompt_tokens(s: Sizes, items: int, limit: int = 10**9) -> int:
    """Tokens of a user's prompt beyond the beginning that all share."""
    return min(limit, 30 + s.line * items)


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

    fits: their settings, of which `epochs` is read. per_case: seconds of a training case and epoch beside it. rows: of
    scores, and of what is made of them, that are in memory at a time, float32.
    """
    per_epoch = s.train * (per_case + ITEM * s.items) + s.valid * 3 * ITEM * s.items
    epochs = sum(min(EPOCHS, one.get("epochs", EPOCHS)) for one in fits)
    return FitCost(epochs * per_epoch, 4 * s.items * rows)


def counted(s: Sizes) -> FitCost:
    """Sparse counts over the training interactions, and what is kept of them for each item."""
    return FitCost(s.train * 2e-5, s.items * 100_000)
