"""Settings of rollouts: unknown ones and models without a way are refused, and vLLM gets the same ones."""

import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import MambaConfig, MambaForCausalLM

from benchmark.errors import InputError
from lm.settings import RolloutSettings, VllmSettings
from lm.writing.decode import ATTENTION, SharedPromptDecoder
from lm.writing.stopping import EndOfReasoning
from tests.support.rollouts import ANSWER, CASES, completions, engine_of, prompts, sampled
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products lose more by waiting for a second thread than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_unknown_settings_and_layers_are_refused() -> None:
    with pytest.raises(ValidationError, match="greedy rollouts"):
        RolloutSettings(greedy=True, group_size=2)
    with pytest.raises(ValidationError, match="top_q"):
        RolloutSettings(top_q=3)
    for wrong in (0.9, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValidationError, match="repetition_penalty"):
            RolloutSettings(repetition_penalty=wrong)
    assert RolloutSettings(group_size=8).for_evaluation() == RolloutSettings(greedy=True, group_size=1)
    assert RolloutSettings(repetition_penalty=1.05).for_evaluation().repetition_penalty == 1.05
    engine = engine_of(tiny_lm("llama"), "llama", RolloutSettings())
    with pytest.raises(InputError, match="1 prompts for 2 cases"):
        engine.generate([[1]], cases=np.arange(2), seed=0)
    with pytest.raises(InputError, match="case 1 has no token"):
        engine.generate([[1], []], cases=np.arange(2), seed=0)
    model = MambaForCausalLM(MambaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, state_size=4))
    with pytest.raises(InputError, match="mamba"), SharedPromptDecoder(model, 1) as decoder:
        decoder.prefill([[1, 2]])
    causal_lm = tiny_lm("llama")
    causal_lm.config.num_hidden_layers = 4
    with pytest.raises(InputError, match="way of its own"), SharedPromptDecoder(causal_lm, 1) as decoder:
        decoder.prefill([[1, 2]])
    assert causal_lm.config._attn_implementation != ATTENTION
    causal_lm = tiny_lm("llama")
    causal_lm.config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    with pytest.raises(InputError, match="linear_attention"):
        SharedPromptDecoder(causal_lm, 1)


def test_vllm_gets_the_same_settings_and_gives_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM isn't installed: a stand-in for trl's VLLMGeneration records its arguments."""
    from lm.writing import vllm

    tokenizer = tiny_tokenizer("gemma2")
    end = EndOfReasoning(tokenizer, ANSWER)
    received: dict[str, Any] = {}
    written = [[7, 8], [9, *end.appended], [5, tokenizer.eos_token_id], [6] * 9, [7] * 6, [8]]

    class Generation:
        def __init__(self, model: object, accelerator: object, processing_class: object, **arguments: Any) -> None:
            received.update(arguments)
            self.accelerator = accelerator

        def generate(self, prompts: list[list[int]], images: None, num_generations: int) -> tuple[Any, ...]:
            received["prompts"], received["n"] = prompts, num_generations
            return prompts, written, None, None

        def sync_weights(self) -> None:
            received["synced"] = True

    monkeypatch.setattr(vllm, "VLLMGeneration", Generation)
    accelerator = types.SimpleNamespace(device=torch.device("cpu"))
    settings = RolloutSettings(backend="vllm", group_size=2, max_new_tokens=6, temperature=1.5, top_k=200, top_p=0.9)
    if "vllm" not in sys.modules:
        with pytest.raises(InputError, match="needs the package vllm"):
            vllm.VllmEngine.start(
                tiny_lm("gemma2"), accelerator, tokenizer, settings, end, VllmSettings(), max_model_length=99
            )
    monkeypatch.setattr(vllm, "is_vllm_available", lambda: True)
    model = tiny_lm("gemma2")
    engine = vllm.VllmEngine.start(model, accelerator, tokenizer, settings, end, VllmSettings(), max_model_length=99)
    engine.sync_weights()
    result = engine.generate(prompts(), cases=CASES, seed=0)
    assert received["synced"] and received["max_model_length"] == 99 and received["mode"] == "colocate"
    assert (received["temperature"], received["top_k"], received["top_p"], received["max_completion_length"]) == (
        1.5,
        200,
        0.9,
        6,
    )
    assert (received["min_p"], received["repetition_penalty"]) == (0.0, 1.0)
    assert received["generation_kwargs"] == {
        "stop": ["<answer>"],
        "include_stop_str_in_output": True,
        "stop_token_ids": sorted(end.turn_ends),
        "skip_special_tokens": False,
    }
    assert received["n"] == 2 and received["prompts"] == [prompt for prompt in prompts() for _ in range(2)]
    assert completions(result) == [end.finish(ids[:6])[0] for ids in written]
    assert sampled(result) == [ids[:6] for ids in written]
    assert result.cut.tolist() == [True, False, True, True, True, True]
    assert result.ended.tolist() == [False, False, True, False, False, False]
    assert result.log_probs is None and result.rollouts.prompt_mask.sum(dim=1).tolist() == [14, 21, 10]
    assert vllm.vllm_arguments(settings.for_evaluation(), end)["temperature"] == 0.0
    again = settings.model_copy(update={"repetition_penalty": 1.05})
    assert vllm.vllm_arguments(again, end)["repetition_penalty"] == 1.05
    assert replace(result, seconds=2.0).tokens_per_second == result.sampled_tokens / 2
