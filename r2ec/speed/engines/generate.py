"""transformers' own `generate` on merged weights, in our environment. R2EC_BENCH_CACHE: dynamic or static.

It has as many rows at once as our engine has: the cache of 256 long rows is copied at each token.
"""

import os

import torch
import transformers
from transformers import AutoModelForCausalLM

from r2ec.speed.engines.work import Task, Work, Write, run

CACHE = "R2EC_BENCH_CACHE"
ROWS_AT_ONCE = 64


def load(work: Work) -> tuple[str, str, Write]:
    """Open the model."""
    torch.set_num_threads(work.threads)
    cache = os.environ.get(CACHE, "dynamic")
    model = AutoModelForCausalLM.from_pretrained(
        work.model, dtype=getattr(torch, work.dtype), use_safetensors=True
    ).eval()
    model.generation_config.eos_token_id = None  # texts go on to their full length

    def write(task: Task, prompts: list[list[int]]) -> list[list[int]]:
        users = ROWS_AT_ONCE // task.group
        return [
            text for start in range(0, len(prompts), users) for text in write_some(task, prompts[start : start + users])
        ]

    @torch.no_grad()
    def write_some(task: Task, prompts: list[list[int]]) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        sampling = {"do_sample": False} if task.greedy else {"do_sample": True, "temperature": 1.0, "top_k": task.top_k}
        sequences = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=task.new_tokens,
            num_return_sequences=task.group,
            pad_token_id=0,
            cache_implementation=None if cache == "dynamic" else cache,
            **sampling,
        )
        written: list[list[int]] = sequences[:, longest:].tolist()
        return written

    return f"transformers generate, {cache} cache", transformers.__version__, write


if __name__ == "__main__":
    run(load)
