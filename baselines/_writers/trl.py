"""Makes trl's trainers faster on a CPU, without changing what they compute (tests/baselines/test_trl.py)."""

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

# The function of trl 1.16 that decides whether positions without a label skip the lm_head. trl does so on GPUs only;
# on two cores two thirds of an update's time go into logits of prompts, whose loss is masked.
SCORED_ONLY = "_use_triton"


@contextlib.contextmanager
def faster_on_cpu(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Inside this context a trl trainer of `model` computes logits of labelled positions only; on a GPU it does anyway.

    On a CPU the model keeps grouped attention afterwards, and not the forward that the trainer has put on it.
    """
    if torch.cuda.is_available():
        yield
        return
    use_grouped_attention(causal_lm_of(model))
    original = getattr(trl.trainer.utils, SCORED_ONLY)  # raises AttributeError if a later trl has removed it
    setattr(trl.trainer.utils, SCORED_ONLY, lambda device: True)
    try:
        yield
    finally:
        setattr(trl.trainer.utils, SCORED_ONLY, original)
        vars(causal_lm_of(model)).pop("forward", None)


@contextlib.contextmanager
def own_forward(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Inside this context the LM has its class's forward: trl's trainers leave another one on it, which writes as much.

    Without this it writes by its modules, as `lm.writing.packed.PackedForward` stands in for a class's forward alone.
    """
    causal_lm = causal_lm_of(model)
    of_trainer = vars(causal_lm).pop("forward", None)
    try:
        yield
    finally:
        if of_trainer is not None:
            causal_lm.forward = of_trainer


def shared_prompt_rollouts(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: RolloutSettings,
    seed: int,
) -> Callable[[list[Any], Any], dict[str, Any]]:
    """trl's `rollout_func` by R2ec's engine, which reads a prompt once for all of its group; a text ends with the turn.

    Random streams are derived from seed, step and place in the step, so that a resumed run writes the same.
    """
    engine = TransformersEngine(model, tokenizer, settings, EndOfTurn(tokenizer))
    group = settings.group_size

    def write(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        first = prompts[::group]
        # trl repeats each prompt for its group, one behind the other.
        assert prompts == [prompt for prompt in first for _ in range(group)]
        ids = [prompt_ids(tokenizer, prompt[-1]["content"]) for prompt in first]
        with own_forward(model):
            result = engine.generate(ids, cases=np.arange(len(ids)), seed=seed, step=trainer.state.global_step)
        written = result.rollouts.completion_ids.tolist()
        completions = [row[:length] for row, length in zip(written, result.lengths.tolist(), strict=True)]
        return {"prompt_ids": [p for p in ids for _ in range(group)], "completion_ids": completions, "logprobs": None}

    return write
