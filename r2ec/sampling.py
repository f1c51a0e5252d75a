"""Choosing the next token: temperature, top-k, top-p, one uniform number per token from a stream of its own."""

import numpy as np
import torch
from torch import Tensor

# torch.topk over a whole vocabulary is slow. The k largest lie in the k blocks with the largest maxima.
BLOCK = 16


def stream_uniforms(seed: int, step: int, cases: np.ndarray, group: int, length: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 [len(cases) * group, length], one stream per (seed, step, case, rollout).

    A rollout's numbers depend on nothing else: not on its batch, nor on what was sampled before a resume.
    """
    rows = [
        np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, step, int(case), member]))).random(length)
        for case in cases
        for member in range(group)
    ]
    return np.stack(rows)


def choose(
    logits: Tensor, uniforms: Tensor, *, temperature: float, top_k: int, top_p: float, greedy: bool
) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability.

    Args:
        logits: [rows, V], any float dtype. uniforms: float64 [rows] in [0, 1), unused when greedy.
        top_k: keep the k most probable (0: all), then top_p: of those the fewest whose probabilities, renormalised,
        reach it (1: all). As in transformers and vLLM, temperature comes first.
    Returns tokens int64 [rows] and log-probabilities float32 [rows] under softmax(logits / temperature) over the whole
    vocabulary, before top-k and top-p, as trl has them.
    """
    logps = torch.log_softmax(logits.to(torch.float32, copy=True).div_(temperature), dim=-1)
    if greedy:
        tokens = logits.argmax(dim=-1)
        return tokens, logps.gather(1, tokens[:, None])[:, 0]
    if top_k == 0 and top_p == 1.0:
        cumulative = logps.double().exp_().cumsum(dim=-1)
        tokens = _invert(cumulative, uniforms)
        return tokens, logps.gather(1, tokens[:, None])[:, 0]
    values, ids = largest(logps, top_k or logps.shape[1])
    chances = values.double().exp()
    chances /= chances.sum(dim=-1, keepdim=True)
    if top_p < 1.0:
        before = chances.cumsum(dim=-1) - chances
        chances = torch.where(before < top_p, chances, 0.0)
    place = _invert(chances.cumsum(dim=-1), uniforms)
    return ids.gather(1, place[:, None])[:, 0], values.gather(1, place[:, None])[:, 0]


def _invert(cumulative: Tensor, uniforms: Tensor) -> Tensor:
    """The first place whose cumulative sum exceeds u times the total, int64 [rows]; its own share is above 0."""
    # Kept so far below 1 that the product can't round up to the total, behind which there is no place.
    threshold = uniforms.to(cumulative).clamp(max=1 - 2**-50)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]


def largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row, descending, and their places: torch.topk, faster for long rows.

    x: float [rows, n]. Equal values at the edge may be resolved otherwise than by torch.topk.
    """
    rows, n = x.shape
    k = min(k, n)
    blocks = n // BLOCK
    # The blocks are strided, so that their maxima are taken over contiguous memory.
    if k * BLOCK * 2 > n or n % BLOCK:
        return x.topk(k, dim=-1)
    strided = x.view(rows, BLOCK, blocks)
    chosen = strided.amax(dim=1).topk(k, dim=-1, sorted=False).indices
    candidates = strided.gather(2, chosen[:, None].expand(-1, BLOCK, -1)).flatten(1)
    values, at = candidates.topk(k, dim=-1)
    return values, chosen.gather(1, at % k) + at // k * blocks
