"""RecPO's objective: advantages, the item log-probability, and the clipped loss. Pure functions of tensors.

Shapes: B users in this process, G rollouts of each, N = B * G rollouts, user 0's group first, then user 1's, ...;
T completion tokens (padded); d the width of the states that are compared.

Equation numbers do not exist in the paper's text that we build from; docstrings name its section (RecPO, steps 3 to 5).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmark.errors import InputError
from r2ec.model.ranking import scores
from r2ec.training.gather import gather_rows

HeadUpdate = Literal["top1", "topk", "all", "random", "none", "released"]
HEAD_UPDATES: tuple[HeadUpdate, ...] = ("top1", "topk", "all", "random", "none", "released")
Advantage = Literal["grpo", "rloo", "rloo_released", "batch"]
ADVANTAGES: tuple[Advantage, ...] = ("grpo", "rloo", "rloo_released", "batch")


@dataclass(frozen=True)
class RecPOLoss:
    """What `recpo_loss` gives. `loss = token_part + item_part`; both keep their graph, so that their gradient norms
    can be taken apart."""

    loss: Tensor  # float32 []
    token_part: Tensor  # float32 []
    item_part: Tensor  # float32 []
    token_clip_share: Tensor  # float32 [], share of token actions whose objective is the clipped one; no graph
    item_clip_share: Tensor  # float32 [], the same for the item actions that count; 0 where none does
    head_mask: Tensor  # bool [B, G], the rollouts whose item action counts (delta in the paper)


def group_advantages(rewards: Tensor, kind: Advantage = "grpo") -> Tensor:
    """The advantage of every rollout within its user's group (paper, RecPO step 4), or within the batch.

    grpo: A_i = (R_i - mean) / (std + 1e-8), std with G - 1 in the denominator. rloo: A_i = R_i - mean of the others.
    rloo_released: R_i (1 + 1/G) - mean, what the released code calls leave-one-out; it does not sum to 0.
    batch: A_ui = (R_ui - mean of the rewards of the other users) / (std + 1e-8), std over all B x G rewards with one
    less in the denominator: REINFORCE (Williams, Machine Learning 1992) with the batch as its baseline, for G = 1,
    where a group tells nothing. What makes a user's target easy stays in it, so that it is noisier than a group's. Over
    several processes it is taken over each one's own batch.

    Args: rewards, float [B, G]; G >= 2, for batch B >= 2. Returns float [B, G]. Raises InputError for fewer, or an
    unknown kind.

    >>> group_advantages(torch.tensor([[4.0, 1.0, 1.0]]), "rloo").tolist()
    [[3.0, -1.5, -1.5]]
    """
    if kind == "batch":
        return _batch_advantages(rewards)
    if rewards.dim() != 2 or rewards.shape[1] < 2:
        raise InputError(f"advantages need rewards [users, G] with G >= 2, got {list(rewards.shape)}; raise group_size")
    group = rewards.shape[1]
    # In float64 the mean of equal float32 rewards is exact. In float32 it is off by a rounding error, which the
    # division by 1e-8 turns into advantages of 3 and more for groups that teach nothing.
    exact = rewards.double()
    mean = exact.mean(dim=1, keepdim=True)
    if kind == "grpo":
        return ((exact - mean) / (exact.std(dim=1, keepdim=True) + 1e-8)).to(rewards)
    if kind == "rloo":
        return ((exact - mean) * (group / (group - 1))).to(rewards)
    if kind == "rloo_released":
        return (exact * (1 + 1 / group) - mean).to(rewards)
    raise InputError(f"no advantage {kind!r}; known: {', '.join(ADVANTAGES)}")


def _batch_advantages(rewards: Tensor) -> Tensor:
    """`batch` of group_advantages."""
    if rewards.dim() != 2 or len(rewards) < 2:
        raise InputError(
            f"advantage batch needs rewards [users, G] of at least 2 users, got {list(rewards.shape)}; raise "
            "per_device_train_batch_size"
        )
    exact = rewards.double()  # as in group_advantages: the mean of equal rewards must be exact
    own = exact.sum(dim=1, keepdim=True)
    others_mean = (exact.sum() - own) / (exact.numel() - exact.shape[1])
    return ((exact - others_mean) / (exact.std() + 1e-8)).to(rewards)


def candidate_log_q(target_counts: Tensor, batch_users: int, extra: int = 0) -> Tensor:
    """log of the expected number of times an item becomes a candidate, for the logQ correction. float32 [V].

    In-batch: `batch_users` (over all processes) draws in proportion to `target_counts` (how often each item is a target
    in the training cases, [V]); plus `extra` draws uniform over the catalogue. Without extras an item that is never a
    target gets -inf, and item_logps refuses to use it.
    """
    share = target_counts.float() / target_counts.sum()
    return torch.log(batch_users * share + extra / len(target_counts))


def item_logps(
    users: Tensor,
    targets: Tensor,
    items: Tensor,
    item_ids: Tensor,
    *,
    tau: float,
    normalize: bool = True,
    extra_items: Tensor | None = None,
    extra_ids: Tensor | None = None,
    log_q: Tensor | None = None,
) -> Tensor:
    """log pi(v+ | x_u, o_i), the item action's log-probability (paper, RecPO step 5).

        pi(v+ | x_u, o_i) = exp(h_T . h_v+ / tau) / sum_{v in candidates} exp(h_T . h_v / tau)

    Candidates are the distinct targets of the whole batch over all processes (equal targets merged), and the extras.
    Gradients flow into `users` and, across processes, into `items`; none into the extras.

    Args:
        users: [N, d], h_T of each rollout, after the rec head's maps. targets: int64 [N], the target of its user.
        items: [M, d], states of this process's targets; item_ids: int64 [M] (repeats allowed; the first one counts).
        tau: temperature of the softmax. normalize: cosine instead of inner product (the released code: True, 0.02).
        extra_items, extra_ids: [E, d] and int64 [E], more negatives, such as rows of the item table; those that are
            batch targets or repeats are left out. Every process must pass the same.
        log_q: float [V], log of how often each item becomes a candidate (`candidate_log_q`); subtracted from the
            scores, positives too, so that popular targets are not punished for being frequent negatives.
    Returns float32 [N]. Raises InputError for a target without a row in `items`.
    """
    ids, rows = gather_rows(item_ids), gather_rows(items.float())
    distinct, inverse = torch.unique(ids, return_inverse=True)
    order = torch.arange(len(ids), device=ids.device)
    first = order.new_full((len(distinct),), len(ids)).scatter_reduce(0, inverse, order, "amin")
    columns, column_ids = rows[first], distinct
    if extra_items is not None and extra_ids is not None:
        fresh = ~torch.isin(extra_ids, distinct)
        extra_ids, position = torch.unique(extra_ids[fresh], return_inverse=True)
        kept = torch.zeros(len(extra_ids), *extra_items.shape[1:], dtype=torch.float32, device=rows.device)
        kept[position] = extra_items[fresh].detach().float()
        columns, column_ids = torch.cat([columns, kept]), torch.cat([column_ids, extra_ids])
    logits = scores(users, columns, tau=tau, normalize=normalize)
    if log_q is not None:
        logits = logits - log_q[column_ids].float()
        if not bool(torch.isfinite(logits).all()):
            raise InputError("log_q is not finite for a candidate item; count that item or give extra uniform draws")
    where = torch.searchsorted(distinct, targets).clamp(max=len(distinct) - 1)
    if bool((missing := distinct[where] != targets).any()):
        raise InputError(f"target {int(targets[missing][0])} has no state in the batch's items; encode it first")
    return logits.gather(1, where[:, None])[:, 0] - logits.logsumexp(dim=1)


def head_mask(advantages: Tensor, how: HeadUpdate, topk: int = 1, generator: torch.Generator | None = None) -> Tensor:
    """delta: which rollouts' item action counts. float [B, G] -> bool [B, G].

    top1 (the paper): i* = argmax_j A_j, whose advantage is never below 0 within a group; against a batch (G = 1) it may
    be, and then none counts, as the target is a label that nothing should push away. topk: the k best; ties go to the
    earlier rollout. random: one per group, from `generator`. released: the k best too (the code's relabel_topk), though
    its broadcasting spreads them to all.
    """
    if how in ("all", "none"):
        return torch.full_like(advantages, how == "all", dtype=torch.bool)
    if how == "random":
        draw = torch.rand(advantages.shape, generator=generator, device="cpu").to(advantages.device)
        return torch.zeros_like(advantages, dtype=torch.bool).scatter(1, draw.argmax(dim=1, keepdim=True), True)
    if how not in HEAD_UPDATES:
        raise InputError(f"no head update {how!r}; known: {', '.join(HEAD_UPDATES)}")
    k = 1 if how == "top1" else min(topk, advantages.shape[1])
    if k < 1:
        raise InputError(f"topk is {topk}; it must be at least 1")
    best = advantages.sort(dim=1, descending=True, stable=True).indices[:, :k]
    chosen = torch.zeros_like(advantages, dtype=torch.bool).scatter(1, best, True)
    return chosen & (advantages >= 0) if how == "top1" else chosen


def clipped(logps: Tensor, old_logps: Tensor | None, advantages: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """l_eps(r, A) = min(r A, clip(r, 1 - eps, 1 + eps) A) with r = exp(logps - old_logps), and where the clip binds.

    Without `old_logps` the policy that sampled is the present one: r = 1, and its gradient is that of `logps`.
    """
    ratio = torch.exp(logps - (logps if old_logps is None else old_logps).detach())
    free, bounded = ratio * advantages, ratio.clamp(1 - eps, 1 + eps) * advantages
    return torch.minimum(free, bounded), (bounded < free).detach()


def kl_to_start(token_logps: Tensor, start_logps: Tensor, token_mask: Tensor, group: int, users: float) -> Tensor:
    """GRPO's KL term, the divergence of the policy from the one that RecPO began with: float32 []. The paper leaves it
    out (Shao et al., DeepSeekMath, arXiv 2402.03300, equation 4; the estimator of Schulman, "Approximating KL
    divergence", 2020).

        D = 1/B sum_u 1/G sum_i sum_t [ q_it / p_it - log(q_it / p_it) - 1 ],   p: the policy, q: the start

    of the sampled tokens, summed as RecPO's token term sums them. Each part is at least 0, and 0 where both agree. Its
    gradient is that of the sum as it stands, (1 - q / p) grad log p, as in GRPO: the sampling is taken as given.

    Args:
        token_logps: float [N, T], of the policy, with a graph. start_logps: the same of the start; no gradient goes
            through them. token_mask: bool [N, T], True at sampled tokens. group: G. users: B, as in `recpo_loss`.

    By hand: p = 1/2 and q = 1/4 give 1/2 + log 2 - 1 = .1931.

    >>> half, quarter = torch.tensor([[0.5]]).log(), torch.tensor([[0.25]]).log()
    >>> round(float(kl_to_start(half, quarter, torch.tensor([[True]]), 1, 1.0)), 4)
    0.1931
    """
    apart = (start_logps.detach().float() - token_logps.float()).masked_fill(~token_mask, 0.0)
    return (apart.exp() - apart - 1).sum() / (group * users)


def recpo_loss(
    token_logps: Tensor,
    old_token_logps: Tensor | None,
    token_mask: Tensor,
    item_logps: Tensor,
    old_item_logps: Tensor | None,
    advantages: Tensor,
    *,
    eps: float = 0.2,
    head_update: HeadUpdate = "top1",
    topk: int = 1,
    generator: torch.Generator | None = None,
    users: float | None = None,
) -> RecPOLoss:
    """RecPO's loss, -J (paper, RecPO step 5).

        J = 1/B sum_u 1/G sum_i [ sum_t l_eps(r_it, A_i) + delta_i l_eps(r_i,T+1, A_i) ],
        l_eps(r, A) = min(r A, clip(r, 1 - eps, 1 + eps) A),   delta_i = 1 where i = argmax_j A_j (top1)

    `released` has the released code's arithmetic instead, see `_released`.

    Args:
        token_logps: float [N, T]; token_mask: bool [N, T], True at sampled tokens (not at padding, not at an `<answer>`
            that was appended). old_token_logps: the same under the policy that sampled; None: the present policy.
        item_logps, old_item_logps: float [N]. advantages: float [B, G]; no gradient goes through them.
        eps: clip range. topk: for topk and released. generator: CPU generator for `random`.
        users: denominator in place of B, `users_per_process(B)` where processes may hold unequal batches.
    Raises InputError where shapes disagree.
    """
    batch, group = advantages.shape
    rollouts = batch * group
    if token_logps.shape != token_mask.shape or len(token_logps) != rollouts or item_logps.shape != (rollouts,):
        raise InputError(
            f"{batch} users x {group} rollouts do not fit token_logps {list(token_logps.shape)}, token_mask "
            f"{list(token_mask.shape)}, item_logps {list(item_logps.shape)}; pass [B*G, T] and [B*G]"
        )
    advantages = advantages.detach().float()
    delta = head_mask(advantages, head_update, topk, generator)
    per_user = batch if users is None else users
    # Padding may hold anything; it is set to 0 before exp so that no inf * 0 arises.
    tokens = token_logps.float().masked_fill(~token_mask, 0.0)
    if head_update == "released":
        token_part, item_part = _released(tokens, token_mask, item_logps.float(), advantages, delta, per_user)
        return _assemble(token_part, item_part, torch.zeros_like(tokens), token_mask, torch.zeros_like(delta), delta)
    old = None if old_token_logps is None else old_token_logps.float().masked_fill(~token_mask, 0.0)
    gain, token_bound = clipped(tokens, old, advantages.reshape(-1, 1), eps)
    token_part = -gain.masked_fill(~token_mask, 0.0).sum() / (group * per_user)
    gain, item_bound = clipped(item_logps.float(), old_item_logps, advantages.reshape(-1), eps)
    item_part = -(gain * delta.reshape(-1)).sum() / (group * per_user)
    return _assemble(token_part, item_part, token_bound, token_mask, item_bound.reshape(batch, group), delta)


def _released(
    tokens: Tensor, token_mask: Tensor, item_logps: Tensor, advantages: Tensor, delta: Tensor, users: float
) -> tuple[Tensor, Tensor]:
    """The released code's arithmetic (commit 449a544), each user's group a mini-batch of M = G rows, as it ships.

    Its advantages [M, 1] are unsqueezed once more before they meet ratios [M, S] and [M, 1]. So the products are
    [M, M, S] and [M, M, 1], every advantage times every row's ratio:

        token = - sum_ijs A_i r_js m_js / (sum_js m_js) / M,    item = - mean_ij (delta_i A_i) r_j

    with ratios to the detached self (their value is 1, so its clip range never binds). GRPO advantages sum to 0 and the
    token gradient vanishes; every rollout j gets the item gradient, weighted by sum_i delta_i A_i. It sums the
    gradients of its mini-batches; here is their mean, so that the scale does not depend on B, as for the others.
    """
    batch, group = advantages.shape
    token_ratio = torch.exp(tokens - tokens.detach()).reshape(batch, 1, group, -1)
    mask = token_mask.reshape(batch, 1, group, -1)
    spread = (advantages.reshape(batch, group, 1, 1) * token_ratio * mask).sum(dim=(1, 2, 3))
    counts = token_mask.reshape(batch, -1).sum(dim=1).clamp(min=1)
    item_ratio = torch.exp(item_logps - item_logps.detach()).reshape(batch, 1, group)
    item = ((advantages * delta).reshape(batch, group, 1) * item_ratio).mean(dim=(1, 2))
    return -(spread / counts / group).sum() / users, -item.sum() / users


def _assemble(
    token_part: Tensor, item_part: Tensor, token_bound: Tensor, token_mask: Tensor, item_bound: Tensor, delta: Tensor
) -> RecPOLoss:
    """Add the parts and count where the clip binds among the actions that exist."""
    return RecPOLoss(
        loss=token_part + item_part,
        token_part=token_part,
        item_part=item_part,
        token_clip_share=(token_bound.bool() & token_mask).sum() / token_mask.sum().clamp(min=1),
        item_clip_share=(item_bound.bool() & delta).sum() / delta.sum().clamp(min=1),
        head_mask=delta,
    )
