"""BERT4Rec's sequences: nothing of a short history is lost, and the target is among what is trained."""

import torch

# The first brings back what numpy 2 dropped, without which RecBole can't be imported.
import baselines._recbole_training  # noqa: F401  isort: skip
from baselines._masked_items import chosen, with_last  # isort: skip


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
