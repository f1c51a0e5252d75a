"""RecPO's reward: where the target ranks in the whole catalogue, and how probable it is there."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.errors import InputError

# Scores held at once: 64 MiB of float32, and at most this many items converted to float32 at once.
SCORES_AT_ONCE = 2**24
ITEMS_AT_ONCE = 2**16


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
    items: Tensor,
    targets: Tensor,
    history: Tensor,
    *,
    tau: float,
    normalize: bool = True,
    beta: float = 0.05,
    k: int = 1000,
    prior: Tensor | None = None,
    scores_at_once: int = SCORES_AT_ONCE,
) -> Rewards:
    """The reward of every rollout against the item table (paper, RecPO step 3).

        R = beta R_c + (1 - beta) R_d
        R_d = NDCG@k = 1 / log2(1 + rank) if rank <= k else 0
        R_c = exp(h_T . h_v+ / tau) / sum_{v in V} exp(h_T . h_v / tau)

    rank = 1 + the number of other items outside the history that score at least as high as the target, as the suite's
    evaluator counts it. R_c runs over all of V, history included, as the paper has it.

    Args:
        users: [N, d], h_T of each rollout after the rec head's maps; items: [V, d], the table after the maps, any float
            type. targets: int64 [N]. history: int64 [N, L], item numbers, -1 for none.
        tau, normalize, prior [V]: as in `objective.scores`. beta: weight of R_c. k: cut-off of NDCG.
        scores_at_once: at most max(this, V) scores are held at a time.
    Raises InputError for a target in its own history or out of range, and for states that are not finite.
    """
    n_items = len(items)
    check_rollouts(users, n_items, targets, history)
    if normalize:
        users = F.normalize(users.float(), dim=-1)
    rank = torch.empty(len(users), dtype=torch.int64, device=users.device)
    softmax = torch.empty(len(users), dtype=torch.float32, device=users.device)
    step = max(1, scores_at_once // n_items)
    for start in range(0, len(users), step):
        rows = slice(start, start + step)
        found = score_block(users[rows].float(), items, normalize)
        if prior is not None:
            found += tau * prior
        target = targets[rows, None]
        mine = found.gather(1, target)
        softmax[rows] = torch.exp(mine[:, 0] / tau - (found / tau).logsumexp(dim=1))
        # One column more than there are items takes the -1 of short histories.
        ahead = F.pad(found >= mine, (0, 1)).scatter_(1, target, False)
        ahead.scatter_(1, torch.where(history[rows] < 0, n_items, history[rows]), False)
        rank[rows] = 1 + ahead.sum(dim=1)
    return rewards_of(rank, softmax, beta, k)


def rewards_of(rank: Tensor, softmax: Tensor, beta: float, k: int) -> Rewards:
    """R of ranks int64 [N] and probabilities R_c float32 [N]. Raises InputError where one is not finite."""
    if not bool(torch.isfinite(softmax).all()):
        raise InputError("the scores of a rollout are not finite; lower the learning rate")
    ndcg = torch.where(rank <= k, 1 / torch.log2(1 + rank.float()), 0.0)
    return Rewards(reward=beta * softmax + (1 - beta) * ndcg, ndcg=ndcg, softmax=softmax, rank=rank)


def score_block(users: Tensor, items: Tensor, normalize: bool) -> Tensor:
    """Scores before tau, float32 [n, V], of float32 users [n, d] (already of length 1 for the cosine)."""
    found = torch.empty(len(users), len(items), dtype=torch.float32, device=users.device)
    for start in range(0, len(items), ITEMS_AT_ONCE):
        block = items[start : start + ITEMS_AT_ONCE].float()
        if normalize:
            block = F.normalize(block, dim=-1)
        torch.mm(users, block.T, out=found[:, start : start + ITEMS_AT_ONCE])
    return found


def check_rollouts(users: Tensor, n_items: int, targets: Tensor, history: Tensor) -> None:
    """Raise InputError for shapes that disagree, items outside the table, and a target in its own history."""
    if targets.shape != (len(users),) or history.dim() != 2 or len(history) != len(users):
        raise InputError(
            f"{len(users)} user vectors need targets [N] and history [N, L], got {list(targets.shape)} and "
            f"{list(history.shape)}; repeat a user's target and history for every rollout"
        )
    numbers = torch.cat([targets.reshape(-1), history.reshape(-1)])
    if bool((outside := (numbers >= n_items) | (numbers < -1)).any()) or bool((targets < 0).any()):
        wrong = numbers[outside] if bool(outside.any()) else targets[targets < 0]
        raise InputError(f"item {int(wrong[0])} lies outside the table of {n_items} items; check the item numbers")
    if bool((inside := (history == targets[:, None]).any(dim=1)).any()):
        raise InputError(f"target {int(targets[inside][0])} is in its own history; prepare the dataset again")
