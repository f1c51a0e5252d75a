"""Writes the texts of the LLM baselines greedily, builds their messages, and keeps a frozen LLM's texts on disk.

A kept text is named by the hash of model, settings, prompt and the versions of the writing code. So methods that send
the same message to the same LLM wait for its text once, and a killed run goes on where it was. The cost of a text is
kept with it and charged wherever the text is used, also where it came from disk: in `tokens_written`,
`writing_seconds` and a run's seconds (`benchmark.storage.ledger`).
"""

import copy
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmark.contract import Cases, Learned, Recommender, Split
from benchmark.data import texts
from benchmark.errors import OF_ANOTHER, InputError, another_owner
from benchmark.storage import ledger
from benchmark.storage.io import sha256_of_json
from benchmark.storage.stages import Stage
from lm import backbone as backbones
from lm.chat import prompt_ids
from lm.settings import BackboneSettings, RolloutSettings
from lm.writing.engine import WRITING, TransformersEngine
from lm.writing.rollouts import RolloutResult
from lm.writing.stopping import EndOfTurn

ROWS_AT_ONCE = 64
TEXTS = Stage("texts", 1, after=(WRITING,))
# Columns of a kept text; files with other columns have other names.
COLUMNS = "key TEXT PRIMARY KEY, text TEXT, tokens INTEGER, cut INTEGER, seconds REAL, made_by TEXT"
# What SQLite says where disk, rights or another process refuse something, and what to do then.
RIGHTS = "get the rights to it and its folder, or name a folder of your own in texts"
REFUSALS = {"readonly": RIGHTS, "unable to open": RIGHTS, "full": "make room on the disk and run again"}
REFUSALS |= {"locked": "let the other process end, and run again", "disk I/O": "check the disk and run again"}


@dataclass(frozen=True)
class Text:
    """One text, written up to the end of the turn or the limit, and its cost."""

    text: str
    tokens: int  # sampled, the end of the turn included
    cut: bool  # the limit was met
    seconds: float  # of writing it, its share of its batch


class Writer:
    """Greedy texts of one frozen LLM.

    Args:
        backbone: the LLM. max_new_tokens: limit of each text. folder: of the texts; several jobs may share it.
    """

    def __init__(self, backbone: BackboneSettings, max_new_tokens: int, folder: Path) -> None:
        self.backbone, self.folder = backbone, Path(folder)
        self.settings = greedy(max_new_tokens)
        about = json.dumps(
            [COLUMNS, backbones.identity(backbone), self.settings.model_dump(mode="json"), TEXTS.about()],
            sort_keys=True,
        )
        self.path = self.folder / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.sqlite"

    @cached_property
    def _loaded(self) -> backbones.Backbone:
        return backbones.load(self.backbone)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._loaded.tokenizer

    def builder(self, split: Split, max_items: int, max_prompt_tokens: int) -> "MessageBuilder":
        """The builder of messages about this split's users and items."""
        loaded, length = self._loaded, self.settings.max_new_tokens
        return MessageBuilder(split, loaded.model, loaded.tokenizer, max_items, max_prompt_tokens, length)

    def prompt(self, message: str) -> list[int]:
        """Token ids of one user message in the backbone's chat template, up to where the assistant begins to write."""
        return prompt_ids(self.tokenizer, message)

    def write(self, prompts: Sequence[Sequence[int]], desc: str = "writing") -> list[Text]:
        """One text per prompt (token ids), in their order; only those that aren't on disk are written."""
        keys = [_key(prompt) for prompt in prompts]
        self.folder.mkdir(parents=True, exist_ok=True)
        with refusals_named(self.path), closing(sqlite3.connect(self.path, timeout=60)) as store:
            _ready(store, self.path)
            by_key = dict(zip(keys, prompts, strict=True))
            texts = _read(store, list(by_key))
            # Similar lengths together: less padding. The batches are those of the whole call, whatever is on disk
            # already: in bf16 a near tie between two tokens may be resolved differently in another batch.
            order = sorted(by_key, key=lambda key: len(by_key[key]))
            parts = [order[start : start + ROWS_AT_ONCE] for start in range(0, len(order), ROWS_AT_ONCE)]
            parts = [part for part in parts if any(key not in texts for key in part)]
            for part in tqdm(parts, desc=desc, unit="batch", delay=5, leave=False):
                generated = zip(part, self._generate([by_key[key] for key in part]), strict=True)
                written = {key: text for key, text in generated if key not in texts}
                rows = [(key, t.text, t.tokens, t.cut, t.seconds, ledger.name()) for key, t in written.items()]
                with store:  # on disk when the next batch begins
                    store.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?, ?, ?, ?)", rows)
                    store.executemany(
                        "INSERT OR REPLACE INTO sums VALUES (?, ?)", [(row[0], _sum(row)) for row in rows]
                    )
                texts |= written
        return [texts[key] for key in keys]

    def without_cache(self) -> "Writer":
        """A writer with the same LLM and settings that writes every text anew and keeps none."""
        fresh = copy.copy(self)
        fresh.write = lambda prompts, desc="": self._generate(prompts)  # type: ignore[method-assign]
        return fresh

    def _generate(self, prompts: Sequence[Sequence[int]]) -> list[Text]:
        return write_now(self._loaded.model, self.tokenizer, prompts, self.settings)


