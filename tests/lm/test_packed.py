"""Steps on packed weights against the model's own forward, and every model that is left to that."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, VeraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from benchmark.precision import multiplies_in_bfloat16
from lm.backbone import add_lora
from lm.kernels.lora import FusedLora
from lm.settings import LoraSettings, RolloutSettings
from lm.writing import packed as packed_module
from lm.writing.decode import SharedPromptDecoder
from lm.writing.engine import TransformersEngine
from lm.writing.packed import Attend, PackedForward
from lm.writing.stopping import EndOfReasoning
from tests.support.tiny_models import tiny_config, tiny_model
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer

PROMPTS = [[5, 9, 8, 21, 33], [5, 9, 40, 41, 7, 6, 11, 30, 58], [5, 9, 12]]
GROUP = 2
NEEDS_BF16 = pytest.mark.skipif(
    not multiplies_in_bfloat16("cpu"), reason="this processor has no bf16, so that all steps are the model's own"
)
BOTH = pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=NEEDS_BF16)])


def model_of(family: str, lora: bool) -> PreTrainedModel:
    """Biases and norms that aren't 0 and 1, adapters that aren't zero."""
    model = tiny_model(family, lora=False)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=0.7, std=0.3)
    if lora:
        adapted = add_lora(model, LoraSettings(r=4, alpha=6))
        for name, value in adapted.named_parameters():
            if "lora_" in name:
                nn.init.normal_(value, std=0.3)
        model = adapted.get_base_model()
    return model.eval()


@torch.no_grad()
def steps(
    model: PreTrainedModel, packed: PackedForward | None, tokens: Tensor | None = None
) -> list[tuple[Tensor, ...]]:
    """Logits and states of the prompts and of six steps; a rollout ends on the way, and two go on as copies."""
    outcomes = []
    with SharedPromptDecoder(model, GROUP, tokens, packed) as decoder:
        logits = decoder.prefill(PROMPTS)
        assert decoder.states is not None
        outcomes.append((logits, decoder.states))
        rows = len(PROMPTS) * GROUP
        for at in range(6):
            if at == 2:
                decoder.keep(torch.tensor([0, 1, 2, 4, 5]))
                rows = 5
            if at == 4:
                decoder.fork(torch.tensor([0, 0, 3]))
                rows = 3
            logits = decoder.step(torch.arange(rows) * 7 % 50 + at)
            assert decoder.states is not None
            outcomes.append((logits, decoder.states))
    return outcomes


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_steps_are_the_models_own_in_float32(family: str, lora: bool) -> None:
    model = model_of(family, lora)
    few = torch.tensor([3, 17, 60])
    for tokens in (None, few):
        packed = PackedForward(model, with_head=tokens is None)
        for ours, own in zip(steps(model, packed, tokens), steps(model, None, tokens), strict=True):
            for one, other in zip(ours, own, strict=True):
                torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


def test_windows_of_qwen_are_kept() -> None:
    config = tiny_config("qwen2").to_dict() | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(**{key: value for key, value in config.items() if key != "layer_types"})
    ).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    packed = PackedForward(model, with_head=True)
    ours = steps(model, packed)
    for one, other in zip(ours[-1], steps(model, None)[-1], strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)
    for layer in packed.layers:
        layer.settings.window = None
    assert not torch.allclose(steps(model, packed)[-1][0], ours[-1][0], atol=1e-3), "the window decides here"


@NEEDS_BF16
@pytest.mark.parametrize("lora", [False, True])
def test_models_in_bf16_are_packed_and_stay_as_near(lora: bool) -> None:
    """In bf16 the two may differ where a processor multiplies in another order; both are as near to float32."""
    model = model_of("llama", lora)
    exact = steps(model, None)
    for name, value in model.named_parameters():
        if "lora_" not in name:  # adapters stay float32, as `add_lora` leaves them
            value.data = value.data.bfloat16()
    packed = PackedForward.of(model, with_head=True)
    assert packed is not None
    ours, own = steps(model, packed), steps(model, None)
    for (_, one), (_, other), (_, right) in zip(ours, own, exact, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - right).norm() <= 1.2 * (other - right).norm() + 1e-6
        assert (one - right).norm() < 0.3 * right.norm()


@BOTH
def test_other_models_take_their_own_forward(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(LlamaForCausalLM):
        pass

    def of(model: PreTrainedModel) -> PackedForward | None:
        return PackedForward.of(model, with_head=True)

    llama = tiny_model("llama", lora=False).to(dtype).eval()
    assert of(llama) is not None
    assert of(tiny_model("llama", lora=False).half().eval()) is None
    monkeypatch.setattr(packed_module, "multiplies_in_bfloat16", lambda device: False)
    assert (of(llama) is not None) == (dtype == torch.float32)
    monkeypatch.undo()
    assert of(tiny_model("gemma2", lora=False).to(dtype).eval()) is None
    assert of(Other(tiny_config("llama")).to(dtype).eval()) is None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert of(llama) is None
    peft_alone = get_peft_model(llama, LoraConfig(r=2, target_modules=["q_proj"]))
    assert isinstance(peft_alone, PeftModel)
    assert of(peft_alone.get_base_model()) is None
    adapted_head = get_peft_model(
        tiny_model("llama", lora=False).to(dtype), LoraConfig(r=2, target_modules=["lm_head"])
    )
    assert isinstance(adapted_head, PeftModel)
    assert of(adapted_head.get_base_model()) is None
    dropout = add_lora(tiny_model("llama", lora=False).to(dtype), LoraSettings(r=2, dropout=0.1))
    assert of(dropout.get_base_model()) is None


LAYER = "q_proj"
# Each computes something else than its linear layers' weights say, or than one scale of all adapters says.
OTHERS: dict[str, PeftConfig] = {
    "IA3": IA3Config(target_modules=[LAYER, "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False),
    "VeRA": VeraConfig(r=2, target_modules=[LAYER], init_weights=False),
    "DoRA": LoraConfig(r=2, use_dora=True, target_modules=[LAYER], init_lora_weights=False),
    "a scale per layer": LoraConfig(
        r=2, target_modules=[LAYER, "k_proj"], alpha_pattern={LAYER: 5}, init_lora_weights=False
    ),
    "a bias of the adapters": LoraConfig(r=2, lora_bias=True, target_modules=[LAYER], init_lora_weights=False),
    "trained biases": LoraConfig(r=2, bias="all", target_modules=[LAYER], init_lora_weights=False),
    "an mlp in another's place": LoraConfig(r=2, target_modules=[LAYER], modules_to_save=["mlp"]),
    "an lm_head in another's place": LoraConfig(r=2, target_modules=[LAYER], modules_to_save=["lm_head"]),
}


def with_adapters(config: PeftConfig, model: PreTrainedModel) -> PreTrainedModel:
    """Linear layers with LoRA are `FusedLora`, as those of `add_lora`."""
    if isinstance(config, LoraConfig):
        config = deepcopy(config)
        config._register_custom_module({nn.Linear: FusedLora})
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted.eval().get_base_model()


@BOTH
@pytest.mark.parametrize("what", OTHERS)
def test_other_adapters_take_the_models_own_forward(what: str, dtype: torch.dtype) -> None:
    model = model_of("qwen2", lora=False).to(dtype)
    assert PackedForward.of(model, with_head=True) is not None
    assert PackedForward.of(with_adapters(OTHERS[what], model), with_head=True) is None


@BOTH
def test_tokens_with_vectors_of_their_own(dtype: torch.dtype) -> None:
    """The embedding is called, and gives them; an lm_head that is tied to it has them, too, and is no plain layer."""
    config = LoraConfig(r=2, target_modules=[LAYER], trainable_token_indices=[4, 5], init_lora_weights=False)
    model = with_adapters(config, model_of("qwen2", lora=False).to(dtype))
    for name, value in model.named_parameters():
        if "trainable_tokens_delta" in name:
            nn.init.constant_(value, 0.4)
    packed = PackedForward.of(model, with_head=True)
    assert packed is not None
    for one, other in zip(steps(model, packed)[0], steps(model, None)[0], strict=True):
        assert (one - other).norm() <= 0.02 * other.norm()
    assert PackedForward.of(with_adapters(config, model_of("llama", lora=False).to(dtype)), with_head=True) is None


@BOTH
@pytest.mark.parametrize("scaling", [{"use_rslora": True}, {"rank_pattern": {"k_proj": 3, LAYER: 3}, "lora_alpha": 6}])
def test_every_rank_and_one_scale_is_packed(scaling: dict[str, Any], dtype: torch.dtype) -> None:
    """rsLoRA's scale is alpha / sqrt(r); of adapters with several ranks and one scale each block has its own width."""
    config = LoraConfig(r=3, target_modules=[LAYER, "k_proj", "up_proj"], init_lora_weights=False, **scaling)
    model = with_adapters(config, model_of("qwen2", lora=False).to(dtype))
    packed = PackedForward.of(model, with_head=True)
    assert packed is not None
    for one, other in zip(steps(model, packed)[-1], steps(model, None)[-1], strict=True):
        assert (one - other).norm() <= 0.02 * other.norm()


