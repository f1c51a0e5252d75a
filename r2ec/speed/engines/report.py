"""Writes how fast the engines were as one table (Markdown, CSV)."""

import statistics
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from benchmark.output.markdown import plain, table
from benchmark.storage.io import write_csv, write_text
from r2ec.speed.engines.work import Answer, Dtype, Task
from r2ec.speed.limits import Limits


@dataclass(frozen=True)
class About:
    """Where it was measured."""

    commit: str
    dataset: str
    dtype: Dtype  # of all engines
    limits: Limits


@dataclass(frozen=True)
class Speed:
    """One engine on one task.

    Attributes: seconds: median of all counted turns. equal: share of the tokens that are those of the first engine
        (ours with merged adapters, unless it is left out), where nothing is drawn; None elsewhere.
    """

    engine: str
    version: str
    task: str
    seconds: float
    fastest: float
    slowest: float
    tokens_per_second: float
    equal: float | None


def speeds(tasks: list[Task], answers: list[Answer]) -> list[Speed]:
    """One row per engine and task, over all rounds."""
    versions = {answer.engine: answer.version for answer in answers}
    rows = []
    for engine, version in versions.items():
        own = [answer for answer in answers if answer.engine == engine]
        for task in tasks:
            seconds = [value for answer in own for value in answer.seconds[task.name]]
            median = statistics.median(seconds)
            equal = share_equal(own[0].texts[task.name], answers[0].texts[task.name]) if task.greedy else None
            rate = task.users * task.group * task.new_tokens / median
            rows.append(Speed(engine, version, task.name, median, min(seconds), max(seconds), rate, equal))
    return rows


def share_equal(texts: list[list[int]], others: list[list[int]]) -> float:
    """Share of the places at which two lists of texts of equal lengths have the same token.

    >>> share_equal([[1, 2], [3, 4]], [[1, 5], [3, 4]])
    0.75
    """
    pairs = [(a, b) for text, other in zip(texts, others, strict=True) for a, b in zip(text, other, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def markdown(about: About, measured: list[Speed]) -> str:
    """The table: an engine per row, seconds per task, and how many times as fast as the first engine."""
    tasks = list(dict.fromkeys(speed.task for speed in measured))
    first = {speed.task: speed.seconds for speed in measured if speed.engine == measured[0].engine}
    body = []
    for engine in dict.fromkeys(speed.engine for speed in measured):
        own = [speed for speed in measured if speed.engine == engine]
        cells = [f"{speed.seconds:.3g} ({first[speed.task] / speed.seconds:.2f})" for speed in own]
        shares = [f"{speed.equal:.0%}" for speed in own if speed.equal is not None]
        body.append([plain(engine), plain(own[0].version), *cells, ", ".join(shares)])
    head = ["engine", "version", *(f"{plain(task)}, s" for task in tasks), "greedy tokens equal to the first's"]
    rate = about.limits.gflops(getattr(torch, about.dtype))
    return (
        f"{about.dataset}, commit {about.commit}, {about.limits.threads} threads, all engines in {about.dtype}, "
        f"in which this machine multiplies at {rate:.0f} GFLOP/s. Users x texts x tokens: medians of seconds, and "
        f"in brackets how many times as fast as the first engine.\n\n{table(head, body, left=2)}\n"
    )


def write(about: About, measured: list[Speed], folder: Path) -> None:
    """engines.md and engines.csv, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "engines.md", markdown(about, measured))
    write_csv(folder / "engines.csv", [field.name for field in fields(Speed)], map(asdict, measured))