def write_now(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: RolloutSettings,
) -> list[Text]:
    """One greedy text per prompt (token ids) by the model as it is now; nothing is kept."""
    engine = TransformersEngine(model, tokenizer, settings, EndOfTurn(tokenizer))
    return texts_in(engine.generate(prompts, cases=np.arange(len(prompts)), seed=0), tokenizer)


def texts_in(result: RolloutResult, tokenizer: PreTrainedTokenizerBase) -> list[Text]:
    """Each rollout's text, its end of the turn left out."""
    rows, lengths = result.rollouts.completion_ids.tolist(), result.lengths.tolist()
    texts = []
    for ids, length, ended in zip(rows, lengths, result.ended.tolist(), strict=True):
        text = tokenizer.decode(ids[: length - ended], skip_special_tokens=True)
        texts.append(Text(str(text).strip(), length, not ended, result.seconds / len(rows)))
    return texts


def causal_lm_of(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The causal LM below peft's wrapper, if there is one."""
    causal_lm = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(causal_lm, PreTrainedModel)
    return causal_lm


def untuned(model: PreTrainedModel | PeftModel) -> AbstractContextManager[None]:
    """Inside this context the LM is as it was before its adapters were trained."""
    return model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()


@torch.no_grad()
def states_of(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, inputs: Sequence[str], desc: str = ""
) -> Tensor:
    """The LM's state that has read the last token of each text, float32 [n, d]; no text may be empty.

    The tokenizer's own opening tokens stand before each text: Gemma's `<bos>`, without which it hardly works; none for
    SmolLM2 and Qwen.
    """
    causal_lm = causal_lm_of(model)
    # A text that spells a special token, as an LLM may write it, stays text.
    ids = tokenizer(list(inputs), split_special_tokens=True)["input_ids"]
    # Similar lengths together: less padding.
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    states = torch.empty(len(ids), causal_lm.config.hidden_size)
    for start in tqdm(range(0, len(order), ROWS_AT_ONCE), desc=desc, unit="batch", delay=5, leave=False):
        rows = order[start : start + ROWS_AT_ONCE]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, padding_side="right", return_tensors="pt")
        mask = batch["attention_mask"].to(causal_lm.device)
        batch_states = causal_lm.get_decoder()(
            batch["input_ids"].to(causal_lm.device), attention_mask=mask
        ).last_hidden_state
        states[rows] = batch_states[torch.arange(len(rows)), mask.sum(dim=1) - 1].float().cpu()
    return states


def greedy(max_new_tokens: int) -> RolloutSettings:
    """One greedy text of at most so many tokens."""
    return RolloutSettings(max_new_tokens=max_new_tokens, greedy=True, group_size=1, rows_at_once=ROWS_AT_ONCE)


