"""One user's text and state against float32, against the batch path, and whatever was asked before."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from lm.backbone import add_lora
from lm.settings import LoraSettings, RolloutSettings
from lm.writing import one_user, packed
from lm.writing.engine import TransformersEngine
from lm.writing.one_user import OneUserEngine
from lm.writing.packed import PackedForward
from lm.writing.rollouts import RolloutResult
from lm.writing.stopping import EndOfReasoning
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer

USERS = 24
TOKENS = 6
BEGINNING = [5, 9, 8, 21, 33, 4]
SETTINGS = RolloutSettings(group_size=1, max_new_tokens=TOKENS, greedy=True, merge_adapters=False)
HAS_BF16 = packed.multiplies_in_bfloat16("cpu")


@pytest.fixture(params=["in bf16", "in float32"], autouse=True)
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a processor with products in bf16 computes, and as one without."""
    if request.param == "in float32":
        monkeypatch.setattr(packed, "multiplies_in_bfloat16", lambda device: False)
    elif not HAS_BF16:
        pytest.skip("oneDNN has no bf16 on this processor")
    yield


def model_of(family: str, dtype: torch.dtype, scale: float = 0.3) -> PeftModel:
    """Adapters that aren't zero, float32 as in training; the same numbers in both types."""
    adapted = add_lora(tiny_lm(family, scale=scale), LoraSettings(r=4, alpha=6))
    torch.manual_seed(1)
    for name, value in adapted.named_parameters():
        if "lora_" in name:
            nn.init.normal_(value, std=0.1)
        else:
            value.data = value.data.bfloat16().to(dtype)
    return adapted.eval()


def prompts_of(count: int = USERS) -> list[list[int]]:
    """Of 7 to 25 tokens, two of three with the beginning."""
    random = np.random.default_rng(0)
    rests = [random.integers(3, 60, 7 + i % 13).tolist() for i in range(count)]
    return [rest if i % 3 == 0 else BEGINNING + rest for i, rest in enumerate(rests)]


def engine_of(model: PeftModel, family: str, alone: bool, beginning: list[int] | None = None) -> TransformersEngine:
    tokenizer = tiny_tokenizer(family)
    end = EndOfReasoning(tokenizer, "<answer>")
    if not alone:
        return TransformersEngine(model, tokenizer, SETTINGS, end)
    return OneUserEngine(model, tokenizer, SETTINGS, end, BEGINNING if beginning is None else beginning)


def ask(engine: TransformersEngine, prompt: list[int], case: int = 0) -> RolloutResult:
    return engine.generate([prompt], cases=np.array([case]), seed=0, final_states=True)


def text(result: RolloutResult) -> tuple[list[int], int, bool]:
    return result.rollouts.completion_ids[0].tolist(), result.sampled_tokens, bool(result.cut[0])


