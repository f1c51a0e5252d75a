"""transformers' Trainer for an R2ec that learns from what it writes: its loop, checkpoints, resume and logging.

A subclass says what a batch of cases is prepared to (`prepared`: rollouts, and items to encode) and what its loss is.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler
from transformers import EarlyStoppingCallback, Trainer

from benchmark.contract import Cases
from benchmark.errors import InputError
from benchmark.storage.checkpoints import check_checkpoint
from lm.writing.engine import TransformersEngine
from lm.writing.rollouts import Rollouts, pad_id, without_reasoning
from r2ec.model.item_table import TABLE, ItemTable
from r2ec.model.network import WEIGHTS, ItemPrompts, R2ec
from r2ec.model.prompts import PromptBuilder
from r2ec.settings import TrainingSettings
from r2ec.training import sharded
from r2ec.training.measured import RANKS, SECONDS, Measuring
from r2ec.training.schedule import METRIC, Order, training_arguments

if TYPE_CHECKING:
    from lm.writing.vllm import VllmEngine  # importing it takes seconds
    from lm.writing.vllm_processor import ProcessorVllmEngine

CPU_ALLOCATOR = "DefaultCPUAllocator: "  # in torch's message where main memory is full


@dataclass(frozen=True)
class Batch:
    """What the update of one batch of users reads."""

    cases: Cases
    rollouts: Rollouts
    item_rows: Tensor  # int64 [M], the items that take part
    items: ItemPrompts | None  # their prompts, which the update encodes; None: it encodes no item

    @property
    def tokens(self) -> int:
        """Real tokens that are read: prompts once per user, completions, item prompts with their beginning once."""
        count = self.rollouts.prompt_mask.sum() + self.rollouts.completion_mask.sum()
        return int(count if self.items is None else count + len(self.items.beginning) + self.items.mask.sum())


class RolloutTrainer(Trainer):
    """Trains an R2ec on batches of cases for which its LM has just written.

    Args:
        model, table, prompts, engine: the parts; the engine writes with the same backbone.
        cases: training cases with targets. reasoning: False: nothing is written behind an opened `<answer>`.
        iterations: steps on each batch. validate: gives NDCG@10 of the model as it is now, for early stopping.
        measure: gives the ranks of cases that `training.measured_steps` asks for, and leaves everything as it was.
        seed: every random stream is derived from it, from the step and from the case.
    """

    MEMORY_SETTINGS: str  # settings to lower where memory is full

    def __init__(
        self,
        *,
        model: R2ec,
        table: ItemTable,
        prompts: PromptBuilder,
        engine: "TransformersEngine | VllmEngine | ProcessorVllmEngine",
        cases: Cases,
        reasoning: bool,
        training: TrainingSettings,
        seed: int,
        folder: Path,
        iterations: int = 1,
        validate: Callable[[], float] | None = None,
        measure: Callable[[], list[int]] | None = None,
    ) -> None:
        self.table, self.prompts, self.engine, self.cases = table, prompts, engine, cases
        self.reasoning, self.validate, self.training, self.seed = reasoning, validate, training, seed
        self.longest = int(np.diff(cases.offsets).max())  # history
        layers = sorted(model.causal_lm._no_split_modules or [])
        args = training_arguments(training, seed, folder, device=table.states.device, layers=layers)
        per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self.order = order = Order(len(cases), per_step, training, iterations, seed)
        super().__init__(
            model=model,
            args=args,
            train_dataset=order,
            eval_dataset=order,  # never read: validation is `validate`
            data_collator=lambda rows: {"rows": torch.tensor(rows)},
            callbacks=[EarlyStoppingCallback(training.patience)] if training.eval_steps else None,
        )
        if measure is not None and training.measured_steps:
            self.add_callback(Measuring(training.measured_steps, self._whole(measure)))
        self.place = (-1, 0)  # the step at work, and which of its batches
        self._batch: Batch | None = None
        self._update_started = 0.0
        self._gathered: dict[str, list[float]] = defaultdict(list)

    # One batch of a step

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Prepare one batch of users, forward and backward. Raises InputError where memory is full."""
        try:
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"out of memory at step {self.state.global_step}: {str(error).rpartition(CPU_ALLOCATOR)[2]}; "
                f"lower {self.MEMORY_SETTINGS}"
            ) from None
        assert self._batch is not None
        seconds = self.seconds_since(self._update_started)
        self.note(seconds_update=seconds, update_tokens_per_second=self._batch.tokens / seconds)
        return loss

    def _prepare_inputs(self, inputs: dict[str, Any]) -> Any:
        """The batch of the cases at `inputs["rows"]`, int64 [B], as `prepared` gives it."""
        rows = super()._prepare_inputs(inputs)["rows"].cpu().numpy()
        step, batch = self.place
        self.place = (self.state.global_step, batch + 1 if step == self.state.global_step else 0)
        self._batch = self.prepared(self.cases.take(rows))
        self._update_started = time.monotonic()
        return self._batch

    def prepared(self, cases: Cases) -> Batch:
        """The batch of these cases that `compute_loss` gets."""
        raise NotImplementedError

    def write(self, cases: Cases, step: int) -> Rollouts:
        """G completions per user by the present policy, drawn by the streams of `step`; none without reasoning."""
        if not self.reasoning:
            prompts = self.prompts.user_prompts(cases, open_answer=True)
            return without_reasoning(prompts, pad_id(self.prompts.tokenizer), self.table.states.device)
        prompts = self.prompts.user_prompts(cases)
        if self.engine.settings.backend == "vllm" and self.place[1] == 0:  # the weights that the last update has left
            started = time.monotonic()
            cast("VllmEngine | ProcessorVllmEngine", self.engine).sync_weights()
            self.note(seconds_sync=self.seconds_since(started))
        with sharded.whole(self.net):
            result = self.engine.generate(prompts, cases=cases.case, seed=self.seed, step=step)
        self.note(
            seconds_rollouts=result.seconds,
            rollout_tokens_per_second=result.tokens_per_second,
            length=float(result.lengths.float().mean()),
            length_max=float(result.lengths.max()),
            cut_share=float(result.cut.float().mean()),
            ended_share=float(result.ended.float().mean()),
        )
        return result.rollouts

    @property
    def net(self) -> R2ec:
        """The model without accelerate's wrappers."""
        net = self.accelerator.unwrap_model(self.model)
        assert isinstance(net, R2ec)
        return net

    # What is logged

    def note(self, **values: float) -> None:
        """Gather values of this batch for the next entry of the log."""
        for name, value in values.items():
            self._gathered[name].append(value)

    def logged(self, *names: str) -> list[dict[str, float]]:
        """The entries of the log that have one of these names, in their order."""
        entries = [entry for entry in self.state.log_history if not entry.keys().isdisjoint(names)]
        return [{name: round(float(value), 6) for name, value in entry.items()} for entry in entries]

    def measured(self) -> list[dict[str, Any]]:
        """Return the result of `measure` at each step: step, seconds (of training so far) and ranks."""
        entries = [entry for entry in self.state.log_history if RANKS in entry]
        return [{"step": int(entry["step"]), "seconds": entry[SECONDS], "ranks": entry[RANKS]} for entry in entries]

    def _whole(self, measure: Callable[[], list[int]]) -> Callable[[], list[int]]:
        def ranks() -> list[int]:
            with sharded.whole(self.net):
                return measure()

        return ranks

    def seconds_since(self, started: float) -> float:
        """Seconds since `started` of time.monotonic, until the device has done what it was given."""
        if self.args.device.type == "cuda":
            torch.cuda.synchronize()  # what was started there is part of it
        return time.monotonic() - started

    def mean_over_processes(self, values: Tensor) -> Tensor:
        """The mean of all processes' values; they are summed in place."""
        if self.args.world_size > 1:
            dist.all_reduce(values)
        return values / self.args.world_size

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the steps since the last logging gathered, averaged over them and over the processes."""
        if "loss" in logs:
            means = [float(np.mean(values)) for values in self._gathered.values()]
            exact = torch.tensor(means, dtype=torch.float64, device=self.args.device)
            logs = logs | dict(zip(self._gathered, self.mean_over_processes(exact).tolist(), strict=True))
            self._gathered.clear()
        super().log(logs, start_time)

    # Methods of the Trainer that are replaced

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """NDCG@10 on validation cases, with greedy reasonings and a fresh item table."""
        assert self.validate is not None
        # The main process's value decides for all: one that stops alone would leave the others waiting.
        with sharded.whole(self.net):
            value = torch.tensor([self.validate()], dtype=torch.float64, device=self.args.device)
        if self.args.world_size > 1:
            dist.broadcast(value, 0)
        metrics = {METRIC: float(value)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Take no step where training had stopped early at the checkpoint from which it resumes."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                worse, patience = callback.early_stopping_patience_counter, callback.early_stopping_patience
                self.control.should_training_stop |= worse >= patience
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW; the rec head's maps may have a learning rate of their own."""
        if self.optimizer is None:
            net, rate = self.net, self.training.learning_rate
            head = [*net.head.parameters(), *(net.cls_head.parameters() if net.cls_head else [])]
            own = {id(p) for p in head}
            others = [p for p in net.parameters() if p.requires_grad and id(p) not in own]
            own_rate = self.training.head_learning_rate
            groups = [{"params": others, "lr": rate}, {"params": head, "lr": rate if own_rate is None else own_rate}]
            groups = [group for group in groups if group["params"]]
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.training.weight_decay)
        return self.optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What `_save` writes; all processes call it, as under FSDP each has a piece."""
        with sharded.whole(self.net):
            self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Only what training changes, and the item table as it stands between two refreshes."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self.net.save(folder / WEIGHTS)
        self.table.save(folder / TABLE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        sharded.load(self.net, Path(resume_from_checkpoint) / WEIGHTS)
        self.table.load(Path(resume_from_checkpoint) / TABLE)

    def _load_best_model(self) -> None:
        check_checkpoint(Path(str(self.state.best_model_checkpoint)))
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch found no room, on a GPU or on the CPU, for which it has no error class."""
    return isinstance(error, torch.OutOfMemoryError) or CPU_ALLOCATOR in str(error)
