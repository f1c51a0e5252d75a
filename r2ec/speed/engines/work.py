"""What an engine is given and what it answers, as JSON files. Imports the standard library alone.

An engine is a module of this package with a function that loads a model and returns a function that writes. It is run
as `python -m r2ec.speed.engines.NAME WORK.json ANSWER.json`, in an environment that has none of our packages.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Dtype = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class Task:
    """Texts to write for some users, all of them of exactly `new_tokens` tokens.

    Attributes:
        group: how many texts per user.
        turns: the prompts (token ids) of each turn's users. No prompt comes twice: an engine that keeps what it has
            read gains by the prompts' common beginning alone. The first turn isn't counted.
        greedy: the most probable token, or else drawn from the `top_k` most probable at temperature 1.
    """

    name: str
    group: int
    new_tokens: int
    greedy: bool
    top_k: int
    turns: list[list[list[int]]]

    @property
    def users(self) -> int:
        """Of a turn."""
        return len(self.turns[0])


@dataclass(frozen=True)
class Work:
    """What all engines do alike.

    Attributes:
        model: a folder with merged weights, as transformers reads it.
        dtype: of the weights and products of each engine, bfloat16 or float32 (R2ec's on this machine).
        threads: of one engine.
    """

    model: str
    dtype: Dtype
    threads: int
    tasks: list[Task]


@dataclass(frozen=True)
class Answer:
    """What one engine has done: seconds of each task's counted turns, and the texts of its last turn."""

    engine: str
    version: str
    seconds: dict[str, list[float]]
    texts: dict[str, list[list[int]]]


# Prompts [users] -> texts (token ids) [users * group], a user's side by side.
Write = Callable[[Task, list[list[int]]], list[list[int]]]


def read_work(path: Path) -> Work:
    """The work in a file that `write_work` wrote."""
    about = json.loads(path.read_text(encoding="utf-8"))
    return Work(about["model"], about["dtype"], about["threads"], [Task(**task) for task in about["tasks"]])


def write_work(path: Path, work: Work) -> None:
    """For the engines."""
    path.write_text(json.dumps(asdict(work)), encoding="utf-8")


def answer(engine: str, version: str, write: Write, work: Work) -> Answer:
    """Do all tasks, turn by turn. Raises ValueError where a text has another length than was asked for."""
    seconds: dict[str, list[float]] = {}
    texts: dict[str, list[list[int]]] = {}
    for task in work.tasks:
        seconds[task.name] = []
        for turn, prompts in enumerate(task.turns):
            started = time.perf_counter()
            written = write(task, prompts)
            took = time.perf_counter() - started
            lengths = {len(text) for text in written}
            if len(written) != len(prompts) * task.group or lengths != {task.new_tokens}:
                raise ValueError(
                    f"{engine}: {len(written)} texts of {sorted(lengths)} tokens for {task.name}, which asks for "
                    f"{len(prompts) * task.group} of {task.new_tokens}"
                )
            if turn:
                seconds[task.name].append(took)
            texts[task.name] = written
    return Answer(engine, version, seconds, texts)


def run(load: Callable[[Work], tuple[str, str, Write]]) -> None:
    """The command line of an engine's module. load: gives the engine's name, its version, and how it writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("answer", type=Path)
    args = parser.parse_args()
    work = read_work(args.work)
    engine, version, write = load(work)
    args.answer.write_text(json.dumps(asdict(answer(engine, version, write, work))), encoding="utf-8")
