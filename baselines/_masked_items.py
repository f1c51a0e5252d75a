"""RecBole's BERT4Rec with what its version 1.2.1 loses of a case; apart from bert4rec.py because torch takes seconds to import.

RecBole's own class never trains on a case's target, which isn't in its history; gives position 0 no loss, so that a history of one
item teaches nothing; and, to make room for the mask, drops the oldest item even of a history that is short, so that one of one
item is scored by nothing at all.
"""

from typing import Any

import torch
from recbole.model.sequential_recommender.bert4rec import BERT4Rec
from torch import Tensor, nn


class MaskedItems(BERT4Rec):
    """BERT4Rec over a history and one place more: the target's in training, the mask's in scoring."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.position_embedding = nn.Embedding(self.max_seq_length + 1, self.hidden_size)
        self._init_weights(self.position_embedding)
        self.ft_ratio: float = config["ft_ratio"]

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores of all items at a mask behind the last item, float32 [b, n_items]."""
        lengths = interaction[self.ITEM_SEQ_LEN]
        masked = with_last(interaction[self.ITEM_SEQ], lengths, torch.full_like(lengths, self.mask_token))
        return self._scores(self.gather_indexes(self.forward(masked), lengths))

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Mean cross-entropy of the masked items. Of a share `ft_ratio` of the cases the target alone is masked, as in scoring; of
        the others each item with probability `mask_ratio`, one at least."""
        lengths = interaction[self.ITEM_SEQ_LEN]
        items = with_last(interaction[self.ITEM_SEQ], lengths, interaction[self.ITEM_ID])
        masked = chosen(items, lengths, self.mask_ratio, self.ft_ratio)
        states = self.forward(items.masked_fill(masked, self.mask_token))
        return nn.functional.cross_entropy(self._scores(states[masked]), items[masked])

    def _scores(self, states: Tensor) -> Tensor:
        scores: Tensor = states @ self.item_embedding.weight[: self.n_items].T + self.output_bias
        return scores


def with_last(items: Tensor, lengths: Tensor, last: Tensor) -> Tensor:
    """Left-aligned sequences int64 [b, L], padded by 0, with one item more behind each, [b, L + 1].

    >>> with_last(torch.tensor([[7, 0], [7, 8]]), torch.tensor([1, 2]), torch.tensor([9, 9])).tolist()
    [[7, 9, 0], [7, 8, 9]]
    """
    longer = nn.functional.pad(items, (0, 1))
    return longer.scatter(1, lengths[:, None], last[:, None])


def chosen(items: Tensor, lengths: Tensor, share: float, last_alone: float) -> Tensor:
    """Which items of [b, L + 1], whose last ones stand at `lengths`, are masked: bool, at least one per row, never padding.

    share: probability of each item. last_alone: share of the rows of which the last item is masked and no other.
    """
    at = torch.arange(items.shape[1], device=items.device)
    last = at == lengths[:, None]
    drawn = (torch.rand(items.shape, device=items.device) < share) & (items > 0)
    nothing = ~drawn.any(dim=1, keepdim=True)
    alone = torch.rand(len(items), 1, device=items.device) < last_alone
    return torch.where(nothing | alone, last, drawn)
