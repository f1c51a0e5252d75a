"""The network of kar.py, RecBole's SASRec with vectors of written knowledge, and its loss. Needs torch and RecBole."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from baselines._recbole.cross_entropy import cross_entropy
from baselines._recbole.learners import Loss, states_everywhere  # before recbole, which needs what this sets
from baselines._recbole.windows import Batch

from recbole.model.sequential_recommender import SASRec  # isort: skip

ITEM, USER = 0, 1
KNOWLEDGE = "knowledge"


class HybridExperts(nn.Module):
    """KAR's adaptor: each side's gate mixes the experts that both sides share and those of its own.

    Args:
        width: of the knowledge vectors. out: of the adapted vectors. size: hidden units of an expert.
        shared, own: number of shared experts, and of experts of each side.
    """

    def __init__(self, width: int, out: int, size: int, shared: int, own: int, dropout: float) -> None:
        super().__init__()

        def experts(count: int) -> nn.ModuleList:
            parts = [
                (nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, out)) for _ in range(count)
            ]
            return nn.ModuleList(nn.Sequential(*part) for part in parts)

        self.shared = experts(shared)
        self.own = nn.ModuleList([experts(own), experts(own)])
        self.gates = nn.ModuleList([nn.Linear(width, shared + own) for _ in (ITEM, USER)])

    def forward(self, vectors: Tensor, side: int) -> Tensor:
        """[n, width] -> [n, out]. side: ITEM or USER."""
        weights = self.gates[side](vectors).softmax(dim=-1)
        own = self.own[side]
        assert isinstance(own, nn.ModuleList)
        outputs = torch.stack([expert(vectors) for expert in (*self.shared, *own)], dim=1)
        return (weights[..., None] * outputs).sum(dim=1)


class _Informed(nn.Module):
    """Adds the adapted knowledge of each item to its vector; row 0 is padding and stays as it is."""

    def __init__(self, adaptor: HybridExperts, items: Tensor) -> None:
        super().__init__()
        self.adaptor = adaptor
        self.register_buffer("items", items, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + F.pad(self.adaptor(self.items, ITEM), (0, 0, 1, 0))


class KnowingSASRec(SASRec):
    """SASRec whose item vectors, input and output, hold item knowledge, and whose last state holds user knowledge.

    Args:
        config, dataset: RecBole's.
        items: float32 [n_items, width].
        size, shared, own, dropout: of the adaptor.
    """

    def __init__(
        self, config: Any, dataset: Any, items: Tensor, size: int, shared: int, own: int, dropout: float
    ) -> None:
        super().__init__(config, dataset)
        self.adaptor = HybridExperts(items.shape[1], self.hidden_size, size, shared, own, dropout)
        self.adaptor.apply(self._init_weights)
        self.no_text = nn.Parameter(torch.zeros(self.hidden_size))  # for cases without a text
        parametrize.register_parametrization(self.item_embedding, "weight", _Informed(self.adaptor, items))

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores of all items, [b, items]; `interaction` has the vectors of the users' texts, float32 [b, width], as
        KNOWLEDGE."""
        with parametrize.cached():  # the adaptor reads the catalogue once
            states = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
            states = states + self.adaptor(interaction[KNOWLEDGE], USER)
            return states @ self.item_embedding.weight.T


def knowing_loss(row_of: Tensor, vectors: Tensor) -> Loss:
    """SASRec's loss at every position, with user knowledge added to the states of cases that have a text.

    row_of: int64 [training cases], the row of `vectors`, float32 [1 + texts, width], of each case; 0: it has no text.
    Cases of one context have the same history, so that a text of one of them serves all.
    """

    def loss(net: KnowingSASRec, batch: Batch) -> Tensor:
        with parametrize.cached():
            states = states_everywhere(net, batch.items)[batch.places]
            rows = rows_of_states(row_of, batch)
            user_knowledge = net.adaptor(vectors.to(states.device)[rows], USER)
            states = states + torch.where((rows > 0)[:, None], user_knowledge, net.no_text)
            return cross_entropy(states, net.item_embedding.weight, batch.state_of, batch.target)

    return loss


def rows_of_states(row_of: Tensor, batch: Batch) -> Tensor:
    """Which text each state of the batch has, int64 [s], of `row_of`, int64 [training cases]; 0: it has none."""
    own = row_of.to(batch.places.device)[batch.case]
    return torch.zeros_like(batch.places).scatter_reduce(0, batch.state_of, own, "amax")
