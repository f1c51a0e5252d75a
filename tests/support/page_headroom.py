"""Measures of what choosing among reasonings could gain, as their commands leave them for the page."""

from pathlib import Path
from typing import Any

from benchmark.output.page.headroom import BestOf, Choice, Gradients, Headroom, MeasuredRun, Term
from benchmark.storage.io import sha256_of, write_json

STATISTICS = ("NDCG@10", "log rank")


def measured(results: Path, dataset: str, method: str, seed: int = 1) -> MeasuredRun:
    """The run of that name as it is now."""
    record = results / "runs" / dataset / method / f"seed{seed}" / "run.json"
    return MeasuredRun(dataset=dataset, method=method, seed=seed, commit="0123456789abcdef", sha256=sha256_of(record))


def choices(picker: str, p: float | None) -> list[Choice]:
    """A gain per statistic; without an interval where p is None."""
    ends: dict[str, Any] = {"low": None, "high": None} if p is None else {"low": -0.25, "high": 0.05}
    common: dict[str, Any] = {"picker": picker, "random": 5.0, "picked": 4.9, "gain": -0.1, "p": p}
    return [Choice(statistic=statistic, **common, **ends) for statistic in STATISTICS]


def write_headroom(results: Path, run: MeasuredRun | None, name: str) -> tuple[Path, Path]:
    """Both files, below headroom/`name`."""
    oracle = [
        BestOf(
            samples=2**i,
            statistics={"NDCG@10": 0.1 + i / 50, "log rank": 5.0 - i},
            gain=-i,
            low=-i - 0.1,
            high=-i + 0.1,
        )
        for i in range(3)
    ]
    headroom = Headroom(
        run=run,
        cases=40,
        users=30,
        samples=4,
        within={"NDCG@1000": 0.11, "log rank": 0.0412},
        oracle=oracle,
        pickers=[*choices("surest", 0.04), *choices("learned from <b>words</b>", None)],
        lent=choices("best of the user's case before", 0.2),
        lent_cases=10,
        lent_users=1,
    )
    term = {"term": "tokens", "signal": 0.0044, "low": -0.001, "high": 0.009, "scale": 3620.4, "scale_low": 1761.8}
    steps = {"scale_high": None, "steps": 227.3, "steps_low": 111.1, "steps_high": None}
    gradients = Gradients(
        run=run, batches=64, size=16, samples=4, cases=5000, terms=[Term.model_validate(term | steps)]
    )
    paths = results / "headroom" / name / "headroom.json", results / "headroom" / name / "gradients.json"
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path, measure in zip(paths, (headroom, gradients), strict=True):
        write_json(path, measure.model_dump())
    return paths
