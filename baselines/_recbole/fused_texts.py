"""The network of slim.py: RecBole's SASRec, its vectors fused with those of texts. Needs torch and RecBole."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines._recbole.cross_entropy import cross_entropy
from baselines._recbole.knowledge import ITEM, KNOWLEDGE, USER, rows_of_states
from baselines._recbole.learners import Loss, states_everywhere  # before recbole, which needs what this sets
from baselines._recbole.windows import Batch

from recbole.model.sequential_recommender import SASRec  # isort: skip


class FusedSASRec(SASRec):
    """An item is g_f([g_l(text); id]), a user g_f([g_l(text); state]), each side with its own linear g_l and g_f.

    g_f begins as the identity on its second half, so the network begins as SASRec. With `ids` false only texts are
    read: both sides are g_t(g_l(text)), and g_t is one transformer layer that they share.

    Args:
        config, dataset: RecBole's.
        items: float32 [n_items, width].
    """

    def __init__(self, config: Any, dataset: Any, items: Tensor, ids: bool) -> None:
        super().__init__(config, dataset)
        self.ids, size = ids, self.hidden_size
        self.register_buffer("items", F.pad(items, (0, 0, 1, 0)), persistent=False)  # row 0 is padding
        self.of_text = nn.ModuleList([nn.Linear(items.shape[1], size) for _ in (ITEM, USER)])
        self.of_text.apply(self._init_weights)
        self.no_text = nn.Parameter(torch.zeros(size))  # g_l of cases without a text
        if not ids:
            self.layer = nn.TransformerEncoderLayer(
                size, self.n_heads, self.inner_size, self.hidden_dropout_prob, batch_first=True
            )
            return
        self.fused = nn.ModuleList([nn.Linear(2 * size, size) for _ in (ITEM, USER)])
        for side in self.fused:
            assert isinstance(side, nn.Linear)
            with torch.no_grad():
                side.weight.copy_(torch.cat([torch.zeros(size, size), torch.eye(size)], dim=1))
                side.bias.zero_()

    def item_vectors(self) -> Tensor:
        """Of padding and all items, float32 [1 + n_items, d]."""
        return self._with(self.of_text[ITEM](self.items), self.item_embedding.weight, ITEM)

    def user_vectors(self, text: Tensor, states: Tensor) -> Tensor:
        """float32 [n, d], of g_l of the users' texts and of SASRec's states, both [n, d]."""
        return self._with(text, states, USER)

    def _with(self, text: Tensor, own: Tensor, side: int) -> Tensor:
        fused: Tensor = (
            self.fused[side](torch.cat([text, own], dim=1)) if self.ids else self.layer(text.unsqueeze(1)).squeeze(1)
        )
        return fused

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores of all items, [b, items]; `interaction` has the vectors of the users' texts, float32 [b, width], as
        KNOWLEDGE."""
        states = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        users = self.user_vectors(self.of_text[USER](interaction[KNOWLEDGE]), states)
        return users @ self.item_vectors().T


def fused_loss(row_of: Tensor, vectors: Tensor) -> Loss:
    """Return SASRec's loss at every position with fused vectors; a learned vector replaces a missing text.

    row_of, vectors: see `knowledge.knowing_loss`.
    """

    def loss(net: FusedSASRec, batch: Batch) -> Tensor:
        states = states_everywhere(net, batch.items)[batch.places]
        rows = rows_of_states(row_of, batch)
        text = net.of_text[USER](vectors.to(states.device)[rows])
        text = torch.where((rows > 0)[:, None], text, net.no_text)
        return cross_entropy(net.user_vectors(text, states), net.item_vectors(), batch.state_of, batch.target)

    return loss
