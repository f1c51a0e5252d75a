"""LLM reranking: SASRec's best candidates, reordered by an LLM that reasons first.

The decoupled pipeline of retrieve-then-rerank (Hou et al., "Large Language Models are Zero-Shot Rankers for Recommender
Systems", ECIR 2024). Kept: candidates of a sequential recommender, a zero-shot LLM that sees the history, and, as in
R2ec, a written reasoning before it answers. Different: the LLM doesn't write the order as a list, which a small LM
can't do. Candidates are ordered by the log-probability of their titles as the answer minus that without any history
(the domain-conditional PMI of Holtzman et al., "Surface Form Competition", EMNLP 2021), so that common titles don't win
by being common.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from baselines._recbole.sasrec import PER_CASE, fit_best
from baselines._recbole.sasrec import Params as SASRecParams
from baselines._writers.popularity import standardized
from benchmark.contract import Cases, Recommender, Split
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, Work, prompt_tokens, trained
from lm.settings import BackboneSettings, RolloutSettings
from r2ec.settings import PromptSettings

if TYPE_CHECKING:
    from r2ec.scoring.reader import Reader

FIT = Stage("llm_rerank", 1, packages=("torch", "transformers", "peft", "tokenizers", "recbole"))

NO_HISTORY = "Recommend a {category} that I might purchase inside <answer> and </answer>."
ROWS_AT_ONCE = 64  # candidates whose titles are read together
# SASRec scores beyond the candidates are moved below all of them by this much.
BELOW = 1e4


class Params(BaseModel):
    """sasrec: settings of SASRec, the best on validation cases is taken; candidates: how many of SASRec's best are
    reordered; weight: of the LLM's z-scores against SASRec's (1: the LLM alone)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneSettings
    sasrec: list[SASRecParams] = Field(default=[SASRecParams()], min_length=1)
    prompts: PromptSettings = PromptSettings()
    rollouts: RolloutSettings = RolloutSettings()
    candidates: int = Field(default=50, ge=2)
    weight: float = Field(default=1.0, gt=0, le=1)
    evaluation_rows: int = Field(default=64, ge=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "LLMRerank":
    """Fit SASRec; the LLM isn't trained."""
    settings = Params.model_validate(params)
    from r2ec.scoring.reader import Reader
    from r2ec.settings import Params as R2ecParams

    sasrec, tried = fit_best(split, settings.sasrec, seed=seed, workdir=workdir)
    shared = {name: getattr(settings, name) for name in ("backbone", "prompts", "rollouts", "evaluation_rows")}
    llm = Reader.build(split, R2ecParams(training={"max_steps": 0}, **shared))
    return LLMRerank(split, settings, sasrec, llm, tried)


class LLMRerank(Recommender):
    """SASRec's scores, its best candidates in the order of the blended scores."""

    def __init__(
        self,
        split: Split,
        settings: Params,
        sasrec: Recommender,
        llm: "Reader",
        tried: list[dict[str, Any]],
    ) -> None:
        """tried: SASRec's settings and their NDCG@10 on validation cases."""
        self.settings, self.sasrec, self.llm, self.tried = settings, sasrec, llm, tried
        tokenizer = llm.prompts.tokenizer
        # They stand right behind `<answer>`; the closing tag tells a whole title from the beginning of a longer one.
        self.titles: list[list[int]] = tokenizer(
            [f"{title}</answer>" for title in llm.prompts.titles], add_special_tokens=False
        )["input_ids"]
        from lm.chat import split_template

        opening, closing = split_template(tokenizer, llm.params.prompts.system_prompt)
        user_message = opening + NO_HISTORY.format(category=split.category) + closing
        prompt = tokenizer(user_message, add_special_tokens=False)["input_ids"] + llm.prompts.answer_ids
        everything = np.arange(split.n_items)
        self.without_history = self.likelihoods([prompt], everything[None])[0]  # float64 [n_items]
        self._texts: list[pd.DataFrame] = []
        self._written = 0

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        self._texts, self._written = [], 0
        for batch in cases.batches(self.settings.evaluation_rows):
            scores = np.concatenate([np.array(part, dtype=np.float64) for part in self.sasrec.score(batch)])
            yield self._reordered(batch, scores)

    def texts(self) -> pd.DataFrame:
        """case, prompt, reasoning, cut, of the cases scored last."""
        return pd.concat(self._texts, ignore_index=True)

    def tokens_written(self) -> int:
        return self._written

    def report(self) -> dict[str, Any]:
        """sasrec: the report of its fit; sasrec_tried: see `tried`, empty where there was only one setting."""
        return {"sasrec": self.sasrec.report(), "sasrec_tried": self.tried}

    def _reordered(self, cases: Cases, scores: np.ndarray) -> np.ndarray:
        """SASRec's scores [b, n_items] with each row's best candidates lifted above the rest and reordered."""
        allowed = scores.copy()
        for i in range(len(cases)):
            allowed[i, cases.history(i)] = -np.inf  # an item of the history is no candidate
        count = min(self.settings.candidates, scores.shape[1])
        # A stable sort: ties go to the lower item number, whatever else is in the batch.
        candidates = np.argsort(-allowed, axis=1, kind="stable")[:, :count]
        prompts = self._reasoned(cases)
        llm_scores = self.likelihoods(prompts, candidates) - self.without_history[candidates]
        sasrec_scores = np.take_along_axis(scores, candidates, axis=1)
        weight = self.settings.weight
        blended = weight * standardized(llm_scores) + (1 - weight) * standardized(sasrec_scores)
        out = scores - BELOW
        np.put_along_axis(out, candidates, blended, axis=1)
        return out

    def _reasoned(self, cases: Cases) -> list[list[int]]:
        """Each case's prompt and its greedy reasoning up to and with `<answer>`, as token ids."""
        prompts = self.llm.prompts.user_prompts(cases)
        result = self.llm.engine.generate(prompts, cases=cases.case, seed=0)
        rollouts, tokenizer = result.rollouts, self.llm.prompts.tokenizer
        self._written += result.sampled_tokens
        self._texts.append(
            pd.DataFrame(
                {
                    "case": cases.case,
                    "prompt": [self.llm.prompts.text(prompt) for prompt in prompts],
                    "reasoning": result.texts(tokenizer),
                    "cut": result.cut.numpy(force=True),
                }
            )
        )
        rows = zip(prompts, rollouts.completion_ids, rollouts.completion_mask, strict=True)
        return [list(prompt) + ids[mask].tolist() for prompt, ids, mask in rows]

    def likelihoods(self, prompts: Sequence[Sequence[int]], items: np.ndarray) -> np.ndarray:
        """Mean log-probability of the tokens of "title</answer>" behind each prompt, float64 [b, c].

        items: int [b, c]. At most ROWS_AT_ONCE titles are read together: those of several prompts, or a part of one
        prompt's, which is read once for each such part.
        """
        values = np.empty(items.shape)
        at_once = max(1, ROWS_AT_ONCE // items.shape[1])
        for first in range(0, len(prompts), at_once):
            rows = slice(first, first + at_once)
            for start in range(0, items.shape[1], ROWS_AT_ONCE):
                part = slice(start, start + ROWS_AT_ONCE)
                values[rows, part] = self._read(prompts[rows], items[rows, part])
        return values

    def _read(self, prompts: Sequence[Sequence[int]], items: np.ndarray) -> np.ndarray:
        """`likelihoods` of titles that are read together."""
        import torch

        from lm.writing.rollouts import pack_rollouts, pad_id

        model, pad = self.llm.model, pad_id(self.llm.prompts.tokenizer)
        titles = [self.titles[item] for item in items.reshape(-1)]
        lengths = np.array([len(title) for title in titles])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, pad, dtype=np.int64)
        ids[mask] = np.concatenate([np.asarray(title) for title in titles])
        rollouts = pack_rollouts(prompts, ids, mask, mask, pad, model.causal_lm.device)
        with torch.no_grad():
            logps = model.eval()(rollouts).token_logps
        means: np.ndarray = logps.double().sum(dim=1).numpy(force=True) / lengths
        return means.reshape(items.shape)


def thinking(p: dict[str, Any]) -> str:
    """What is computed before a recommendation: see `benchmark.config.methods.thinking_of`."""
    return "written"


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """Each test case's prompt, to write and again with its candidates behind it; all titles without a history."""
    prompt = prompt_tokens(s, p["prompts"]["max_items"], p["prompts"]["max_prompt_tokens"])
    read = s.test * (2 * prompt + p["candidates"] * s.line) + s.items * s.line
    return [Work(read=read, written=s.test * p["rollouts"]["max_new_tokens"], rows=p["evaluation_rows"])]


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, p["sasrec"], PER_CASE)