@BOTH
def test_a_changed_module_takes_the_models_own_forward(dtype: torch.dtype) -> None:
    def of(model: PreTrainedModel) -> PackedForward | None:
        return PackedForward.of(model, with_head=True)

    model: Any = tiny_model("llama", lora=False).to(dtype).eval()
    layer = model.model.layers[1]
    for module in (model, model.model, layer, layer.self_attn, layer.mlp, layer.mlp.up_proj, model.lm_head):
        hook = module.register_forward_hook(lambda _module, _inputs, out: out)
        assert of(model) is None
        hook.remove()
        module.forward = module.forward  # as accelerate and others put their own in its place
        assert of(model) is None
        del module.forward
    hook = model.model.embed_tokens.register_forward_hook(lambda _module, _inputs, out: out)
    assert of(model) is not None  # embeddings, norms and activations are called, with their hooks
    hook.remove()
    for module in (model, model.model, layer):
        module.train()
        assert of(model) is None  # the model's own forward refuses an attention dropout
        model.eval()
    for register in (register_module_forward_hook, register_module_forward_pre_hook):
        hook = register(lambda _module, *_others: None)
        assert of(model) is None
        hook.remove()
    dense = layer.self_attn.o_proj.weight
    layer.self_attn.o_proj.weight = nn.Parameter(dense.detach().to_sparse_csr(), requires_grad=False)
    assert of(model) is None
    layer.self_attn.o_proj.weight = dense
    assert of(model) is not None
    for other in {torch.float32, torch.bfloat16, torch.float16} - {dtype}:
        layer.mlp.down_proj.to(other)
        assert of(model) is None
    layer.mlp.down_proj.to(dtype)
    layer.self_attn.q_proj.bias = nn.Parameter(torch.zeros(32, dtype=dtype))
    assert of(model) is None  # the product of queries, keys and values has one bias


