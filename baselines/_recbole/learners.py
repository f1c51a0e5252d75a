"""Learners of RecBole's sequential networks: they train on every position of a line, or on every case. Needs torch."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines._recbole.cross_entropy import cross_entropy
from baselines._recbole.settings import CausalParams, Params
from baselines._recbole.training import HISTORY, LENGTH, USER, numbers_of, train
from baselines._recbole.windows import Batch, Windows, left_aligned, steps
from benchmark.contract import Recommender, Split

Loss = Callable[[Any, Batch], Tensor]  # of a network on a batch: the mean over its targets


class EveryPosition:
    """A causal network learns all cases of a piece of a line in one pass over it.

    Args: length: items that the network reads. loss: of a batch; `causal_loss` unless the network adds something to its
    states.
    """

    def __init__(self, split: Split, settings: CausalParams, length: int, loss: Loss | None = None) -> None:
        stride = min(settings.stride or max(1, length // 2), length)
        self.windows = Windows(split.train.sequences(), length, stride)
        self.targets = settings.train_batch_size  # of a step
        self.loss = loss or causal_loss

    @classmethod
    def of(cls, split: Split, settings: CausalParams, loss: Loss | None = None) -> Callable[[int], "EveryPosition"]:
        return partial(cls, split, settings, loss=loss)

    def losses(self, net: Any, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        for batch in self.windows.batches(self.targets, rng, net.device):
            yield partial(self.loss, net, batch)


def fit_causal(name: str, split: Split, seed: int, settings: CausalParams) -> Recommender:
    """Train RecBole's network `name` at every position of the training lines, as SASRec's paper does and RecBole
    doesn't."""
    return train(name, split, seed, settings.model_dump(), EveryPosition.of(split, settings))


def causal_loss(net: Any, batch: Batch) -> Tensor:
    """Cross-entropy of each target over the catalogue, padding's row included, from the state at its context.

    RecBole's SASRec and GRU4Rec compute the same for one target of each history.
    """
    states = states_everywhere(net, batch.items)[batch.places]
    return cross_entropy(states, net.item_embedding.weight, batch.state_of, batch.target)


def states_everywhere(net: Any, items: Tensor) -> Tensor:
    """A causal network's states at all places of items, int64 [b, length] -> float32 [b * length, d].

    The network's own `forward` ends by choosing the last place of each row.
    """
    net.gather_indexes = lambda output, _: output
    try:
        states: Tensor = net.forward(items, (items > 0).sum(dim=1))
    finally:
        del net.gather_indexes  # the class's own is back
    return states.flatten(0, 1)


class EveryCase:
    """A network that gives one state per history learns each training case, histories in a random order.

    Cases that share a history, as those of one second do, share its state. loss: takes the network, RecBole's inputs
    of b histories (`USER`, `HISTORY`, `LENGTH`), and of their n targets `state_of`, int64 [n], ascending, the history
    of each target, and `target`, int64 [n].
    """

    def __init__(
        self,
        split: Split,
        settings: Params,
        loss: Callable[[Any, dict[str, Tensor], Tensor, Tensor], Tensor],
        length: int,
    ) -> None:
        self.cases, self.length, self.loss = split.train, length, loss
        lines = self.cases.sequences()
        # first: a case of each history; history: which of these each case has.
        _, self.first, self.history = np.unique(lines.context, return_index=True, return_inverse=True)
        self.user = numbers_of(lines.user, self.cases.user[self.first])
        self.target = lines.target.astype(np.int64) + 1
        self.targets = settings.train_batch_size  # of a step

    def losses(self, net: Any, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        rank = np.argsort(rng.permutation(len(self.first)))
        for rows, cases, state_of in steps(self.history, rank, self.targets):
            items = left_aligned(self.cases.take(self.first[rows]), self.length)
            fields = {HISTORY: items, LENGTH: (items > 0).sum(axis=1), USER: self.user[rows]}
            inputs = {name: torch.from_numpy(part).to(net.device) for name, part in fields.items()}
            own = (torch.from_numpy(part).to(net.device) for part in (state_of, self.target[cases]))
            yield partial(self.loss, net, inputs, *own)
