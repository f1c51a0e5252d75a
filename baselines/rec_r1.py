"""Rec-R1: the LLM writes a search query, BM25 ranks the catalogue by it, GRPO trains the LLM on the NDCG of that ranking.

Lin et al., "Rec-R1: Bridging Generative Large Language Models and User-Centric Recommendation Systems via Reinforcement
Learning" (arXiv 2503.24289; github.com/linjc16/Rec-R1). Kept: a fixed black-box ranker (BM25 over the items' texts), its NDCG
for the next item as the reward, GRPO (here trl's stock GRPOTrainer, without its KL term). Different: LoRA, the prompt's wording, a
query without a reasoning of its own before it, and bm25s in the place of Lucene.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Cases, Recommender, Split
from benchmark.provenance import derive_seed
from r2ec.settings import BackboneSettings, LoraSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from baselines._llm import Text

REQUEST = (
    "These are the last {category}s I chose, the newest at the end:\n{history}\n"
    "Write a short search query that finds the {category} that I will choose next."
)
WORD = r"(?u)\b\w+\b"
ROWS_AT_ONCE = 8  # rollouts of a micro-batch in training


class Params(BaseModel):
    """max_items: history items shown; max_new_tokens: of a query; group_size, temperature: of GRPO's rollouts; users_per_step,
    max_steps (0: the LLM as it is), learning_rate: of its training; ndcg_k: cut-off of the reward."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneSettings
    lora: LoraSettings = LoraSettings()
    max_items: int = Field(default=6, ge=1)
    max_new_tokens: int = Field(default=16, ge=1)
    group_size: int = Field(default=4, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    users_per_step: int = Field(default=16, ge=2)
    max_steps: int = Field(default=12, ge=0)
    learning_rate: float = Field(default=1e-5, gt=0)
    ndcg_k: int = Field(default=1000, ge=1)
    save_steps: int = Field(default=20, ge=1)


class BM25:
    """BM25 (Lucene's form, k1 1.5, b 0.75) over the items' texts, words without case."""

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self._bm25s, self.n_items = bm25s, len(texts)
        self.index = bm25s.BM25()
        self.index.index(self._words(texts), show_progress=False)

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        found: list[list[str]] = self._bm25s.tokenize(
            list(texts), token_pattern=WORD, return_ids=False, show_progress=False
        )
        return found

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """float32 [n, n_items]; 0 where no word of the query occurs."""
        found = np.zeros((len(queries), self.n_items), dtype=np.float32)
        for row, words in enumerate(self._words(queries)):
            if words:
                found[row] = self.index.get_scores(words)
        return found


def ndcg_of(scores: np.ndarray, targets: np.ndarray, history: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of each row's target among the items outside the history, ties against it. history: int [n, L], -1 for none."""
    rows = np.arange(len(scores))
    ahead = scores >= scores[rows, targets][:, None]
    ahead = np.pad(ahead, ((0, 0), (0, 1)))  # one column more takes the -1
    ahead[rows[:, None], history] = False
    ahead[rows, targets] = False
    rank = 1 + ahead.sum(axis=1)
    return np.where(rank <= k, 1 / np.log2(1 + rank), 0.0)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "RecR1":
    """Train the LLM's adapters by GRPO. A killed fit goes on from its last checkpoint."""
    settings = Params.model_validate(params)
    import torch

    from baselines._sentences import item_texts
    from r2ec import backbone as backbones

    index = BM25(item_texts(split.items))
    loaded = backbones.load(settings.backbone)
    torch.manual_seed(derive_seed(seed, "adapters"))
    model = backbones.add_lora(loaded.model, settings.lora)
    started, rewards = time.monotonic(), []
    if settings.max_steps:
        rewards = _train(split, settings, seed, index, model, loaded.tokenizer, workdir / "grpo")
    report = {"rewards": rewards, "train_seconds": round(time.monotonic() - started, 1)}
    return RecR1(split, settings, index, model.eval(), loaded.tokenizer, report)


def _train(
    split: Split,
    settings: Params,
    seed: int,
    index: BM25,
    model: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
) -> list[float]:
    """GRPO on a seeded order of the training cases. Returns the mean reward of each step."""
    import torch
    from datasets import Dataset
    from transformers.trainer_utils import get_last_checkpoint
    from trl import GRPOConfig, GRPOTrainer

    from baselines._llm import asked

    order = np.random.default_rng(derive_seed(seed, "order")).permutation(len(split.train))
    cases = split.train.take(np.resize(order, settings.max_steps * settings.users_per_step))
    assert cases.target is not None
    messages = asked(REQUEST, split, cases, settings.max_items)
    rows = {
        "prompt": [[{"role": "user", "content": message}] for message in messages],
        "target": cases.target.tolist(),
        "history": cases.padded(-1, split.history_length).tolist(),
    }

    def reward(completions: list[Any], target: list[int], history: list[list[int]], **_: Any) -> list[float | None]:
        queries = [completion[-1]["content"] for completion in completions]
        found = ndcg_of(index.scores(queries), np.array(target), np.array(history), settings.ndcg_k)
        return list(found.tolist())

    rollouts = settings.users_per_step * settings.group_size
    at_once = next(size for size in range(min(ROWS_AT_ONCE, rollouts), 0, -1) if rollouts % size == 0)
    arguments = GRPOConfig(
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
        save_total_limit=1,
        logging_steps=1,
        seed=derive_seed(seed, "grpo") % 2**31,
        report_to=[],
        bf16=False,  # the weights are bf16 already; the adapters stay float32
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = GRPOTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        reward_funcs=reward,
        processing_class=tokenizer,
    )
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    return [round(float(entry["reward"]), 6) for entry in trainer.state.log_history if "reward" in entry]


class RecR1(Recommender):
    """BM25 scores of the greedy query."""

    def __init__(
        self,
        split: Split,
        settings: Params,
        index: BM25,
        model: "PeftModel",
        tokenizer: "PreTrainedTokenizerBase",
        report: dict[str, Any],
    ) -> None:
        self.split, self.settings, self.index = split, settings, index
        self.model, self.tokenizer, self._report = model, tokenizer, report
        self._texts: list[pd.DataFrame] = []
        self._written: list[Text] = []

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        from baselines import _llm

        self._texts, self._written = [], []
        settings = _llm.greedy(self.settings.max_new_tokens)
        for batch in cases.batches(_llm.ROWS_AT_ONCE):
            messages = _llm.asked(REQUEST, self.split, batch, self.settings.max_items)
            prompts = [_llm.prompt_ids(self.tokenizer, message) for message in messages]
            written = _llm.write_now(self.model, self.tokenizer, prompts, settings)
            self._texts.append(_llm.as_frame(batch, messages, written))
            self._written += written
            yield self.index.scores([text.text for text in written])

    def texts(self) -> pd.DataFrame:
        """case, prompt, reasoning (the query), cut, of the cases scored last."""
        return pd.concat(self._texts, ignore_index=True)

    def tokens_written(self) -> int:
        return sum(text.tokens for text in self._written)

    def report(self) -> dict[str, Any]:
        """rewards: of each step of GRPO; train_seconds: without the reading of the model."""
        return self._report