def error(state: torch.Tensor, right: torch.Tensor) -> float:
    return float((state - right).norm() / right.norm())


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_texts_and_states_are_as_near_to_float32_as_the_batchs(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two tokens are nearly as probable rounding decides, in a batch as here: float32's texts count."""
    model, exact = model_of(family, torch.bfloat16), model_of(family, torch.float32)
    prompts = prompts_of()
    by_batch, by_float32 = engine_of(model, family, alone=False), engine_of(exact, family, alone=False)
    batch, right = ([ask(engine, prompt) for prompt in prompts] for engine in (by_batch, by_float32))
    engine = engine_of(model, family, alone=True)
    monkeypatch.setattr(one_user.TransformersEngine, "_write_all", None)  # the batch's way isn't taken
    ours = [ask(engine, prompt) for prompt in prompts]

    def share(some: list[RolloutResult], others: list[RolloutResult]) -> float:
        return float(np.mean([text(one) == text(other) for one, other in zip(some, others, strict=True)]))

    # Six tokens each. Measured in float32: .83 and .92 of float32's texts, the batch .75 and .71, .83 and .79 both.
    assert share(ours, right) >= share(batch, right) - 0.15
    assert share(ours, batch) >= 0.6
    errors = []
    for one, other, whole in zip(ours, batch, right, strict=True):
        assert one.states is not None and other.states is not None and whole.states is not None
        if text(one) == text(other) == text(whole):
            errors.append((error(one.states, whole.states), error(other.states, whole.states)))
            torch.testing.assert_close(one.log_probs, other.log_probs, atol=0.1, rtol=0.05)
    assert len(errors) >= 0.4 * USERS
    of_ours, of_batch = np.mean(errors, axis=0)
    assert of_ours <= 1.3 * of_batch and max(of_ours, of_batch) < 0.05  # .009 against .028 in float32


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_state_of_a_prompt_is_the_models(family: str) -> None:
    model, exact = model_of(family, torch.bfloat16), model_of(family, torch.float32)
    engine = engine_of(model, family, alone=True)
    assert isinstance(engine, OneUserEngine)
    for prompt in prompts_of(6):
        state = engine.state(prompt)
        decoder = exact.get_base_model().get_decoder()
        with torch.no_grad():
            right = decoder(input_ids=torch.tensor([prompt])).last_hidden_state[:, -1]
        assert state is not None and state.dtype == torch.float32
        assert error(state, right) < 0.05


def test_an_answer_does_not_depend_on_what_was_asked_before() -> None:
    engine = engine_of(model_of("llama", torch.bfloat16), "llama", alone=True)
    prompts = prompts_of(9)
    first = [ask(engine, prompt) for prompt in prompts]
    for i in (4, 0, 8, 4):
        again = ask(engine, prompts[i])
        assert text(again) == text(first[i])
        assert again.states is not None and first[i].states is not None
        assert torch.equal(again.states, first[i].states)


def test_the_beginning_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    states = PackedForward.states

    def counted(self: PackedForward, ids: torch.Tensor, *rest: object) -> torch.Tensor:
        counts.append(len(ids))
        return states(self, ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(PackedForward, "states", counted)
    engine = engine_of(model_of("llama", torch.bfloat16), "llama", alone=True)
    assert counts == [len(BEGINNING)]
    for prompt, read in (([*BEGINNING, 7, 30], 2), (BEGINNING, 6), ([*BEGINNING[:-1], 7, 30, 41], 8)):
        counts.clear()
        sampled = ask(engine, prompt).sampled_tokens
        appended = len(engine.end.appended)
        assert counts == [read, *[1] * (sampled - 1), 1 + appended]
    without = engine_of(model_of("llama", torch.bfloat16), "llama", alone=True, beginning=[])
    prompt = [*BEGINNING, 7, 30, 41]
    with_it, whole = ask(engine, prompt).states, ask(without, prompt).states
    assert with_it is not None and whole is not None and error(with_it, whole) < 0.02


def test_all_else_goes_as_before() -> None:
    """Several prompts, texts without states, an LM in float32, merged adapters, a window: to the bit."""

    def both(model: PeftModel | PreTrainedModel, settings: RolloutSettings, count: int, states: bool) -> None:
        tokenizer = tiny_tokenizer("qwen2")
        end = EndOfReasoning(tokenizer, "<answer>")
        prompts, cases = prompts_of(count), np.arange(count)
        ours, plain = (
            engine.generate(prompts, cases=cases, seed=0, final_states=states)
            for engine in (
                OneUserEngine(model, tokenizer, settings, end, BEGINNING),
                TransformersEngine(model, tokenizer, settings, end),
            )
        )
        assert ours.log_probs is not None and plain.log_probs is not None
        assert torch.equal(ours.log_probs, plain.log_probs)
        assert torch.equal(ours.rollouts.completion_ids, plain.rollouts.completion_ids)
        if states:
            assert ours.states is not None and plain.states is not None and torch.equal(ours.states, plain.states)

    bf16 = model_of("qwen2", torch.bfloat16)
    both(bf16, SETTINGS, 3, states=True)
    both(bf16, SETTINGS, 1, states=False)
    both(bf16, SETTINGS.model_copy(update={"group_size": 2}), 1, states=True)
    both(bf16, SETTINGS.model_copy(update={"merge_adapters": True}), 1, states=True)
    both(model_of("qwen2", torch.float32), SETTINGS, 1, states=True)
    windowed = model_of("qwen2", torch.bfloat16)
    for layer in windowed.get_base_model().get_decoder().layers:
        layer.self_attn.sliding_window = 5
    both(windowed, SETTINGS, 1, states=True)