@pytest.mark.parametrize("name", ["embed_tokens", "layers.1.input_layernorm", "layers.0.mlp.act_fn", "norm"])
def test_hooks_of_modules_that_are_called_get_what_the_model_gives_them(name: str) -> None:
    """The hook changes the last token's row alone, and keeps what it was given."""
    model, kept = model_of("llama", lora=False), []

    def hook(_module: nn.Module, _inputs: Any, out: Tensor) -> Tensor:
        kept.append(out)
        changed = out.clone()
        changed[:, -1] += 1
        return changed

    model.get_decoder().get_submodule(name).register_forward_hook(hook)
    packed = PackedForward.of(model, with_head=True)
    assert packed is not None
    ours, own = steps(model, packed), steps(model, None)
    torch.testing.assert_close(ours[-1][1], own[-1][1], atol=2e-5, rtol=2e-5)
    for one, other in zip(kept[: len(kept) // 2], kept[len(kept) // 2 :], strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


def test_resized_embeddings_and_fewer_layers_are_the_models_own() -> None:
    model = model_of("llama", lora=False)
    model.resize_token_embeddings(70, mean_resizing=False)
    model.config.num_hidden_layers = 2  # the model's own forward then stops behind the second
    ours, own = steps(model, PackedForward(model, with_head=True)), steps(model, None)
    assert own[-1][0].shape[1] == 70
    torch.testing.assert_close(ours[-1][0], own[-1][0], atol=2e-5, rtol=2e-5)


def test_a_layer_without_an_adapter_beside_one_with_it() -> None:
    """Adapters on queries and keys alone: the values' block of the product has none."""
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["k_proj", "q_proj"], init_lora_weights=False)
    config._register_custom_module({nn.Linear: FusedLora})
    model = get_peft_model(model_of("qwen2", lora=False), config).get_base_model().eval()
    own, ours = steps(model, None), steps(model, PackedForward(model, with_head=True))
    torch.testing.assert_close(ours[-1][0], own[-1][0], atol=2e-5, rtol=2e-5)


@BOTH
def test_changed_adapters_count_in_the_next_call(dtype: torch.dtype) -> None:
    adapted = add_lora(tiny_model("llama", lora=False).to(dtype), LoraSettings(r=2))
    model = adapted.eval().get_base_model()
    logits = []
    for _ in range(2):
        packed = PackedForward.of(model, with_head=True)
        assert packed is not None
        with torch.no_grad(), SharedPromptDecoder(model, 1, packed=packed) as decoder:
            decoder.prefill(PROMPTS)
            logits.append(decoder.step(torch.tensor([4, 5, 6])))
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(value, std=0.5)
    assert not torch.allclose(logits[0], logits[1], atol=0.1)


@BOTH
def test_the_engine_packs_once_for_all_batches(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """And writes with what it has packed."""
    made: list[PackedForward] = []
    used: list[PackedForward] = []
    of, states = PackedForward.of.__func__, PackedForward.states  # type: ignore[attr-defined]

    def noted(cls: type[PackedForward], model: PreTrainedModel, with_head: bool) -> PackedForward:
        made.append(of(cls, model, with_head))
        return made[-1]

    def noting(self: PackedForward, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        used.append(self)
        return states(self, ids, positions, attend)

    monkeypatch.setattr(PackedForward, "of", classmethod(noted))
    monkeypatch.setattr(PackedForward, "states", noting)
    tokenizer = tiny_tokenizer("llama")
    settings = RolloutSettings(group_size=2, max_new_tokens=3, temperature=1.0, rows_at_once=2)
    engine = TransformersEngine(tiny_lm("llama").to(dtype), tokenizer, settings, EndOfReasoning(tokenizer, "<answer>"))
    engine.generate(PROMPTS, cases=np.arange(3), seed=0)
    assert len(made) == 1 and set(used) == {made[0]}
    assert len(used) >= 3 * (1 + 2)  # three batches: prompts, then the steps behind the first token
