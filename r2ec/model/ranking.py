"""Scores of users against a catalogue, and the rank and the probability of a user's target in all of it.

A catalogue may be a tensor or a table on disk (`Items`). It is passed over block by block, so that memory grows with a
block and time with the number of items.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.errors import InputError

BLOCK_ROWS = 2**12  # worked on at once: 9 MB of 576 float32. Beyond 32 MB every block's memory would be mapped anew
SCORES_AT_ONCE = 2**24  # 64 MiB of float32
# The rounding error of a float32 dot product over the two vectors' lengths: an item this close to the target ties.
ROUNDING = 3e-7

ItemMap = Callable[[Tensor], Tensor]  # the rec head's, [n, d] -> float32 [n, m], such as `R2ec.head.item`


class Items(Protocol):
    """States of V items, any float type: a tensor [V, d], or on disk a `catalogue.large_table.LargeTable`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """The states of these rows, [n, d]: a slice of them, or int64 [n] in this order."""
        ...


def blocks_of(items: Items) -> Iterator[tuple[int, Tensor]]:
    """All rows in order: (first row, states [at most BLOCK_ROWS, d])."""
    for start in range(0, len(items), BLOCK_ROWS):
        yield start, items[start : start + BLOCK_ROWS]


def mapped(block: Tensor, item_map: ItemMap | None, device: torch.device) -> Tensor:
    """A block's vectors as they are compared, before any normalising, float32 on the users' device."""
    block = block.to(device).float()
    return block if item_map is None else item_map(block)


def scores(users: Tensor, items: Tensor, *, tau: float, normalize: bool, prior: Tensor | None = None) -> Tensor:
    """s(v) / tau for every pair: cosine (`normalize`) or inner product, over tau. float32 [n, d], [m, d] -> [n, m].

    prior: float32 [m], log-probabilities (up to a constant) of the items before anything is known of a user, added.
    """
    users, items = users.float(), items.float()
    if normalize:
        users, items = F.normalize(users, dim=-1), F.normalize(items, dim=-1)
    products = users @ items.T / tau
    return products if prior is None else products + prior


@dataclass(frozen=True)
class Ranks:
    """Where each user's target stands in the whole catalogue, on the device of the user vectors."""

    rank: Tensor  # int64 [N], 1 is best, history left out, ties against the target
    softmax: Tensor  # float32 [N], exp(s(v+) / tau) / sum_v exp(s(v) / tau), history included


@torch.no_grad()
def target_ranks(
    users: Tensor,
    items: Items,
    targets: Tensor,
    history: Tensor,
    *,
    tau: float,
    normalize: bool = True,
    prior: Tensor | None = None,
    item_map: ItemMap | None = None,
    scores_at_once: int = SCORES_AT_ONCE,
) -> Ranks:
    """Rank and probability of every user's target.

    rank = 1 + the number of other items outside the history that score at least as high as the target, as the suite's
    evaluator counts it. A block's products hold the targets' columns too, so that a target and an item with the same
    state are compared as products of one kind, and tie.

    Args:
        users: [N, d], mapped. items: [V, d], after the rec head's map, or before it if item_map is given.
        targets: int64 [N]. history: int64 [N, L], item numbers, -1 for none.
        tau, normalize, prior [V]: as in `scores`. scores_at_once: at most max(this, a block's rows + N) are held.
    Raises InputError for a target in its own history or out of range, and for scores that are not finite.
    """
    check_targets(users, len(items), targets, history)
    users = F.normalize(users.float(), dim=-1) if normalize else users.float()
    distinct, target_of_user = torch.unique(targets, return_inverse=True)
    target_vectors = mapped(items[distinct], item_map, users.device)
    rank = torch.ones_like(targets)
    log_z = torch.full((len(users),), -torch.inf, device=users.device)
    target_products = torch.empty(len(users), device=users.device)
    for start, block in blocks_of(items):
        columns = torch.cat([mapped(block, item_map, users.device), target_vectors])
        columns = F.normalize(columns, dim=-1) if normalize else columns
        bias = None
        if prior is not None:
            bias = tau * torch.cat([prior[start : start + len(block)], prior[distinct]])
        step = max(1, scores_at_once // len(columns))
        for first in range(0, len(users), step):
            part = slice(first, first + step)
            products = users[part] @ columns.T
            if bias is not None:
                products += bias
            own = products[:, len(block) :].gather(1, target_of_user[part, None])
            products = products[:, : len(block)]
            target_products[part] = own[:, 0]
            log_z[part] = torch.logaddexp(log_z[part], (products / tau).logsumexp(dim=1))
            # Equal states get equal scores but for rounding: a product may round each column in its own way.
            size = users[part].norm(dim=1, keepdim=True) * columns[len(block) :].norm(dim=1)[target_of_user[part], None]
            ahead = F.pad(products >= own - ROUNDING * size, (0, 1))
            # An item outside the block goes to one more column, which the block doesn't have.
            for masked in (targets[part, None], history[part]):
                inside = (masked >= start) & (masked < start + len(block))
                ahead.scatter_(1, torch.where(inside, masked - start, len(block)), False)
            rank[part] += ahead.sum(dim=1)
    softmax = torch.exp(target_products / tau - log_z)
    if not bool(torch.isfinite(softmax).all()):
        raise InputError("the scores of a user are not finite; lower the learning rate")
    return Ranks(rank, softmax)


def ndcg(rank: Tensor, k: int) -> Tensor:
    """NDCG@k of one relevant item at these ranks, int64 -> float32 [N]: 1 / log2(1 + rank) up to k, else 0."""
    return torch.where(rank <= k, 1 / torch.log2(1 + rank.float()), 0.0)


def check_targets(users: Tensor, n_items: int, targets: Tensor, history: Tensor) -> None:
    """Raise InputError for shapes that disagree, items outside the table, and a target in its own history."""
    if targets.shape != (len(users),) or history.dim() != 2 or len(history) != len(users):
        raise InputError(
            f"{len(users)} user vectors need targets [N] and history [N, L], got {list(targets.shape)} and "
            f"{list(history.shape)}; repeat a user's target and history for every rollout"
        )
    check_item_numbers(targets, n_items, lowest=0)
    check_item_numbers(history, n_items, lowest=-1)
    if bool((inside := (history == targets[:, None]).any(dim=1)).any()):
        raise InputError(f"target {int(targets[inside][0])} is in its own history; prepare the dataset again")


def check_item_numbers(numbers: Tensor, n_items: int, lowest: int) -> None:
    """Raise InputError unless all numbers lie between `lowest` (-1 where it stands for none) and n_items - 1."""
    if bool((outside := (numbers < lowest) | (numbers >= n_items)).any()):
        raise InputError(
            f"item {int(numbers[outside][0])} lies outside the table of {n_items} items; check the item numbers"
        )
