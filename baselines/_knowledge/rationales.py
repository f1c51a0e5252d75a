"""The rationales of slim.py's teacher, the ranks of targets by them, and the student tuned on them. Needs torch."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from baselines._writers.llm_texts import COLUMNS, ROWS_AT_ONCE, TEXTS, Writer, greedy_as_trained, texts_in
from benchmark.contract import Cases
from benchmark.data.texts import cleaned, marks_of
from benchmark.storage.stages import Stage
from lm.backbone import Backbone
from lm.chat import conversation_ids
from lm.settings import BackboneSettings, RolloutSettings
from lm.writing.engine import WRITING, TransformersEngine
from lm.writing.stopping import EndOfTurn

# What the teacher writes, and the adapters that learn it.
RATIONALES = Stage("rationales", 1, after=(WRITING,))
DISTILLED = Stage(
    "distillation",
    1,
    after=(RATIONALES,),
    packages=("torch", "transformers", "peft", "tokenizers", "accelerate", "trl"),
)


def sampled_rollouts(count: int, max_new_tokens: int, temperature: float) -> RolloutSettings:
    """Return settings for `count` texts of each prompt, sampled from the whole vocabulary."""
    return RolloutSettings(
        group_size=count, max_new_tokens=max_new_tokens, temperature=temperature, top_k=0, rows_at_once=ROWS_AT_ONCE
    )


def conversations(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[str],
    questions: Sequence[str],
    settings: RolloutSettings,
    *,
    seed: int,
) -> list[list[str]]:
    """Return the answers to each message and to the questions after it, in `settings.group_size` conversations each.

    messages: of B users. Returns B * G lists of 1 + len(questions) answers on one line each, user by user. An answer is
    read again as it is written, but for marks of the chat template, which would open a turn.
    """
    group = settings.group_size
    engine = TransformersEngine(model, tokenizer, settings, EndOfTurn(tokenizer))
    opened = [conversation_ids(tokenizer, [message]) for message in messages]
    answers = [[answer] for answer in _lines(engine, opened, seed, 0)]
    engine = TransformersEngine(model, tokenizer, settings.model_copy(update={"group_size": 1}), EndOfTurn(tokenizer))
    for at in range(1, 1 + len(questions)):
        prompts = []
        for i, answers_so_far in enumerate(answers):
            turns = [messages[i // group]]
            for answer, question in zip(answers_so_far, questions, strict=False):  # the last questions come later
                turns += [answer, question]
            prompts.append(conversation_ids(tokenizer, turns))
        for answers_so_far, answer in zip(answers, _lines(engine, prompts, seed, at), strict=True):
            answers_so_far.append(answer)
    return answers


def _lines(engine: TransformersEngine, prompts: list[list[int]], seed: int, step: int) -> list[str]:
    result = engine.generate(prompts, cases=np.arange(len(prompts)), seed=seed, step=step)
    texts = [written.text for written in texts_in(result, engine.tokenizer)]
    return cleaned(pd.Series(texts, dtype=object), marks_of(engine.tokenizer))


def target_ranks(texts: Tensor, items: Tensor, cases: Cases) -> np.ndarray:
    """Return the target's rank by the dot product of text and item vectors, for each text: int64 [cases, n], from 1.

    texts: float32 [cases, n, d]; items: float32 [n_items, d]. Items of the history are left out, and equal scores stand
    before the target's.
    """
    assert cases.target is not None
    ranks = np.empty(texts.shape[:2], dtype=np.int64)
    for i, target in enumerate(cases.target.tolist()):
        scores = texts[i] @ items.T
        others = torch.ones(len(items), dtype=torch.bool)
        others[torch.from_numpy(cases.history(i).astype(np.int64))] = False
        others[target] = False
        ranks[i] = 1 + (scores[:, others] >= scores[:, target : target + 1]).sum(dim=1).numpy()
    return ranks


class Student(Writer):
    """Greedy texts of an LLM with trained adapters, each written once and kept.

    about: all that the adapters depend on, as JSON.
    """

    def __init__(
        self,
        backbone: BackboneSettings,
        max_new_tokens: int,
        folder: Path,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        about: dict[str, Any],
    ) -> None:
        super().__init__(backbone, max_new_tokens, folder)
        self.settings = greedy_as_trained(max_new_tokens)
        whole = json.dumps([COLUMNS, about, self.settings.model_dump(mode="json"), TEXTS.about()], sort_keys=True)
        self.path = self.folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:16]}.sqlite"
        self.trained = Backbone(model, tokenizer)  # type: ignore[arg-type]

    @cached_property
    def _loaded(self) -> Backbone:
        return self.trained
