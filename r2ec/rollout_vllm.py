"""Rollouts by vLLM, through trl. A file of its own, since importing trl's vLLM client takes seconds."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.generation.vllm_generation import VLLMGeneration
from trl.import_utils import is_vllm_available

from benchmark.errors import InputError
from r2ec.prompts import ANSWER, turn_end_ids
from r2ec.rollout import EndOfReasoning, RolloutResult, RolloutSettings, check_prompts, pack_rollouts, pad_id


class VllmEngine:
    """Rollouts by vLLM through trl, in this process ("colocate") or on a server; for GPUs.

    vLLM draws from its own random stream: unlike those of TransformersEngine, its samples are not tied to (seed, step,
    case, rollout). Log-probabilities are not returned (see RolloutResult), the tokens and where they end are the same.
    """

    def __init__(
        self, generation: VLLMGeneration, tokenizer: PreTrainedTokenizerBase, settings: RolloutSettings
    ) -> None:
        self.generation, self.tokenizer, self.settings = generation, tokenizer, settings
        self.end = EndOfReasoning(tokenizer)

    @classmethod
    def start(
        cls,
        model: PreTrainedModel | PeftModel,
        accelerator: Accelerator,
        tokenizer: PreTrainedTokenizerBase,
        settings: RolloutSettings,
        *,
        mode: Literal["colocate", "server"] = "colocate",
        server_base_url: str | None = None,
        gpu_memory_utilization: float = 0.3,
        max_model_length: int | None = None,
    ) -> "VllmEngine":
        """Start or reach vLLM. Raises InputError if it isn't installed."""
        if not is_vllm_available():
            raise InputError(
                "rollout backend 'vllm' needs the package vllm; install trl[vllm] or set backend: transformers"
            )
        arguments = vllm_arguments(settings, tokenizer)
        generation = VLLMGeneration(
            model,
            accelerator,
            tokenizer,
            mode=mode,
            server_base_url=server_base_url,
            gpu_memory_utilization=gpu_memory_utilization,
            max_model_length=max_model_length,
            **arguments,
        )
        return cls(generation, tokenizer, settings)

    def sync_weights(self) -> None:
        """Send the model's present weights, adapters merged, to vLLM: before the first call and after each update."""
        self.generation.sync_weights()

    def generate(
        self, prompts: Sequence[Sequence[int]], *, cases: np.ndarray, seed: int, step: int = 0
    ) -> RolloutResult:
        """As TransformersEngine.generate; cases, seed and step don't reach vLLM."""
        started = time.perf_counter()
        check_prompts(prompts, cases)
        group = self.settings.group_size
        repeated = [list(prompt) for prompt in prompts for _ in range(group)]
        written = self.generation.generate(repeated, images=None, num_generations=group)[1]
        finished = [self.end.finish(list(ids)[: self.settings.max_new_tokens]) for ids in written]
        lengths = np.array([len(ids) for ids, _, _, _ in finished])
        pad, device = pad_id(self.tokenizer), self.generation.accelerator.device
        ids = np.full((len(finished), lengths.max()), pad, dtype=np.int64)
        for row, (tokens, _, _, _) in enumerate(finished):
            ids[row, : len(tokens)] = tokens
        at = np.arange(ids.shape[1])
        sampled = at < np.array([n for _, n, _, _ in finished])[:, None]
        return RolloutResult(
            rollouts=pack_rollouts(prompts, ids, at < lengths[:, None], sampled, pad, device),
            lengths=torch.from_numpy(lengths).to(device),
            log_probs=None,
            cut=torch.tensor([cut for _, _, cut, _ in finished], device=device),
            ended=torch.tensor([ended for _, _, _, ended in finished], device=device),
            states=None,
            seconds=time.perf_counter() - started,
        )


def vllm_arguments(settings: RolloutSettings, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The rollout settings in the words of trl's VLLMGeneration."""
    return {
        # vLLM's temperature 0 is greedy.
        "temperature": 0.0 if settings.greedy else settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_completion_length": settings.max_new_tokens,
        "logprobs": None,
        "generation_kwargs": {
            "stop": [ANSWER],
            "include_stop_str_in_output": True,
            "stop_token_ids": turn_end_ids(tokenizer),
            "skip_special_tokens": False,
        },
    }
