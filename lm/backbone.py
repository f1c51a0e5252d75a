"""Loads a backbone, any causal LM of Hugging Face by name or folder, with checks, and puts LoRA adapters on it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from benchmark.errors import InputError
from benchmark.precision import dtype_on
from benchmark.storage.io import sha256_of
from lm.embedded import MANIFEST, check_manifest
from lm.kernels.lora import FusedLora
from lm.kernels.token_logps import distribution
from lm.settings import BackboneSettings, LoraSettings
from lm.weights import UNREADABLE, first_line, read_model, read_tokenizer

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# Loading holds one shard of the weights beside the model. What other programs will take is not known.
MEMORY_MARGIN = 1.2


@dataclass(frozen=True)
class Backbone:
    """A causal LM in evaluation mode and its tokenizer, which has a pad token and pads on the right."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load(settings: BackboneSettings) -> Backbone:
    """Load a backbone: safetensors only, no remote code.

    A folder with a manifest is checked against it. Raises InputError for a missing folder, a hub name without a
    revision, or too little memory, before any weight is read; for weights that aren't safetensors, damaged files, or
    ones that lack a weight; and for a family whose logits are made otherwise than is read here (`check_logits`).
    """
    folder = Path(settings.name)
    local = folder.is_dir()
    if not local and settings.revision is None:
        raise InputError(
            f"backbone {settings.name!r}: no such folder; to take it from the hub, set backbone.revision to a commit"
        )
    if local and (folder / MANIFEST).exists():
        check_manifest(folder)
    where: dict[str, Any] = {"revision": settings.revision, "local_files_only": local, "trust_remote_code": False}
    dtype, what = DTYPES[dtype_of(settings)], f"backbone {settings.name!r}"
    try:
        config = AutoConfig.from_pretrained(settings.name, **where)
        check_memory(config, dtype, settings.device, settings.name)
    except UNREADABLE as error:
        raise InputError(f"{what}: {first_line(error)}") from None
    tokenizer = read_tokenizer(settings.name, what, **where)
    model = read_model(AutoModelForCausalLM, settings.name, what, dtype=dtype, **where)
    if settings.dtype == "auto" and dtype == torch.float32:
        print(f"{what}: in float32, as {settings.device} has no instructions for bfloat16", flush=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    model.to(device=torch.device(settings.device))  # type: ignore[call-arg]
    check_logits(model)
    return Backbone(model.eval(), tokenizer)


def dtype_of(settings: BackboneSettings) -> str:
    """The name of the dtype that a backbone's weights have on this machine."""
    return dtype_on(settings.dtype, settings.device)


def identity(settings: BackboneSettings) -> list[str]:
    """What names a backbone in the key of a kept file: its dtype on this machine and the sha256 of each of its files.

    A name on the hub is named by its revision and dtype.
    """
    folder = Path(settings.name)
    if not folder.is_dir():
        return [settings.name, str(settings.revision), dtype_of(settings)]
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [dtype_of(settings), *(f"{path.name} {sha256_of(path)}" for path in files)]


def count_parameters(config: PreTrainedConfig) -> int:
    """How many parameters a causal LM of this config has, without making them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def check_memory(config: PreTrainedConfig, dtype: torch.dtype, device: str, name: str) -> None:
    """Raise InputError if the weights alone would not fit into the memory that is free now."""
    needed = count_parameters(config) * dtype.itemsize * MEMORY_MARGIN
    on_gpu = torch.device(device).type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"backbone {name!r}: its weights in {str(dtype).removeprefix('torch.')} need {needed / 2**30:.1f} GiB and "
            f"{free / 2**30:.1f} GiB of {'GPU' if on_gpu else 'main'} memory are free; "
            "use a smaller backbone or bfloat16"
        )


def check_reads(model: PreTrainedModel, prompt: int, written: int, setting: str) -> None:
    """Raise InputError if the LM can't read `prompt` tokens and `written` more.

    setting: the name of the setting that bounds the prompt, for the message.
    """
    # None for the few LMs whose positions have no end.
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and prompt + written > most:
        raise InputError(
            f"backbone {model.config.name_or_path!r}: reads {most} tokens, but {setting} is {prompt} and up to "
            f"{written} more are written; set {setting} to {max(0, most - written)} or less"
        )


@torch.no_grad()
def check_logits(model: PreTrainedModel) -> None:
    """Raise InputError unless the LM's logits are its output matrix times its last state, but for a soft cap.

    Log-probabilities are made so here, and by trl 1.16. Some families scale their logits. Ettin, a ModernBERT decoder,
    has a head of its own before the matrix: trl then trains by the log-probabilities of another model, without a word
    (findings/trl-ettin-head.sh).
    """
    refused = InputError(f"{model.config.model_type}: logits aren't lm_head(state); this family is not supported")
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    if not isinstance(decoder, PreTrainedModel) or head is None:
        raise refused
    ids = torch.tensor([[1, 2]], device=model.device)  # not 0: often the padding, whose embedding is 0
    was_training = model.training
    model.eval()
    expected = model(input_ids=ids).logits.float()
    logits = head(decoder(input_ids=ids).last_hidden_state)
    model.train(was_training)
    softcap = model.config.to_dict().get("final_logit_softcapping")
    if (distribution(logits, 1.0, softcap) - expected).norm() > 1e-2 * expected.norm():
        raise refused


@torch.no_grad()
def check_no_dropout(model: PreTrainedModel) -> None:
    """Raise InputError where the LM's states are others in training mode, as an own dropout makes them.

    Texts are written without it, so that a first step would already be off its policy. trl 1.16 switches off what is a
    module, and OPT's is none (findings/trl-dropout-left-on.sh).
    """
    decoder = model.get_decoder()
    ids = torch.tensor([[1, 2]], device=model.device)
    was_training = model.training
    reads = decoder.eval()(input_ids=ids).last_hidden_state.float()
    trains = decoder.train()(input_ids=ids).last_hidden_state.float()
    model.train(was_training)
    if (trains - reads).norm() > 1e-3 * reads.norm():
        settings = {name: value for name, value in model.config.to_dict().items() if "drop" in name and value}
        raise InputError(
            f"backbone {model.config.name_or_path!r}: computes other states in training, by a dropout of its own; set "
            f"it to 0 in its config.json ({', '.join(f'{name} is {value}' for name, value in settings.items())})"
        )


def add_lora(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Put fresh adapters on every linear projection of the decoder layers; they begin as zero and lm_head has none.

    Adapter weights are float32 also on a bf16 model: a step at lr 1e-5 would be lost in bf16. Raises InputError where
    `layers_from` is beyond the last layer, and for an LM with a dropout of its own (`check_no_dropout`).
    """
    check_no_dropout(model)
    layers = int(model.config.num_hidden_layers)
    if settings.layers_from >= layers:
        raise InputError(f"lora layers_from {settings.layers_from}: the backbone has layers 0 to {layers - 1}")
    head = model.get_output_embeddings()
    linear = {
        name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head
    }
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=sorted(linear),
        layers_to_transform=list(range(settings.layers_from, layers)),
        bias="none",
        task_type="CAUSAL_LM",
    )
    config._register_custom_module({nn.Linear: FusedLora})
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


