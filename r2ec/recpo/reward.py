"""RecPO's reward: where the target ranks in the whole catalogue, and how probable it is there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.errors import InputError
from r2ec.catalogue.large_table import Items, blocks_of, rows_of

SCORES_AT_ONCE = 2**24  # 64 MiB of float32

ItemMap = Callable[[Tensor], Tensor]  # the rec head's, [n, d] -> float32 [n, m], such as `R2ec.head.item`

ROUNDING = 3e-7  # of a float32 dot product, in units of the two vectors' lengths: what is closer to the target is a tie


@dataclass(frozen=True)
class Rewards:
    """One entry per rollout, on the device of the user vectors."""

    reward: Tensor  # float32 [N], beta R_c + (1 - beta) R_d
    ndcg: Tensor  # float32 [N], R_d
    softmax: Tensor  # float32 [N], R_c
    rank: Tensor  # int64 [N], of the target: 1 is best, history left out, ties against the target


@torch.no_grad()
def recpo_rewards(
    users: Tensor,
    items: Items,
    targets: Tensor,
    history: Tensor,
    *,
    tau: float,
    normalize: bool = True,
    beta: float = 0.05,
    k: int = 1000,
    prior: Tensor | None = None,
    item_map: ItemMap | None = None,
    scores_at_once: int = SCORES_AT_ONCE,
) -> Rewards:
    """The reward of every rollout against the item table (paper, RecPO step 3).

        R = beta R_c + (1 - beta) R_d
        R_d = NDCG@k = 1 / log2(1 + rank) if rank <= k else 0
        R_c = exp(h_T . h_v+ / tau) / sum_{v in V} exp(h_T . h_v / tau)

    rank = 1 + the number of other items outside the history that score at least as high as the target, as the suite's
    evaluator counts it. R_c runs over all of V, history included, as the paper has it.

    The table is passed over once, block by block, so that memory grows with a block and time with V; it may lie on disk. A
    block's products hold the targets' columns too, so that a target and an item with the same state are compared as
    products of one kind, and tie.

    Args:
        users: [N, d], h_T of each rollout after the rec head's maps. items: [V, d], the table, any float type, after the
            maps, or before them if item_map is given. targets: int64 [N]. history: int64 [N, L], item numbers, -1 for none.
        tau, normalize, prior [V]: as in `objective.scores`. beta: weight of R_c. k: cut-off of NDCG.
        scores_at_once: at most max(this, a block's rows + N) scores are held at a time.
    Raises InputError for a target in its own history or out of range, and for states that are not finite.
    """
    check_rollouts(users, len(items), targets, history)
    users = F.normalize(users.float(), dim=-1) if normalize else users.float()
    distinct, which = torch.unique(targets, return_inverse=True)
    of_targets = mapped(rows_of(items, distinct), item_map, users.device)
    rank = torch.ones_like(targets)
    log_z = torch.full((len(users),), -torch.inf, device=users.device)
    mine = torch.empty(len(users), device=users.device)
    for start, block in blocks_of(items):
        columns = torch.cat([mapped(block, item_map, users.device), of_targets])
        columns = F.normalize(columns, dim=-1) if normalize else columns
        bias = None
        if prior is not None:
            bias = tau * torch.cat([prior[start : start + len(block)], prior[distinct]])
        step = max(1, scores_at_once // len(columns))
        for first in range(0, len(users), step):
            part = slice(first, first + step)
            found = users[part] @ columns.T
            if bias is not None:
                found += bias
            own = found[:, len(block) :].gather(1, which[part, None])
            found = found[:, : len(block)]
            mine[part] = own[:, 0]
            log_z[part] = torch.logaddexp(log_z[part], (found / tau).logsumexp(dim=1))
            # One column more than the block has takes all that lies outside of it.
            # Equal states get equal scores but for rounding: a product may round each column of a matrix in its own way.
            size = users[part].norm(dim=1, keepdim=True) * columns[len(block) :].norm(dim=1)[which[part], None]
            ahead = F.pad(found >= own - ROUNDING * size, (0, 1))
            for masked in (targets[part, None], history[part]):
                inside = (masked >= start) & (masked < start + len(block))
                ahead.scatter_(1, torch.where(inside, masked - start, len(block)), False)
            rank[part] += ahead.sum(dim=1)
    return rewards_of(rank, torch.exp(mine / tau - log_z), beta, k)


def rewards_of(rank: Tensor, softmax: Tensor, beta: float, k: int) -> Rewards:
    """R of ranks int64 [N] and probabilities R_c float32 [N]. Raises InputError where one is not finite."""
    if not bool(torch.isfinite(softmax).all()):
        raise InputError("the scores of a rollout are not finite; lower the learning rate")
    ndcg = torch.where(rank <= k, 1 / torch.log2(1 + rank.float()), 0.0)
    return Rewards(reward=beta * softmax + (1 - beta) * ndcg, ndcg=ndcg, softmax=softmax, rank=rank)


def check_rollouts(users: Tensor, n_items: int, targets: Tensor, history: Tensor) -> None:
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
    """Raise InputError unless all numbers, of any shape, lie between `lowest` (-1 where it stands for none) and n_items - 1."""
    if bool((outside := (numbers < lowest) | (numbers >= n_items)).any()):
        raise InputError(
            f"item {int(numbers[outside][0])} lies outside the table of {n_items} items; check the item numbers"
        )


def mapped(block: Tensor, item_map: ItemMap | None, device: torch.device) -> Tensor:
    """A block's vectors as they are compared, before any normalising, float32 on the users' device."""
    block = block.to(device).float()
    return block if item_map is None else item_map(block)
