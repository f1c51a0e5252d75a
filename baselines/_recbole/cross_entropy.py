"""Cross-entropy over the whole catalogue for many targets of few states, as sequential models need it. Needs torch."""

from typing import Any

import torch
from torch import Tensor

BLOCK = 2**21  # logits that are in memory at a time: 8 MiB of float32
LEAST = 32  # states at a time, however large the catalogue: each block reads and adds to vectors of all items


def cross_entropy(
    states: Tensor, weight: Tensor, state_of: Tensor, target: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Mean over n targets of -log softmax(states @ weight.T + bias)[target], a scalar.

    states: float32 [s, d]; weight: float32 [v, d]; bias: float32 [v]; target: int64 [n]; state_of: int64 [n],
    ascending, which state predicts each target. Equal to torch's own on `states[state_of]`, but a state's logits are
    computed once and never all kept: loss and gradients come from one pass over blocks of `BLOCK`, or of `LEAST`
    states. The gradient can't be differentiated again.
    """
    zero = weight.new_zeros(len(weight)) if bias is None else bias
    loss: Tensor = _CrossEntropy.apply(states, weight, zero, state_of, target)
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, state_of: Tensor, target: Tensor) -> Tensor:
        n, loss = len(target), states.new_zeros((), dtype=torch.float64)
        of_states, of_weight, of_bias = torch.empty_like(states), torch.zeros_like(weight), torch.zeros_like(bias)
        uses = torch.bincount(state_of, minlength=len(states)).to(states.dtype)
        ends = torch.cumsum(uses, 0).long()
        rows = max(LEAST, BLOCK // len(weight))
        for start in range(0, len(states), rows):
            part = slice(start, min(start + rows, len(states)))
            first, last = (int(ends[start - 1]) if start else 0), int(ends[part.stop - 1])
            row, wanted = state_of[first:last] - start, target[first:last]
            logits = torch.addmm(bias, states[part], weight.T)
            logits -= logits.amax(dim=1, keepdim=True)
            target_logits = logits[row, wanted]
            total = logits.exp_().sum(dim=1)
            loss += (total.log()[row] - target_logits).double().sum()
            # From here on `logits` holds the gradient.
            logits *= (uses[part] / (n * total))[:, None]
            logits.index_put_((row, wanted), logits.new_full((), -1 / n), accumulate=True)
            torch.mm(logits, weight, out=of_states[part])
            of_weight.addmm_(logits.T, states[part])
            of_bias += logits.sum(dim=0)
        ctx.save_for_backward(of_states, of_weight, of_bias)
        return (loss / n).to(states.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_states, of_weight, of_bias = ctx.saved_tensors
        return grad * of_states, grad * of_weight, grad * of_bias, None, None
