"""A forward on packed weights, for models in bf16 on a processor: the LM's own arithmetic, sooner done.

A step of decoding multiplies few rows by all of the LM's weights. oneDNN brings a matrix into its own order at every
product, which takes as long as the product where rows are few. Here that is done once for all tokens of a call.
Queries, keys and values are one product, and no module is called for what a function does; prompts gain by that, too.
The sums are those of the model's forward, in the same types and order, so that states and logits are equal to the bit
where oneDNN computes both. The weights lie in memory twice while texts are written.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaForCausalLM, rotate_half
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

from lm.kernels.lora import FusedLora
from lm.writing.scores import AttentionSettings

# Models whose layers are those that `PackedForward` computes; a subclass may have others.
FAMILIES = (LlamaForCausalLM, Qwen2ForCausalLM)
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
        self.layers = [_Layer(layer) for layer in self.decoder.layers]
        self.head = _Product([model.get_output_embeddings()]) if with_head else None

    @classmethod
    def of(cls, model: PreTrainedModel, with_head: bool) -> Self | None:
        """None where the model's own forward has to do it: another family, type, device, or kind of linear layer."""
        serves = (
            type(model) in FAMILIES
            and model.dtype == torch.bfloat16
            and model.device.type == "cpu"
            and torch.backends.mkldnn.is_available()
            and torch.ops.mkldnn._is_mkldnn_bf16_supported()
            and not torch.is_autocast_enabled("cpu")
            and all(_is_known(module) for module in model.modules())
        )
        scales = {
            scale for module in model.modules() if isinstance(module, FusedLora) for scale in module.scaling.values()
        }
        return cls(model, with_head) if serves and len(scales) <= 1 else None

    def states(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """What lm_head reads, [rows, d], of each token. ids, positions: int64 [rows]."""
        x = self.decoder.embed_tokens(ids)
        cos, sin = (part[0][:, None] for part in self.decoder.rotary_emb(x[None], positions[None]))
        for number, layer in enumerate(self.layers):
            x = x + layer.attention(number, layer.before_attention(x), cos, sin, attend)
            x = x + layer.mlp(layer.before_mlp(x))
        states: Tensor = self.decoder.norm(x)
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
        return self.down(self.activation(self.gate(x)).mul_(self.up(x)))


class _Product:
    """Linear layers that read one input, [rows, in] -> [rows, all out], with adapters as `FusedLora` computes them."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        bases: list[Any] = [layer.get_base_layer() if isinstance(layer, FusedLora) else layer for layer in layers]
        weights = [base.weight.detach() for base in bases]
        self.weight = torch.ops.mkldnn._reorder_linear_weight(_beside(weights), ROWS)
        biases = [base.bias.detach() for base in bases if base.bias is not None]
        self.bias = _beside(biases) if biases else None
        # Adapters of layers side by side are blocks of one pair of matrices: zeros add nothing to a sum.
        dtype = weights[0].dtype
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
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out.addmm_(x @ self.low, self.high, alpha=self.scale) if len(self.high) else out


def _is_known(module: nn.Module) -> bool:
    """Whether it is no linear layer, a plain one, or one with an adapter that `_Product` computes."""
    if isinstance(module, LoraLayer):
        return isinstance(module, FusedLora) and module.factors(torch.bfloat16, "cpu") is not None
    return not isinstance(module, nn.Linear) or type(module) is nn.Linear


def _beside(parts: list[Tensor]) -> Tensor:
    """One after the other along the first dimension; one alone isn't copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
