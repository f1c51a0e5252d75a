"""Attention of grouped queries by plain matrix products, for training on processors without a fast fused kernel.

torch's fused attention on a CPU is slow backward with a mask, and repeats the key/value heads for every query head.
Here the query heads of one key/value head are stacked into one matrix, so nothing is repeated. Measured in bf16 on one
core, forward and backward, with SmolLM2-135M's heads: 2 x 270 queries on 330 keys 10.6 ms against 24.3, 8 x 64 queries
on 394 keys 17.4 ms against 54.2. It holds the attention weights, [n, heads, queries, keys]; on GPUs use sdpa or flash.

Many queries are taken in blocks that leave out the keys behind their last one, which no query of the block may see: 4 x
1,024 queries take 153 ms in place of 322. Without gradients the fused kernel is the faster one, as it takes grouped
heads as they are: 128 x 40 queries on 90 keys 33 ms in place of 38, 16 x 512 34 in place of 173.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from benchmark.errors import InputError

NAME = "grouped"
# Smaller blocks leave out more keys, but their matrix products are slower.
QUERIES_AT_ONCE = 256


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """What transformers' eager attention computes, without repeated heads.

    query [n, H, q, e], key and value [n, h, k, e] with h dividing H, additive mask [n, 1, q, k], which has to be
    causal: the queries are the last of the keys' places, and none looks ahead. Returns [n, q, H, e]. With gradients,
    scores are rounded to the input's type before the softmax, which sums in float32, as eager attention does.
    """
    if dropout > 0.0:
        raise InputError(f"attention dropout {dropout} is not supported by grouped attention; set it to 0")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    needs_grad = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if not needs_grad and softcap is None:
        out = scaled_dot_product_attention(query, key, value, attention_mask, scale=scale, enable_gqa=True)
        return out.transpose(1, 2), None
    query = query * scale
    length, keys = query.shape[2], key.shape[2]
    if attention_mask is None or length <= QUERIES_AT_ONCE:
        return _attend(query, key, value, attention_mask, softcap).transpose(1, 2), None
    parts = []
    for start in range(0, length, QUERIES_AT_ONCE):
        end = min(start + QUERIES_AT_ONCE, length)
        seen = keys - length + end
        mask = attention_mask[:, :, start:end, :seen]
        parts.append(_attend(query[:, :, start:end], key[:, :, :seen], value[:, :, :seen], mask, softcap))
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, softcap: float | None) -> Tensor:
    """Attention of scaled queries [n, H, q, e] to keys and values [n, h, k, e], [n, H, q, e]."""
    n, heads, length, width = query.shape
    groups, keys = key.shape[1], key.shape[2]
    weights = query.reshape(n, groups, heads // groups * length, width) @ key.transpose(2, 3)
    if softcap is not None:
        weights = softcap * torch.tanh(weights / softcap)
    if mask is not None:
        weights = weights.view(n, groups, heads // groups, length, keys) + mask[:, :, None]
    weights = torch.softmax(weights, dim=-1).view(n, groups, heads // groups * length, keys)
    return (weights @ value).view(n, heads, length, width)


def use_grouped_attention(model: PreTrainedModel) -> None:
    """Let a model (below peft's wrapper) compute its attention by `grouped_attention` from now on."""
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    model.set_attn_implementation(NAME)
