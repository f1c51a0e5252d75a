"""trl's trainers without what a processor would do for nothing; what they compute stays the same
(tests/baselines/test_trl.py)."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import trl.trainer.utils
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from baselines._writers.llm_texts import causal_lm_of
from lm.chat import prompt_ids
from lm.kernels.attention import use_grouped_attention
from lm.settings import RolloutSettings
from lm.writing.engine import TransformersEngine
from lm.writing.stopping import EndOfTurn

# trl 1.16 asks this whether to leave the positions without a label out of the lm_head, which it does on GPUs alone: two
# thirds of an update's time on two cores go into prompts' logits whose loss is masked.
SCORED_ONLY = "_use_triton"


@contextlib.contextmanager
def faster_on_cpu(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Inside, a trl trainer of `model` scores labelled positions only; the model keeps grouped attention. On a GPU:
    nothing."""
    if torch.cuda.is_available():
        yield
        return
    use_grouped_attention(causal_lm_of(model))
    original = getattr(trl.trainer.utils, SCORED_ONLY)  # raises if a later trl has it no more
    setattr(trl.trainer.utils, SCORED_ONLY, lambda device: True)
    try:
        yield
    finally:
        setattr(trl.trainer.utils, SCORED_ONLY, original)


def shared_prompt_rollouts(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: RolloutSettings,
    seed: int,
) -> Callable[[list[Any], Any], dict[str, Any]]:
    """trl's `rollout_func` by R2ec's engine, which reads a prompt once for all of its group; a text ends with the turn.

    Random streams are named by seed, step and place in the step, so that a resumed run writes the same.
    """
    engine = TransformersEngine(model, tokenizer, settings, EndOfTurn(tokenizer))
    group = settings.group_size

    def write(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        first = prompts[::group]
        # trl repeats each prompt for its group, one behind the other.
        assert prompts == [prompt for prompt in first for _ in range(group)]
        ids = [prompt_ids(tokenizer, prompt[-1]["content"]) for prompt in first]
        result = engine.generate(ids, cases=np.arange(len(ids)), seed=seed, step=trainer.state.global_step)
        written = result.rollouts.completion_ids.tolist()
        completions = [row[:length] for row, length in zip(written, result.lengths.tolist(), strict=True)]
        return {"prompt_ids": [p for p in ids for _ in range(group)], "completion_ids": completions, "logprobs": None}

    return write
