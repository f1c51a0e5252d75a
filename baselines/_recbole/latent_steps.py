"""The network of rearec.py: RecBole's SASRec with latent steps behind what it has read. Needs torch and RecBole.

Behind a place of a line stand `steps` more inputs. Each attends to the items up to that place, to the steps before it
there and to itself. Items attend to no step, so that one pass over a line serves all of its places.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines._recbole.cross_entropy import BLOCK, LEAST, cross_entropy
from baselines._recbole.learners import EveryPosition  # before recbole, which needs what this sets
from baselines._recbole.settings import CausalParams
from baselines._recbole.windows import Batch
from benchmark.contract import Split

from recbole.model.sequential_recommender import SASRec  # isort: skip

Learning = Literal["prl", "erl"]


@dataclass(frozen=True)
class Grid:
    """A table of b lines' places, s in all: a row per line, as many columns as the longest line has places.

    One matrix product serves all places of a line.
    """

    rows: int
    columns: int
    cell: Tensor  # int64 [s], of each place

    @classmethod
    def of(cls, row: Tensor, rows: int) -> "Grid":
        """row: int64 [s], ascending, each place's line."""
        counts = torch.bincount(row, minlength=rows)
        column = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
        columns = int(counts.max())
        return cls(rows, columns, row * columns + column)

    def spread(self, x: Tensor) -> Tensor:
        """[s, heads, e] -> [b, heads, columns, e], 0 in cells without a place."""
        table = x.new_zeros(self.rows * self.columns, *x.shape[1:]).index_copy(0, self.cell, x)
        return table.view(self.rows, self.columns, *x.shape[1:]).transpose(1, 2)

    def collect(self, x: Tensor) -> Tensor:
        """[b, heads, columns, e] -> [s, heads, e]."""
        return x.transpose(1, 2).flatten(0, 1)[self.cell]


@dataclass(frozen=True)
class Read:
    """The input of the latent steps behind s places of b lines: the places' states, each layer's keys and values."""

    states: Tensor  # [s, d]
    keys: list[Tensor]  # of each layer, [b, heads, L, d / heads]
    values: list[Tensor]
    mask: Tensor  # [s, 1, L], 0 at the items up to the place, -10000 elsewhere
    grid: Grid


class LatentSASRec(SASRec):
    """SASRec whose state goes through `steps` latent steps: with none it is SASRec, to the last bit.

    Args:
        config, dataset: RecBole's. steps: number of latent steps. learning: which state is the user's vector. `prl`:
            the last step's; `erl`: the mean of the states, the one that has read the last item included.
    """

    def __init__(self, config: Any, dataset: Any, steps: int, learning: Learning) -> None:
        super().__init__(config, dataset)
        self.steps, self.learning = steps, learning
        self.step_embedding = nn.Parameter(torch.empty(steps, self.hidden_size))
        nn.init.normal_(self.step_embedding, std=self.initializer_range)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """The user's vector at the last place of each row, [b, d]."""
        rows = torch.arange(len(item_seq), device=item_seq.device)
        return self.user_vectors(self.think(self.read(item_seq, rows * item_seq.shape[1] + item_seq_len - 1)))

    def user_vectors(self, states: Tensor) -> Tensor:
        """The users' vectors, [s, d], from the states, [steps + 1, s, d]."""
        return states[-1] if self.learning == "prl" else states.mean(dim=0)

    def read(self, items: Tensor, places: Tensor) -> Read:
        """Read items, int64 [b, L], as RecBole's own forward does. places: int64 [s], row * L + column."""
        length = items.shape[1]
        positions = torch.arange(length, device=items.device).unsqueeze(0).expand_as(items)
        hidden = self.dropout(self.LayerNorm(self.item_embedding(items) + self.position_embedding(positions)))
        mask, row = self.get_attention_mask(items), places // length
        keys, values = list[Tensor](), list[Tensor]()
        for layer in self.trm_encoder.layer:
            if self.steps:
                attention = layer.multi_head_attention
                keys.append(_heads(attention, attention.key(hidden)).transpose(1, 2))
                values.append(_heads(attention, attention.value(hidden)).transpose(1, 2))
            hidden = layer(hidden, mask)
        states, grid = hidden.flatten(0, 1)[places], Grid.of(row, len(items))
        return Read(states, keys, values, mask[row, :, places % length], grid)

    def think(self, read: Read, noise: float = 0.0) -> Tensor:
        """States before and after each step, [steps + 1, s, d]. noise: standard deviation of noise on steps' inputs."""
        states = [read.states]
        own: list[list[tuple[Tensor, Tensor]]] = [[] for _ in read.keys]  # of each layer, each step's key and value
        for step in range(self.steps):
            step_input = states[-1] + self.step_embedding[step]
            if noise:
                step_input = step_input + noise * torch.randn_like(step_input)
            hidden = self.dropout(self.LayerNorm(step_input))
            for at, layer in enumerate(self.trm_encoder.layer):
                attention = layer.multi_head_attention
                own[at].append((_heads(attention, attention.key(hidden)), _heads(attention, attention.value(hidden))))
                hidden = layer.feed_forward(_attend(attention, hidden, read, at, own[at]))
            states.append(hidden)
        return torch.stack(states)