@contextlib.contextmanager
def merged_adapters(model: PreTrainedModel | PeftModel, merge: bool = True) -> Iterator[PreTrainedModel]:
    """Yield the causal LM with its active LoRA adapters folded into the weights.

    Without adapters, or with `merge` False, it is yielded as it is. The folded weights W + alpha/r B A are copies, so
    that adapted layers lie twice in memory, rounded once to W's dtype. Afterwards W and the adapters are the same
    tensors as before. In bf16 the rounding can swallow an update much smaller than W / 256: log-probabilities of
    rollouts are those of the folded policy. Raises InputError for adapters that aren't plain LoRA.
    """
    if not isinstance(model, PeftModel):
        yield model
        return
    causal_lm = model.get_base_model()
    assert isinstance(causal_lm, PreTrainedModel)
    adapted = dict(_lora_layers(causal_lm)) if merge else {}
    weights = {}
    try:
        for name, layer in adapted.items():
            base = layer.get_base_layer()
            assert isinstance(base, nn.Linear)
            weights[name] = folded = base.weight.data
            for adapter in layer.active_adapters:
                folded = folded + layer.get_delta_weight(adapter)
            base.weight.data = folded.to(weights[name].dtype)
            # The plain layer in the adapter's place: no trace of peft in the forward.
            causal_lm.set_submodule(name, base)
        yield causal_lm
    finally:
        for name, weight in weights.items():
            base = adapted[name].get_base_layer()
            base.weight.data = weight
            causal_lm.set_submodule(name, adapted[name])


def _lora_layers(causal_lm: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    for name, layer in causal_lm.named_modules():
        if (
            isinstance(layer, LoraLinear)
            and not layer.merged
            and not any([*layer.use_dora.values(), *layer.lora_bias.values()])
        ):
            yield name, layer
        elif isinstance(layer, LoraLayer):
            raise InputError(f"{name}: only plain LoRA on linear layers can be merged; set merge_adapters: false")
