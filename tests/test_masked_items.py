"""BERT4Rec's sequences: nothing of a short history is lost, and the target is among what is trained."""

from typing import Any

import torch

# The first brings back what numpy 2 dropped, without which RecBole can't be imported.
import baselines._recbole_training  # noqa: F401  isort: skip
from baselines._masked_items import MaskedItems, chosen, with_last  # isort: skip


def test_a_history_of_one_item_stays() -> None:
    items, lengths = torch.tensor([[7, 0, 0], [7, 8, 9]]), torch.tensor([1, 3])
    assert with_last(items, lengths, torch.tensor([5, 6])).tolist() == [[7, 5, 0, 0], [7, 8, 9, 6]]


def test_masks_are_of_items_alone_and_every_case_has_one() -> None:
    torch.manual_seed(0)
    lengths = torch.arange(1, 9).repeat(500)
    items = (torch.arange(9)[None] <= lengths[:, None]).long() * 3
    masked = chosen(items, lengths, share=0.2, last_alone=0.5)
    assert masked.any(dim=1).all() and not masked[items == 0].any()
    alone = (masked.sum(dim=1) == 1) & masked[torch.arange(len(items)), lengths]
    assert 0.5 < float(alone.float().mean()) < 0.75  # half of them by intent, some of the others by chance
    longest = chosen(items, lengths, share=0.2, last_alone=0.0)[lengths == 8]
    assert 0.17 < float(longest.float().mean()) < 0.27  # each of 9 items with a probability of .2, one at least
    assert bool(longest[:, 0].any())  # also the first
    assert chosen(items, lengths, share=0.0, last_alone=0.0).sum() == len(items)


class Reads(MaskedItems):
    """Its wiring alone: keeps what the transformer would read, and gives states by which a place can be told."""

    def __init__(self, ft_ratio: float) -> None:
        torch.nn.Module.__init__(self)
        self.ITEM_SEQ, self.ITEM_SEQ_LEN, self.ITEM_ID = "items", "length", "target"
        self.n_items, self.mask_token, self.mask_ratio, self.ft_ratio = 10, 10, 0.2, ft_ratio
        self.item_embedding = torch.nn.Embedding(11, 4)
        self.output_bias = torch.nn.Parameter(torch.zeros(10))
        self.read: list[list[int]] = []

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        self.read = items.tolist()
        return torch.arange(items.numel()).float().reshape(*items.shape, 1).expand(-1, -1, 4)


CASES: dict[str, Any] = {
    "items": torch.tensor([[7, 0, 0], [7, 8, 9]]),
    "length": torch.tensor([1, 3]),
    "target": torch.tensor([5, 6]),
}


def test_scoring_reads_the_whole_history_and_a_mask_behind_it() -> None:
    model = Reads(ft_ratio=0.5)
    scores = model.full_sort_predict(CASES)
    assert model.read == [[7, 10, 0, 0], [7, 8, 9, 10]]
    at_the_masks = torch.tensor([1.0, 7.0])[:, None].expand(-1, 4)
    torch.testing.assert_close(scores, at_the_masks @ model.item_embedding.weight[:10].T)


def test_the_target_alone_is_masked_and_learned() -> None:
    model = Reads(ft_ratio=1.0)
    loss = model.calculate_loss(CASES)
    assert model.read == [[7, 10, 0, 0], [7, 8, 9, 10]]  # the target is not read
    logits = torch.tensor([1.0, 7.0])[:, None].expand(-1, 4) @ model.item_embedding.weight[:10].T
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, CASES["target"]))


def test_masked_items_of_the_history_are_learned_too() -> None:
    torch.manual_seed(3)
    model = Reads(ft_ratio=0.0)
    seen = set()
    for _ in range(60):
        model.calculate_loss(CASES)
        seen |= {place for row in model.read for place, item in enumerate(row) if item == 10}
        assert all(
            item in (0, 10) or item == whole
            for row, full in zip(model.read, ([7, 5, 0, 0], [7, 8, 9, 6]), strict=True)
            for item, whole in zip(row, full, strict=True)
        )
    assert seen == {0, 1, 2, 3}
