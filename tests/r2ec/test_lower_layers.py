"""What the layers below all adapters make of the items, kept: the item states are the plain encoding's to the bit."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from r2ec.model import item_table as table_module
from r2ec.model import lower_layers as module
from r2ec.model.item_table import ItemTable
from r2ec.model.lower_layers import LowerLayers, untrained_layers
from r2ec.model.network import R2ec
from tests.r2ec.test_item_table import item_prompts
from tests.support.tiny_models import FAMILIES, WIDTH, tiny_model


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LowerLayers, "last", None)
    monkeypatch.setattr(table_module, "TOKENS_AT_ONCE", 24)  # several batches


def adapted(family: str = "llama", layers: tuple[int, ...] = (2,), dtype: torch.dtype = torch.float32) -> R2ec:
    """A tiny model of three layers with random adapters in some of them."""
    model = tiny_model(family, lora=False).to(dtype)
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=linear, init_lora_weights=False, layers_to_transform=list(layers)
    )
    return R2ec(get_peft_model(model, config))


def encoded(model: R2ec, dtype: torch.dtype = torch.float32, **prompts: int) -> Tensor:
    table = ItemTable(item_prompts(**prompts), WIDTH, dtype=dtype)
    table.refresh(model)
    return table.states


def plainly_encoded(model: R2ec, dtype: torch.dtype = torch.float32, **prompts: int) -> Tensor:
    table = ItemTable(item_prompts(**prompts), WIDTH, dtype=dtype)
    table.refresh_rows(model, range(len(table)))
    return table.states


def change(model: R2ec, part: str) -> None:
    """As a training step would, all weights whose name has this part."""
    changed = [value for name, value in model.named_parameters() if part in name]
    assert changed
    with torch.no_grad():
        for value in changed:
            value.add_(0.1 * torch.sign(torch.randn(value.shape, generator=torch.Generator().manual_seed(0))))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[Any]]:
    """How often each feed-forward part, one to a layer, has computed."""
    counts: Counter[Any] = Counter()
    for family in FAMILIES:
        kind = type(tiny_model(family, lora=False).get_decoder().layers[0].mlp)
        forward = kind.forward

        def counted(self: nn.Module, x: Tensor, forward: Any = forward) -> Tensor:
            counts[self] += 1
            return forward(self, x)

        monkeypatch.setattr(kind, "forward", counted)
    yield counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layers", [(2,), (1, 2), (1,)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_encoding_reads_by_the_upper_layers_alone_and_equals_the_plain_one(
    family: str, layers: tuple[int, ...], dtype: torch.dtype, computed: Counter[Any]
) -> None:
    model = adapted(family, layers, dtype)
    first = encoded(model, dtype)
    assert torch.equal(first, plainly_encoded(model, dtype))
    change(model, "lora")
    computed.clear()
    again = encoded(model, dtype)
    batches = [computed[layer.mlp] for layer in model.causal_lm.get_decoder().layers]
    assert batches[: layers[0]] == [1] * layers[0]  # the beginning
    assert len(set(batches[layers[0] :])) == 1 and batches[-1] > 2
    assert torch.equal(again, plainly_encoded(model, dtype)) and not torch.equal(again, first)


def test_another_model_of_the_same_weights_finds_them(computed: Counter[Any]) -> None:
    encoded(adapted())
    model = adapted()  # as for the next setting of a grid
    change(model, "lora")
    computed.clear()
    assert torch.equal(encoded(model), plainly_encoded(model))
    assert computed[model.causal_lm.get_decoder().layers[0].mlp] < computed[model.causal_lm.get_decoder().layers[2].mlp]


@pytest.mark.parametrize("part", ["embed_tokens", "layers.0.", "layers.1.mlp"])
def test_changed_weights_below_read_all_again(part: str) -> None:
    model = adapted()
    first = encoded(model)
    change(model, part)
    assert torch.equal(encoded(model), plainly_encoded(model)) and not torch.equal(encoded(model), first)


def test_other_prompts_and_batches_read_all_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    encoded(model)
    assert torch.equal(encoded(model, count=19), plainly_encoded(model, count=19))
    assert torch.equal(encoded(model, beginning=9), plainly_encoded(model, beginning=9))
    before = LowerLayers.last
    monkeypatch.setattr(table_module, "TOKENS_AT_ONCE", 40)
    assert torch.equal(encoded(model, beginning=9), plainly_encoded(model, beginning=9))
    assert LowerLayers.last is not before


def another_epsilon(model: R2ec) -> None:
    for layer in model.causal_lm.get_decoder().layers:
        layer.input_layernorm.variance_epsilon = 0.1


def other_rotations(model: R2ec) -> None:
    model.causal_lm.get_decoder().rotary_emb.inv_freq.mul_(2)


def other_attention(model: R2ec) -> None:
    model.causal_lm.set_attn_implementation("eager")


@pytest.mark.parametrize("touch", [another_epsilon, other_rotations, other_attention])
def test_other_settings_of_a_module_read_all_again(touch: Any) -> None:
    model = adapted()
    encoded(model)
    before = LowerLayers.last
    touch(model)
    assert torch.equal(encoded(model), plainly_encoded(model)) and LowerLayers.last is not before


def test_single_rows_are_read_by_all_layers(computed: Counter[Any]) -> None:
    model = adapted()
    table = ItemTable(item_prompts(), WIDTH)
    table.refresh(model)
    computed.clear()
    table.refresh_rows(model, range(len(table)))
    layers = model.causal_lm.get_decoder().layers
    assert computed[layers[0].mlp] == computed[layers[2].mlp] > 2


@pytest.mark.parametrize("known", [False, True])
def test_an_encoding_that_was_stopped_halfway_is_begun_anew(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = adapted(), 0
    decoder = model.causal_lm.get_decoder()
    forward = type(decoder.layers[2]).forward
    if known:
        encoded(model)

    def stopped(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += self is decoder.layers[2]
        if calls == 3:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(decoder.layers[2]), "forward", stopped)
        with pytest.raises(KeyboardInterrupt):
            encoded(model)
    assert LowerLayers.last is not None and LowerLayers.last.is_whole == known
    assert not any("forward" in vars(layer) or layer._forward_pre_hooks for layer in decoder.layers)
    change(model, "lora")
    assert torch.equal(encoded(model), plainly_encoded(model))


def hooked(model: R2ec) -> None:
    model.causal_lm.get_decoder().layers[0].mlp.register_forward_hook(lambda *_: None)


def embedding_trained(model: R2ec) -> None:
    model.causal_lm.get_input_embeddings().weight.requires_grad_(True)


def lowest_trained(model: R2ec) -> None:
    model.causal_lm.get_decoder().layers[0].input_layernorm.weight.requires_grad_(True)


def own_forward(model: R2ec) -> None:
    layer = model.causal_lm.get_decoder().layers[1]
    layer.forward = layer.forward


def prehooked(model: R2ec) -> None:
    model.causal_lm.get_decoder().layers[1].register_forward_pre_hook(lambda *_: None)


def decoder_hooked(model: R2ec) -> None:
    model.causal_lm.get_decoder().register_forward_hook(lambda *_: None)


def rotations_hooked(model: R2ec) -> None:
    model.causal_lm.get_decoder().rotary_emb.register_forward_hook(lambda *_: None)


def frozen_adapters_below(model: R2ec) -> None:
    config = LoraConfig(r=2, target_modules=["o_proj"], layers_to_transform=[0], init_lora_weights=False)
    model.backbone.add_adapter("below", config)
    model.backbone.base_model.set_adapter(["default", "below"])
    for name, value in model.named_parameters():
        value.requires_grad_("layers.2" in name and "lora" in name)


def embedding_saved(model: R2ec) -> None:
    model.causal_lm.get_decoder().embed_tokens = ModulesToSaveWrapper(
        model.causal_lm.get_decoder().embed_tokens, "default"
    ).requires_grad_(False)


TOUCHES = [
    hooked,
    prehooked,
    decoder_hooked,
    rotations_hooked,
    embedding_trained,
    embedding_saved,
    lowest_trained,
    own_forward,
    frozen_adapters_below,
]


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_model_that_is_touched_below_reads_all(touch: Any) -> None:
    model = adapted()
    assert untrained_layers(model.causal_lm) == 2
    touch(model)
    assert untrained_layers(model.causal_lm) == 0
    assert torch.equal(encoded(model), plainly_encoded(model))


def test_hooks_on_all_modules_and_autocast_read_all() -> None:
    model = adapted()
    for register in (
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
    ):
        handle = register(lambda *_: None)
        assert untrained_layers(model.causal_lm) == 0
        handle.remove()
    with torch.autocast("cpu", torch.bfloat16):
        assert untrained_layers(model.causal_lm) == 0
    assert untrained_layers(model.causal_lm) == 2


def test_nothing_is_kept_where_nothing_would_be_won(monkeypatch: pytest.MonkeyPatch) -> None:
    assert untrained_layers(adapted(layers=(0, 1, 2)).causal_lm) == 0
    bare = tiny_model("llama", lora=False)
    for parameter in bare.parameters():
        parameter.requires_grad_(False)
    assert not isinstance(bare, PeftModel) and untrained_layers(bare) == 0  # no training will change it
    tokens = sum(len(prompt) - 11 for prompt in item_prompts())
    monkeypatch.setattr(module, "KEPT_BELOW", tokens * WIDTH * 4 - 1)
    encoded(adapted())
    assert LowerLayers.last is None
    monkeypatch.setattr(module, "KEPT_BELOW", tokens * WIDTH * 4)
    encoded(adapted())
    assert LowerLayers.last is not None and LowerLayers.last.states is not None
    assert LowerLayers.last.states.shape == (tokens, WIDTH)
