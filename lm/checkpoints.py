"""Trains by transformers' Trainer with checksums on checkpoints, and resumes from the newest undamaged one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmark.errors import InputError
from benchmark.storage.checkpoints import check_checkpoint, finish_checkpoint, last_checkpoint


class CheckedTrainer(Trainer):
    """A Trainer that checks the best checkpoint's checksums before it loads the weights from it at the end.

    Raises InputError for a damaged one.
    """

    def _load_best_model(self) -> None:
        check_checkpoint(Path(str(self.state.best_model_checkpoint)))
        super()._load_best_model()


def train(trainer: Trainer, go_on: Callable[[Path], None] | None = None) -> None:
    """Train from the newest undamaged checkpoint in the trainer's folder, or from the start.

    go_on: called with that checkpoint's folder before the training, to load what the Trainer doesn't. The first process
    chooses the checkpoint for all.
    `save_total_limit` has to be None: the Trainer would remove the older checkpoint before the newer one has its
    checksums. It sorts by date, too, so it would remove the newer one after the clock was set back.
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
