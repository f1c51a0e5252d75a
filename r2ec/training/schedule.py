"""The schedule of a training: which cases each step takes, and when it logs, evaluates and writes checkpoints."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import Dataset
from transformers import TrainingArguments

from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from r2ec.settings import Params, TrainingSettings, accelerate_settings

METRIC = "eval_ndcg@10"


class Order(Dataset[int]):
    """Row numbers of the training cases in the order of all steps: a fresh seeded shuffle each epoch.

    With several iterations every stretch of one step's cases stands that many times in a row. As the whole order is
    laid out beforehand, a resumed run goes on where the killed one was.
    """

    def __init__(self, cases: int, per_step: int, settings: TrainingSettings, iterations: int, seed: int) -> None:
        if cases < per_step:
            raise InputError(f"{cases} training cases are fewer than the {per_step} of one step; lower the batch size")
        fresh_steps = -(-settings.max_steps // iterations)
        if settings.max_steps < 0:
            fresh_steps = int(settings.num_train_epochs * cases) // per_step
        epochs = -(-fresh_steps * per_step // cases)
        shuffles = [np.random.default_rng(derive_seed(seed, "order", e)).permutation(cases) for e in range(epochs)]
        fresh = np.concatenate(shuffles)[: fresh_steps * per_step].reshape(fresh_steps, per_step)
        steps = np.repeat(fresh, iterations, axis=0)
        # Not one step more than max_steps: the Trainer would take a resume at the last one for unfinished.
        self.rows = (steps if settings.max_steps < 0 else steps[: settings.max_steps]).reshape(-1)
        self.per_step = per_step

    def until(self, step: int) -> np.ndarray:
        """The distinct rows of the first `step` steps, int64, ascending."""
        return np.unique(self.rows[: step * self.per_step])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> int:
        return int(self.rows[i])


# The others wait for what the first process does alone, such as encoding the catalogue or ranking for a grid.
WAIT = timedelta(days=7)


def training_arguments(
    settings: TrainingSettings, seed: int, folder: Path, *, device: torch.device, layers: list[str]
) -> TrainingArguments:
    """The Trainer's own arguments; none that matters is left to its default. layers: classes that FSDP wraps."""
    fsdp = {"transformer_layer_cls_to_wrap": layers} | accelerate_settings(settings.fsdp) if settings.fsdp else None
    when: dict[str, Any] = {"save_strategy": "steps", "save_steps": settings.eval_steps or settings.save_steps}
    if settings.eval_steps:
        when |= {
            "eval_strategy": "steps",
            "eval_steps": settings.eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": METRIC,
            "greater_is_better": True,
            "restore_callback_states_from_checkpoint": True,  # how many evaluations were not better
        }
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        max_steps=settings.max_steps,
        num_train_epochs=1,  # Order lays out all epochs as one
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type=settings.lr_scheduler_type,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=settings.logging_steps,
        save_total_limit=None,  # lm/checkpoints.py removes older ones
        seed=seed,
        data_seed=seed,
        report_to=["tensorboard"],
        remove_unused_columns=False,
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=device.type == "cpu",
        ddp_timeout=int(WAIT.total_seconds()),
        disable_tqdm=False,
        deepspeed=accelerate_settings(settings.deepspeed) if settings.deepspeed else None,
        fsdp=bool(settings.fsdp),  # type: ignore[arg-type]  # a text in its annotation, which it calls deprecated
        fsdp_config=fsdp,
        **when,
    )


def processes(params: Params) -> PartialState:
    """The processes that fit together: those of torchrun, one where nothing has started several."""
    return PartialState(cpu=torch.device(params.backbone.device).type == "cpu", timeout=WAIT)
