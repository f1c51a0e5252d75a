"""Trains an LLM to write for a fixed recommender, by trl's GRPOTrainer with that recommender's ranking as the reward.

R2ec's engine writes the rollouts.

trl 1.16's defaults stay: its loss is DAPO's (Yu et al., arXiv 2503.14476), which divides by the tokens of the whole
batch where the paper of GRPO takes each rollout's mean first, so that long rollouts weigh more. Advantages are GRPO's,
over the group's standard deviation; the clip range is .2 on both sides, and there is no KL term (beta 0).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer

from baselines._writers.llm_texts import ROWS_AT_ONCE, MessageBuilder, micro_batch
from baselines._writers.settings import WriterTraining, rows_of
from baselines._writers.trl import faster_on_cpu, shared_prompt_rollouts
from benchmark.contract import Split
from benchmark.provenance import derive_seed
from lm.checkpoints import train
from lm.settings import RolloutSettings


def ndcg_of(scores: np.ndarray, targets: np.ndarray, history: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of each row's target among the items outside the history, ties against it, float64 [n].

    scores: float [n, n_items]. targets: int [n]. history: int [n, L], -1 for none.
    """
    rows = np.arange(len(scores))
    ahead = scores >= scores[rows, targets][:, None]
    ahead = np.pad(ahead, ((0, 0), (0, 1)))  # one column more takes the -1
    ahead[rows[:, None], history] = False
    ahead[rows, targets] = False
    rank = 1 + ahead.sum(axis=1)
    return np.where(rank <= k, 1 / np.log2(1 + rank), 0.0)


def train_writer(
    split: Split,
    settings: WriterTraining,
    request: str,
    score: Callable[[list[str]], np.ndarray],
    *,
    seed: int,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> list[float]:
    """GRPO on the rows of `rows_of`; goes on from the last checkpoint in `folder`.

    request: the message to the LLM, see `llm_texts.MessageBuilder.user_messages`. score: texts -> scores of all items,
    [n, n_items]; the reward is the NDCG of the case's target in them. Returns the mean reward of each step.
    """
    cases = split.llm_train.take(rows_of(split, settings, seed))
    assert cases.target is not None
    limits = (settings.max_items, settings.max_prompt_tokens, settings.max_new_tokens)
    messages = MessageBuilder(split, model, tokenizer, *limits).user_messages(request, cases)
    rows = {
        "prompt": [[{"role": "user", "content": text}] for text in messages],
        "target": cases.target.tolist(),
        "history": cases.padded(-1, split.history_length).tolist(),
    }

    def reward(completions: list[Any], target: list[int], history: list[list[int]], **_: Any) -> list[float | None]:
        texts = [completion[-1]["content"] for completion in completions]
        return list(ndcg_of(score(texts), np.array(target), np.array(history), settings.ndcg_k).tolist())

    sampling = RolloutSettings(
        group_size=settings.group_size,
        temperature=settings.temperature,
        top_k=0,
        max_new_tokens=settings.max_new_tokens,
        rows_at_once=max(ROWS_AT_ONCE, settings.group_size),
    )
    trainer = GRPOTrainer(
        model=model,
        args=_arguments(settings, seed, folder),
        train_dataset=Dataset.from_dict(rows),
        reward_funcs=reward,
        processing_class=tokenizer,
        rollout_func=shared_prompt_rollouts(model, tokenizer, sampling, derive_seed(seed, "rollouts")),
    )
    with faster_on_cpu(model):
        train(trainer)
    return [round(float(entry["reward"]), 6) for entry in trainer.state.log_history if "reward" in entry]


def _arguments(settings: WriterTraining, seed: int, folder: Path) -> GRPOConfig:
    rollouts = settings.users_per_step * settings.group_size
    at_once = micro_batch(rollouts, settings.rollouts_at_once)
    return GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=rollouts // at_once,
        num_generations=settings.group_size,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        beta=0.0,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        max_steps=settings.max_steps,
        shuffle_dataset=False,
        save_steps=settings.save_steps,
        save_total_limit=None,
        logging_steps=1,
        seed=derive_seed(seed, "grpo") % 2**31,
        report_to=[],
        bf16=False,  # the weights are bf16 already; the adapters stay float32
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
    )
