"""R2ec's own engine on the adapted model, as RecPO writes rollouts and as an evaluation writes texts with states."""

from importlib.metadata import version

import numpy as np
from transformers import PreTrainedTokenizerBase

from lm.writing.engine import TransformersEngine
from lm.writing.stopping import EndOfTurn
from r2ec.speed.engines.work import Task, Write
from r2ec.speed.work import Work

MERGED, WITH_STATES = "ours, adapters merged", "ours, adapters apart, with states"


class NeverEnds(EndOfTurn):
    """Texts go on to their full length, so that all engines write as much."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer)
        self.turn_ends = frozenset()


def writer(model: Work, with_states: bool) -> tuple[str, str, Write]:
    """with_states: give h_T of the model as it was trained, too; else fold the adapters at each call, as RecPO does."""
    tokenizer = model.reader.prompts.tokenizer

    def write(task: Task, prompts: list[list[int]]) -> list[list[int]]:
        settings = model.params.rollouts.model_copy(
            update={
                "group_size": task.group,
                "max_new_tokens": task.new_tokens,
                "greedy": task.greedy,
                "top_k": task.top_k,
                "merge_adapters": not with_states,
            }
        )
        engine = TransformersEngine(model.reader.model.backbone, tokenizer, settings, NeverEnds(tokenizer))
        result = engine.generate(prompts, cases=np.arange(len(prompts)), seed=0, final_states=with_states)
        written: list[list[int]] = result.rollouts.completion_ids.tolist()
        return written

    return WITH_STATES if with_states else MERGED, f"torch {version('torch')}", write
