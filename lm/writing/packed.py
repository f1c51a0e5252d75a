"""A forward on packed weights, for models on a processor: the LM's own arithmetic, sooner done.

Queries, keys and values are one product, and no module is called for what a function does. In bf16 a step of decoding
gains more: it multiplies few rows by all of the LM's weights, and oneDNN brings a matrix into its own order at every
product, which takes as long as the product where rows are few. Here that is done once for all tokens of a call. The
sums are those of the model's forward, in the same types, and in the same order where oneDNN cuts a wide product as it
cuts a narrow one: then states and logits are equal to the bit. With AMX it doesn't at some numbers of rows (640 of
SmolLM2's queries, keys and values). The weights lie in memory twice while texts are written.

In float32 that order gains little, and costs a single row: there the weights stay as they are, and only those of
queries, keys and values lie in memory twice. States and logits are the model's own up to float32's rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaMLP,
    LlamaModel,
    rotate_half,
)
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2Attention,
    Qwen2DecoderLayer,
    Qwen2ForCausalLM,
    Qwen2MLP,
    Qwen2Model,
)

from benchmark.precision import multiplies_in_bfloat16
from lm.calls import hooks_on_all, is_called_plainly
from lm.kernels.lora import FusedLora
from lm.writing.scores import AttentionSettings

# Models that `PackedForward` computes: the classes of the decoder, its layers, their attention and their mlp.
# A subclass may compute anything else.
FAMILIES: dict[type, tuple[type, type, type, type]] = {
    LlamaForCausalLM: (LlamaModel, LlamaDecoderLayer, LlamaAttention, LlamaMLP),
    Qwen2ForCausalLM: (Qwen2Model, Qwen2DecoderLayer, Qwen2Attention, Qwen2MLP),
}
# oneDNN orders a matrix for a number of rows; the order serves any number.
ROWS = 64

# layer, query [1, H, rows, D], key and value [1, Hkv, rows, D], settings -> [1, rows, H, D]
Attend = Callable[[int, Tensor, Tensor, Tensor, AttentionSettings], Tensor]


class PackedForward:
    """The forward of tokens in one row. Use it without gradients, and no longer than the weights stay as they are.

    Args:
        model: one of FAMILIES, in evaluation mode; its linear layers are plain, or fused LoRA layers of one scale.
        with_head: pack lm_head, too, for `logits`.
    """

    def __init__(self, model: PreTrainedModel, with_head: bool) -> None:
        self.decoder: Any = model.get_decoder()
        self.layers = [_Layer(layer) for layer in self.decoder.layers[: model.config.num_hidden_layers]]
        self.head = _Product([model.get_output_embeddings()]) if with_head else None

    @classmethod
    def of(cls, model: PreTrainedModel, with_head: bool) -> Self | None:
        """None where the model's own forward has to do it, as it computes anything else, or elsewhere."""
        serves = (
            type(model) in FAMILIES
            and not any(module.training for module in model.modules())
            and not hooks_on_all()
            and (model.dtype == torch.float32 or (model.dtype == torch.bfloat16 and multiplies_in_bfloat16("cpu")))
            and not torch.is_autocast_enabled("cpu")
            and all(_runs_plainly(module, kind) for module, kind in _not_called(model))
            and all(_is_known(products, model.dtype) for products in _products(model, with_head))
        )
        return cls(model, with_head) if serves and len(_scales(model)) <= 1 else None

    def states(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """What lm_head reads, [rows, d], of each token. ids, positions: int64 [rows].

        Modules that are called get rows as the model's forward gives them, [1, rows, d], for the sake of their hooks.
        """
        x = self.decoder.embed_tokens(ids[None])[0]
        cos, sin = (part[0][:, None] for part in self.decoder.rotary_emb(x[None], positions[None]))
        for number, layer in enumerate(self.layers):
            x = x + layer.attention(number, layer.before_attention(x[None])[0], cos, sin, attend)
            x = x + layer.mlp(layer.before_mlp(x[None])[0])
        states: Tensor = self.decoder.norm(x[None])[0]
        return states

    def logits(self, states: Tensor) -> Tensor:
        """[rows, d] -> [rows, |vocabulary|]."""
        assert self.head is not None
        return self.head(states)


class _Layer:
    """A decoder layer's products, with its own norms."""

    def __init__(self, layer: Any) -> None:
        self.before_attention, self.before_mlp = layer.input_layernorm, layer.post_attention_layernorm
        attention, mlp = layer.self_attn, layer.mlp
        self.dim, self.activation = attention.head_dim, mlp.act_fn
        self.settings = AttentionSettings(attention.scaling, None, getattr(attention, "sliding_window", None))
        self.qkv = _Product([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out = _Product([attention.o_proj])
        self.gate, self.up, self.down = (_Product([part]) for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        kv = attention.k_proj.out_features // self.dim
        self.heads = (attention.q_proj.out_features // self.dim, kv, kv)

    def attention(self, number: int, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """x [rows, d]; cos, sin [rows, 1, D]."""
        heads = self.qkv(x).view(len(x), -1, self.dim)
        rotated, value = heads.split([self.heads[0] + self.heads[1], self.heads[2]], dim=1)
        rotated = rotated * cos + rotate_half(rotated) * sin
        query, key = rotated.split(self.heads[:2], dim=1)
        query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))
        seen = attend(number, query, key, value, self.settings)
        return self.out(seen.reshape(len(x), -1))

    def mlp(self, x: Tensor) -> Tensor:
        """x [rows, d]."""
        return self.down(self.up(x).mul_(self.activation(self.gate(x)[None])[0]))


class _Product:
    """Linear layers that read one input, [rows, in] -> [rows, all out], with adapters as `FusedLora` computes them."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        bases: list[Any] = [layer.get_base_layer() if isinstance(layer, FusedLora) else layer for layer in layers]
        weights = [base.weight.detach() for base in bases]
        dtype = weights[0].dtype
        self.weight, self.is_ordered = _beside(weights), dtype == torch.bfloat16
        if self.is_ordered:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, ROWS)
        biases = [base.bias.detach() for base in bases if base.bias is not None]
        self.bias = _beside(biases) if biases else None
        # Adapters of layers side by side are blocks of one pair of matrices: zeros add nothing to a sum.
        a, b, self.scale = [], [], 0.0
        for layer, weight in zip(layers, weights, strict=True):
            factors = layer.factors(dtype, "cpu") if isinstance(layer, FusedLora) else None
            if factors is None:
                a.append(weight.new_zeros(0, weight.shape[1]))
                b.append(weight.new_zeros(0, weight.shape[0]))
            else:
                a.append(factors[0].detach().to(dtype))
                b.append(factors[1].detach().to(dtype).T)
                self.scale = factors[2]
        self.low, self.high = torch.cat(a).T, torch.block_diag(*b)

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor
        if self.is_ordered:
            out = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        else:
            out = F.linear(x, self.weight, self.bias)
        return out.addmm_(x @ self.low, self.high, alpha=self.scale) if len(self.high) else out


def _not_called(model: PreTrainedModel) -> Iterator[tuple[nn.Module, type]]:
    """The modules whose forward `PackedForward` has in their place, but linear layers, each with its class.

    Ask one by one and stop at another class: behind it nothing has to be as it is here.
    """
    of_decoder, of_layer, of_attention, of_mlp = FAMILIES[type(model)]
    decoder: Any = model.get_decoder()
    yield model, type(model)
    yield decoder, of_decoder
    for layer in decoder.layers:
        yield layer, of_layer
        yield layer.self_attn, of_attention
        yield layer.mlp, of_mlp


def _products(model: PreTrainedModel, with_head: bool) -> Iterator[list[nn.Module]]:
    """The linear layers of each product."""
    decoder: Any = model.get_decoder()
    for layer in decoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        yield [attention.q_proj, attention.k_proj, attention.v_proj]
        yield from ([part] for part in (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    if with_head:
        yield [model.get_output_embeddings()]


def _runs_plainly(module: nn.Module, kind: type) -> bool:
    """Whether a call of the module runs the forward of this class and nothing else."""
    return type(module) is kind and is_called_plainly(module)


def _is_known(layers: Sequence[nn.Module], dtype: torch.dtype) -> bool:
    """Whether `_Product` computes these layers: plain ones, or with an adapter as `FusedLora` computes it."""
    bases = []
    for layer in layers:
        if isinstance(layer, FusedLora):
            if not _runs_plainly(layer, FusedLora) or layer.factors(dtype, "cpu") is None:
                return False
            bases.append(layer.get_base_layer())
        else:
            bases.append(layer)
    return all(
        _runs_plainly(base, nn.Linear)
        and type(base.weight) is nn.Parameter  # not one of a quantised type, which says that it is bf16
        and base.weight.dtype == dtype
        and base.weight.device.type == "cpu"
        and base.weight.layout == torch.strided
        and (base.bias is None) == (bases[0].bias is None)
        for base in bases
    )


def _scales(model: PreTrainedModel) -> set[float]:
    """Of all adapters: those of layers side by side are one product, which has one scale."""
    return {scale for module in model.modules() if isinstance(module, FusedLora) for scale in module.scaling.values()}


def _beside(parts: list[Tensor]) -> Tensor:
    """One after the other along the first dimension; one alone isn't copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
