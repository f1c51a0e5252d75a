"""Backbones: the embedded SmolLM2 out of its wheel, loading with checks, LoRA."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    LlamaConfig,
    ModernBertDecoderConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from benchmark import precision
from benchmark.errors import InputError
from lm.backbone import (
    BackboneSettings,
    LoraSettings,
    add_lora,
    check_logits,
    check_memory,
    check_no_dropout,
    identity,
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


@pytest.mark.parametrize(("known", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_loaded_and_named_as_what_it_stands_for(
    folder: Path, known: bool, dtype: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "multiplies_in_bfloat16", lambda device: known)
    auto, plain = (BackboneSettings(name=str(folder), dtype=value) for value in ("auto", dtype))
    assert load(auto).model.dtype == getattr(torch, dtype)
    said = capsys.readouterr().out
    assert ("in float32, as cpu has no instructions for bfloat16" in said) is not known
    # Kept states of both are the same files.
    assert identity(auto) == identity(plain) and identity(auto)[0] == dtype


def without_a_weight(weights: dict[str, torch.Tensor]) -> None:
    del weights["model.layers.1.self_attn.q_proj.weight"]


def of_another_shape(weights: dict[str, torch.Tensor]) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    weights[name] = weights[name][:-1].clone()


def under_other_names(weights: dict[str, torch.Tensor]) -> None:
    for name in list(weights):
        weights[f"wrapped.{name}"] = weights.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_weight, r"1 of its weights aren't in its files, first model\.layers\.1\.self_attn\.q_proj\.weight"),
        (of_another_shape, r"down_proj|ignore_mismatched_sizes"),
        (
            under_other_names,
            r"30 of its weights aren't in its files, first lm_head\.weight; save or fetch it again",
        ),
    ],
)
def test_a_backbone_that_lacks_weights_is_refused(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    """transformers would draw them at random."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"^backbone '.*tiny': .*({message})"):
        load(BackboneSettings(name=str(folder), dtype="float32"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("kept", [0.0, 0.5], ids=["empty", "half"])
def test_damaged_files_of_a_backbone_are_one_sentence(folder: Path, name: str, kept: float) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError) as caught:
        load(BackboneSettings(name=str(folder), dtype="float32"))
    assert str(caught.value).startswith(f"backbone '{folder}': ") and "\n" not in str(caught.value)


def test_a_setting_of_a_backbone_that_is_no_number_is_one_sentence(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": "two"}))
    with pytest.raises(
        InputError, match=r"^backbone '.*tiny': Validation error for field 'num_hidden_layers': .*'two'"
    ):
        load(BackboneSettings(name=str(folder), dtype="float32"))


def test_names_need_a_revision_and_folders_a_config(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no such folder; to take it from the hub, set backbone\.revision to a commit"
    ):
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


@pytest.mark.parametrize(
    "config",
    [
        ModernBertDecoderConfig(
            vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
        ),
        GraniteConfig(
            vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=2, logits_scaling=4.0, initializer_range=1.0, pad_token_id=0,
        ),
    ],
    ids=["its head", "its scale"],
)  # fmt: skip
def test_an_lm_whose_logits_are_made_otherwise_is_refused(config: PreTrainedConfig, folder: Path) -> None:
    """Ettin's head stands before the output matrix: trl would train, and we would read, another LM than the one that
    writes."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(InputError) as refused:
        load(BackboneSettings(name=str(folder), dtype="float32"))
    assert str(refused.value) == f"{config.model_type}: logits aren't lm_head(state); this family is not supported"


def tiny_opt(**dropouts: float) -> PreTrainedModel:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=61, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4, word_embed_proj_dim=32,
        max_position_embeddings=64, **dropouts,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def with_dropout(family: str) -> PreTrainedModel:
    config = tiny_config(family)
    config.attention_dropout = 0.1
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (tiny_opt(), "dropout is 0.1"),  # OPT's own, by a function and no module
        (tiny_opt(dropout=0.0, attention_dropout=0.2), "attention_dropout is 0.2"),
        (with_dropout("llama"), "attention_dropout is 0.1"),
    ],
    ids=["opt", "opt's attention", "llama's attention"],
)
def test_an_lm_with_a_dropout_of_its_own_gets_no_adapters(model: PreTrainedModel, says: str) -> None:
    with pytest.raises(InputError, match=rf"by a dropout of its own; set it to 0 in its config.json \({says}"):
        add_lora(model.eval(), LoraSettings(r=2))
    assert not model.training


def test_an_lm_whose_dropout_is_zero_gets_adapters() -> None:
    model = tiny_opt(dropout=0.0).train()
    draws = torch.random.get_rng_state()
    check_no_dropout(model)
    assert torch.random.get_rng_state().equal(draws)
    assert all(module.training for module in model.modules())
    add_lora(model, LoraSettings(r=2))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_check_of_logits_knows_soft_caps_and_leaves_the_model_as_it_was(family: str) -> None:
    model = AutoModelForCausalLM.from_config(tiny_config(family)).train()
    check_logits(model)
    assert model.training
