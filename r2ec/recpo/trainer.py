"""RecPO, step by step (paper, Algorithm 1).

A step refreshes the item table if it is due and writes G reasonings per user. One forward with gradients gives the
sampled tokens' log-probabilities, h_T of each rollout and the states of the batch's targets, which go into the table.
Rewards and advantages are of the very h_T that the clipped loss differentiates.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.contract import Cases
from benchmark.provenance import derive_seed
from lm.writing.rollouts import Rollouts
from r2ec.model.network import PolicyOutput
from r2ec.recpo.objective import candidate_log_q, group_advantages, item_logps, kl_to_start, recpo_loss
from r2ec.recpo.reward import recpo_rewards
from r2ec.settings import RecPOSettings
from r2ec.training import sharded
from r2ec.training.gather import gather_rows, users_per_process
from r2ec.training.loop import Batch, RolloutTrainer


@dataclass
class Experience:
    """Rollouts of one batch of users, kept for the later iterations on them."""

    rollouts: Rollouts
    old_token_logps: Tensor | None = None  # float32 [N, T]; None until the first iteration has computed them
    old_item_logps: Tensor | None = None  # float32 [N]
    advantages: Tensor | None = None  # float32 [B, G]
    # float32 [N, T], by the policy that RecPO began with; None without a KL term
    start_token_logps: Tensor | None = None


@dataclass(frozen=True)
class RecPOBatch(Batch):
    """A batch of RecPO. Its `item_rows` are the distinct targets; with a classification head, the whole catalogue."""

    experience: Experience  # whose rollouts these are
    targets: Tensor  # int64 [B]


class RecPOTrainer(RolloutTrainer):
    """Trains an R2ec by RecPO.

    Args:
        recpo: the objective's settings, `reasoning` and `iterations` among them. parts: all other arguments of
            `RolloutTrainer`.
    """

    MEMORY_SETTINGS = (
        "training.per_device_train_batch_size (and raise gradient_accumulation_steps), rollouts.group_size, "
        "rollouts.max_new_tokens or prompts.max_prompt_tokens"
    )

    def __init__(self, *, recpo: RecPOSettings, **parts: Any) -> None:
        super().__init__(reasoning=recpo.reasoning, iterations=recpo.num_iterations, **parts)
        self.recpo = recpo
        self.group = self.engine.settings.group_size if recpo.reasoning else 1
        assert self.cases.target is not None
        counts = torch.from_numpy(np.bincount(self.cases.target, minlength=len(self.table)))
        users = self.training.per_device_train_batch_size * self.args.world_size
        self.log_q = candidate_log_q(counts, users, recpo.extra_negatives) if recpo.logq else None
        self.experiences: list[Experience] = []  # of the batches of a step, in their order
        # float32 [weights] each, of the token term and of the item term, where `split_grad_norms` asked for their norms
        self.split_gradients: tuple[Tensor, Tensor] | None = None
        # Taken before a checkpoint is read: a resumed training has the same start.
        self.start = {name: value.clone() for name, value in self.net.own_state().items()} if recpo.kl else {}

    def prepared(self, cases: Cases) -> RecPOBatch:
        """Refresh the table if it is due, write rollouts, and collect the prompts of the distinct targets."""
        self._refresh_if_due()
        experience = self._experience(cases)
        targets = torch.from_numpy(np.asarray(cases.target, dtype=np.int64)).to(self.table.states.device)
        if self.recpo.cls_head or self.recpo.candidates == "table":  # no item has to be encoded: all are candidates
            rows, items = torch.arange(len(self.table), device=targets.device), None
        else:
            rows = torch.unique(targets)
            items = self.table.batch(rows)
        return RecPOBatch(cases, experience.rollouts, rows, items, experience, targets)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The loss of one batch of users, a `RecPOBatch`."""
        batch: RecPOBatch = inputs
        item_input = {"item_rows": batch.item_rows} if batch.items is None else {"items": batch.items}
        out: PolicyOutput = model(batch.rollouts, temperature=self.engine.settings.temperature, **item_input)
        if out.item_states is not None:
            self._write_table(batch.item_rows, out.item_states)
        # Of the table as it stands, the item map alone has a gradient.
        items = self.net.head.item(self.table.states) if out.items is None else out.items
        extra_items, extra_ids = self._extra_negatives()
        logps = item_logps(
            out.users,
            batch.targets.repeat_interleave(self.group),
            items,
            batch.item_rows,
            tau=self.recpo.tau,
            normalize=self.recpo.normalize,
            extra_items=extra_items,
            extra_ids=extra_ids,
            log_q=self.log_q,
        )
        self.note(item_logp=float(logps.detach().mean()))
        if not self.reasoning:
            return -logps.sum() / users_per_process(len(batch.targets), logps.device)
        if batch.experience.advantages is None:
            self._reward(batch, out, logps)
        return self._clipped_loss(batch, out, logps)

    def _reward(self, batch: RecPOBatch, out: PolicyOutput, item_logps: Tensor) -> None:
        """Rewards and advantages of rollouts, and the log-probabilities under the policy that has written them."""
        settings, group, kept = self.recpo, self.group, batch.experience
        assert out.token_logps is not None
        history = torch.from_numpy(batch.cases.padded(-1, self.longest)).to(batch.targets.device)
        rewards = recpo_rewards(
            out.users.detach(),
            self.net.catalogue(self.table.states),
            batch.targets.repeat_interleave(group),
            history.repeat_interleave(group, dim=0),
            tau=settings.tau,
            normalize=settings.normalize,
            beta=settings.beta,
            k=settings.ndcg_k,
            prior=self.net.item_prior,
        )
        grouped = rewards.reward.reshape(-1, group)
        kept.advantages = group_advantages(grouped, settings.advantage)
        kept.old_token_logps, kept.old_item_logps = out.token_logps.detach(), item_logps.detach()
        self.note(
            reward=float(rewards.reward.mean()),
            reward_ndcg=float(rewards.ndcg.mean()),
            reward_softmax=float(rewards.softmax.mean()),
            rank_median=float(rewards.rank.float().median()),
            advantage_abs=float(kept.advantages.abs().mean()),
        )
        if group > 1:
            spread = grouped.std(dim=1)
            empty = float((spread < 1e-8).float().mean())
            self.note(reward_spread=float(spread.mean()), groups_without_spread=empty)

    def _clipped_loss(self, batch: RecPOBatch, out: PolicyOutput, item_logps: Tensor) -> Tensor:
        """The clipped loss of one batch with reasonings."""
        settings, kept, step = self.recpo, batch.experience, self.state.global_step
        actions = batch.rollouts.action_mask
        assert out.token_logps is not None and out.entropy is not None and actions is not None
        assert kept.advantages is not None
        parts = recpo_loss(
            out.token_logps,
            kept.old_token_logps,
            actions,
            item_logps,
            kept.old_item_logps,
            kept.advantages,
            eps=settings.epsilon,
            head_update=settings.head_update,
            topk=settings.topk,
            # By case, too: the batches of a step and its processes draw independently.
            generator=torch.Generator().manual_seed(
                derive_seed(self.seed, "random head", step, int(batch.cases.case[0]))
            ),
            users=users_per_process(len(batch.targets), batch.targets.device),
        )
        self.note(
            entropy=float(out.entropy[actions].mean()),
            clip_share_tokens=float(parts.token_clip_share),
            clip_share_items=float(parts.item_clip_share),
        )
        every = self.training.split_grad_norms
        if every and step % every == 0:
            tokens, items = self._gradient(parts.token_part), self._gradient(parts.item_part)
            self.split_gradients = tokens, items
            self.note(grad_norm_tokens=float(tokens.norm()), grad_norm_items=float(items.norm()))
        loss = parts.loss if settings.token_term else parts.item_part
        if kept.start_token_logps is None:
            return loss
        users = users_per_process(len(batch.targets), batch.targets.device)
        moved = kl_to_start(out.token_logps, kept.start_token_logps, actions, self.group, users)
        self.note(kl=float(moved.detach()) / float(actions.sum() / (self.group * users)))
        return loss + settings.kl * moved

    def _experience(self, cases: Cases) -> Experience:
        """Rollouts of these users: fresh ones, or those of an earlier iteration on the same batch of the same step.

        Checkpoints don't hold them: `Params` makes sure that a checkpoint falls between two batches of rollouts.
        """
        step, batch = self.place
        iteration = step % self.recpo.num_iterations
        if iteration == 0 and batch == 0:
            self.experiences = []
        if batch == len(self.experiences):
            rollouts = self.write(cases, step - iteration)
            by_start = self._by_the_start(rollouts) if self.recpo.kl else None
            self.experiences.append(Experience(rollouts, start_token_logps=by_start))
        return self.experiences[batch]

    def _by_the_start(self, rollouts: Rollouts) -> Tensor:
        """Return the log-probabilities of the sampled tokens by the policy that RecPO began with: float32 [N, T].

        The start's weights replace the present ones meanwhile. The forward keeps gradients on, as the update does:
        without them attention takes another kernel, whose rounding would show as a divergence.
        """
        own = self.net.own_state()
        now = {name: value.clone() for name, value in own.items()}
        try:
            for name, value in own.items():
                value.copy_(self.start[name])
            with torch.enable_grad():
                token_logps = self.net(rollouts, temperature=self.engine.settings.temperature).token_logps
        finally:
            for name, value in own.items():
                value.copy_(now[name])
        assert token_logps is not None
        return token_logps.detach()

    def _refresh_if_due(self) -> None:
        """Re-encode the whole table every T_refresh steps; at first unless the warm start has just done it."""
        step, batch = self.place
        due = step % self.recpo.refresh_steps == 0 and batch == 0 and not self.recpo.cls_head
        if not due or (step == 0 and self.table.encoded):
            return
        started = time.monotonic()
        with sharded.whole(self.net):
            self.table.refresh(self.net)
        seconds = self.seconds_since(started)
        self.note(seconds_refresh=seconds, refresh_tokens_per_second=self.table.tokens / seconds)

    def _write_table(self, items: Tensor, states: Tensor) -> None:
        """Put the states of all processes' targets into the table, so that it is the same on every process."""
        ids, rows = gather_rows(items), gather_rows(states.detach())
        # Of a target that several processes have, the first one's state: rounding may differ between them.
        first = torch.from_numpy(np.unique(ids.numpy(force=True), return_index=True)[1]).to(ids.device)
        self.table.write(ids[first], rows[first])

    def _extra_negatives(self) -> tuple[Tensor | None, Tensor | None]:
        """Seeded rows of the (slightly stale) catalogue as further candidates; the same on every process."""
        wanted = min(self.recpo.extra_negatives, len(self.table))
        if wanted == 0:
            return None, None
        random = np.random.default_rng(derive_seed(self.seed, "negatives", self.state.global_step))
        draw = random.choice(len(self.table), wanted, False)
        ids = torch.from_numpy(np.sort(draw)).to(self.table.states.device)
        if self.recpo.cls_head:
            return self.net.catalogue(self.table.states)[ids], ids
        return self.net.head.item(self.table.states[ids]).detach(), ids

    def _gradient(self, part: Tensor) -> Tensor:
        """One term's gradient over all processes, apart from the step's own backward."""
        weights = [p for p in self.net.parameters() if p.requires_grad]
        grads = torch.autograd.grad(part, weights, retain_graph=True, materialize_grads=True)
        return self.mean_over_processes(torch.cat([grad.float().flatten() for grad in grads]))
