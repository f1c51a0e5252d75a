"""Compares a whole RecPO step with its peer: the same job as a subclass of trl's GRPOTrainer.

The peer has the same users, G and tokens, a reward from the same item table, and the same item loss. Where trl's own
design leads to other work, that work is left in: prompts are repeated per rollout, the reward reads h_T in a forward of
its own (trl's reward functions see texts and tokens only), and a step goes through in micro-batches, whose targets are
the item term's candidates. trl's loss also divides each rollout's sum by its length, which RecPO's doesn't: the two
steps are as much work, but not the same update. The check is that both read the same h_T.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from r2ec.fit import trainer_of
from r2ec.recpo.objective import clipped, head_mask, item_logps
from r2ec.recpo.reward import recpo_rewards
from r2ec.speed.parts import Layers
from r2ec.speed.plain import item_states, left_padded
from r2ec.speed.work import Pair, Work, paired, scratch

ROWS_AT_ONCE = 8  # rollouts of a micro-batch


class StepTimer(TrainerCallback):
    """Seconds of each optimizer step, all that the step does included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._started)


class GRPORecommender(GRPOTrainer):
    """GRPOTrainer plus the item term of RecPO."""

    def __init__(self, work: Work, folder: Path) -> None:
        self.work, params = work, work.params
        rows = min(ROWS_AT_ONCE, work.size.users * work.size.group)
        arguments = GRPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=work.size.users * work.size.group // rows,
            num_generations=work.size.group,
            max_completion_length=params.rollouts.max_new_tokens,
            temperature=params.rollouts.temperature,
            top_k=params.rollouts.top_k,
            beta=0.0,
            epsilon=params.recpo.epsilon,
            loss_type="grpo",
            learning_rate=params.training.learning_rate,
            lr_scheduler_type="constant",
            max_steps=2,
            save_strategy="no",
            report_to=[],
            bf16=False,  # the weights are bf16 already
            gradient_checkpointing=False,
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            shuffle_dataset=False,
        )
        assert work.cases.target is not None
        history = work.cases.padded(-1, work.split.history_length)
        data = Dataset.from_dict(
            {
                "prompt": [work.reader.prompts.text(prompt) for prompt in work.prompts],
                "target": work.cases.target.tolist(),
                "history": history.tolist(),
            }
        )
        super().__init__(
            model=work.reader.model.backbone,
            args=arguments,
            train_dataset=data,
            reward_funcs=self._reward,
            processing_class=work.reader.prompts.tokenizer,
        )
        decoder = work.reader.model.causal_lm.get_decoder()
        decoder.register_forward_hook(self._remember)  # spares a forward for h_T
        self.timer = StepTimer()
        self.add_callback(self.timer)

    def _remember(self, module: Any, arguments: Any, output: Any) -> None:
        self._states: Tensor = output.last_hidden_state

    @torch.no_grad()
    def _reward(self, prompts: Sequence[str], completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        """RecPO's reward of each rollout, from a forward over prompt and completion."""
        tokenizer, recpo = self.work.reader.prompts.tokenizer, self.work.params.recpo
        own = [tokenizer(prompt)["input_ids"] for prompt in prompts]
        whole = [a + b for a, b in zip(own, completion_ids, strict=True)]
        states = last_states(self.work, whole)
        rewards = recpo_rewards(
            self.work.reader.model.head.user(states),
            self.work.reader.model.catalogue(self.work.reader.table.states),
            torch.tensor(columns["target"]),
            torch.tensor(columns["history"]),
            tau=recpo.tau,
            normalize=recpo.normalize,
            beta=recpo.beta,
            k=recpo.ndcg_k,
        )
        as_list: list[float | None] = rewards.reward.tolist()
        return as_list

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Keep each rollout's target and whether it is its group's best: later the groups are shuffled apart."""
        experience: dict[str, Any] = super()._generate_and_score_completions(inputs)
        groups = experience["advantages"].reshape(-1, self.num_generations)
        experience["best"] = head_mask(groups, self.work.params.recpo.head_update).reshape(-1)
        experience["target"] = torch.tensor([row["target"] for row in inputs])
        return experience

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        tokens: Tensor = super()._compute_loss(model, inputs)
        work, recpo = self.work, self.work.params.recpo
        states = self._states
        last = inputs["prompt_ids"].shape[1] + inputs["completion_mask"].sum(dim=1) - 1
        users = states[torch.arange(len(states)), last]
        distinct = torch.unique(inputs["target"])
        prompts = work.reader.prompts.item_prompts()
        pad = work.reader.prompts.tokenizer.pad_token_id
        items = item_states(work.reader.model, [prompts[v] for v in distinct.tolist()], pad)
        work.reader.table.write(distinct, items)
        head = work.reader.model.head
        logps = item_logps(
            head.user(users),
            inputs["target"],
            head.item(items),
            distinct,
            tau=recpo.tau,
            normalize=recpo.normalize,
        )
        gain, _ = clipped(logps, None, inputs["advantages"].float(), recpo.epsilon)
        item: Tensor = -(gain * inputs["best"]).sum() / len(states)
        return tokens + item / self.current_gradient_accumulation_steps


@torch.no_grad()
def last_states(work: Work, rows: Sequence[Sequence[int]]) -> Tensor:
    """The state that has read the last token of each row, float32 [N, d], by plain padded batches."""
    states = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        ids, mask = left_padded(rows[start : start + ROWS_AT_ONCE], work.reader.prompts.tokenizer.pad_token_id)
        out = work.reader.model.causal_lm.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False)
        states.append(out.last_hidden_state[:, -1].float())
    return torch.cat(states)


def step(work: Work, peers: Work, folder: Path) -> Pair:
    """Whole steps: rollouts, reward, update, optimizer. `peers` is a second model, as trl changes the one it trains.

    A turn is two steps of each; the first of them, which warms up, isn't counted.
    """
    own, libraries = Layers(work), Layers(peers)
    for side in (work, peers):
        side.reader.table.refresh(side.reader.model)
    same_users = replace(work.split, train=work.cases)  # at every step
    ours = trainer_of(work.reader, same_users, work.split.valid, 0, scratch(folder, "ours"))
    timer = StepTimer()
    ours.add_callback(timer)
    theirs = GRPORecommender(peers, scratch(folder, "peer"))
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(max(1, work.size.repeats - 1)):
        own.own()
        ours.train()
        rates[0].append(1 / timer.seconds[-1])
        libraries.plain()
        theirs.train()
        rates[1].append(1 / theirs.timer.seconds[-1])
    own.own()
    return paired(
        rates,
        part="RecPO step",
        plain_way="the same job as a subclass of trl's GRPOTrainer",
        unit="steps",
        target=4.0,
        share_of_matmul=None,
        check=_same_states(work, peers),
    )


@torch.no_grad()
def _same_states(work: Work, peers: Work) -> str:
    """h_T of the same rollouts by the trainer's forward and by the peer's, adapters of the one model."""
    rollouts = work.rollouts
    model = work.reader.model.eval()
    users = model(rollouts).states
    rows = []
    for row in range(len(rollouts.completion_ids)):
        user = row // work.size.group
        prompt = rollouts.prompt_ids[user][rollouts.prompt_mask[user]].tolist()
        rows.append(prompt + rollouts.completion_ids[row][rollouts.completion_mask[row]].tolist())
    apart = float((last_states(work, rows) - users).norm() / users.norm())
    return f"h_T of {len(rows)} rollouts {apart:.1e} apart ({str(work.dtype).removeprefix('torch.')})"
