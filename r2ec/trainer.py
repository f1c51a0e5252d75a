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
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from benchmark.contract import Cases
from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from r2ec.item_table import ItemTable
from r2ec.model import PolicyOutput, R2ec, Rollouts
from r2ec.objective import candidate_log_q, group_advantages, item_logps, recpo_loss, users_per_process
from r2ec.prompts import PromptBuilder
from r2ec.reward import recpo_rewards
from r2ec.rollout import TransformersEngine, pad_id, without_reasoning
from r2ec.settings import RecPOSettings, TrainingSettings

METRIC = "eval_ndcg@10"
WEIGHTS, TABLE = "r2ec.safetensors", "item_table.safetensors"


@dataclass
class Experience:
    """Rollouts of one batch of users, kept for the later iterations on them."""

    rollouts: Rollouts
    old_token_logps: Tensor | None = None  # float32 [N, T]; None until the first iteration has computed them
    old_item_logps: Tensor | None = None  # float32 [N]
    advantages: Tensor | None = None  # float32 [B, G]


class Order(Dataset[int]):
    """Row numbers of the training cases in the order of all steps: a fresh seeded shuffle each epoch.

    With several iterations every stretch of one step's cases stands that many times in a row. As the whole order is laid
    out beforehand, a resumed run goes on where the killed one was.
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
        self.rows = np.repeat(fresh, iterations, axis=0).reshape(-1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> int:
        return int(self.rows[i])


class RecPOTrainer(Trainer):
    """Trains an R2ec by RecPO.

    Args:
        model, table, prompts, engine: the parts; the engine writes with the same backbone.
        cases: training cases with targets. validate: gives NDCG@10 of the model as it is now, for early stopping.
        seed: every random stream is derived from it, from the step and from the case.
    """

    def __init__(
        self,
        *,
        model: R2ec,
        table: ItemTable,
        prompts: PromptBuilder,
        engine: TransformersEngine,
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
        args = training_arguments(training, seed, folder)
        per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        order = Order(len(cases), per_step, training, recpo.num_iterations, seed)
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
        self._kept: dict[tuple[int, ...], Experience] = {}
        self._kept_from = -1
        self._refreshed_at = -1
        self._gathered: dict[str, list[float]] = defaultdict(list)

    # One step

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The loss of one batch of users; `inputs["rows"]`, int64 [B], are their rows in the training cases."""
        try:
            return self._loss(model, inputs["rows"].cpu().numpy())
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"out of memory at step {self.state.global_step}: {error}; lower training.per_device_train_batch_size (and raise "
                "gradient_accumulation_steps), rollouts.group_size, rollouts.max_new_tokens or prompts.max_prompt_tokens"
            ) from None

    def _loss(self, model: Any, rows: np.ndarray) -> Tensor:
        cases, step, settings = self.cases.take(rows), self.state.global_step, self.recpo
        self._refresh(step)
        kept = self._experience(cases, rows, step)
        started = time.monotonic()
        targets = torch.from_numpy(np.asarray(cases.target, dtype=np.int64)).to(self.table.states.device)
        distinct = torch.unique(targets)
        given: dict[str, Any] = {"items": self.table.batch(distinct)}
        if settings.cls_head:
            given = {"item_rows": distinct}
        out: PolicyOutput = model(kept.rollouts, temperature=self.engine.settings.temperature, **given)
        if out.item_states is not None:
            self.table.write(distinct, out.item_states)
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
        self._note(item_logp=float(logps.detach().mean()), seconds_update=time.monotonic() - started)
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
            )
            rewards = found.reward.reshape(-1, group)
            kept.advantages = group_advantages(rewards, settings.advantage)
            kept.old_token_logps, kept.old_item_logps = out.token_logps.detach(), item_lp.detach()
            spread = rewards.std(dim=1)
            self._note(
                reward=float(found.reward.mean()),
                reward_ndcg=float(found.ndcg.mean()),
                reward_softmax=float(found.softmax.mean()),
                rank_median=float(found.rank.float().median()),
                reward_spread=float(spread.mean()),
                groups_without_spread=float((spread < 1e-8).float().mean()),
                advantage_abs=float(kept.advantages.abs().mean()),
            )
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
            generator=torch.Generator().manual_seed(derive_seed(self.seed, "random head", step)),
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

    def _experience(self, cases: Cases, rows: np.ndarray, step: int) -> Experience:
        """Rollouts of these users: fresh ones, or those of an earlier iteration of the same step's batch."""
        first = step - step % self.recpo.num_iterations
        if self._kept_from != first:
            self._kept, self._kept_from = {}, first
        key = tuple(rows.tolist())
        if key not in self._kept:
            self._kept[key] = Experience(self._write(cases, first))
        return self._kept[key]

    def _write(self, cases: Cases, step: int) -> Rollouts:
        """G reasonings per user by the present policy; nothing behind an opened `<answer>` without reasoning."""
        if not self.recpo.reasoning:
            prompts = self.prompts.user_prompts(cases, open_answer=True)
            return without_reasoning(prompts, pad_id(self.prompts.tokenizer), self.table.states.device)
        prompts = self.prompts.user_prompts(cases)
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

    def _refresh(self, step: int) -> None:
        """Re-encode the whole table every T_refresh steps, once per step."""
        if step % self.recpo.refresh_steps == 0 and self._refreshed_at != step and not self.recpo.cls_head:
            started = time.monotonic()
            self.table.refresh(self._net)
            self._refreshed_at = step
            self._note(seconds_refresh=time.monotonic() - started)

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
        """Norm of one term's gradient, apart from the step's own backward."""
        weights = [p for p in self._net.parameters() if p.requires_grad]
        grads = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
        return float(torch.stack([g.float().norm() for g in grads if g is not None] or [torch.zeros(())]).norm())

    # What is logged

    def _note(self, **values: float) -> None:
        for name, value in values.items():
            self._gathered[name].append(value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the steps since the last logging gathered, averaged."""
        if "loss" in logs:
            logs = logs | {name: float(np.mean(values)) for name, values in self._gathered.items()}
            self._gathered.clear()
        super().log(logs, start_time)

    # What the Trainer is told to do our way

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """NDCG@10 on validation cases, with greedy reasonings and a fresh item table."""
        metrics = {METRIC: self.validate()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW; the rec head's maps may have a learning rate of their own."""
        if self.optimizer is None:
            net, rate = self._net, self.training.learning_rate
            head = [*net.head.parameters(), *(net.cls_head.parameters() if net.cls_head else [])]
            own = {id(p) for p in head}
            rest = [p for p in net.parameters() if p.requires_grad and id(p) not in own]
            groups = [{"params": rest, "lr": rate}, {"params": head, "lr": self.training.head_learning_rate or rate}]
            groups = [group for group in groups if group["params"]]
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.training.weight_decay)
        return self.optimizer

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Only what training changes, and the item table as it stands between two refreshes."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self._net.save(folder / WEIGHTS)
        self.table.save(folder / TABLE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._net.load(Path(resume_from_checkpoint) / WEIGHTS)
        self.table.load(Path(resume_from_checkpoint) / TABLE)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))


def training_arguments(settings: TrainingSettings, seed: int, folder: Path) -> TrainingArguments:
    """The Trainer's own arguments, all that matter said explicitly."""
    when: dict[str, Any] = {"save_strategy": "steps", "save_steps": settings.eval_steps or settings.save_steps}
    if settings.eval_steps:
        when |= {
            "eval_strategy": "steps",
            "eval_steps": settings.eval_steps,
            "load_best_model_at_end": True,
            "metric_for_best_model": METRIC,
            "greater_is_better": True,
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
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        report_to=["tensorboard"],
        remove_unused_columns=False,
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=False,
        deepspeed=settings.deepspeed,
        fsdp=settings.fsdp or "",
        **when,
    )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint. One without trainer_state.json, which is written last, was cut off and is passed over."""
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)
