"""Log-probabilities of sampled tokens without ever holding the logits of all positions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Logits held at once, in elements: 24 MiB of float32, or 128 positions of a vocabulary of 49,152.
LOGITS_AT_ONCE = 128 * 49_152


def distribution(logits: Tensor, temperature: float, softcap: float | None) -> Tensor:
    """The logits of the sampling policy, float32: the model's own soft cap, then the temperature.

    Top-k and top-p cut the tail off when sampling, but are not part of the policy whose probabilities are compared, as
    in trl: the ratio of two policies would otherwise be 0/0 for a token that only one of them keeps.
    """
    logits = logits.float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits / temperature


def chosen_and_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """log p of the targets and the entropy in nats, float32 [K] each, from policy logits [K, V] and targets [K]."""
    total = logits.logsumexp(dim=1)
    with torch.no_grad():
        probability = torch.exp(logits - total[:, None])
        entropy = total - torch.linalg.vecdot(probability, logits)
    return logits.gather(1, targets[:, None])[:, 0] - total, entropy


class _FrozenHead(torch.autograd.Function):
    """For an lm_head that is not trained. The gradient of log p(target) by the hidden state,

        (W[target] - sum_v p(v) W[v]) / temperature   (times the soft cap's slope),

    needs one number from backward, the row's factor. So forward computes it while the chunk's probabilities are at
    hand and keeps [K, d]: no logits are stored and none are recomputed, which checkpointing would do.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        softcap: float | None,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        logps = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        entropy = torch.empty_like(logps)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits = distribution(F.linear(hidden[part], weight, bias), temperature, softcap)
            total = logits.logsumexp(dim=1, keepdim=True)
            probability = torch.exp(logits - total)
            chosen = targets[part, None]
            logps[part] = (logits.gather(1, chosen) - total)[:, 0]
            entropy[part] = total[:, 0] - torch.linalg.vecdot(probability, logits)
            if slope is not None:
                error = probability.neg_()
                error.scatter_add_(1, chosen, torch.ones_like(total))
                if softcap is not None:
                    error.mul_(1 - (logits * (temperature / softcap)) ** 2)
                slope[part] = (error.to(weight.dtype) @ weight) / temperature
        ctx.mark_non_differentiable(entropy)
        ctx.save_for_backward(slope)
        return logps, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (grad[:, None] * slope).to(slope.dtype), None, None, None, None, None, None


def token_logps(
    hidden: Tensor, lm_head: nn.Module, targets: Tensor, temperature: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """log p of each target token and the entropy of its distribution, in nats.

    Args: hidden, [K, d], the states that predict the targets (after the final norm); targets, int64 [K].
    Returns float32 [K] twice; the second has no graph.
    """
    if len(hidden) == 0:
        return hidden.sum(dim=1).float(), hidden.new_zeros(0, dtype=torch.float32)
    # The type itself, not a subclass: an adapter or a module that is also saved computes more than weight and bias.
    if type(lm_head) is nn.Linear and not lm_head.weight.requires_grad:
        rows = max(1, LOGITS_AT_ONCE // len(lm_head.weight))
        args = (hidden, lm_head.weight, lm_head.bias, targets, temperature, softcap, rows)
        logps, entropy = _FrozenHead.apply(*args)
        return logps, entropy

    def chunk(states: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return chosen_and_entropy(distribution(lm_head(states), temperature, softcap), chosen)

    pieces = [
        checkpoint(chunk, states, chosen, use_reentrant=False)
        for states, chosen in zip(torch.split(hidden, 128), torch.split(targets, 128), strict=True)
    ]
    return torch.cat([logps for logps, _ in pieces]), torch.cat([entropy for _, entropy in pieces])
