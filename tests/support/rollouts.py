"""Three prompts for rollouts of a tiny LM, its engine, and what the rollouts hold."""

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel

from lm.settings import RolloutSettings
from lm.writing.engine import TransformersEngine
from lm.writing.rollouts import RolloutResult
from lm.writing.stopping import EndOfReasoning
from tests.support.tiny_tokenizers import tiny_tokenizer

ANSWER = "<answer>"
CASES = np.array([11, 5, 8])


def prompts(common: int = 9) -> list[list[int]]:
    """Three prompts with a common beginning and 1 to 12 tokens of their own: longer than Gemma's window of 8."""
    random = np.random.default_rng(0)
    beginning = random.integers(10, 400, common).tolist()
    return [beginning + random.integers(10, 400, n).tolist() for n in (5, 12, 1)]


def engine_of(model: PreTrainedModel | PeftModel, family: str, settings: RolloutSettings) -> TransformersEngine:
    tokenizer = tiny_tokenizer(family)
    return TransformersEngine(model, tokenizer, settings, EndOfReasoning(tokenizer, ANSWER))


def completions(result: RolloutResult) -> list[list[int]]:
    ids = result.rollouts.completion_ids.tolist()
    return [row[:n] for row, n in zip(ids, result.lengths.tolist(), strict=True)]


def sampled(result: RolloutResult) -> list[list[int]]:
    assert result.rollouts.action_mask is not None
    counts = result.rollouts.action_mask.sum(dim=1).tolist()
    return [row[:n] for row, n in zip(completions(result), counts, strict=True)]
