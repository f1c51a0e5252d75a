"""Cuts users' lines into the pieces that sequential models learn from, anew in each epoch. Needs torch.

Items have RecBole's numbers here: 1 + their own, 0 for none.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmark.contract import Cases, Sequences


@dataclass(frozen=True)
class Batch:
    """b pieces of lines and the cases that are predicted in them."""

    items: Tensor  # int64 [b, length], left-aligned, 0 behind a piece's end
    places: Tensor  # int64 [s], ascending: row * length + column of each state that predicts something
    state_of: Tensor  # int64 [n], ascending: which of these predicts each target
    target: Tensor  # int64 [n]
    case: Tensor  # int64 [n], number of each target's case among the training cases


@dataclass(frozen=True)
class Windows:
    """Pieces of at most `length` items that hold every case once, in each epoch at other places of the lines.

    A case is predicted from the items of its piece up to its context: from its whole history where that has at most
    `length - stride` items, else from at least so many. stride: items by which a piece begins behind the one before
    it, 1..length.
    """

    lines: Sequences
    length: int
    stride: int

    def batches(self, targets: int, rng: np.random.Generator, device: torch.device) -> Iterator[Batch]:
        """All cases, pieces in a random order, as many pieces in a batch as have about `targets` cases."""
        lines, length = self.lines, self.length
        line = np.searchsorted(lines.offsets, lines.context, side="right") - 1
        place = lines.context - lines.offsets[line]
        shift = rng.integers(0, self.stride, len(lines.user))[line]
        number = np.maximum(0, (place + shift - (length - self.stride)) // self.stride)
        start = np.maximum(0, number * self.stride - shift)
        # One row per piece; a line has no more pieces than items.
        piece, row = np.unique(lines.offsets[line] + start, return_inverse=True)
        end = np.zeros(len(piece), np.int64)
        np.maximum.at(end, row, lines.context + 1)
        for rows, case, own in steps(row, rng.permutation(len(piece)), targets, within=lines.context):
            inside = piece[rows][:, None] + np.arange(length)
            known = inside < end[rows][:, None]
            items = np.where(known, lines.items[np.minimum(inside, len(lines.items) - 1)].astype(np.int64) + 1, 0)
            column = lines.context[case] - piece[row[case]]
            places, state_of = np.unique(own * length + column, return_inverse=True)
            target = lines.target[case].astype(np.int64) + 1
            yield Batch(*(torch.from_numpy(part).to(device) for part in (items, places, state_of, target, case)))


def steps(
    group: np.ndarray, rank: np.ndarray, targets: int, within: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Groups of cases in the order of their rank, as many in a step as have about `targets` cases.

    group: int64 [n], of each case; rank: int64 [groups], a permutation; within: a key that orders the cases of a group
    (default: their numbers). Yields for each step the numbers of its groups, int64 [g], the numbers of their cases,
    int64 [m], group by group, and each case's place of its group among the g, int64 [m], ascending.
    """
    size = max(1, round(targets * len(rank) / len(group)))
    of_case = rank[group]
    by_rank = np.argsort(rank)
    order = np.lexsort((np.arange(len(group)) if within is None else within, of_case))
    bounds = np.searchsorted(of_case[order], np.arange(0, len(rank) + size, size))
    for number, first in enumerate(range(0, len(rank), size)):
        cases = order[bounds[number] : bounds[number + 1]]
        yield by_rank[first : first + size], cases, of_case[cases] - first


def left_aligned(cases: Cases, length: int) -> np.ndarray:
    """The newest `length` items of each history, int64 [n, length], 0 behind the end."""
    lengths = np.minimum(np.diff(cases.offsets), length)
    column = np.arange(length)
    inside = (cases.offsets[1:] - lengths)[:, None] + column
    items = cases.items[np.minimum(inside, len(cases.items) - 1)].astype(np.int64) + 1
    return np.where(column < lengths[:, None], items, 0)
