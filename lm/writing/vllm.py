"""Writes rollouts by vLLM, through trl. A file of its own, since importing trl's vLLM client takes seconds."""

import importlib.metadata
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from huggingface_hub import snapshot_download
from peft import PeftModel
from requests import ConnectionError as ServerError
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.generation.vllm_generation import VLLMGeneration
from trl.import_utils import is_vllm_available

from benchmark.errors import InputError
from lm.backbone import merged_adapters
from lm.settings import BackboneSettings, RolloutSettings, VllmSettings
from lm.writing.rollouts import RolloutResult, check_prompts, finished_result, pad_id
from lm.writing.stopping import EndOfTurn

NO_STATISTICS = {"VLLM_NO_USAGE_STATS": "1"}  # or vLLM sends some of each start to its makers


class VllmEngine:
    """Rollouts by vLLM through trl, in this process ("colocate") or on a server; for GPUs.

    vLLM draws from its own random stream: unlike those of TransformersEngine, its samples are not tied to (seed, step,
    case, rollout). Log-probabilities are not returned (see RolloutResult), the tokens and where they end are the same.
    """

    def __init__(
        self,
        generation: VLLMGeneration,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: RolloutSettings,
        end: EndOfTurn,
    ) -> None:
        self.generation, self.model, self.tokenizer = generation, model, tokenizer
        self.settings, self.end = settings, end

    @classmethod
    def start(
        cls,
        model: PreTrainedModel | PeftModel,
        accelerator: Accelerator,
        tokenizer: PreTrainedTokenizerBase,
        settings: RolloutSettings,
        end: EndOfTurn,
        vllm: VllmSettings,
        *,
        max_model_length: int,
    ) -> "VllmEngine":
        """Start vLLM beside the training or reach its server; every process calls it.

        end: where a text ends. max_model_length: tokens of the longest prompt and of what is written behind it. Raises
        InputError if vLLM isn't installed or no server answers.
        """
        require_vllm()
        os.environ.update(NO_STATISTICS)
        try:
            generation = VLLMGeneration(
                model,
                accelerator,
                tokenizer,
                mode=vllm.mode,
                server_base_url=vllm.server_base_url,
                server_timeout=vllm.server_timeout,
                group_port=vllm.group_port,
                tensor_parallel_size=vllm.tensor_parallel_size,
                gpu_memory_utilization=vllm.gpu_memory_utilization,
                max_model_length=max_model_length,
                **vllm_arguments(settings, end),
            )
        except ServerError as error:
            raise InputError(
                f"vllm.server_base_url {vllm.server_base_url}: {str(error).splitlines()[0]}; start the server as "
                "docs/scale-out.md says"
            ) from None
        return cls(generation, model, tokenizer, settings, end)

    def sync_weights(self) -> None:
        """Send the model's present weights to vLLM: before the first call and after each update.

        The adapters are folded into copies. trl would add them to the weights themselves and take them off again, which
        in bfloat16 leaves a rounding error behind at every step.
        """
        try:
            with merged_adapters(self.model) as causal_lm:
                self.generation.model = causal_lm
                self.generation.sync_weights()
        finally:
            self.generation.model = self.model

    def generate(
        self, prompts: Sequence[Sequence[int]], *, cases: np.ndarray, seed: int, step: int = 0
    ) -> RolloutResult:
        """As TransformersEngine.generate; cases, seed and step don't reach vLLM."""
        started = time.perf_counter()
        check_prompts(prompts, cases)
        group = self.settings.group_size
        repeated = [list(prompt) for prompt in prompts for _ in range(group)]
        written = self.generation.generate(repeated, images=None, num_generations=group)[1]
        limit, pad = self.settings.max_new_tokens, pad_id(self.tokenizer)
        return finished_result(prompts, written, self.end, limit, pad, self.generation.accelerator.device, started)


def require_vllm() -> None:
    """Raise InputError if vLLM isn't installed."""
    if not is_vllm_available():
        raise InputError(
            "rollout backend 'vllm' needs the package vllm; install it as docs/install.md says, or set backend: "
            "transformers"
        )


def vllm_version() -> str:
    """Of the distribution that brings the package vllm along; builds for processors have other names than it."""
    names = importlib.metadata.packages_distributions().get("vllm")
    return importlib.metadata.version(names[0]) if names else "unknown"


def folder_of(backbone: BackboneSettings) -> str:
    """The folder from which vLLM loads the backbone.

    trl passes vLLM no revision, so that a backbone from the hub is given by the folder of its pinned revision.
    """
    if Path(backbone.name).is_dir():
        return backbone.name
    return str(snapshot_download(backbone.name, revision=backbone.revision, local_files_only=True))


def vllm_arguments(settings: RolloutSettings, end: EndOfTurn) -> dict[str, Any]:
    """The rollout settings and the stopping rule in the words of trl's VLLMGeneration."""
    return {
        # vLLM's temperature 0 is greedy.
        "temperature": 0.0 if settings.greedy else settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "min_p": 0.0,
        "repetition_penalty": settings.repetition_penalty,
        "max_completion_length": settings.max_new_tokens,
        "logprobs": None,
        "generation_kwargs": {
            "stop": end.stop_strings,
            "include_stop_str_in_output": True,
            "stop_token_ids": sorted(end.turn_ends),
            "skip_special_tokens": False,
        },
    }