def _heads(attention: Any, x: Tensor) -> Tensor:
    """[..., d] -> [..., heads, d / heads]."""
    by_head: Tensor = attention.transpose_for_scores(x)
    return by_head


def _attend(attention: Any, hidden: Tensor, read: Read, layer: int, own: list[tuple[Tensor, Tensor]]) -> Tensor:
    """RecBole's attention of one step at each of s places, [s, d], to the items and to the steps so far at the same
    place."""
    keys, values, scale = read.keys[layer], read.values[layer], attention.sqrt_attention_head_size
    query = _heads(attention, attention.query(hidden))
    to_items = read.grid.collect(read.grid.spread(query) @ keys.transpose(2, 3)) / scale + read.mask
    to_steps = [(query * key).sum(dim=-1, keepdim=True) / scale for key, _ in own]
    shares = attention.attn_dropout(torch.cat([to_items, *to_steps], dim=-1).softmax(dim=-1))
    length = keys.shape[2]
    context = read.grid.collect(read.grid.spread(shares[..., :length]) @ values)
    for at, (_, value) in enumerate(own, start=length):
        context = context + shares[..., at, None] * value
    out = attention.out_dropout(attention.dense(context.flatten(1)))
    attended: Tensor = attention.LayerNorm(out + hidden)
    return attended


def temperatures(tau: float, alpha: float, steps: int) -> list[float]:
    """Of the states before and after each step, the last one's at the end: tau * alpha ** (steps - k).

    >>> temperatures(1, 5, 2)
    [25, 5, 1]
    """
    return [tau * alpha ** (steps - k) for k in range(steps + 1)]


def progressive_loss(states: Tensor, weight: Tensor, batch: Batch, tau: float, alpha: float) -> Tensor:
    """Cross-entropy of the last states at temperature tau, and the mean of those of the earlier ones at theirs.

    states: [steps + 1, s, d], at the batch's places. weight: [v, d].
    """
    losses = [
        cross_entropy(own / temperature, weight, batch.state_of, batch.target)
        for own, temperature in zip(states, temperatures(tau, alpha, len(states) - 1), strict=True)
    ]
    return losses[-1] + torch.stack(losses[:-1]).mean() if len(losses) > 1 else losses[-1]


def contrast(noisy: Tensor, clean: Tensor, tau: float) -> Tensor:
    """InfoNCE, the mean over steps and places: each noisy state is matched to its clean state among the batch's.

    noisy, clean: [steps, s, d].
    """
    similar = noisy @ clean.transpose(1, 2) / tau
    wanted = torch.arange(similar.shape[1], device=similar.device).expand(len(similar), -1)
    return F.cross_entropy(similar.flatten(0, 1), wanted.flatten())


