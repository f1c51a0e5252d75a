"""Rec-R1: an LLM writes a search query, BM25 ranks the catalogue by it, GRPO trains the LLM on that ranking's NDCG.

Lin et al., "Rec-R1: Bridging Generative Large Language Models and User-Centric Recommendation Systems via Reinforcement
Learning" (arXiv 2503.24289; github.com/linjc16/Rec-R1). Kept: a fixed black-box ranker (BM25 over the items' texts),
its NDCG for the next item as the reward, GRPO's advantages. Different: the loss, which is trl 1.16's default and DAPO's
(arXiv 2503.14476: the mean over all tokens of a batch, not over each rollout's first) without a KL term; LoRA, the
prompt's wording, a query without a reasoning of its own before it, and bm25s in the place of Lucene.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines._writers.popularity import WithPopularity, popular, with_best_share
from baselines._writers.settings import WriterTraining, work
from benchmark.contract import Split
from benchmark.provenance import derive_seed
from benchmark.storage.stages import Stage

FIT = Stage("rec_r1", 1, packages=("torch", "transformers", "peft", "tokenizers", "accelerate", "trl", "bm25s"))

__all__ = ["Params", "fit", "thinking", "work"]

REQUEST = (
    "These are the last {several} I chose, the newest at the end:\n{history}\n"
    "Write a short search query that finds the {category} that I will choose next."
)
WORD = r"(?u)\b\w+\b"


class Params(WriterTraining):
    """The settings of the writer's training; max_steps 0: the LLM as it is."""


class BM25:
    """BM25 (Lucene's form, k1 1.5, b 0.75) over the items' texts, words without case.

    bm25s leaves out Lucene's 33 English stop words, unless told otherwise: no query finds a film by the title "It".
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self._bm25s, self.n_items = bm25s, len(texts)
        self.index = bm25s.BM25()
        self.index.index(self._words(texts), show_progress=False)

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        words: list[list[str]] = self._bm25s.tokenize(
            list(texts), token_pattern=WORD, return_ids=False, show_progress=False
        )
        return words

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """float32 [n, n_items]; 0 where no word of the query occurs."""
        scores = np.zeros((len(queries), self.n_items), dtype=np.float32)
        for row, words in enumerate(self._words(queries)):
            if words:
                scores[row] = self.index.get_scores(words)
        return scores


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> WithPopularity:
    """Train the LLM's adapters by GRPO. A killed fit goes on from its last checkpoint."""
    settings = Params.model_validate(params)
    import torch

    from baselines._writers.llm_texts import ByText
    from baselines._writers.sentences import item_texts
    from lm import backbone as backbones

    loaded = backbones.load(settings.backbone)
    index = BM25(item_texts(split.items, loaded.tokenizer))
    torch.manual_seed(derive_seed(seed, "adapters"))
    model = backbones.add_lora(loaded.model, settings.lora)
    started, rewards = time.monotonic(), []
    from baselines._writers.grpo import rows_of, train_writer

    if settings.max_steps:
        rewards = train_writer(
            split,
            settings,
            REQUEST,
            index.scores,
            seed=seed,
            model=model,
            tokenizer=loaded.tokenizer,
            folder=workdir / "grpo",
        )
    recommender = ByText(
        split,
        model.eval(),
        loaded.tokenizer,
        request=REQUEST,
        scores_of=index.scores,
        max_items=settings.max_items,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_new_tokens=settings.max_new_tokens,
        report={"rewards": rewards, "train_seconds": round(time.monotonic() - started, 1)},
    )
    rows = rows_of(split, settings, seed)
    return with_best_share(recommender, split, popular(split), settings.popularity, settings.valid_cases, trained=rows)


def thinking(p: dict[str, Any]) -> str:
    """What is computed before a recommendation: see `benchmark.config.methods.thinking_of`."""
    return "written"