def greedy_as_trained(max_new_tokens: int) -> RolloutSettings:
    """As `greedy`, with adapters that stay beside the weights, as R2ec is scored.

    Folded into bf16 weights they would be another model than was trained.
    """
    return greedy(max_new_tokens).model_copy(update={"merge_adapters": False})


class MessageBuilder:
    """Builds messages to one LLM about users and items, with titles as every method reads them.

    Args:
        max_items: history items shown. max_prompt_tokens: of a whole prompt, template included; beyond it the oldest
            items leave first, then the end of the newest title. written: tokens that may stand behind a prompt.

    Raises InputError where the LLM reads fewer tokens than prompt and written ones together.
    """

    def __init__(
        self,
        split: Split,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        max_items: int,
        max_prompt_tokens: int,
        written: int,
    ) -> None:
        backbones.check_reads(causal_lm_of(model), max_prompt_tokens, written, "max_prompt_tokens")
        self.category, self.several, self.tokenizer = split.category, split.several, tokenizer
        self.max_items, self.max_prompt_tokens = max_items, max_prompt_tokens
        self.mark = ""  # what stands behind each title of a history
        self.titles = texts.titles(split.items, tokenizer)

    def user_messages(self, request: str, cases: Cases) -> list[str]:
        """`request` for each case, with {category}, {several} and {history} filled in: its newest titles, oldest first.

        Raises InputError where the request leaves no room for any title.
        """
        return [self._about_user(request, self.shown(cases, i), f"case {cases.case[i]}") for i in range(len(cases))]

    def shown(self, cases: Cases, i: int) -> list[str]:
        """The newest titles of case i, oldest first."""
        return [self.titles[item] for item in cases.history(i)[-self.max_items :].tolist()]

    def item_messages(self, request: str, descriptions: Sequence[str]) -> list[str]:
        """`request` for each item, with {category} and {item} filled in. descriptions: one text per item.

        A description loses its end where the prompt would be too long. Raises InputError where nothing of it fits.
        """
        return [
            self._cut(lambda description: request.format(category=self.category, item=description), text, f"item {v}")
            for v, text in enumerate(descriptions)
        ]

    def _about_user(self, request: str, titles: list[str], whose: str) -> str:
        def message(shown: list[str]) -> str:
            lines = "\n".join(f"- {title}{self.mark}" for title in shown)
            return request.format(category=self.category, several=self.several, history=lines)

        while len(titles) > 1 and not self._fits(message(titles)):
            titles = titles[1:]
        return self._cut(lambda title: message([title]), titles[0], whose) if len(titles) == 1 else message(titles)

    def _cut(self, message: Callable[[str], str], text: str, whose: str) -> str:
        """The message of as much of the text as fits."""
        kept = texts.longest(text, lambda prefix: self._fits(message(prefix)))
        if not kept:
            raise InputError(f"{whose}: max_prompt_tokens {self.max_prompt_tokens} holds the request alone; raise it")
        return message(kept)

    def _fits(self, message: str) -> bool:
        return len(prompt_ids(self.tokenizer, message)) <= self.max_prompt_tokens


def micro_batch(rows: int, most: int) -> int:
    """The largest micro-batch of at most `most` rows into which a step's rows divide evenly.

    >>> micro_batch(12, 8), micro_batch(7, 4)
    (6, 1)
    """
    return next(size for size in range(min(most, rows), 0, -1) if rows % size == 0)


def as_frame(cases: Cases, messages: list[str], written: list[Text]) -> pd.DataFrame:
    """The frame that `Recommender.texts` gives: case, prompt, reasoning (the text), cut."""
    return pd.DataFrame(
        {
            "case": cases.case,
            "prompt": messages,
            "reasoning": [text.text for text in written],
            "cut": [text.cut for text in written],
        }
    )


