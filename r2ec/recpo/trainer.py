"""RecPO on transformers' Trainer: its loop, checkpoints, resume and logging; our rollouts, reward and loss.

One step (paper, Algorithm 1): refresh the item table if it is due; write G reasonings per user; one forward with
gradients gives the sampled tokens' log-probabilities, h_T of each rollout and the states of the batch's targets; put
those states into the table; rewards and advantages from the very h_T that the loss differentiates; the clipped loss.
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
from benchmark.provenance import derive_seed
from lm.writing.engine import TransformersEngine
from lm.writing.rollouts import Rollouts, pad_id, without_reasoning
from r2ec.model.item_table import TABLE, ItemTable
from r2ec.model.network import WEIGHTS, ItemPrompts, PolicyOutput, R2ec
from r2ec.model.prompts import PromptBuilder
from r2ec.recpo.objective import (
    candidate_log_q,
    gather_rows,
    group_advantages,
    item_logps,
    recpo_loss,
    users_per_process,
)
from r2ec.recpo.reward import recpo_rewards
from r2ec.settings import RecPOSettings, TrainingSettings
from r2ec.training import sharded
from r2ec.training.schedule import METRIC, Order, training_arguments

if TYPE_CHECKING:
    from lm.writing.vllm import VllmEngine  # importing it takes seconds

CPU_ALLOCATOR = "DefaultCPUAllocator: "  # in torch's message where main memory is full


@dataclass
class Experience:
    """Rollouts of one batch of users, kept for the later iterations on them."""

    rollouts: Rollouts
    old_token_logps: Tensor | None = None  # float32 [N, T]; None until the first iteration has computed them
    old_item_logps: Tensor | None = None  # float32 [N]
    advantages: Tensor | None = None  # float32 [B, G]


class RecPOTrainer(Trainer):
    """Trains an R2ec by RecPO.

    Args:
        model, table, prompts, engine: the parts; the engine writes with the same backbone.
        cases: training cases with targets. validate: gives NDCG@10 of the model as it is now, for early stopping.
        seed: every random stream is derived from it, from the step and from the case.
    """

    # What takes less memory when it is lowered.
    LESS = (
        "training.per_device_train_batch_size (and raise gradient_accumulation_steps), rollouts.group_size, "
        "rollouts.max_new_tokens or prompts.max_prompt_tokens"
    )

    def __init__(
        self,
        *,
        model: R2ec,
        table: ItemTable,
        prompts: PromptBuilder,
        engine: "TransformersEngine | VllmEngine",
        cases: Cases,
        validate: Callable[[], float],
        recpo: RecPOSettings,
        training: TrainingSettings,
        seed: int,
        folder: Path,
    ) -> None:
        self.table, self.prompts, self.engine, self.cases = table, prompts, engine, cases
        self.validate, self.recpo, self.training, self.seed = validate, recpo, training, seed
        self.group = engine.settings.group_size if recpo.reasoning else 1
        self.longest = int(np.diff(cases.offsets).max())  # history
        layers = sorted(model.causal_lm._no_split_modules or [])
        args = training_arguments(training, seed, folder, device=table.states.device, layers=layers)
        per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        self.order = order = Order(len(cases), per_step, training, recpo.num_iterations, seed)
        super().__init__(
            model=model,
            args=args,
            train_dataset=order,
            eval_dataset=order,  # never read: validation is `validate`
            data_collator=lambda rows: {"rows": torch.tensor(rows)},
            callbacks=[EarlyStoppingCallback(training.patience)] if training.eval_steps else None,
        )
        assert cases.target is not None
        counts = torch.from_numpy(np.bincount(cases.target, minlength=len(table)))
        users = training.per_device_train_batch_size * args.world_size
        self.log_q = candidate_log_q(counts, users, recpo.extra_negatives) if recpo.logq else None
        self._kept: list[Experience] = []  # of the batches of a step, in their order
        self._kept_from = -1  # the step that wrote them
        self._step, self._batch = -1, 0  # the step at work, and which of its batches
        self._update_started, self._update_tokens = 0.0, 0
        self._refreshed_at = -1
        self._synced_at = -1  # the step whose weights vLLM has
        self._gathered: dict[str, list[float]] = defaultdict(list)

    # One step

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one batch of users."""
        try:
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"out of memory at step {self.state.global_step}: {str(error).rpartition(CPU_ALLOCATOR)[2]}; lower {self.LESS}"
            ) from None
        seconds = self._seconds_since(self._update_started)
        self._note(seconds_update=seconds, update_tokens_per_second=self._update_tokens / seconds)
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The loss of one batch of users; `inputs["rows"]`, int64 [B], are their rows in the training cases."""
        cases, step, settings = self.cases.take(inputs["rows"].cpu().numpy()), self.state.global_step, self.recpo
        self._refresh(step)
        kept = self._experience(cases, step)
        targets = torch.from_numpy(np.asarray(cases.target, dtype=np.int64)).to(self.table.states.device)
        distinct = torch.unique(targets)
        given: dict[str, Any] = {"items": self.table.batch(distinct)}
        if settings.cls_head:  # no item has to be encoded for it: its softmax is over the whole catalogue
            distinct = torch.arange(len(self.table), device=targets.device)
            given = {"item_rows": distinct}
        self._start_update(kept.rollouts, given.get("items"))
        out: PolicyOutput = model(kept.rollouts, temperature=self.engine.settings.temperature, **given)
        if out.item_states is not None:
            self._write_table(distinct, out.item_states)
        assert out.items is not None
        extra_items, extra_ids = self._extra_negatives(step)
        logps = item_logps(
            out.users,
            targets.repeat_interleave(self.group),
            out.items,
            distinct,
            tau=settings.tau,
            normalize=settings.normalize,
            extra_items=extra_items,
            extra_ids=extra_ids,
            log_q=self.log_q,
        )
        if settings.reasoning:
            loss = self._recpo(kept, out, logps, cases, targets)
        else:
            loss = -logps.sum() / users_per_process(len(targets), logps.device)
        self._note(item_logp=float(logps.detach().mean()))
        return loss

    def _recpo(self, kept: Experience, out: PolicyOutput, item_lp: Tensor, cases: Cases, targets: Tensor) -> Tensor:
        """Reward, advantage and the clipped loss of one batch with reasonings."""
        settings, group, step = self.recpo, self.group, self.state.global_step
        assert out.token_logps is not None and out.entropy is not None and kept.rollouts.action_mask is not None
        if kept.advantages is None:
            found = recpo_rewards(
                out.users.detach(),
                self._net.catalogue(self.table.states),
                targets.repeat_interleave(group),
                torch.from_numpy(cases.padded(-1, self.longest)).to(targets.device).repeat_interleave(group, dim=0),
                tau=settings.tau,
                normalize=settings.normalize,
                beta=settings.beta,
                k=settings.ndcg_k,
                prior=self._net.item_prior,
            )
            rewards = found.reward.reshape(-1, group)
            kept.advantages = group_advantages(rewards, settings.advantage)
            kept.old_token_logps, kept.old_item_logps = out.token_logps.detach(), item_lp.detach()
            self._note(
                reward=float(found.reward.mean()),
                reward_ndcg=float(found.ndcg.mean()),
                reward_softmax=float(found.softmax.mean()),
                rank_median=float(found.rank.float().median()),
                advantage_abs=float(kept.advantages.abs().mean()),
            )
            if group > 1:
                spread = rewards.std(dim=1)
                empty = float((spread < 1e-8).float().mean())
                self._note(reward_spread=float(spread.mean()), groups_without_spread=empty)
        parts = recpo_loss(
            out.token_logps,
            kept.old_token_logps,
            kept.rollouts.action_mask,
            item_lp,
            kept.old_item_logps,
            kept.advantages,
            eps=settings.epsilon,
            head_update=settings.head_update,
            topk=settings.topk,
            # By case, too: the batches of a step and its processes draw independently.
            generator=torch.Generator().manual_seed(derive_seed(self.seed, "random head", step, int(cases.case[0]))),
            users=users_per_process(len(targets), targets.device),
        )
        actions = kept.rollouts.action_mask
        self._note(
            entropy=float(out.entropy[actions].mean()),
            clip_share_tokens=float(parts.token_clip_share),
            clip_share_items=float(parts.item_clip_share),
        )
        every = self.training.split_grad_norms
        if every and step % every == 0:
            self._note(grad_norm_tokens=self._norm(parts.token_part), grad_norm_items=self._norm(parts.item_part))
        return parts.loss if settings.token_term else parts.item_part

    def _experience(self, cases: Cases, step: int) -> Experience:
        """Rollouts of these users: fresh ones, or those of an earlier iteration on the same batch of the same step.

        They aren't in checkpoints: `Params` sees to it that these are written between two batches of rollouts only.
        """
        first = step - step % self.recpo.num_iterations
        if self._kept_from != first:
            self._kept, self._kept_from = [], first
        self._step, self._batch = step, self._batch + 1 if self._step == step else 0
        if self._batch == len(self._kept):
            self._kept.append(Experience(self._write(cases, first)))
        return self._kept[self._batch]

    def _write(self, cases: Cases, step: int) -> Rollouts:
        """G reasonings per user by the present policy; nothing behind an opened `<answer>` without reasoning."""
        if not self.recpo.reasoning:
            prompts = self.prompts.user_prompts(cases, open_answer=True)
            return without_reasoning(prompts, pad_id(self.prompts.tokenizer), self.table.states.device)
        prompts = self.prompts.user_prompts(cases)
        self._sync(step)
        with sharded.whole(self._net):
            result = self.engine.generate(prompts, cases=cases.case, seed=self.seed, step=step)
        self._note(
            seconds_rollouts=result.seconds,
            rollout_tokens_per_second=result.tokens_per_second,
            length=float(result.lengths.float().mean()),
            length_max=float(result.lengths.max()),
            cut_share=float(result.cut.float().mean()),
            ended_share=float(result.ended.float().mean()),
        )
        return result.rollouts

    def _sync(self, step: int) -> None:
        """Give vLLM the weights that the last update has left; the other engine writes with the model itself."""
        if self.engine.settings.backend == "vllm" and self._synced_at != step:
            started = time.monotonic()
            cast("VllmEngine", self.engine).sync_weights()
            self._synced_at = step
            self._note(seconds_sync=self._seconds_since(started))

    def _refresh(self, step: int) -> None:
        """Re-encode the whole table every T_refresh steps, once per step; at first unless the warm start has just done it."""
        if step == 0 and self.table.encoded:
            return
        if step % self.recpo.refresh_steps == 0 and self._refreshed_at != step and not self.recpo.cls_head:
            started = time.monotonic()
            with sharded.whole(self._net):
                self.table.refresh(self._net)
            self._refreshed_at = step
            seconds = self._seconds_since(started)
            self._note(seconds_refresh=seconds, refresh_tokens_per_second=self.table.tokens / seconds)

    def _write_table(self, items: Tensor, states: Tensor) -> None:
        """Put the states of all processes' targets into the table, so that it is the same on every process."""
        ids, rows = gather_rows(items), gather_rows(states.detach())
        # Of a target that several processes have, the first one's state: rounding may differ between them.
        first = torch.from_numpy(np.unique(ids.numpy(force=True), return_index=True)[1]).to(ids.device)
        self.table.write(ids[first], rows[first])

    def _extra_negatives(self, step: int) -> tuple[Tensor | None, Tensor | None]:
        """Seeded rows of the (slightly stale) catalogue as further candidates; the same on every process."""
        wanted = min(self.recpo.extra_negatives, len(self.table))
        if wanted == 0:
            return None, None
        draw = np.random.default_rng(derive_seed(self.seed, "negatives", step)).choice(len(self.table), wanted, False)
        ids = torch.from_numpy(np.sort(draw)).to(self.table.states.device)
        if self.recpo.cls_head:
            return self._net.catalogue(self.table.states)[ids], ids
        return self._net.head.item(self.table.states[ids]).detach(), ids

    @property
    def _net(self) -> R2ec:
        """The model without accelerate's wrappers."""
        net = self.accelerator.unwrap_model(self.model)
        assert isinstance(net, R2ec)
        return net

    def _norm(self, part: Tensor) -> float:
        """Norm of one term's gradient over all processes, apart from the step's own backward."""
        weights = [p for p in self._net.parameters() if p.requires_grad]
        grads = torch.autograd.grad(part, weights, retain_graph=True, materialize_grads=True)
        return float(self._mean_over_processes(torch.cat([grad.float().flatten() for grad in grads])).norm())

    # What is logged

    def _note(self, **values: float) -> None:
        for name, value in values.items():
            self._gathered[name].append(value)

    def logged(self, *names: str) -> list[dict[str, float]]:
        """The entries of the log that have one of these names, in their order."""
        found = [entry for entry in self.state.log_history if not entry.keys().isdisjoint(names)]
        return [{name: round(float(value), 6) for name, value in entry.items()} for entry in found]

    def _start_update(self, rollouts: Rollouts, items: ItemPrompts | None) -> None:
        """From here on time and tokens are the update's."""
        self._update_started, self._update_tokens = time.monotonic(), tokens_of(rollouts, items)

    def _seconds_since(self, started: float) -> float:
        if self.args.device.type == "cuda":
            torch.cuda.synchronize()  # what was started there is part of it
        return time.monotonic() - started

    def _mean_over_processes(self, values: Tensor) -> Tensor:
        if self.args.world_size > 1:
            dist.all_reduce(values)
        return values / self.args.world_size

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the steps since the last logging gathered, averaged over them and over the processes."""
        if "loss" in logs:
            means = [float(np.mean(values)) for values in self._gathered.values()]
            exact = torch.tensor(means, dtype=torch.float64, device=self.args.device)
            logs = logs | dict(zip(self._gathered, self._mean_over_processes(exact).tolist(), strict=True))
            self._gathered.clear()
        super().log(logs, start_time)

    # What the Trainer is told to do our way

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """NDCG@10 on validation cases, with greedy reasonings and a fresh item table."""
        # The main process's value decides for all: one that stops alone would leave the others waiting.
        with sharded.whole(self._net):
            value = torch.tensor([self.validate()], dtype=torch.float64, device=self.args.device)
        if self.args.world_size > 1:
            dist.broadcast(value, 0)
        metrics = {METRIC: float(value)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """No step where the checkpoint that we resume from is the one after which training had stopped early."""
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
            net, rate = self._net, self.training.learning_rate
            head = [*net.head.parameters(), *(net.cls_head.parameters() if net.cls_head else [])]
            own = {id(p) for p in head}
            rest = [p for p in net.parameters() if p.requires_grad and id(p) not in own]
            own_rate = self.training.head_learning_rate
            groups = [{"params": rest, "lr": rate}, {"params": head, "lr": rate if own_rate is None else own_rate}]
            groups = [group for group in groups if group["params"]]
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.training.weight_decay)
        return self.optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What `_save` writes; all processes call it, as under FSDP each has a piece."""
        with sharded.whole(self._net):
            self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Only what training changes, and the item table as it stands between two refreshes."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self._net.save(folder / WEIGHTS)
        self.table.save(folder / TABLE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        sharded.load(self._net, Path(resume_from_checkpoint) / WEIGHTS)
        self.table.load(Path(resume_from_checkpoint) / TABLE)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch found no room, on a GPU or on the CPU, for which it has no error class."""
    return isinstance(error, torch.OutOfMemoryError) or CPU_ALLOCATOR in str(error)


def tokens_of(rollouts: Rollouts, items: ItemPrompts | None) -> int:
    """Real tokens that one update reads: prompts once per user, completions, item prompts with their beginning once."""
    count = rollouts.prompt_mask.sum() + rollouts.completion_mask.sum()
    return int(count if items is None else count + len(items.beginning) + items.mask.sum())
