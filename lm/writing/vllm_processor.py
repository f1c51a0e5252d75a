"""Writes rollouts by vLLM's build for processors, in the training's process.

A build for GPUs is driven through trl (lm/writing/vllm.py). trl hands new weights to the loader of vLLM's model. On a
processor there is none left to write to, as each matrix lies in the order of its kernel. So vLLM is told to load anew.
"""

import logging
import os
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from lm.backbone import merged_adapters
from lm.settings import RolloutSettings
from lm.writing.rollouts import RolloutResult, check_prompts, finished_result, pad_id
from lm.writing.stopping import EndOfTurn
from lm.writing.vllm import NO_STATISTICS, vllm_version

# vLLM would otherwise run in another process, and bind its threads to cores, the same ones for jobs side by side.
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"} | NO_STATISTICS
TOKENS_AT_ONCE = 4096
BLOCK = 128  # tokens, of vLLM's cache on processors
PROBE = 32  # tokens
TOLERANCE = 1.0  # nats: rounding of bfloat16 takes up to some .2, a table that wasn't loaded several


def is_for_processors() -> bool:
    """Whether the vLLM that is installed runs on processors."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


class ProcessorVllmEngine:
    """Rollouts by vLLM on the processor that trains. Call `sync_weights` before the first ones and after each update.

    Each rollout has a seed of its own, hashed from (seed, step, case, rollout): a resumed run draws the same, but they
    aren't the draws of TransformersEngine. Log-probabilities are not returned (see RolloutResult).

    Args:
        folder: of the backbone, from which vLLM makes its own copy. end: where a text ends.
        max_prompt_tokens: of the longest prompt.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: RolloutSettings,
        end: EndOfTurn,
        *,
        folder: str,
        max_prompt_tokens: int,
    ) -> None:
        os.environ.update(ENVIRONMENT)
        from vllm import LLM

        logging.getLogger("vllm").setLevel(logging.ERROR)  # it warns at each loading of what `sync_weights` mends
        self.model, self.tokenizer, self.settings, self.end = model, tokenizer, settings, end
        longest = max_prompt_tokens + settings.max_new_tokens
        threads = torch.set_num_threads
        generators = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            self.llm: Any = LLM(
                model=folder,
                dtype=str(model.dtype).removeprefix("torch."),
                max_model_len=longest,
                max_num_seqs=settings.rows_at_once,
                kv_cache_memory_bytes=_places(settings, max_prompt_tokens) * _bytes_per_token(model),
                # A request with a seed fails where its prompt is read in parts: torch's generator has no offset here.
                enable_chunked_prefill=False,
                max_num_batched_tokens=max(longest, TOKENS_AT_ONCE),
                enforce_eager=True,  # compiling takes a compiler and a minute, and gains a fifth
                seed=0,
            )
        finally:
            # vLLM puts a function in its place that does nothing, and seeds the process's generators.
            torch.set_num_threads = threads
            random.setstate(generators[0])
            np.random.set_state(generators[1])
            torch.set_rng_state(generators[2])

    def sync_weights(self) -> None:
        """Have vLLM load the model's present weights, adapters folded into copies.

        Raises InputError where vLLM's log-probabilities of some tokens aren't the model's afterwards.
        """
        with merged_adapters(self.model) as causal_lm:
            self._load((name, weight.detach()) for name, weight in causal_lm.named_parameters())
            if causal_lm.config.tie_word_embeddings:
                # A tied head isn't loaded with the rest: its kernel would go on with memory that was never written.
                model = self._runner().get_model()
                model.lm_head.tie_weights(model.model.embed_tokens)
                model.lm_head.quant_method.process_weights_after_loading(model.lm_head)
            self.llm.reset_prefix_cache()
            self._check(causal_lm)

    def _runner(self) -> Any:
        return self.llm.llm_engine.model_executor.driver_worker.model_runner

    def _load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self._runner().reload_weights(weights_iterator=weights)

    @torch.no_grad()
    def _check(self, causal_lm: PreTrainedModel) -> None:
        tokens = np.random.default_rng(derive_seed("probe of vLLM")).integers(0, causal_lm.config.vocab_size, PROBE)
        probe = tokens.tolist()
        theirs = np.array(self.logps(probe))
        ids = torch.tensor([probe], device=causal_lm.device)
        logps = causal_lm(input_ids=ids).logits[0, :-1].float().log_softmax(dim=-1)
        ours = logps.gather(1, ids[0, 1:, None])[:, 0].numpy()
        if not (difference := float(np.abs(theirs - ours).mean())) <= TOLERANCE:
            raise InputError(
                f"vLLM {vllm_version()} doesn't compute with the weights that it was sent: its log-probabilities of "
                f"{PROBE - 1} tokens differ by {difference:.2g} nats in the mean; set rollouts.backend: transformers"
            )

    def logps(self, ids: Sequence[int]) -> list[float]:
        """Log-probability of each token but the first behind those before it, in nats, by vLLM's present weights."""
        from vllm import SamplingParams

        asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)
        (answer,) = self.llm.generate([{"prompt_token_ids": list(ids)}], asked, use_tqdm=False)
        return [float(at[token].logprob) for token, at in zip(ids[1:], answer.prompt_logprobs[1:], strict=True)]

    def generate(
        self, prompts: Sequence[Sequence[int]], *, cases: np.ndarray, seed: int, step: int = 0
    ) -> RolloutResult:
        """As TransformersEngine.generate, with other draws."""
        from vllm import SamplingParams

        started = time.perf_counter()
        check_prompts(prompts, cases)
        settings = self.settings
        members = [
            (list(prompt), int(case), member)
            for prompt, case in zip(prompts, cases, strict=True)
            for member in range(settings.group_size)
        ]
        asked = [
            SamplingParams(
                max_tokens=settings.max_new_tokens,
                temperature=0.0 if settings.greedy else settings.temperature,
                top_k=settings.top_k,
                top_p=settings.top_p,
                repetition_penalty=settings.repetition_penalty,
                seed=derive_seed(seed, step, case, member),
                stop=self.end.stop_strings,
                include_stop_str_in_output=True,
                stop_token_ids=sorted(self.end.turn_ends),
                skip_special_tokens=False,
            )
            for _, case, member in members
        ]
        answers = self.llm.generate([{"prompt_token_ids": prompt} for prompt, _, _ in members], asked, use_tqdm=False)
        written = [list(answer.outputs[0].token_ids) for answer in answers]
        pad, limit = pad_id(self.tokenizer), settings.max_new_tokens
        return finished_result(prompts, written, self.end, limit, pad, self.model.device, started)


def _places(settings: RolloutSettings, max_prompt_tokens: int) -> int:
    """Tokens whose keys and values are kept: a group's rollouts share their prompt's, up to a block each.

    Where that is too few after all, vLLM writes fewer rollouts at once.
    """
    users = -(-settings.rows_at_once // settings.group_size)
    return users * max_prompt_tokens + settings.rows_at_once * (settings.max_new_tokens + BLOCK)


def _bytes_per_token(model: PreTrainedModel | PeftModel) -> int:
    """Of keys and values of all layers."""
    config: Any = model.config
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * dim * model.dtype.itemsize)
