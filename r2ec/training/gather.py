"""Gathers rows, with their gradients, and counts users over all processes that train together."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _GatherRows(torch.autograd.Function):
    """Rows of all processes, in the order of their ranks. Backward sums the gradient that every process has for them.

    So the gradient of the sum of all processes' losses reaches the process that computed a row; with the averaging of
    DistributedDataParallel that is the gradient of the mean loss, as one process with the whole batch has it.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
        counts = [int(size) for size in sizes]
        # all_gather wants equal shapes: pad to the longest, cut afterwards.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        pieces = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(pieces, padded)
        start = sum(counts[: dist.get_rank()])
        ctx.span = (start, start + len(rows))
        return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        start, stop = ctx.span
        return grad[start:stop]


def gather_rows(rows: Tensor) -> Tensor:
    """The rows [m, ...] of all processes, [sum of m, ...], in rank order, with gradients into the local part.

    Without torch.distributed, or with one process, `rows` itself. Its backward is a collective call: every process must
    run backward through it equally often.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


def users_per_process(local_users: int, device: torch.device | str = "cpu") -> float:
    """Mean number of users per process, the denominator by which averaged gradients become the mean over all users."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return float(local_users)
    total = torch.tensor(float(local_users), device=device)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()
