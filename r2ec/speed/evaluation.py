"""Measures how long R2ec and SASRec take to answer one user alone and 64 together."""

import statistics
import time
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from benchmark.config.methods import load_method
from benchmark.contract import Cases, Recommender
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.speed.work import Work, scratch

ALONE, TOGETHER = 20, 64


class Latency(BaseModel):
    """Answers of one method: reading, reasoning and scoring the whole catalogue."""

    model_config = ConfigDict(frozen=True)

    method: str
    alone_ms: float  # median of users answered one by one
    alone_ms_p95: float
    together: float  # users per second, 64 in a batch


def measure(work: Work, folder: Path) -> list[Latency]:
    """R2ec with a greedy reasoning of the work's length; SASRec after an epoch (weights don't change its speed)."""
    if not work.reader.table.encoded:
        work.reader.table.refresh(work.reader.model)
    sasrec = load_method("sasrec").fit(work.split, seed=0, params={"epochs": 1}, workdir=scratch(folder, "sasrec"))
    return [
        _latency_of(name, method, work) for name, method in (("r2ec", R2ecRecommender(work.reader)), ("sasrec", sasrec))
    ]


def _latency_of(name: str, method: Recommender, work: Work) -> Latency:
    valid = work.split.valid
    _answer(method, valid.take(np.arange(1)))
    one_user = [
        _answer(method, valid.take(np.arange(case, case + 1)))
        for case in tqdm(range(min(ALONE, len(valid))), desc=f"{name}, one user at a time", unit="user")
    ]
    batch = valid.take(np.arange(min(TOGETHER, len(valid))))
    _answer(method, batch)
    together = [len(batch) / _answer(method, batch) for _ in range(work.size.repeats)]
    return Latency(
        method=name,
        alone_ms=1000 * statistics.median(one_user),
        alone_ms_p95=1000 * float(np.quantile(one_user, 0.95)),
        together=statistics.median(together),
    )


def _answer(method: Recommender, cases: Cases) -> float:
    started = time.perf_counter()
    for _ in method.score(cases):
        pass
    return time.perf_counter() - started
