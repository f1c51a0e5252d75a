"""Tests that a training never resumes from a damaged checkpoint and loses only the steps since an older one."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmark.errors import InputError
from benchmark.storage.checkpoints import check_checkpoint, last_checkpoint
from lm import checkpoints
from lm.checkpoints import CheckedTrainer, train

SIZES = {"train": 24, "valid": 4}


class Line(nn.Module):
    """y = 3 x, to be learned."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"loss": ((self.slope * x - y) ** 2).mean(), "logits": self.slope * x}


def rows(part: str) -> list[dict[str, Tensor]]:
    return [{"x": torch.tensor([v / 10]), "y": torch.tensor([3 * v / 10])} for v in range(SIZES[part])]


def trainer(folder: Path, steps: int = 6, **more: Any) -> Trainer:
    """Return a trainer with checkpoints after steps 2, 4 and 6; with BEST, step 2 is the best."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"learning_rate": 0.5, "save_steps": 2} | more
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=steps,
        save_total_limit=None,
        logging_steps=1,
        seed=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    return CheckedTrainer(model=Line(), args=arguments, train_dataset=rows("train"), eval_dataset=rows("valid"))


BEST: dict[str, Any] = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "label_names": ["y"],
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "greater_is_better": True,  # the largest loss is that of step 2, so that the first checkpoint is the best
}


class Killed(TrainerCallback):
    """Ends a training after a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def trained(folder: Path, killed: int | None = None, **more: Any) -> float:
    """Train and return the slope at the end, or NaN where the training is killed."""
    training = trainer(folder, **more)
    if killed is None:
        train(training)
        assert isinstance(training.model, Line)
        return float(training.model.slope.detach())
    training.add_callback(Killed(killed))
    with pytest.raises(KeyboardInterrupt):
        train(training)
    return float("nan")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def test_a_training_keeps_its_two_newest_checkpoints(tmp_path: Path) -> None:
    assert trained(tmp_path) == pytest.approx(2.0, abs=1.0)
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    for name in names(tmp_path):
        check_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "SHA256SUMS"]
)
def test_a_checkpoint_with_a_flipped_bit_is_removed_for_the_older_one(file: str, tmp_path: Path, capsys: Any) -> None:
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "broken", killed=5)
    assert names(tmp_path / "broken") == ["checkpoint-2", "checkpoint-4"]
    flip(tmp_path / "broken" / "checkpoint-4" / file)
    assert last_checkpoint(tmp_path / "broken") == tmp_path / "broken" / "checkpoint-2"
    said = capsys.readouterr().out
    assert f"damaged: {tmp_path / 'broken' / 'checkpoint-4'}" in said and "removed" in said
    assert trained(tmp_path / "broken") == whole
    assert names(tmp_path / "broken") == ["checkpoint-4", "checkpoint-6"]


def test_with_all_checkpoints_damaged_training_starts_anew(tmp_path: Path, capsys: Any) -> None:
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "broken", killed=5)
    for name in names(tmp_path / "broken"):
        flip(tmp_path / "broken" / name / "optimizer.pt")
    assert last_checkpoint(tmp_path / "broken") is None
    assert capsys.readouterr().out.count("is not what was written there") == 2
    assert trained(tmp_path / "broken") == whole


def test_a_checkpoint_whose_best_step_is_damaged_is_not_resumed(tmp_path: Path, capsys: Any) -> None:
    """The training would end with the last step's weights, and call them the best."""
    whole = trained(tmp_path / "whole", **BEST)
    assert names(tmp_path / "whole") == ["checkpoint-2", "checkpoint-6"]  # the best and the newest, and no other
    trained(tmp_path / "broken", killed=5, **BEST)
    flip(tmp_path / "broken" / "checkpoint-2" / "model.safetensors")
    assert last_checkpoint(tmp_path / "broken") is None
    assert "checkpoint-2: the best step of" in capsys.readouterr().out
    assert trained(tmp_path / "broken", **BEST) == whole
    assert whole < trained(tmp_path / "last")  # of the last step


def test_a_best_step_damaged_during_the_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = checkpoints.finish_checkpoint

    def finished(folder: Path, step: int, best: str | None) -> None:
        finish(folder, step, best)
        if step == 6:
            flip(folder / "checkpoint-2" / "model.safetensors")

    with (
        monkeypatch.context() as patch,
        pytest.raises(InputError, match=r"checkpoint-2/model.safetensors .*; run again"),
    ):
        patch.setattr(checkpoints, "finish_checkpoint", finished)
        trained(tmp_path / "broken", **BEST)
    assert trained(tmp_path / "broken", **BEST) == trained(tmp_path / "whole", **BEST)


def test_a_moved_folder_keeps_its_best_step(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", **BEST)
    trained(tmp_path / "before", killed=5, **BEST)
    (tmp_path / "before").rename(tmp_path / "after")
    assert trained(tmp_path / "after", **BEST) == whole
    # A copy goes on in its own folder, whatever becomes of the other.
    trained(tmp_path / "one", killed=5, **BEST)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    flip(tmp_path / "one" / "checkpoint-2" / "model.safetensors")
    assert trained(tmp_path / "two", **BEST) == whole


def test_a_clock_set_back_removes_no_newer_checkpoint(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "back", killed=3)
    for path in [tmp_path / "back" / "checkpoint-2", *(tmp_path / "back" / "checkpoint-2").iterdir()]:
        os.utime(path, (4e9, 4e9))  # of the year 2096
    trained(tmp_path / "back", killed=5)
    assert names(tmp_path / "back") == ["checkpoint-2", "checkpoint-4"]
    assert trained(tmp_path / "back") == whole
    assert names(tmp_path / "back") == ["checkpoint-4", "checkpoint-6"]


def test_a_checkpoint_without_checksums_is_resumed(tmp_path: Path) -> None:
    trained(tmp_path, killed=5)
    (tmp_path / "checkpoint-4" / "SHA256SUMS").unlink()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    flip(tmp_path / "checkpoint-4" / "optimizer.pt")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_disk_that_fills_within_a_checkpoint_loses_that_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole")
    save, calls = torch.save, []

    def full(value: Any, path: Any, *rest: Any, **more: Any) -> None:
        calls.append(path)
        if "checkpoint-4" in str(path):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(value, path, *rest, **more)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(torch, "save", full)
        trained(tmp_path / "full")
    assert names(tmp_path / "full") == ["checkpoint-2", "checkpoint-4"] and calls
    assert last_checkpoint(tmp_path / "full") == tmp_path / "full" / "checkpoint-2"
    assert trained(tmp_path / "full") == whole
