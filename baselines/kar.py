"""KAR: a frozen LLM writes what it knows of users and items, experts adapt it, and SASRec adds it to its vectors.

Xi et al., "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models", RecSys 2024
(arXiv 2306.10933; github.com/YunjiaXi/Open-World-Knowledge-Augmented-Recommendation). Kept: reasoning on the user's
preferences and facts of each item along the same factors, written once and kept; a text encoder; the hybrid-expert
adaptor, in which each side's gate mixes shared experts and its own; a conventional recommender trained together with
the adaptor.
Different: that recommender is SASRec over the whole catalogue (theirs predict clicks and rerank), so item knowledge is
added to the item's vector and user knowledge to the last state, in the place of two more input fields; an expert ends
in a linear layer, since what is added must be able to be negative; knowledge vectors are standardised; all-MiniLM-L6-v2
in the place of BERT or ChatGLM; the factors come from the config and not from an LLM; a text per case, not one per
user. To save time, only a sample of the training cases has user knowledge: the others train with a learned vector in
its place, while validation and test cases always have theirs. Item knowledge may be the catalogue's attributes alone.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field

from baselines._recbole.sasrec import Params as SASRecParams
from benchmark.contract import Cases, Recommender, Split
from benchmark.data.texts import PROMPT_TOKENS
from benchmark.evaluate import validation_ndcg
from benchmark.provenance import derive_seed
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, Work, texts_of, trained
from lm.settings import BackboneSettings

if TYPE_CHECKING:
    from torch import Tensor

    from baselines._recbole.training import RecBoleRecommender
    from baselines._writers.llm_texts import Text, Writer
    from baselines._writers.sentences import SentenceEncoder

FIT = Stage("kar", 1, packages=("torch", "transformers", "peft", "tokenizers", "recbole"))

EMBEDDED_ENCODER = "resources/all-minilm-l6-v2"
USER_REQUEST = (
    "These are the last {several} I chose, the newest at the end:\n{history}\n"
    "In one short sentence, describe which {several} I like, considering FACTORS."
)
ITEM_REQUEST = "In one short sentence, describe this {category}, considering FACTORS:\n{item}"


class Params(SASRecParams):
    """Beside SASRec's own: max_items: history items shown; max_prompt_tokens: of a prompt, beyond which the oldest
    items or an item's last words leave; max_new_tokens: of a text; factors: what the LLM is asked to consider;
    cases: training cases with a written text; item_knowledge: what is encoded of an item, a written text or its
    attributes; shared_experts, own_experts, expert_size, expert_dropout: of the adaptor; encoder: folder of the
    sentence encoder, fetched if it is the default and isn't there; texts: folder of what has been written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneSettings
    encoder: str = EMBEDDED_ENCODER
    texts: str = "results/texts"
    max_items: int = Field(default=6, ge=1)
    max_prompt_tokens: int = Field(default=PROMPT_TOKENS, ge=1)
    max_new_tokens: int = Field(default=16, ge=1)
    factors: str = Field(default="kind, theme, style, maker and quality", pattern=r"^[^{}]+$")
    cases: int = Field(default=500, ge=1)
    item_knowledge: Literal["written", "attributes"] = "written"
    shared_experts: int = Field(default=2, ge=1)
    own_experts: int = Field(default=2, ge=1)
    expert_size: int = Field(default=32, ge=1)
    expert_dropout: float = Field(default=0.1, ge=0, lt=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "KAR":
    """Write, encode, train. A killed fit keeps its texts and trains anew."""
    settings = Params.model_validate(params)
    import torch

    from baselines._recbole.knowledge import KnowingSASRec, knowing_loss
    from baselines._recbole.learners import EveryPosition
    from baselines._recbole.training import train
    from baselines._writers.llm_texts import Writer
    from baselines._writers.sentences import SentenceEncoder, fetch_minilm

    if settings.encoder == EMBEDDED_ENCODER:
        fetch_minilm(settings.encoder)
    knowledge = Knowledge(
        split,
        settings,
        Writer(settings.backbone, settings.max_new_tokens, Path(settings.texts)),
        SentenceEncoder(settings.encoder),
    )
    items = knowledge.of_items()
    chosen = sampled(split, settings.cases)
    side = Standard(items), Standard(knowledge.of_cases(split.train.take(chosen)))
    valid = side[1](knowledge.of_cases(split.valid))
    row_of = torch.zeros(len(split.train), dtype=torch.int64)
    row_of[torch.from_numpy(chosen)] = 1 + torch.arange(len(chosen))
    adaptor = (settings.expert_size, settings.shared_experts, settings.own_experts, settings.expert_dropout)
    trained = train(
        "SASRec",
        split,
        seed,
        settings.model_dump(include=set(SASRecParams.model_fields)),
        EveryPosition.of(split, settings, knowing_loss(row_of, none_first(side[1].known))),
        make=lambda config, dataset: KnowingSASRec(config, dataset, side[0].known, *adaptor),
        validate=lambda network: validation_ndcg(Knowing(network, valid), split.valid, split.n_items, "KAR"),
    )
    return KAR(knowledge, side[1], trained)


def sampled(split: Split, count: int) -> np.ndarray:
    """Rows of the training cases that get a text, int64, ascending; the same in every repetition, as texts are kept."""
    rows = np.arange(len(split.train)) if split.llm_rows is None else split.llm_rows
    order = np.random.default_rng(derive_seed(split.name, "kar", len(rows))).permutation(len(rows))
    return np.sort(rows[order[:count]])


def none_first(vectors: "Tensor") -> "Tensor":
    """A row of zeros on top, for cases without a text: [n, width] -> [1 + n, width]."""
    import torch.nn.functional as F

    return F.pad(vectors, (0, 0, 1, 0))


class Standard:
    """Standardises vectors by mean and standard deviation of the given ones, in each dimension.

    The given ones, standardised, are `known`. Sentences about things of one kind resemble each other, and differ in
    little.
    """

    def __init__(self, vectors: "Tensor") -> None:
        self.mean, self.sd = vectors.mean(dim=0), vectors.std(dim=0, correction=0).clamp(min=1e-6)
        self.known = self(vectors)

    def __call__(self, vectors: "Tensor") -> "Tensor":
        return (vectors - self.mean) / self.sd


class Knowledge:
    """Texts about users and items, and their vectors, float32 [n, width]."""

    def __init__(self, split: Split, settings: Params, writer: "Writer", encoder: "SentenceEncoder") -> None:
        self.split, self.settings, self.writer, self.encoder = split, settings, writer, encoder
        self.builder = writer.builder(split, settings.max_items, settings.max_prompt_tokens)
        self.messages: list[str] = []  # of the texts written last
        self.written: list[Text] = []
        self.seconds = 0.0  # that all texts so far took when they were written, perhaps in another run

    def of_items(self) -> "Tensor":
        """Vectors of the items of the whole catalogue."""
        from baselines._writers.sentences import item_texts

        texts = item_texts(self.split.items, self.writer.tokenizer)
        if self.settings.item_knowledge == "written":
            messages = self.builder.item_messages(self._considering(ITEM_REQUEST), texts)
            texts = self._write(messages, "writing about items")
        return self.encoder.encode(texts, "encoding knowledge")

    def of_cases(self, cases: Cases) -> "Tensor":
        """Vectors of the users of these cases, written about by their histories."""
        messages = self.builder.user_messages(self._considering(USER_REQUEST), cases)
        return self.encoder.encode(self._write(messages, "writing about users"), "encoding knowledge")

    def _considering(self, request: str) -> str:
        return request.replace("FACTORS", self.settings.factors)

    def _write(self, messages: list[str], desc: str) -> list[str]:
        self.messages = messages
        self.written = self.writer.write([self.writer.prompt(message) for message in messages], desc)
        self.seconds += sum(text.seconds for text in self.written)
        return [text.text for text in self.written]


class Knowing(Recommender):
    """The trained network with vectors of the texts about the cases' users, float32 [n, width], in the cases' order."""

    def __init__(self, trained: "RecBoleRecommender", vectors: "Tensor") -> None:
        self.trained, self.vectors = trained, vectors

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        from baselines._recbole.knowledge import KNOWLEDGE
        from baselines._recbole.training import SCORED_AT_ONCE

        batches = zip(cases.batches(SCORED_AT_ONCE), self.vectors.split(SCORED_AT_ONCE), strict=True)
        for batch, known in batches:
            yield self.trained.scores_of(batch, **{KNOWLEDGE: known})


class KAR(Recommender):
    """SASRec's scores with the knowledge that is written about each case's user."""

    def __init__(self, knowledge: Knowledge, standard: Standard, trained: "RecBoleRecommender") -> None:
        self.knowledge, self.standard, self.trained = knowledge, standard, trained
        self.fit_seconds = knowledge.seconds
        self._texts = pd.DataFrame()
        self._tokens = 0

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        from baselines._writers.llm_texts import as_frame

        vectors = self.standard(self.knowledge.of_cases(cases))
        written = self.knowledge.written
        self._texts = as_frame(cases, self.knowledge.messages, written)
        self._tokens = sum(text.tokens for text in written)
        yield from Knowing(self.trained, vectors).score(cases)

    def texts(self) -> pd.DataFrame:
        """case, prompt, reasoning (what is written of the user), cut, of the cases scored last."""
        return self._texts

    def uncached(self) -> "KAR":
        fresh = copy.copy(self)
        fresh.knowledge = copy.copy(self.knowledge)
        fresh.knowledge.writer = self.knowledge.writer.without_cache()
        return fresh

    def tokens_written(self) -> int:
        return self._tokens

    def report(self) -> dict[str, Any]:
        """SASRec's curve; writing_seconds: that the texts of the fit took when they were written."""
        return self.trained.report() | {"writing_seconds": round(self.fit_seconds, 3)}


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """A text per case that has one, and per item where items have one."""
    texts = texts_of(s, p, min(p["cases"], s.train_llm) + s.valid + s.test)
    if p["item_knowledge"] == "written":
        texts = replace(
            texts, read=texts.read + s.items * s.item, written=texts.written + s.items * p["max_new_tokens"]
        )
    return [texts]


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, [p], 2.5e-5)
