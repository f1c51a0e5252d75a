"""Measures the machine's limits, matrix products and memory copies, in the same run as everything else."""

import time
from collections.abc import Callable
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict


class Limits(BaseModel):
    """Best of several tries, with as many threads as torch has."""

    model_config = ConfigDict(frozen=True)

    threads: int
    float32_gflops: float
    bfloat16_gflops: float
    copy_gbytes: float  # read and written, 1e9 bytes per second

    def gflops(self, dtype: torch.dtype) -> float:
        return self.bfloat16_gflops if dtype == torch.bfloat16 else self.float32_gflops


SLOW = 1.0  # seconds of a product; no wider one is tried


def measure(width: int = 4096, copied: int = 2**30, tries: int = 3) -> Limits:
    """Products of two square matrices of at most this width; copies of this many bytes.

    A processor without instructions for bfloat16 takes minutes for a product of that width, so that smaller ones come
    first.
    """
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        for side in (width // 8, width // 4, width // 2, width):
            a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
            seconds = _best(partial(torch.matmul, a, b), tries)
            rate = 2 * side**3 / seconds / 1e9
            if seconds > SLOW:
                break
        rates.append(rate)
    source = torch.ones(copied // 4)
    target = torch.empty_like(source)
    copy = 2 * copied / _best(lambda: target.copy_(source), tries) / 1e9
    return Limits(
        threads=torch.get_num_threads(),
        float32_gflops=round(rates[0], 1),
        bfloat16_gflops=round(rates[1], 1),
        copy_gbytes=round(copy, 1),
    )


def _best(work: Callable[[], object], tries: int) -> float:
    work()
    return min(seconds_of(work, tries))


def seconds_of(work: Callable[[], object], runs: int) -> list[float]:
    """How long each of these runs took."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds
