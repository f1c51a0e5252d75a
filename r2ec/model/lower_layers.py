"""What the LM's layers below all adapters make of the items' prompts, so that they read the catalogue once.

No training changes those layers, and every encoding of the table after a training would read them again: with adapters
in the upper half, half of its time. Their output, [tokens, d], is kept in memory for the next encoding of the same
prompts by the same weights in this process, be it that of another setting of a grid. The item states are the plain
encoding's to the bit, as each batch is the same (tests/r2ec/test_lower_layers.py).
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer, Gemma2Model
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2Model

from benchmark.workload import KEPT_BELOW
from lm.calls import hooks_on_all, is_called_plainly

# Decoders in which a layer reads what the one below gives and nothing else of it, and their layers. Other families may
# share keys, or add what a lower layer gave.
FAMILIES: dict[type, type] = {
    LlamaModel: LlamaDecoderLayer,
    Qwen2Model: Qwen2DecoderLayer,
    Gemma2Model: Gemma2DecoderLayer,
}


class LowerLayers:
    """The states [tokens, d] that the first adapted layer reads, of all items' prompts behind their common beginning.

    Args:
        name: what they depend on. number: of the layer that reads them. lengths: int64 [V], tokens of each item.
    """

    last: "LowerLayers | None" = None  # the ones that this process keeps

    def __init__(self, name: str, number: int, lengths: np.ndarray) -> None:
        self.name, self.number = name, number
        self.ends = np.cumsum(lengths)
        self.starts = self.ends - lengths
        self.states: Tensor | None = None
        self.is_whole = False

    @classmethod
    def of(cls, model: PreTrainedModel, prompts_hash: str, lengths: np.ndarray, at_once: int) -> Self | None:
        """Those of this model and these prompts, kept or to be filled; None where the whole model has to read them.

        prompts_hash: of all prompts. at_once: tokens of a batch, as states depend on their batch's shape by rounding.
        """
        number, width = untrained_layers(model), int(model.config.hidden_size)
        size = int(lengths.sum()) * width * model.dtype.itemsize
        if number == 0 or model.device.type != "cpu" or size > KEPT_BELOW:
            return None
        name = _name(model, number, prompts_hash, at_once)
        if not isinstance(cls.last, cls) or cls.last.name != name:
            cls.last = cls(name, number, lengths)
        return cls.last

    @contextmanager
    def reading(self, model: PreTrainedModel, rows: np.ndarray, mask: Tensor) -> Iterator[None]:
        """Within this block the model reads these items, and nothing else: mask [M, L] of their tokens.

        Its lower layers do nothing where the states are there; else these are filled.
        """
        layers: Any = model.get_decoder().layers
        rows_of = [slice(start, end) for start, end in zip(self.starts[rows], self.ends[rows], strict=True)]
        if self.is_whole:
            assert self.states is not None
            known = self.states.new_zeros(*mask.shape, self.states.shape[1])
            known[mask] = torch.cat([self.states[part] for part in rows_of])
            with _skipped(layers[: self.number]), _before(layers[self.number], lambda read: known):
                yield
            return

        def see(read: Tensor) -> Tensor:
            if self.states is None:
                self.states = read.new_empty(int(self.ends[-1]), read.shape[-1])
            for part, states, real in zip(rows_of, read, mask, strict=True):
                self.states[part] = states[real]
            return read

        with _before(layers[self.number], see):
            yield

    def filled(self) -> None:
        """All items have been read: from here on the lower layers do nothing."""
        self.is_whole = True


def untrained_layers(model: PreTrainedModel) -> int:
    """How many of the lowest layers run as they were loaded: no adapter, nothing that is trained, no hook.

    0 where embeddings are trained, where no layer has adapters, and for families that aren't known.
    """
    decoder: Any = model.get_decoder()
    kind = FAMILIES.get(type(decoder))
    if kind is None or hooks_on_all() or torch.is_autocast_enabled("cpu"):
        return 0
    if not (is_called_plainly(decoder) and _is_untouched(decoder.embed_tokens) and _is_untouched(decoder.rotary_emb)):
        return 0
    layers: list[nn.Module] = list(decoder.layers)
    number = next((n for n, layer in enumerate(layers) if type(layer) is not kind or not _is_untouched(layer)), 0)
    return number if number and type(layers[number]) is kind and is_called_plainly(layers[number]) else 0


def _is_untouched(module: nn.Module) -> bool:
    """Whether a module is as it was loaded: parts of torch's and transformers', called plainly and not trained."""
    parts = list(module.modules())
    own = all(type(part).__module__.startswith(("torch.nn.modules.", "transformers.")) for part in parts)
    called = own and all(is_called_plainly(part) for part in parts)
    return called and all(type(p) is nn.Parameter and not p.requires_grad for p in module.parameters())


def _name(model: PreTrainedModel, number: int, prompts_hash: str, at_once: int) -> str:
    """A hash of all that the states depend on: weights below, settings, prompts, and how these are batched."""
    digest = hashlib.sha256(f"{type(model).__name__} {number} {prompts_hash} {at_once} {model.dtype}".encode())
    digest.update(model.config.to_json_string(use_diff=False).encode())
    digest.update(str(model.config._attn_implementation).encode())
    decoder: Any = model.get_decoder()
    for module in (decoder.embed_tokens, decoder.rotary_emb, *decoder.layers[:number]):
        digest.update(repr(module).encode())  # what of a module no tensor holds, such as a norm's epsilon
        for name, value in (*module.named_parameters(), *module.named_buffers()):  # buffers that aren't saved, too
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _before(layer: nn.Module, change: Any) -> Iterator[None]:
    """Let `change` see, and give, the states [n, q, d] that a layer reads."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _skipped(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Let layers give what they read."""

    def as_read(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states

    for layer in layers:
        layer.forward = as_read
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
