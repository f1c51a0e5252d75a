"""RecPO's reward: where the target ranks in the whole catalogue, and how probable it is there."""

from dataclasses import dataclass

import torch
from torch import Tensor

from r2ec.model.ranking import SCORES_AT_ONCE, ItemMap, Items, Ranks, ndcg, target_ranks


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

    R_c runs over all of V, history included, as the paper has it; the history has no part in the rank.

    Args:
        users: [N, d], h_T of each rollout after the rec head's maps. beta: weight of R_c. k: cut-off of NDCG.
        The others, and what is raised: as in `ranking.target_ranks`.
    """
    ranks = target_ranks(
        users,
        items,
        targets,
        history,
        tau=tau,
        normalize=normalize,
        prior=prior,
        item_map=item_map,
        scores_at_once=scores_at_once,
    )
    return rewards_of(ranks, beta, k)


def rewards_of(ranks: Ranks, beta: float, k: int) -> Rewards:
    """Rewards of ranks and probabilities: R = beta R_c + (1 - beta) R_d, R_d = NDCG@k."""
    of_rank = ndcg(ranks.rank, k)
    reward = beta * ranks.softmax + (1 - beta) * of_rank
    return Rewards(reward=reward, ndcg=of_rank, softmax=ranks.softmax, rank=ranks.rank)
