"""peft's LoRA layer with a faster forward and backward for the case that R2ec trains: one plain adapter, no dropout.

peft computes the low-rank path in the adapters' float32: it copies the layer's input to float32 and passes three times
over the layer's whole output (B's product, the scaling, the sum). Here the products run in the input's type on copies
of A and B, as mixed-precision training has it, and the low-rank product is added into the layer's output within the
product itself, in the backward too. The adapters stay float32 parameters. In float32 the two differ by rounding alone
(tests/lm/test_lora.py).
"""

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear
from torch import Tensor, nn


class _LowRank(torch.autograd.Function):
    """x W^T + b + scale (x A^T) B^T; gradients for x, A and B. W is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows = x.flatten(0, -2)
        low_a, low_b = a.to(x.dtype), b.to(x.dtype)
        hidden = rows @ low_a.T
        out = F.linear(rows, weight, bias).addmm_(hidden, low_b.T, alpha=scale)
        ctx.save_for_backward(rows, weight, low_a, low_b, hidden)
        ctx.scale, ctx.types = scale, (a.dtype, b.dtype)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, a, b, hidden = ctx.saved_tensors
        out = grad.reshape(-1, grad.shape[-1])
        low = (out @ b).mul_(ctx.scale)
        to_x = (out @ weight).addmm_(low, a).view(*grad.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        to_a = (low.T @ rows).to(ctx.types[0])
        to_b = (out.T @ hidden).to(ctx.types[1]).mul_(ctx.scale)
        return to_x, None, None, to_a, to_b, None


class FusedLora(Linear):
    """peft's own layer, unless it is one active plain adapter without dropout on a frozen linear layer."""

    fused = True  # set on the class, for all layers; False: peft's own forward, to compare their speeds

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., in] -> [..., out], in x's type."""
        factors = None if args or kwargs else self.factors(x.dtype, x.device.type)
        if factors is None:
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        base = self.get_base_layer()
        result: Tensor = _LowRank.apply(x, base.weight, base.bias, *factors)
        return result

    def factors(self, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, float] | None:
        """A [r, in], B [out, r] and the scale of x W^T + scale (x A^T) B^T, for x of this type on this device.

        None where the layer computes anything else, or leaves it to peft.
        """
        base = self.get_base_layer()
        active = [name for name in self.active_adapters if name in self.lora_A]
        plain = (
            self.fused
            and not (self.disable_adapters or self.merged or self.lora_variant)
            and len(active) == 1
            and isinstance(self.lora_dropout[active[0]], nn.Identity)
            and not self.lora_bias[active[0]]
            and type(base) is nn.Linear
            and dtype == base.weight.dtype
            and not base.weight.requires_grad
            and not (base.bias is not None and base.bias.requires_grad)
            and not torch.is_autocast_enabled(device)
        )
        if not plain:
            return None
        a, b = self.lora_A[active[0]].weight, self.lora_B[active[0]].weight
        assert isinstance(a, Tensor) and isinstance(b, Tensor)
        return a, b, float(self.scaling[active[0]])
