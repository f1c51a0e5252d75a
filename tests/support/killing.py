"""Fits that kill themselves at chosen points, one after the other in one folder, for test_killed.py.

`python -m tests.support.killing JOB.json` imports everything once and forks a child for each fit, so that one takes a
second. A child ends by SIGKILL: nothing is flushed and nothing cleaned up.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.utils.tensorboard  # loaded here, once for all children
from accelerate import Accelerator
from transformers import TrainerState

from benchmark.config.overlay import overlaid
from lm import checkpoints
from lm.writing.engine import TransformersEngine
from r2ec.fit import fit_r2ec
from r2ec.method import Params
from r2ec.model.item_table import ItemTable
from r2ec.recpo.trainer import RecPOTrainer
from r2ec.training.loop import RolloutTrainer
from r2ec.warm_start.adapters import TaughtTrainer
from tests.support.tiny_fits import scores, split

now = SimpleNamespace(phase="warm start", step=-1, batch=-1)
TAUGHT = "adapters, "  # before the name of a phase or a point that is theirs


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill(owner: Any, name: str, when: Callable[[], bool], after: bool = False) -> None:
    """Let a call of `owner.name` kill the process, before it does anything or when it is done."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not after and when():
            die()
        result = original(*args, **kwargs)
        if after and when():
            die()
        return result

    setattr(owner, name, wrapped)


def watch(values: dict[int, float]) -> None:
    """Keep `now` up to date. values: by step the validation's result, in the place of the computed one."""
    train, evaluate, save = (getattr(RolloutTrainer, name) for name in ("train", "evaluate", "_save_checkpoint"))

    def of(self: RolloutTrainer, phase: str) -> str:
        return TAUGHT * isinstance(self, TaughtTrainer) + phase

    def watched_train(self: RolloutTrainer, *args: Any, **kwargs: Any) -> Any:
        now.phase = of(self, "training")
        result = train(self, *args, **kwargs)
        now.phase = of(self, "final")
        return result

    def watched_loss(loss: Callable[..., Any]) -> Callable[..., Any]:
        def watched(self: RolloutTrainer, *args: Any, **kwargs: Any) -> Any:
            step = self.state.global_step
            now.batch = now.batch + 1 if now.step == step else 0
            now.step = step
            return loss(self, *args, **kwargs)

        return watched

    def watched_evaluate(self: RolloutTrainer, *args: Any, **kwargs: Any) -> Any:
        now.phase, now.step = "validation", self.state.global_step
        validate = self.validate
        self.validate = lambda: (loss := validate(), values.get(now.step, loss))[1]
        result = evaluate(self, *args, **kwargs)
        now.phase, self.validate = "training", validate
        return result

    def watched_save(self: RolloutTrainer, *args: Any, **kwargs: Any) -> Any:
        now.phase, now.step = of(self, "checkpoint"), self.state.global_step
        result = save(self, *args, **kwargs)
        now.phase = of(self, "training")
        return result

    RolloutTrainer.train = watched_train  # type: ignore[method-assign]
    for trainer in (RecPOTrainer, TaughtTrainer):
        trainer.compute_loss = watched_loss(trainer.compute_loss)  # type: ignore[method-assign]
    RolloutTrainer.evaluate = watched_evaluate  # type: ignore[method-assign]
    RolloutTrainer._save_checkpoint = watched_save  # type: ignore[method-assign]


def half_a_file(state: TrainerState, path: str) -> None:
    Path(path).write_text(json.dumps({"global_step": state.global_step})[:-4], encoding="utf-8")
    die()


def arm(point: str, step: int, batches: int) -> None:
    """Prepare to die at this point; at its step `step`, where it has several."""
    stage = TAUGHT if point.startswith(TAUGHT) else ""
    point = point.removeprefix(TAUGHT)

    def at(phase: str) -> bool:
        return now.phase == stage + phase and now.step == step

    if point == "warm start, table":
        kill(ItemTable, "write", lambda: now.phase == "warm start")
    elif point == "warm start, cases":
        kill(TransformersEngine, "generate", lambda: now.phase == "warm start", after=True)
    elif point == "before backward":
        kill(Accelerator, "backward", lambda: at("training"))
    elif point == "after backward":
        kill(Accelerator, "backward", lambda: at("training") and now.batch == batches - 1, after=True)
    elif point == "validation":  # the table is encoded, the first cases are written
        kill(TransformersEngine, "generate", lambda: at("validation"), after=True)
    elif point == "checkpoint, weights written":
        kill(RolloutTrainer, "_save", lambda: at("checkpoint"), after=True)
    elif point == "checkpoint, half a state":
        original = TrainerState.save_to_json
        TrainerState.save_to_json = lambda *args: (half_a_file if at("checkpoint") else original)(*args)  # type: ignore
    elif point == "checkpoint, no checksums":
        kill(checkpoints, "finish_checkpoint", lambda: now.step == step)
    elif point == "last table":
        kill(ItemTable, "write", lambda: now.phase == stage + "final")
    elif point == "last save":  # the weights are written
        kill(ItemTable, "save", lambda: now.phase == stage + "final")
    else:
        raise ValueError(point)


def child(job: dict[str, Any], workdir: Path, point: str | None, step: int = -1) -> int:
    """Fit in a forked process; return its wait status."""
    if (pid := os.fork()) != 0:
        return os.waitpid(pid, 0)[1]
    try:
        watch({int(step): value for step, value in job["values"].items()})
        # States of its own, or there would be nothing to encode, and so to kill, in the second fit.
        own = {"warm_start": {"states": str(workdir / "states")}}
        params = Params.model_validate(overlaid(job["settings"], own))
        if point is not None:
            arm(point, step, params.training.gradient_accumulation_steps)
        fitted = fit_r2ec(split(), 3, params, workdir)
        np.save(workdir / "scores.npy", scores(fitted))
        (workdir / "report.json").write_text(json.dumps(fitted.report()), encoding="utf-8")
    except BaseException as error:
        print(f"{point} {step}: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(job["folder"])
    # A forked process must not find the parent's threads gone.
    torch.set_num_threads(1)
    if child(job, folder / "whole", None) != 0:
        sys.exit("the unbroken fit failed")
    for point, step in job["points"]:
        status = child(job, folder / "killed", point, step)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL or (folder / "killed/model").exists():
            sys.exit(f"{point}, step {step}: was not killed there, wait status {status}")
    if child(job, folder / "killed", None) != 0:
        sys.exit("the killed fit did not finish")


if __name__ == "__main__":
    main()
