"""A factor of three values with two claims, training logs for its runs, and its commands."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark.config.factors import Factor
from benchmark.config.schema import ClaimConfig
from benchmark.output import claims
from benchmark.statistics import ablations as measured
from benchmark.statistics import claims as judged
from benchmark.storage.checksums import seal
from benchmark.storage.io import read_json, write_json
from tests.support.results_tree import write_by_hand, write_results

SKILL = {"r2ec": 0.8, "r2ec--beta=0": 0.1, "r2ec--beta=1": 0.75}


def claim(**changes: Any) -> ClaimConfig:
    return ClaimConfig.model_validate({"says": "R_c <helps>", "value": "0.05", "against": "0"} | changes)


def factor(**changes: Any) -> Factor:
    entry = {
        "name": "beta",
        "title": "weight of R_c",
        "datasets": ["small"],
        "seeds": 3,
        "base": "0.05",
        "runs": {"0": "r2ec--beta=0", "0.05": "r2ec", "1": "r2ec--beta=1"},
        "claims": [claim(), claim(value="1", against="0.05", expect="equal", margin=0.5)],
    }
    return Factor.model_validate(entry | changes)


def log_of(run: str, seed: int, steps: int) -> list[dict[str, float]]:
    """A training log as R2ec reports it."""
    start = len(run) % 7 / 10 + seed / 50
    return [
        {
            "step": float(step),
            "loss": 1.0,
            "reward": start + step / 100,
            "reward_ndcg": start + step / 90,
            "length": 16 - step / 10,
            "entropy": 2 + start - step / 30,
        }
        for step in range(1, steps + 1)
    ]


def write_logs(results: Path, dataset: str, runs: dict[str, int], seeds: int = 3) -> None:
    """Put logs of so many steps into the run.json of these runs."""
    for run, steps in runs.items():
        for seed in range(1, seeds + 1):
            path = results / "runs" / dataset / run / f"seed{seed}" / "run.json"
            write_json(path, seal(read_json(path) | {"report": {"recpo_log": log_of(run, seed, steps)}}))


def write_runs(folder: Path) -> Path:
    """The runs of `factor` on two datasets; on `other` none has a training log."""
    write_results(folder, ["small", "other"], SKILL, seeds=3, n_users=40, n_cases=160)
    write_logs(folder, "small", {"r2ec": 12, "r2ec--beta=0": 12, "r2ec--beta=1": 6})
    return folder


def run(command: Any, results: Path, *factors: Factor, out: Path | None = None) -> None:
    """Make the statistics of these factors, then run the command, which writes to out/ablations."""
    factors_json = json.dumps([entry.model_dump(mode="json") for entry in factors])
    argv = ["x", "--results", str(results)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*argv, "--factors", factors_json])
        (judged if command is claims else measured).main()
        factor_arguments = [] if command is claims else ["--factors", factors_json]
        patch.setattr(sys, "argv", [*argv, *factor_arguments, *(["--out", str(out)] if out else [])])
        command.main()


def hand_made(results: Path) -> Factor:
    """The runs of `write_by_hand` as a factor's two values."""
    write_by_hand(results, "r2ec", "r2ec--x=1")
    runs = {"one": "r2ec", "two": "r2ec--x=1"}
    claims = [claim(value="two", against="one", metric="Hit@5")]
    return factor(name="x", datasets=["tiny"], seeds=2, base="one", runs=runs, claims=claims)
