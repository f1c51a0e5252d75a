"""Tests of BERT4Rec's scoring: it reads the whole of a short history and puts a mask behind it."""

from typing import Any

import numpy as np
import torch

# The first brings back what numpy 2 dropped, without which RecBole can't be imported.
import baselines._recbole.training  # noqa: F401  isort: skip
from baselines._recbole.masked_items import MaskedItems, last_of, masked_some, with_last  # isort: skip


def test_a_history_of_one_item_stays() -> None:
    items, lengths = torch.tensor([[7, 0, 0], [7, 8, 9]]), torch.tensor([1, 3])
    assert with_last(items, lengths, torch.tensor([5, 6])).tolist() == [[7, 5, 0, 0], [7, 8, 9, 6]]


def test_masks_are_of_items_alone_and_every_row_has_one() -> None:
    rng = np.random.default_rng(0)
    lengths = np.repeat(np.arange(1, 10), 500)
    items = (np.arange(9)[None] < lengths[:, None]).astype(int) * 3
    masked = masked_some(items, 0.2, rng)
    assert masked.any(axis=1).all() and not masked[items == 0].any()
    longest = masked[lengths == 9]
    assert 0.17 < longest.mean() < 0.27  # each of 9 items with a probability of .2, one at least
    assert longest[:, 0].any()  # also the first
    assert (masked_some(items, 0.0, rng) == last_of(items)).all()


class Reads(MaskedItems):
    """BERT4Rec without a transformer: keeps the rows read and returns states that say which place they are of."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.ITEM_SEQ, self.ITEM_SEQ_LEN, self.ITEM_ID = "items", "length", "target"
        self.n_items, self.mask_token = 10, 10
        self.item_embedding = torch.nn.Embedding(11, 4)
        self.output_bias = torch.nn.Parameter(torch.zeros(10))
        self.read: list[list[int]] = []

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        self.read = items.tolist()
        return torch.arange(items.numel()).float().reshape(*items.shape, 1).expand(-1, -1, 4)


CASES: dict[str, Any] = {"items": torch.tensor([[7, 0, 0], [7, 8, 9]]), "length": torch.tensor([1, 3])}


def test_scoring_reads_the_whole_history_and_a_mask_behind_it() -> None:
    model = Reads()
    scores = model.full_sort_predict(CASES)
    assert model.read == [[7, 10, 0, 0], [7, 8, 9, 10]]
    at_the_masks = torch.tensor([1.0, 7.0])[:, None].expand(-1, 4)
    torch.testing.assert_close(scores, at_the_masks @ model.item_embedding.weight[:10].T)


def test_what_is_masked_is_not_read_and_is_learned() -> None:
    model = Reads()
    items = torch.tensor([[7, 5, 0, 0], [7, 8, 9, 6]])
    masked = torch.tensor([[False, True, False, False], [True, False, False, True]])
    loss = model.loss(items, masked)
    assert model.read == [[7, 10, 0, 0], [10, 8, 9, 10]]
    logits = torch.tensor([1.0, 4.0, 7.0])[:, None].expand(-1, 4) @ model.item_embedding.weight[:10].T
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, torch.tensor([5, 7, 6])))
