"""Turns an LLM's texts about users into vectors that a sequential network reads, for kar.py and slim.py.

Light to import.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field

from baselines._recbole.sasrec import Params as SASRecParams
from benchmark.config.methods import ENCODER
from benchmark.contract import Cases, Recommender, Split
from benchmark.data.texts import PROMPT_TOKENS
from benchmark.evaluate import validation_ndcg
from benchmark.provenance import derive_seed
from lm.settings import BackboneSettings

if TYPE_CHECKING:
    from torch import Tensor

    from baselines._recbole.learners import Loss
    from baselines._recbole.training import Maker, RecBoleRecommender
    from baselines._writers.llm_texts import Text, Writer
    from baselines._writers.sentences import SentenceEncoder

USER_REQUEST = (
    "These are the last {several} I chose, the newest at the end:\n{history}\n"
    "In one short sentence, describe which {several} I like, considering FACTORS."
)
ITEM_REQUEST = "In one short sentence, describe this {category}, considering FACTORS:\n{item}"


class KnowledgeParams(SASRecParams):
    """Beside SASRec's own: max_items: history items shown; max_prompt_tokens: of a prompt, beyond which the oldest
    items or an item's last words leave; max_new_tokens: of a text; factors: what the LLM is asked to consider;
    cases: training cases with a written text; encoder: folder of the sentence encoder, fetched if it is the default
    and isn't there; texts: folder of what has been written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneSettings
    encoder: str = ENCODER
    texts: str = "results/texts"
    max_items: int = Field(default=6, ge=1)
    max_prompt_tokens: int = Field(default=PROMPT_TOKENS, ge=1)
    max_new_tokens: int = Field(default=16, ge=1)
    factors: str = Field(default="kind, theme, style, maker and quality", pattern=r"^[^{}]+$")
    cases: int = Field(default=500, ge=1)


def considering(request: str, settings: KnowledgeParams) -> str:
    """Return the request with the factors that the LLM is to consider."""
    return request.replace("FACTORS", settings.factors)


def frozen_writer(settings: KnowledgeParams) -> "Writer":
    """Return a writer of the untuned LLM; its texts are kept for all methods that have the same prompts."""
    from baselines._writers.llm_texts import Writer

    return Writer(settings.backbone, settings.max_new_tokens, Path(settings.texts))


class Knowledge:
    """Texts about users and items, and their vectors, float32 [n, width]."""

    def __init__(self, split: Split, settings: KnowledgeParams, writer: "Writer", encoder: "SentenceEncoder") -> None:
        self.split, self.settings, self.writer, self.encoder = split, settings, writer, encoder
        self.builder = writer.builder(split, settings.max_items, settings.max_prompt_tokens)
        self.messages: list[str] = []  # of the texts written last
        self.written: list[Text] = []
        self.seconds = 0.0  # that all texts so far took when they were written, perhaps in another run

    def of_items(self, written: bool) -> "Tensor":
        """Return vectors of all items: of texts that the LLM writes, or of titles and attributes."""
        from baselines._writers.sentences import item_texts

        texts = item_texts(self.split.items, self.writer.tokenizer)
        if written:
            messages = self.builder.item_messages(considering(ITEM_REQUEST, self.settings), texts)
            texts = self._write(messages, "writing about items")
        return self.encoder.encode(texts, "encoding knowledge")

    def of_cases(self, cases: Cases) -> "Tensor":
        """Return a vector per case, of the text that the LLM writes about the case's history."""
        messages = self.builder.user_messages(considering(USER_REQUEST, self.settings), cases)
        return self.encoder.encode(self._write(messages, "writing about users"), "encoding knowledge")

    def _write(self, messages: list[str], desc: str) -> list[str]:
        self.messages = messages
        self.written = self.writer.write([self.writer.prompt(message) for message in messages], desc)
        self.seconds += sum(text.seconds for text in self.written)
        return [text.text for text in self.written]


def trained_with(
    knowledge: Knowledge,
    *,
    written_items: bool,
    make: Callable[["Tensor"], "Maker"],
    loss: Callable[["Tensor", "Tensor"], "Loss"],
    seed: int,
    name: str,
) -> "ByKnowledge":
    """Train a network derived from SASRec with texts about a sample of the training cases' users.

    make: builds the network from the items' vectors, float32 [n_items, width]. loss: builds the loss from `row_of`,
    int64 [training cases], and vectors, float32 [1 + texts, width]; row_of is a case's row in them, 0 without a text.
    The best epoch is chosen on all validation cases, each with its own text. name: of the method, in errors.
    """
    import torch

    from baselines._recbole.learners import EveryPosition
    from baselines._recbole.training import train

    split, settings = knowledge.split, knowledge.settings
    items = Standard(knowledge.of_items(written_items))
    chosen = sampled(split, settings.cases)
    users = Standard(knowledge.of_cases(split.train.take(chosen)))
    valid = users(knowledge.of_cases(split.valid))
    row_of = torch.zeros(len(split.train), dtype=torch.int64)
    row_of[torch.from_numpy(chosen)] = 1 + torch.arange(len(chosen))
    trained = train(
        "SASRec",
        split,
        seed,
        settings.model_dump(include=set(SASRecParams.model_fields)),
        EveryPosition.of(split, settings, loss(row_of, none_first(users.known))),
        make=make(items.known),
        validate=lambda network: validation_ndcg(Knowing(network, valid), split.valid, split.n_items, name),
    )
    return ByKnowledge(knowledge, users, trained)


def sampled(split: Split, count: int) -> np.ndarray:
    """Rows of the training cases that get a text, int64, ascending; the same for every method and repetition, as texts
    are kept."""
    rows = np.arange(len(split.train)) if split.llm_rows is None else split.llm_rows
    order = np.random.default_rng(derive_seed(split.name, "kar", len(rows))).permutation(len(rows))
    return np.sort(rows[order[:count]])


def none_first(vectors: "Tensor") -> "Tensor":
    """Put a row of zeros on top, for cases without a text: [n, width] -> [1 + n, width]."""
    import torch.nn.functional as F

    return F.pad(vectors, (0, 0, 1, 0))


class Standard:
    """Standardises vectors by the mean and standard deviation of those it is built with, in each dimension.

    known: those vectors, standardised. Sentences about things of one kind are much alike, so their vectors differ
    little before.
    """

    def __init__(self, vectors: "Tensor") -> None:
        self.mean, self.sd = vectors.mean(dim=0), vectors.std(dim=0, correction=0).clamp(min=1e-6)
        self.known = self(vectors)

    def __call__(self, vectors: "Tensor") -> "Tensor":
        return (vectors - self.mean) / self.sd


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


class ByKnowledge(Recommender):
    """The network's scores with the knowledge that is written about each case's user."""

    def __init__(self, knowledge: Knowledge, standard: Standard, trained: "RecBoleRecommender") -> None:
        self.knowledge, self.standard, self.trained = knowledge, standard, trained
        self.fit_seconds = knowledge.seconds
        self.writers_report: dict[str, Any] = {}  # of a writer that was trained
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

    def uncached(self) -> "ByKnowledge":
        fresh = copy.copy(self)
        fresh.knowledge = copy.copy(self.knowledge)
        fresh.knowledge.writer = self.knowledge.writer.without_cache()
        return fresh

    def tokens_written(self) -> int:
        return self._tokens

    def report(self) -> dict[str, Any]:
        """Return SASRec's curve, the writer's report and writing_seconds, the time in which the fit's texts were
        written."""
        return self.trained.report() | self.writers_report | {"writing_seconds": round(self.fit_seconds, 3)}
