"""Estimates the softmax of RecPO's reward from a sample of the items, for tables too large to pass over in a step.

The exact reward (`reward.recpo_rewards`) reads every byte of the table once and compares every rollout with every item.
A sample costs neither, but gives R_c alone: the rank that R_d needs can't be had from a few items (Krichene and Rendle,
"On sampled metrics for item recommendation", KDD 2020).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.errors import InputError
from r2ec.model.ranking import ItemMap, Items, mapped, scores


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
    """Estimate R_c from the target, some items that are always counted, and a sample of the others.

        Z^ = sum_{v in C} exp(s_v) + sum_{j <= m, v_j not in C} exp(s_{v_j} - log(m q(v_j))),   R_c^ = exp(s_v+) / Z^

    where C holds the target and `certain`. Subtracting log(m q), the expected number of times that an item is drawn,
    makes Z^ unbiased: each item outside C adds exp(s_v) on average, whatever q. R_c^ is at most 1; it is not unbiased
    (1 / Z^ is convex: too large on average), but consistent as m grows. Where few items hold most of Z, as with a small
    tau, a uniform sample misses them: give a user's best items, as `nearest` finds them, as `certain`.

    Args:
        users: [N, d], h_T after the rec head's map. targets: int64 [N].
        items, item_map, tau, normalize, prior: as in `ranking.target_ranks`.
        draws: shared by all rollouts; `draw` makes them.
        certain: int64 [N, c], item numbers, -1 for none, none twice in a row.
    """
    own = targets[:, None]
    if certain is not None:  # the target counts once
        own = torch.cat([own, certain.masked_fill(certain == own, -1)], dim=1)
    numbers, where = torch.unique(torch.cat([own.clamp(min=0).flatten(), draws.items]), return_inverse=True)
    columns = mapped(items[numbers], item_map, users.device)
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
