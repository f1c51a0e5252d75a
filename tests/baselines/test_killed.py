"""Tests that a fit killed at each step, and at each write between steps, ends with the scores of an unbroken one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.config.methods import ROOT
from benchmark.storage.checkpoints import last_checkpoint
from tests.support.tiny_fits import settings, write_backbone

# In the middle of each of these. Between two checkpoints a step is done again.
WARM_START = [("warm start, table", -1), ("warm start, cases", -1)]
END = [("last table", -1), ("last save", -1)]


def steps(first: int, stop: int) -> list[tuple[str, int]]:
    return [(point, step) for step in range(first, stop) for point in ("before backward", "after backward")]


def checkpoint(step: int) -> list[tuple[str, int]]:
    return [("checkpoint, weights written", step), ("checkpoint, half a state", step)]


def run(
    folder: Path, fit_settings: dict[str, Any], points: list[tuple[str, int]], values: dict[int, float]
) -> dict[str, Any]:
    """Run the fit unbroken and killed at `points`, check that both agree, and return the unbroken run's report."""
    job = folder / "job.json"
    job.write_text(json.dumps({"folder": str(folder), "settings": fit_settings, "points": points, "values": values}))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.run(
        [sys.executable, "-m", "tests.support.killing", str(job)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    np.testing.assert_array_equal(np.load(folder / "killed/scores.npy"), np.load(folder / "whole/scores.npy"))
    whole, killed = (json.loads((folder / name / "report.json").read_text()) for name in ("whole", "killed"))
    assert killed["recpo_steps"] == whole["recpo_steps"]
    for log in whole.keys() & {"recpo_log", "adapter_log"}:
        for mine, theirs in zip(killed[log], whole[log], strict=True):
            assert untimed(mine) == untimed(theirs)
    return dict(whole)


def untimed(logged: dict[str, float]) -> dict[str, float]:
    return {
        name: value for name, value in logged.items() if not name.startswith("seconds") and "per_second" not in name
    }


def test_a_fit_killed_anywhere_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    """Checkpoints come every two steps and the table is encoded every three, so a checkpoint holds an older table."""
    fit_settings = settings(
        write_backbone(tmp_path / "backbone"),
        recpo={"refresh_steps": 3},
        training={"max_steps": 5, "save_steps": 2},
    )
    points = WARM_START + steps(0, 2) + checkpoint(2) + steps(2, 4) + checkpoint(4) + steps(4, 5) + checkpoint(5) + END
    points.insert(-len(END), ("checkpoint, no checksums", 5))
    assert run(tmp_path, fit_settings, points, {})["recpo_steps"] == 5


def test_a_fit_killed_in_any_iteration_stops_early_as_an_unbroken_one(tmp_path: Path) -> None:
    """Validation is worse at steps 4 and 6 than at 2: training stops at 6 and takes the weights of 2."""
    fit_settings = settings(
        write_backbone(tmp_path / "backbone"),
        recpo={"num_iterations": 2, "refresh_steps": 3},
        training={
            "max_steps": 9,
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": 2,
            "eval_steps": 2,
            "eval_cases": 16,
            "patience": 2,
        },
    )
    points = list(WARM_START)
    for stop in (2, 4, 6):
        points += [*steps(stop - 2, stop), ("validation", stop), *checkpoint(stop)]
    whole = run(tmp_path, fit_settings, points + END, {2: 0.3, 4: 0.1, 6: 0.2})
    assert whole["recpo_steps"] == 6
    kept = sorted(path.name for path in (tmp_path / "killed/recpo").glob("checkpoint-*"))
    assert kept == ["checkpoint-2", "checkpoint-6"]


def test_a_fit_killed_in_the_adapters_warm_start_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    """One point lies between the last step and the folder that marks the warm start as done; there the teacher is
    fitted again."""
    fit_settings = settings(
        write_backbone(tmp_path / "backbone"),
        warm_start={
            "adapters": {"steps": 3, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 1, "held_items": 3}
        },
        training={"max_steps": 2, "save_steps": 2},
    )
    taught = steps(0, 2) + checkpoint(2) + steps(2, 3) + checkpoint(3) + END
    points = WARM_START + [(f"adapters, {point}", step) for point, step in taught] + steps(0, 1)
    assert len(run(tmp_path, fit_settings, points, {})["adapter_log"]) == 3


def test_a_checkpoint_without_its_end_is_passed_over(tmp_path: Path) -> None:
    for step, state in ((2, "{}"), (9, '{"half'), (10, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
