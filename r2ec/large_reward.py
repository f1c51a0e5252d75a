"""The reward over a table that doesn't fit into memory: exact, block by block, or its softmax from a sample of the items.

Exact costs one pass over the table: its bytes are read once and every rollout is compared with every item. The sample costs
neither, but gives R_c alone: the rank that R_d needs can't be had from a few items (Krichene and Rendle, "On sampled metrics
for item recommendation", KDD 2020).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.errors import InputError
from r2ec.large_table import Items, blocks_of, rows_of
from r2ec.objective import scores
from r2ec.reward import SCORES_AT_ONCE, Rewards, check_rollouts, rewards_of, score_block

ItemMap = Callable[[Tensor], Tensor]  # the rec head's, [n, d] -> float32 [n, m], such as `R2ec.head.item`


@torch.no_grad()
def blockwise_rewards(
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
    """`reward.recpo_rewards` in one pass over the table; memory grows with one block, not with V.

    A block's products hold the targets' columns too, so that a target and an item with the same state are compared as
    products of one kind, and tie.

    Args:
        items: states [V, d] before the rec head's map, on disk or in memory. item_map: the map; None: none.
        scores_at_once: at most max(this, a block's rows + N) scores are held at a time.
    The rest, and what is raised, as for `recpo_rewards`.
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
        bias = None
        if prior is not None:
            bias = tau * torch.cat([prior[start : start + len(block)], prior[distinct]])
        step = max(1, scores_at_once // len(columns))
        for first in range(0, len(users), step):
            part = slice(first, first + step)
            found = score_block(users[part], columns, normalize)
            if bias is not None:
                found += bias
            own = found[:, len(block) :].gather(1, which[part, None])
            found = found[:, : len(block)]
            mine[part] = own[:, 0]
            log_z[part] = torch.logaddexp(log_z[part], (found / tau).logsumexp(dim=1))
            # One column more than the block has takes all that lies outside of it.
            ahead = F.pad(found >= own, (0, 1))
            for masked in (targets[part, None], history[part]):
                inside = (masked >= start) & (masked < start + len(block))
                ahead.scatter_(1, torch.where(inside, masked - start, len(block)), False)
            rank[part] += ahead.sum(dim=1)
    return rewards_of(rank, torch.exp(mine / tau - log_z), beta, k)


@dataclass(frozen=True)
class Draws:
    """Items drawn with replacement from a distribution q over the catalogue."""

    items: Tensor  # int64 [m]
    log_q: Tensor  # float32 [m], log q of each


def draw(count: int, m: int, generator: torch.Generator, weights: Tensor | None = None) -> Draws:
    """m items of a catalogue of `count`: uniform, or in proportion to `weights`, float [V], all above 0.

    An item of weight 0 would be missing from every estimate: it is refused (InputError).
    """
    if weights is None:
        return Draws(torch.randint(count, (m,), generator=generator), torch.full((m,), -math.log(count)))
    if weights.shape != (count,) or not bool((weights > 0).all()) or not bool(torch.isfinite(weights).all()):
        raise InputError(f"weights {list(weights.shape)} for {count} items: give one finite number above 0 for each")
    cumulated = weights.double().cumsum(dim=0)
    places = torch.rand(m, generator=generator, dtype=torch.float64) * cumulated[-1]
    drawn = torch.searchsorted(cumulated, places, right=True).clamp(max=count - 1)
    return Draws(drawn, torch.log(weights[drawn].double() / cumulated[-1]).float())


@dataclass(frozen=True)
class Sampled:
    """An estimate for each rollout."""

    softmax: Tensor  # float32 [N], of R_c
    log_z: Tensor  # float32 [N], log of the estimated partition function, scores over tau


@torch.no_grad()
def sampled_softmax(
    users: Tensor,
    items: Items,
    targets: Tensor,
    draws: Draws,
    *,
    tau: float,
    normalize: bool = True,
    prior: Tensor | None = None,
    item_map: ItemMap | None = None,
    certain: Tensor | None = None,
) -> Sampled:
    """R_c from the target, some items that are counted for certain, and a sample of the others.

        Z^ = sum_{v in C} exp(s_v) + sum_{j <= m, v_j not in C} exp(s_{v_j} - log(m q(v_j))),   R_c^ = exp(s_v+) / Z^

    where C holds the target and `certain`. Subtracting log(m q), the expected number of times that an item is drawn, makes
    Z^ unbiased: each item outside C adds exp(s_v) on average, whatever q. R_c^ is at most 1; it is not unbiased (1 / Z^ is
    convex: too large on average), but consistent as m grows. Where few items hold most of Z, as with a small tau, a uniform
    sample misses them: give a user's best items, as `nearest` finds them, as `certain`.

    Args:
        users: [N, d], h_T after the rec head's map; items, item_map, tau, normalize, prior: as in `blockwise_rewards`.
        targets: int64 [N]. draws: shared by all rollouts; `draw` makes them.
        certain: int64 [N, c], item numbers, -1 for none, none twice in a row.
    """
    own = targets[:, None]
    if certain is not None:  # the target counts once
        own = torch.cat([own, certain.masked_fill(certain == own, -1)], dim=1)
    numbers, where = torch.unique(torch.cat([own.clamp(min=0).flatten(), draws.items]), return_inverse=True)
    columns = mapped(rows_of(items, numbers), item_map, users.device)
    every = scores(users, columns, tau=tau, normalize=normalize, prior=None if prior is None else prior[numbers])
    place, drawn = where[: own.numel()].reshape(own.shape), where[own.numel() :]
    for_certain = every.gather(1, place).masked_fill(own < 0, -torch.inf)
    # One column more than there are numbers takes the -1.
    counted = torch.zeros(len(users), len(numbers) + 1, dtype=torch.bool, device=users.device)
    counted.scatter_(1, torch.where(own < 0, len(numbers), place), True)
    sampled = every[:, drawn] - (draws.log_q + math.log(len(draws.items)))
    sampled.masked_fill_(counted[:, drawn], -torch.inf)
    log_z = torch.cat([for_certain, sampled], dim=1).logsumexp(dim=1)
    return Sampled(torch.exp(for_certain[:, 0] - log_z), log_z)


def mapped(block: Tensor, item_map: ItemMap | None, device: torch.device) -> Tensor:
    """A block's vectors as they are compared, before any normalising, float32 on the users' device."""
    block = block.to(device).float()
    return block if item_map is None else item_map(block)
