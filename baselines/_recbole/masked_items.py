"""The network of bert4rec.py, RecBole's BERT4Rec with three faults of version 1.2.1 mended, and its learner.

RecBole's own class never trains on a case's target, which isn't in its history. It gives position 0 no loss, so that a
history of one item teaches nothing. To make room for the mask it drops the oldest item even of a short history, so that
a history of one item is scored by no item at all. A file of its own, since torch takes seconds to import.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from recbole.model.sequential_recommender.bert4rec import BERT4Rec
from torch import Tensor, nn

from baselines._recbole.cross_entropy import cross_entropy
from baselines._recbole.windows import left_aligned
from benchmark.contract import Split


class MaskedItems(BERT4Rec):
    """BERT4Rec over a history and one place more: the target's in training, the mask's in scoring."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.position_embedding = nn.Embedding(self.max_seq_length + 1, self.hidden_size)
        self._init_weights(self.position_embedding)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores of all items at a mask behind the last item, float32 [b, n_items]."""
        lengths = interaction[self.ITEM_SEQ_LEN]
        masked = with_last(interaction[self.ITEM_SEQ], lengths, torch.full_like(lengths, self.mask_token))
        states = self.gather_indexes(self.forward(masked), lengths)
        scores: Tensor = states @ self.item_embedding.weight[: self.n_items].T + self.output_bias
        return scores

    def loss(self, items: Tensor, masked: Tensor) -> Tensor:
        """Mean cross-entropy of the masked items.

        items: int64 [b, L + 1], left-aligned, 0 for none. masked: bool [b, L + 1].
        """
        states = self.forward(items.masked_fill(masked, self.mask_token))[masked]
        weight, state_of = self.item_embedding.weight[: self.n_items], torch.arange(len(states), device=items.device)
        return cross_entropy(states, weight, state_of, items[masked], self.output_bias)


class MaskedPlaces:
    """Rows of two kinds: pieces of all training lines with some items masked, and cases with their target masked.

    A piece has at most L + 1 items. A case is drawn anew, its history with its target behind it, of which only the
    target is masked, as in scoring: no other item of its second is read. In an epoch all lines are cut so many times,
    each time elsewhere, that there are about as many targets as cases, which a causal network has in an epoch.

    Args:
        length: L, the history items that the network reads. targets: of a step, about. mask_ratio: share of a piece's
            items that are masked. last_alone: share of the rows that are cases, below 1.
    """

    def __init__(self, split: Split, length: int, *, targets: int, mask_ratio: float, last_alone: float) -> None:
        self.cases, self.lines, self.length = split.train, split.train.sequences(), length
        self.mask_ratio, self.last_alone = mask_ratio, last_alone
        # A line that is cut anywhere has, on average, (its items + length) / (length + 1) pieces.
        pieces = (len(self.lines.items) + length * len(self.lines.user)) / (length + 1)
        of_piece = max(1.0, mask_ratio * len(self.lines.items) / pieces)
        of_row = last_alone + (1 - last_alone) * of_piece  # targets, on average
        self.rows = max(1, round(targets / of_row))
        self.times = max(1, round(len(self.cases) * (1 - last_alone) / (pieces * of_row)))

    def losses(self, net: MaskedItems, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        pieces = np.concatenate([self.pieces(rng) for _ in range(self.times)])
        drawn = rng.integers(0, len(self.cases), round(len(pieces) * self.last_alone / (1 - self.last_alone)))
        order = rng.permutation(len(pieces) + len(drawn))
        for start in range(0, len(order), self.rows):
            chosen = order[start : start + self.rows]
            cloze, last = pieces[chosen[chosen < len(pieces)]], drawn[chosen[chosen >= len(pieces)] - len(pieces)]
            rows, masks = [cloze, self.with_targets(last)], [masked_some(cloze, self.mask_ratio, rng)]
            masks.append(last_of(rows[1]))
            items, masked = (torch.from_numpy(np.concatenate(parts)).to(net.device) for parts in (rows, masks))
            yield partial(net.loss, items, masked)

    def pieces(self, rng: np.random.Generator) -> np.ndarray:
        """All lines in pieces of at most L + 1 items, int64 [p, L + 1]; the length of a line's first piece is drawn."""
        width, lines = self.length + 1, self.lines
        lengths = np.diff(lines.offsets)
        place = np.arange(len(lines.items)) - np.repeat(lines.offsets[:-1], lengths)
        shift = np.repeat(rng.integers(0, width, len(lengths)), lengths)
        begins = np.flatnonzero((place == 0) | ((place + shift) % width == 0))
        ends = np.append(begins[1:], len(lines.items))
        inside = begins[:, None] + np.arange(width)
        known = inside < ends[:, None]
        return np.where(known, lines.items[np.minimum(inside, len(lines.items) - 1)].astype(np.int64) + 1, 0)

    def with_targets(self, rows: np.ndarray) -> np.ndarray:
        """Histories of these cases with their targets behind them, int64 [n, L + 1]."""
        cases = self.cases.take(rows)
        assert cases.target is not None
        items = np.pad(left_aligned(cases, self.length), ((0, 0), (0, 1)))
        items[np.arange(len(items)), (items > 0).sum(axis=1)] = cases.target.astype(np.int64) + 1
        return items


def with_last(items: Tensor, lengths: Tensor, last: Tensor) -> Tensor:
    """Left-aligned sequences int64 [b, L], padded by 0, with one item more behind each, [b, L + 1].

    >>> with_last(torch.tensor([[7, 0], [7, 8]]), torch.tensor([1, 2]), torch.tensor([9, 9])).tolist()
    [[7, 9, 0], [7, 8, 9]]
    """
    longer = nn.functional.pad(items, (0, 1))
    return longer.scatter(1, lengths[:, None], last[:, None])


def last_of(items: np.ndarray) -> np.ndarray:
    """Where the last item of each row of [b, L + 1] stands, bool.

    >>> last_of(np.array([[7, 9, 0]])).tolist()
    [[False, True, False]]
    """
    return np.arange(items.shape[1]) == (items > 0).sum(axis=1, keepdims=True) - 1


def masked_some(items: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which items of [b, L + 1] are masked, bool: each with probability `share`, but never padding.

    A row of which none was drawn has its last item masked.
    """
    drawn = (rng.random(items.shape) < share) & (items > 0)
    return np.where(drawn.any(axis=1, keepdims=True), drawn, last_of(items))
