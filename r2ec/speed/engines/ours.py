"""R2ec's own engine on the adapted model, as RecPO writes rollouts and as an evaluation writes texts with states.

In one process with all threads, or in a process per thread which has a share of the users, as the workflow's rows side
by side and a fit with `processes` have.
"""

import contextlib
import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from benchmark.data.store import read_split
from lm.writing.engine import TransformersEngine
from lm.writing.stopping import EndOfTurn
from r2ec.speed.engines.work import Task, Write
from r2ec.speed.work import Size, Work

MERGED, WITH_STATES = "ours, adapters merged", "ours, adapters apart, with states"


class NeverEnds(EndOfTurn):
    """Texts go on to their full length, so that all engines write as much."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer)
        self.turn_ends = frozenset()


@dataclass(frozen=True)
class Source:
    """What a process makes the model of: a prepared dataset's folder, and the backbone."""

    data: Path
    backbone: str

    def model(self) -> Work:
        """The same weights in each process, as they are seeded."""
        return Work(read_split(self.data), self.backbone, Size())


def write(model: Work, with_states: bool, task: Task, prompts: list[list[int]]) -> list[list[int]]:
    """with_states: give h_T of the model as it was trained, too; else fold the adapters at each call, as RecPO does."""
    tokenizer = model.reader.prompts.tokenizer
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


def by_threads(model: Work, with_states: bool) -> tuple[str, str, Write]:
    """Name, version and writer: this process, with torch's threads."""
    return (
        WITH_STATES if with_states else MERGED,
        f"torch {version('torch')}",
        lambda task, prompts: write(model, with_states, task, prompts),
    )


_model: Work  # of a process of the pool


def _begin(source: Source) -> None:
    global _model
    torch.set_num_threads(1)
    _model = source.model()


def _write(with_states: bool, task: Task, prompts: list[list[int]]) -> list[list[int]]:
    return write(_model, with_states, task, prompts)


@contextlib.contextmanager
def by_processes(source: Source, processes: int) -> Iterator[list[tuple[str, str, Write]]]:
    """Name, version and writer, for both ways: processes of one thread, each with a share of the users."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(source,)) as pool:

        def writer(with_states: bool) -> Write:
            def written(task: Task, prompts: list[list[int]]) -> list[list[int]]:
                bounds = np.linspace(0, len(prompts), processes + 1).round().astype(int).tolist()
                shares = [prompts[a:b] for a, b in itertools.pairwise(bounds) if a < b]
                without_turns = Task(task.name, task.group, task.new_tokens, task.greedy, task.top_k, [])
                parts = [pool.submit(_write, with_states, without_turns, share) for share in shares]
                return [text for part in parts for text in part.result()]

            return written

        torch_version = f"torch {version('torch')}"
        yield [
            (f"{name}, {processes} processes", torch_version, writer(with_states))
            for name, with_states in ((MERGED, False), (WITH_STATES, True))
        ]
