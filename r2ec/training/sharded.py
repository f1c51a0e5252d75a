"""FSDP (torch's fully_shard, through accelerate): weights in pieces, and whole again for code that reads them.

Each process holds a piece of every weight, and the model's forward and backward gather a layer at a time. Whatever
reads weights outside of them, such as writing rollouts, needs them whole for that long.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from r2ec.model.network import R2ec


@contextlib.contextmanager
def whole(net: nn.Module) -> Iterator[None]:
    """All weights are whole on every process inside this context; without FSDP it does nothing.

    All processes enter it together. Weights are gathered once, and no layer that is called inside frees its own, so
    that processes may call different layers. What is written into a weight inside is lost.
    """
    units = [module for module in net.modules() if isinstance(module, FSDPModule)]
    if not units:
        yield
        return
    # The first module that is called would take itself for the root: it has to be the whole model.
    units[0]._get_fsdp_state()._lazy_init()
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for number, unit in enumerate(units):
            unit.reshard()
            # The root's own weights, such as the rec head's, stay whole between forward and backward, as FSDP has it.
            unit.set_reshard_after_forward(number > 0, recurse=False)


@torch.no_grad()
def load(net: R2ec, path: Path) -> None:
    """`R2ec.load`, into the pieces of each process where there are pieces."""
    own = net.own_state()
    if not any(isinstance(value, DTensor) for value in own.values()):
        net.load(path)
        return
    saved = load_file(path)
    for name, value in own.items():
        piece = saved[name].to(value.device)
        if isinstance(value, DTensor):
            piece = distribute_tensor(piece, value.device_mesh, value.placements)
        value.copy_(piece)
