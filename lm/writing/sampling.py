"""Chooses the next token: repetition penalty, temperature, top-k, top-p, and one uniform number per token."""

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


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits with those of tokens already seen made smaller, float32 [rows, V], as transformers and vLLM do it.

    seen: int64 [rows, n], the tokens before, in any order and number of times. penalty: positive logits are divided by
    it and negative ones multiplied.
    """
    logits = logits.float()
    seen_logits = logits.gather(1, seen)
    return logits.scatter(1, seen, torch.where(seen_logits < 0, seen_logits * penalty, seen_logits / penalty))


def choose(
    logits: Tensor,
    uniforms: Tensor,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    greedy: bool,
    chosen_by: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability.

    Args:
        logits: [rows, V], any float dtype. uniforms: float64 [rows] in [0, 1), unused when greedy.
        top_k: keep the k most probable (0: all), then top_p: of those the fewest whose probabilities, renormalised,
        reach it (1: all). As in transformers and vLLM, temperature comes first.
        chosen_by: penalised logits [rows, V], by which a token is chosen in the place of `logits`.
    Returns tokens int64 [rows] and log-probabilities float32 [rows] under softmax(logits / temperature) over the whole
    vocabulary, before penalty, top-k and top-p, as trl has them.
    """
    logps = _log_probabilities(logits, temperature)
    sampled_logps = logps if chosen_by is None else _log_probabilities(chosen_by, temperature)
    if greedy:
        tokens = (logits if chosen_by is None else chosen_by).argmax(dim=-1)
    elif top_k == 0 and top_p == 1.0:
        tokens = _invert(sampled_logps.double().exp_().cumsum(dim=-1), uniforms)
    else:
        values, ids = largest(sampled_logps, top_k or sampled_logps.shape[1])
        probabilities = values.double().exp()
        probabilities /= probabilities.sum(dim=-1, keepdim=True)
        if top_p < 1.0:
            mass_before = probabilities.cumsum(dim=-1) - probabilities
            probabilities = torch.where(mass_before < top_p, probabilities, 0.0)
        place = _invert(probabilities.cumsum(dim=-1), uniforms)
        tokens = ids.gather(1, place[:, None])[:, 0]
    return tokens, logps.gather(1, tokens[:, None])[:, 0]


def _log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(logits.to(torch.float32, copy=True).div_(temperature), dim=-1)


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
