"""Measures how time and memory grow with G, with the prompt and with the catalogue, each point in a fresh process."""

import gc
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from benchmark.contract import Split
from r2ec.recpo.reward import recpo_rewards
from r2ec.speed.parts import our_update
from r2ec.speed.work import Size, Work

GROUPS = (1, 2, 4, 8, 16)
PROMPT_TOKENS = (128, 256, 512, 1024)
CATALOGUES = (1_000, 10_000, 100_000, 1_000_000)
USERS, NEW_TOKENS = 4, 16
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Point(BaseModel):
    """One measurement: seconds of a run, after a first one that isn't counted, and the peak memory that it added."""

    model_config = ConfigDict(frozen=True)

    part: str
    against: str
    value: int
    seconds: float
    added_mib: float


def measure(split: Split, backbone: str) -> list[Point]:
    """All points."""
    jobs: list[tuple[Any, ...]] = [(_of_group, split, backbone, group) for group in GROUPS]
    jobs += [(_of_prompt, split, backbone, tokens) for tokens in PROMPT_TOKENS]
    jobs += [(_of_catalogue, items) for items in CATALOGUES]
    points: list[Point] = []
    # A process per point: peak memory never falls within one.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context, max_tasks_per_child=1) as pool:
        for job in tqdm(jobs, desc="growth", unit="point"):
            points += pool.submit(*job).result()
    return points


def _of_group(split: Split, backbone: str, group: int) -> list[Point]:
    work = Work(split, backbone, Size(USERS, group, new_tokens=NEW_TOKENS))
    return _rollouts_and_update(work, "G", group)


def _of_prompt(split: Split, backbone: str, tokens: int) -> list[Point]:
    work = Work(split, backbone, Size(USERS, 4, new_tokens=NEW_TOKENS))
    vocabulary = int(work.reader.model.causal_lm.config.vocab_size)
    random_prompts = np.random.default_rng(0).integers(min(1000, vocabulary // 2), vocabulary, (USERS, tokens))
    work.prompts = random_prompts.tolist()
    return _rollouts_and_update(work, "prompt tokens", tokens)


def _rollouts_and_update(work: Work, against: str, value: int) -> list[Point]:
    def write() -> None:
        work.engine.generate(work.prompts, cases=work.cases.case, seed=0)

    return [
        _point("rollouts", against, value, write),
        _point("update", against, value, lambda: our_update(work)),
    ]


def _of_catalogue(items: int) -> list[Point]:
    random = torch.Generator().manual_seed(0)
    table = torch.randn(items, 576, generator=random)
    users = torch.randn(64, 576, generator=random)
    targets = torch.randint(0, items, (64,), generator=random)
    history = torch.full((64, 20), -1)
    return [_point("reward", "items", items, lambda: recpo_rewards(users, table, targets, history, tau=0.1))]


def _point(part: str, against: str, value: int, work: Any) -> Point:
    gc.collect()
    work()
    CLEAR.write_text("5")  # Linux: the peak begins anew at what is resident now
    before = resident_peak_mib()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return Point(part=part, against=against, value=value, seconds=seconds, added_mib=resident_peak_mib() - before)


def resident_peak_mib() -> float:
    """The most that this process held in memory (Linux), MiB, since it began or CLEAR was written to."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def exponent(points: list[Point]) -> float:
    """Between the two largest values: seconds grow as value ** exponent; 1 is linear."""
    last, largest = sorted(points, key=lambda point: point.value)[-2:]
    return math.log(largest.seconds / last.seconds) / math.log(largest.value / last.value)