class ByText(Recommender):
    """Scores items by a text that an LLM writes for each case, greedily, by the model as it is now.

    request: the message, see `MessageBuilder.user_messages`. scores_of: n texts (some may be empty) -> scores of all
    items, float [n, n_items]. report, learned_from: of the fit.
    """

    def __init__(
        self,
        split: Split,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        request: str,
        scores_of: Callable[[list[str]], np.ndarray],
        max_items: int,
        max_prompt_tokens: int,
        max_new_tokens: int,
        report: dict[str, Any],
        learned_from: Learned | None = None,
    ) -> None:
        self.builder = MessageBuilder(split, model, tokenizer, max_items, max_prompt_tokens, max_new_tokens)
        self.model, self.tokenizer, self.scores_of = model, tokenizer, scores_of
        self.request, self.limits = request, greedy_as_trained(max_new_tokens)
        self._report, self._learned_from = report, learned_from
        self._texts: list[pd.DataFrame] = []
        self._tokens = 0

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        self._texts, self._tokens = [], 0
        for batch in cases.batches(ROWS_AT_ONCE):
            messages = self.builder.user_messages(self.request, batch)
            prompts = [prompt_ids(self.tokenizer, message) for message in messages]
            written = write_now(self.model, self.tokenizer, prompts, self.limits)
            self._texts.append(as_frame(batch, messages, written))
            self._tokens += sum(text.tokens for text in written)
            yield self.scores_of([text.text for text in written])

    def texts(self) -> pd.DataFrame:
        """case, prompt, reasoning (the text), cut, of the cases scored last."""
        return pd.concat(self._texts, ignore_index=True)

    def tokens_written(self) -> int:
        return self._tokens

    def learned(self) -> Learned | None:
        return self._learned_from

    def report(self) -> dict[str, Any]:
        return self._report


def _key(prompt: Sequence[int]) -> str:
    return hashlib.sha256(np.asarray(prompt, dtype="<i4").tobytes()).hexdigest()


@contextmanager
def refusals_named(path: Path) -> Iterator[None]:
    """Raise InputError where the file of texts, or its folder, can't be written within it, or is locked for long."""
    try:
        yield
    except sqlite3.OperationalError as error:
        why = str(error)
        advice = next((advice for words, advice in REFUSALS.items() if words in why), None)
        if advice is None:
            raise
        owner = another_owner(path)
        raise InputError(f"{path}: {why}; {f'{owner}; {OF_ANOTHER}' if owner else advice}") from None


def _ready(store: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file. Raises InputError for one that is damaged."""
    try:
        store.execute(f"CREATE TABLE IF NOT EXISTS texts ({COLUMNS})")
        # Beside the texts, not in them: files of before there were checksums keep their name and their texts.
        store.execute("CREATE TABLE IF NOT EXISTS sums (key TEXT PRIMARY KEY, sum TEXT)")
        status = store.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise  # locked, or the disk is full
        status = str(error)
    if status != "ok":
        raise InputError(f"{path}: damaged ({status}); delete it, its texts are written again")


def _sum(row: Sequence[Any]) -> str:
    """The checksum of one text with all that is kept of it."""
    return sha256_of_json([row[0], row[1], row[2], int(row[3]), row[4], row[5]])


def _read(store: sqlite3.Connection, keys: list[str]) -> dict[str, Text]:
    """The texts that are on disk, by key; their cost is charged to this run.

    A damaged text is reported and left out, so that it is written anew.
    """
    texts = {}
    for start in range(0, len(keys), 500):
        part = keys[start : start + 500]
        marks = ", ".join("?" * len(part))
        sums = dict(store.execute(f"SELECT key, sum FROM sums WHERE key IN ({marks})", part))
        for row in store.execute(f"SELECT * FROM texts WHERE key IN ({marks})", part):
            key, text, tokens, cut, seconds, made_by = row
            if sums.get(key, _sum(row)) != _sum(row):
                print(f"damaged: the kept text {key[:12]}... is not what was written; it is written anew", flush=True)
                continue
            texts[key] = Text(text, tokens, bool(cut), seconds)
            ledger.charge(made_by, seconds)
    return texts
