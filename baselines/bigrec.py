"""BIGRec: an LLM is fine-tuned to write the next item's title, and its text is grounded to the nearest real item.

Bao et al., "A Bi-Step Grounding Paradigm for Large Language Models in Recommendation Systems" (arXiv 2308.08434;
github.com/SAI990323/BIGRec). Kept: instruction tuning on titles, one text per user, L2 distance between the untuned
LLM's embedding of that text and of each item's title (as the released code loads it), scaled to 0..1 per user, and
popularity put in by dividing it by (1 + popularity) ** gamma, with gamma chosen on validation cases.
Different: a LoRA of our backbone, a greedy text in the place of beams, and .001 subtracted from every score, so that
the nearest item's popularity counts, too. Left out: injecting another recommender's scores.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from baselines._writers.popularity import Mix, WithPopularity, with_best_share
from baselines._writers.title_tuning import REQUEST, STREAM, TITLES, TitleTuning, tuned, tuned_rows, tuning_work
from benchmark.contract import Split
from benchmark.data.texts import titles
from benchmark.storage.stages import Stage
from benchmark.workload import Sizes, Work, chosen_by, texts_of

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

FIT = Stage("bigrec", 2, after=(TITLES,), packages=("torch", "transformers", "peft", "tokenizers", "trl"))

__all__ = ["STREAM", "Params", "fit", "work"]


class Params(TitleTuning):
    """max_new_tokens: of a title; gamma: exponents of popularity in the distances (0: none), of several the one with
    the best NDCG@10 on `valid_cases` validation cases is taken; the other settings are those of the tuning."""

    max_new_tokens: int = Field(default=16, ge=1)
    gamma: list[Annotated[float, Field(ge=0)]] = Field(default=[0.0], min_length=1)
    valid_cases: int = Field(default=500, ge=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> WithPopularity:
    """Tune the LLM's adapters on the training cases' titles. A killed fit goes on from its last checkpoint."""
    settings = Params.model_validate(params)
    from baselines._writers import llm_texts

    model, tokenizer, losses = tuned(split, settings, request=REQUEST, seed=seed, folder=workdir / "tuning")
    with llm_texts.untuned(model):
        items = llm_texts.states_of(model, tokenizer, titles(split.items, tokenizer), "embedding titles")
    recommender = llm_texts.ByText(
        split,
        model,
        tokenizer,
        request=REQUEST,
        scores_of=Grounding(model, tokenizer, items).scores,
        max_items=settings.max_items,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_new_tokens=settings.max_new_tokens,
        report={"losses": losses},
    )
    counts = np.bincount(split.train.interactions()[1], minlength=split.n_items)
    rows = tuned_rows(split, settings, seed)
    return with_best_share(recommender, split, divided_by(counts), settings.gamma, settings.valid_cases, trained=rows)


def divided_by(counts: np.ndarray) -> Mix:
    """The paper's mix: (a distance in 0..1) / (1 + popularity) ** gamma. counts: users of each item, int [n_items]."""
    popularity = counts / counts.max()

    def mix(scores: np.ndarray, gamma: float) -> np.ndarray:
        # A distance of 0 would stay 0 whatever the popularity is.
        return np.asarray((scores - 1e-3) / (1 + popularity) ** gamma)

    return mix


class Grounding:
    """Distances of a written text to every item, by the states of the LLM without its adapters."""

    def __init__(
        self,
        model: "PeftModel",
        tokenizer: "PreTrainedTokenizerBase",
        items: "Tensor",
    ) -> None:
        self.model, self.tokenizer, self.items = model, tokenizer, items

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Minus the distance of each text to each item, 0..1 in each row, float64 [n, n_items]; an empty text counts as
        a space."""
        import torch

        from baselines._writers import llm_texts

        with llm_texts.untuned(self.model):
            states = llm_texts.states_of(self.model, self.tokenizer, [text if text else " " for text in texts])
        distances = torch.cdist(states.double(), self.items.double()).numpy()
        lowest, highest = distances.min(axis=1, keepdims=True), distances.max(axis=1, keepdims=True)
        return -np.divide(distances - lowest, highest - lowest, out=np.zeros_like(distances), where=highest > lowest)


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """The tuning; each item's title read, and a text for each test case and for those by which gamma is chosen."""
    return [tuning_work(s, p), Work(read=s.items * s.line), texts_of(s, p, s.test + chosen_by(s, p, "gamma"))]
