"""The scores of an LM's attention: scale, soft cap and window of a layer."""

import torch
from torch import Tensor


class AttentionSettings:
    """Scale of the scores, soft cap and window of a layer's attention, as the LM gives them."""

    def __init__(self, scaling: float, softcap: float | None, window: int | None) -> None:
        self.scaling, self.softcap, self.window = scaling, softcap, window

    def scores(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """Scaled and capped q k^T [n, a, b] of contiguous q [n, a, D], k [n, b, D], plus mask [n, a, b] (0 or -inf)."""
        k = k.transpose(1, 2)
        if self.softcap is None and mask is not None:
            return torch.baddbmm(mask, q, k, alpha=self.scaling)
        scores = torch.bmm(q, k).mul_(self.scaling)
        if self.softcap is not None:
            scores = scores.div_(self.softcap).tanh_().mul_(self.softcap)
        return scores if mask is None else scores.add_(mask)
