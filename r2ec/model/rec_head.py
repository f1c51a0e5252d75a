"""The rec head's own parameters: optional maps of the states before user and item are compared."""

from typing import Literal

import torch
from torch import Tensor, nn

from benchmark.errors import InputError


class RecHead(nn.Module):
    """Maps of the user's and the items' states before they are compared: s(v) = (map_u(h_T) + b) . map_v(h_v).

    maps: `none` (the paper), `tied` (one linear map for both sides) or `free` (one each). rank: width of the maps'
    output, d by default; they start as the identity's first rows. Shift and scale (0 and 1 until `standardize`)
    are applied before the maps, per side, and are saved with them.

    b, zero at first, is what all users have in common. Standardised user states have mean zero, so without it no map of
    them could prefer an item for everybody: popularity would have no place in the scores.
    """

    def __init__(self, dim: int, maps: Literal["none", "tied", "free"] = "none", rank: int | None = None) -> None:
        super().__init__()
        if maps not in ("none", "tied", "free"):
            raise InputError(f"no rec head maps {maps!r}; known: none, tied, free")
        if rank is not None and not 1 <= rank <= dim:
            raise InputError(f"rec head rank {rank} is not in 1..{dim}; lower it")

        def identity() -> nn.Linear:
            layer = nn.Linear(dim, dim if rank is None else rank, bias=False)
            nn.init.eye_(layer.weight)
            return layer

        self.user_map = None if maps == "none" else identity()
        # A tied map has one name only, so that a state dict never holds the same tensor twice.
        self.item_map = identity() if maps == "free" else None
        self.user_bias = None if maps == "none" else nn.Parameter(torch.zeros(dim if rank is None else rank))
        for side in ("user", "item"):
            self.register_buffer(f"{side}_shift", torch.zeros(dim))
            self.register_buffer(f"{side}_scale", torch.ones(dim))
        self.user_shift: Tensor
        self.user_scale: Tensor
        self.item_shift: Tensor
        self.item_scale: Tensor

    @torch.no_grad()
    def standardize(self, item_states: Tensor, user_states: Tensor | None = None, scale: bool = True) -> None:
        """Take mean (and standard deviation, unless `scale` is False) from states [V, d] and, for users, [n, d].

        Without `user_states` both sides are shifted and scaled by the table's.
        """
        for side, states in (("item", item_states), ("user", item_states if user_states is None else user_states)):
            states = states.float()
            self.get_buffer(f"{side}_shift").copy_(states.mean(dim=0))
            spread = states.std(dim=0).clamp(min=1e-6) if scale else torch.ones_like(states[0])
            self.get_buffer(f"{side}_scale").copy_(spread)

    def user(self, states: Tensor) -> Tensor:
        """[N, d] -> float32 [N, m]."""
        return self.map_user((states.float() - self.user_shift) / self.user_scale)

    def map_user(self, standardized: Tensor) -> Tensor:
        """The user's map alone, float32 [N, d] -> [N, m]."""
        return standardized if self.user_map is None else self.user_map(standardized) + self.user_bias

    def item(self, states: Tensor) -> Tensor:
        """[M, d] -> float32 [M, m]."""
        states = (states.float() - self.item_shift) / self.item_scale
        layer = self.user_map if self.item_map is None else self.item_map
        return states if layer is None else layer(states)
