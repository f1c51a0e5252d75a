"""Trainings by transformers' Trainer whose checkpoints have checksums, and that go on from the newest whole one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmark.errors import InputError
from benchmark.storage.checkpoints import check_checkpoint, finish_checkpoint, last_checkpoint


class CheckedTrainer(Trainer):
    """A Trainer that takes the best step's weights in the end only where they are as they were written."""

    def _load_best_model(self) -> None:
        check_checkpoint(Path(str(self.state.best_model_checkpoint)))
        super()._load_best_model()


def train(trainer: Trainer, go_on: Callable[[Path], None] | None = None) -> None:
    """Train from the newest whole checkpoint in the trainer's folder, or from the start.

    go_on: what else reads that checkpoint before the training. Several processes go on from the one that the first of
    them has found.
    The Trainer's own limit of checkpoints has to be off: it removes the older one before the newer one has its
    checksums, and goes by dates, so that it removes the newer one where the clock was set back.
    """
    assert trainer.args.save_total_limit is None
    trainer.add_callback(_Checksums())
    first = PartialState().is_main_process
    last: Path | None = broadcast_object_list([last_checkpoint(_folder(trainer.args)) if first else None])[0]
    if last is not None and go_on is not None:
        go_on(last)
    trainer.train(resume_from_checkpoint=str(last) if last else None)


class _Checksums(TrainerCallback):
    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # The Trainer forgets the best step where the folder was moved, and would end with the last one's weights.
        if args.load_best_model_at_end and state.best_global_step:
            state.best_model_checkpoint = str(_folder(args) / f"checkpoint-{state.best_global_step}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        PartialState().wait_for_everyone()  # each process writes a part
        if state.is_world_process_zero:
            finish_checkpoint(_folder(args), state.global_step, state.best_model_checkpoint)


def _folder(args: TrainingArguments) -> Path:
    if args.output_dir is None:
        raise InputError("a training needs a folder for its checkpoints")
    return Path(args.output_dir)
