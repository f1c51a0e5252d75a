"""transformers' Trainer for a loss that is a function of step and rows; its checkpoints hold trained weights only."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments

from baselines._writers.llm_texts import micro_batch
from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from benchmark.storage.io import atomic
from lm.checkpoints import train

TRAINED = "trained.safetensors"

# Takes the step's number (from 0), a micro-batch's row numbers, and all row numbers of its step. Gives the loss of the
# micro-batch, a scalar, whose sum over micro-batches is the step's; and values to log, averaged over micro-batches.
Loss = Callable[[int, list[int], list[int]], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Group:
    """Parameters with a rate of their own, which falls linearly to 0."""

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Steps:
    """`count` steps of `rows` rows, at most `at_once` of them in a micro-batch; a checkpoint each `save_steps`."""

    count: int
    rows: int
    at_once: int
    save_steps: int


def run_steps(
    model: nn.Module, loss: Loss, groups: Sequence[Group], steps: Steps, *, seed: int, folder: Path, name: str
) -> list[dict[str, float]]:
    """Train the trainable parameters of `model`, which must be those of `groups`, by AdamW on rows 0, 1, ..., once.

    name: of the training, in errors. Goes on from the last checkpoint in `folder`. Returns for each step its loss and
    the values that `loss` logs. Raises InputError where the loss isn't finite.
    """
    at_once = micro_batch(steps.rows, steps.at_once)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=steps.rows // at_once,
        max_steps=steps.count,
        learning_rate=groups[0].learning_rate,
        lr_scheduler_type="linear",
        save_steps=steps.save_steps,
        save_total_limit=None,
        logging_steps=1,
        seed=derive_seed(seed, name) % 2**31,
        report_to=[],
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = StepTrainer(model, arguments, loss, groups, steps, name)
    train(trainer)
    model.eval()
    return trainer.logged


class StepTrainer(Trainer):
    """See `run_steps`."""

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        loss: Loss,
        groups: Sequence[Group],
        steps: Steps,
        name: str,
    ) -> None:
        self.loss_of, self.groups, self.steps, self.name = loss, groups, steps, name
        self._gathered: dict[str, list[float]] = defaultdict(list)
        rows = _Rows(steps.count * steps.rows)
        super().__init__(model=model, args=arguments, train_dataset=rows, data_collator=lambda batch: {"rows": batch})

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The loss of one micro-batch; the Trainer divides by their number, which is why it is multiplied here."""
        step = self.state.global_step
        of_step = list(range(step * self.steps.rows, (step + 1) * self.steps.rows))
        loss, logged = self.loss_of(step, inputs["rows"], of_step)
        if not bool(torch.isfinite(loss)):
            raise InputError(f"{self.name}: the loss is {float(loss.detach())} at step {step}; lower its rate")
        for name, value in logged.items():
            self._gathered[name].append(value)
        return loss * self.args.gradient_accumulation_steps

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            trained = {id(parameter) for parameter in self.model.parameters() if parameter.requires_grad}  # type: ignore[union-attr]
            assert trained == {id(parameter) for group in self.groups for parameter in group.parameters}
            parts = [
                {"params": list(group.parameters), "lr": group.learning_rate, "weight_decay": group.weight_decay}
                for group in self.groups
            ]
            self.optimizer = torch.optim.AdamW(parts)
        return self.optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the values that the micro-batches since the last logging gave."""
        if "loss" in logs:
            logs = logs | {name: float(np.mean(values)) for name, values in self._gathered.items()}
            self._gathered.clear()
        super().log(logs, start_time)

    @property
    def logged(self) -> list[dict[str, float]]:
        """The logged values of each step, steps of earlier runs included."""
        steps = [entry for entry in self.state.log_history if "loss" in entry]
        of_trainer = {"epoch", "step", "learning_rate", "grad_norm"}
        return [{name: round(float(entry[name]), 4) for name in entry if name not in of_trainer} for entry in steps]

    def _trained(self) -> dict[str, Tensor]:
        assert isinstance(self.model, nn.Module)
        return {
            name: parameter.detach().contiguous()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / TRAINED) as temporary:
            save_file(self._trained(), temporary)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / TRAINED)
        for name, parameter in self._trained().items():
            parameter.copy_(saved[name])

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


class _Rows(Dataset[int]):
    """Row numbers, one after the other."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> int:
        if i >= self.count:
            raise IndexError(i)
        return i