def divergence(states: Tensor, weight: Tensor, tau: float) -> Tensor:
    """Mean over places and ordered pairs i != j of KL(p_j || p_i), p_k the items' distribution by state k.

    Only p_j has gradients. states: [steps + 1, s, d]; 0 for one state. Loss and gradients come from one pass over
    blocks of places, as those of `cross_entropy` do.
    """
    loss: Tensor = _Divergence.apply(states, weight, tau) if len(states) > 1 else states.new_zeros(())
    return loss


class _Divergence(torch.autograd.Function):
    """With T states and g_j = T log p_j - sum_k log p_k, the divergences from p_j sum up to f_j = sum_v p_j g_j.

    The gradient by the logits of state j is p_j (g_j - f_j).
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, tau: float) -> Tensor:
        count, places = states.shape[:2]
        of_states, of_weight = torch.empty_like(states), torch.zeros_like(weight)
        pairs, total = places * count * (count - 1), states.new_zeros((), dtype=torch.float64)
        rows = max(LEAST, BLOCK // (count * len(weight)))
        for start in range(0, places, rows):
            part = states[:, start : start + rows].flatten(0, 1) / tau
            logp = (part @ weight.T).log_softmax(dim=-1)
            gain = count * logp
            gain.view(count, -1, len(weight)).sub_(logp.view(count, -1, len(weight)).sum(dim=0))
            share = logp.exp_()
            own = (share * gain).sum(dim=-1, keepdim=True)
            total += own.double().sum()
            slope = share.mul_(gain.sub_(own)).mul_(1 / (pairs * tau))
            of_states[:, start : start + rows] = (slope @ weight).view(count, -1, states.shape[2])
            of_weight.addmm_(slope.T, part, alpha=tau)
        ctx.save_for_backward(of_states, of_weight)
        return (total / pairs).to(states.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_states, of_weight = ctx.saved_tensors
        return grad * of_states, grad * of_weight, None


class ThinkingEverywhere(EveryPosition):
    """Trains on every case of a piece of a line, by the states of its place before and after each step.

    Args: tau, alpha: see `temperatures`. push: weight of `divergence`, which is subtracted from the loss (`erl`).
    noise: standard deviation of the noise (`prl`); 0: no `contrast`. quiet_epochs: epochs before the noise begins.
    """

    def __init__(
        self,
        split: Split,
        settings: CausalParams,
        length: int,
        *,
        tau: float,
        alpha: float,
        push: float,
        noise: float,
        quiet_epochs: int,
    ) -> None:
        super().__init__(split, settings, length, self.loss_of)
        self.tau, self.alpha, self.push, self.noise, self.quiet_epochs = tau, alpha, push, noise, quiet_epochs
        self.epochs = 0  # begun

    def losses(self, net: Any, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
        self.epochs += 1
        yield from super().losses(net, rng)

    def loss_of(self, net: LatentSASRec, batch: Batch) -> Tensor:
        """A scalar."""
        read, weight = net.read(batch.items, batch.places), net.item_embedding.weight
        states = net.think(read)
        if net.learning == "erl":
            loss = cross_entropy(net.user_vectors(states) / self.tau, weight, batch.state_of, batch.target)
            return loss - self.push * divergence(states, weight, self.tau) if self.push else loss
        loss = progressive_loss(states, weight, batch, self.tau, self.alpha)
        if net.steps and self.noise and self.epochs > self.quiet_epochs:
            loss = loss + contrast(net.think(read, self.noise)[1:], states[1:], self.tau)
        return loss


def learner(split: Split, settings: CausalParams, **how: Any) -> Callable[[int], ThinkingEverywhere]:
    """The `learner` argument of `train` for `ThinkingEverywhere`; how: its settings."""
    return partial(ThinkingEverywhere, split, settings, **how)
