"""vLLM's build for processors, as `ProcessorVllmEngine` talks to it, without vLLM. A tiny LM of transformers writes.

What the real one was seen to do stands here, too: a head that is tied to the embeddings isn't loaded with the rest, and
reads memory that was never written until it is tied and packed again.
"""

import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm.writing import vllm
from lm.writing.vllm_processor import ENVIRONMENT


class Head:
    """ParallelLMHead and its kernel; without `packs` the kernel stays as it is."""

    packs = True

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.kernel, self.quant_method = weight, weight.clone(), self

    def tie_weights(self, embeddings: Any) -> None:
        self.weight = embeddings.weight

    def process_weights_after_loading(self, layer: "Head") -> None:
        if self.packs:
            layer.kernel = layer.weight.detach().clone()


@dataclass
class Asked:
    """What was asked of the stub."""

    started: list[dict[str, Any]] = field(default_factory=list)
    loads: int = 0
    resets: int = 0
    texts: list[Any] = field(default_factory=list)  # sampling parameters


class Llm:
    """vllm.LLM."""

    def __init__(self, model: str, asked: Asked, **arguments: Any) -> None:
        torch.set_num_threads = lambda count: None  # as the real one does, which seeds all generators, too
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        asked.started.append(arguments)
        self.asked, self.tokenizer = asked, AutoTokenizer.from_pretrained(model)
        self.lm = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, arguments["dtype"])).eval()
        self.tied = self.lm.config.tie_word_embeddings
        self.head = Head(self.lm.get_output_embeddings().weight)
        layers = SimpleNamespace(embed_tokens=self.lm.get_input_embeddings())
        served = SimpleNamespace(model=layers, lm_head=self.head)
        runner = SimpleNamespace(reload_weights=self.reload_weights, get_model=lambda: served)
        worker = SimpleNamespace(model_runner=runner)
        self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=worker))

    def reload_weights(self, weights_iterator: Iterable[tuple[str, Tensor]]) -> None:
        own = dict(self.lm.named_parameters())
        sent = dict(weights_iterator)
        assert set(sent) == set(own) and not any(tensor.requires_grad for tensor in sent.values())
        for name, tensor in sent.items():
            own[name].data.copy_(tensor)
        weight = self.lm.get_output_embeddings().weight
        self.head.kernel = torch.zeros_like(weight) if self.tied else weight.detach().clone()
        self.asked.loads += 1

    def reset_prefix_cache(self) -> None:
        self.asked.resets += 1

    @torch.no_grad()
    def logits(self, ids: Sequence[int]) -> Tensor:
        states = self.lm.get_decoder()(input_ids=torch.tensor([ids])).last_hidden_state[0]
        return states @ self.head.kernel.T

    def generate(self, prompts: list[dict[str, list[int]]], asked: Any, use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        if not isinstance(asked, list):
            (prompt,) = prompts
            ids = prompt["prompt_token_ids"]
            logps = self.logits(ids).log_softmax(dim=-1)
            at = [{ids[i + 1]: SimpleNamespace(logprob=float(logps[i, ids[i + 1]]))} for i in range(len(ids) - 1)]
            return [SimpleNamespace(prompt_logprobs=[None, *at])]
        self.asked.texts += asked
        return [
            SimpleNamespace(outputs=[SimpleNamespace(token_ids=self.write(prompt["prompt_token_ids"], one))])
            for prompt, one in zip(prompts, asked, strict=True)
        ]

    def write(self, prompt: list[int], asked: Any) -> list[int]:
        draws = torch.Generator().manual_seed(asked.seed)
        written: list[int] = []
        while len(written) < asked.max_tokens:
            logits = self.logits(prompt + written)[-1]
            best = logits.topk(asked.top_k or len(logits))
            chosen = 0
            if asked.temperature:
                chosen = int(torch.multinomial((best.values / asked.temperature).softmax(dim=-1), 1, generator=draws))
            written.append(int(best.indices[chosen]))
            text = self.tokenizer.decode(written, skip_special_tokens=False)
            if written[-1] in asked.stop_token_ids or any(stop in text for stop in asked.stop):
                break
        return written


def install(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Let `import vllm` find the stub."""
    asked = Asked()
    package, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    package.__dict__.update(
        LLM=lambda model, **arguments: Llm(model, asked, **arguments), SamplingParams=SimpleNamespace, __version__="0"
    )
    platforms.__dict__["current_platform"] = SimpleNamespace(is_cpu=lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    monkeypatch.setattr(vllm, "is_vllm_available", lambda *_, **__: True)
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "as it was")
    return asked
