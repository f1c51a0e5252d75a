"""A tuned LLM as a recommender: it scores an item by its title's log-probability, where one of its beams ends in it.

An item that no beam has reached isn't retrieved (-inf). Items of the history are closed, since the evaluator would drop
them. Items with the same title differ by the assistant's scores only, and not at all without an assistant.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from baselines._writers import llm_texts
from baselines._writers.title_search import Search, Trie, title_tokens
from baselines._writers.title_tuning import CLOSING, TitleBeams
from benchmark.contract import Cases, Learned, Recommender, Split
from benchmark.data.texts import TITLE_TOKENS

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


class ByTitle(Recommender):
    """Log-probability of an item's title for the items that the beams reach, -inf for the others.

    Args:
        request: the message, see `MessageBuilder.user_messages`. fit_report, learned_from: of the fit.
        assistant, alpha: another recommender, whose log-probabilities have weight 1 - alpha (see `title_search`).
    """

    def __init__(
        self,
        split: Split,
        settings: TitleBeams,
        model: "PeftModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        request: str,
        fit_report: dict[str, Any],
        learned_from: Learned | None,
        assistant: Recommender | None = None,
        alpha: float = 1.0,
    ) -> None:
        self.split, self.settings, self.request = split, settings, request
        self.model, self.tokenizer, self.assistant, self.alpha = model, tokenizer, assistant, alpha
        self.fit_report, self.learned_from = fit_report, learned_from
        length = TITLE_TOKENS + CLOSING
        self.builder = llm_texts.MessageBuilder(
            split, model, tokenizer, settings.max_items, settings.max_prompt_tokens, length
        )
        self.trie = Trie(title_tokens(tokenizer, self.builder.titles))
        self._texts: list[pd.DataFrame] = []
        self._read = 0

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        self._texts, self._read = [], 0
        beams = min(self.settings.beams, self.split.n_items)
        for batch in cases.batches(self.settings.evaluation_rows):
            messages = self.builder.user_messages(self.request, batch)
            search = self.search(batch, messages, beams)
            self._read += search.read
            scores = np.full((len(batch), self.split.n_items), -np.inf)
            for user, best in enumerate(search.best):
                for value, place in best:
                    scores[user, self.trie.items[place]] = value
            self._texts.append(self._first_titles(batch, messages, search))
            yield scores

    def search(self, cases: Cases, messages: list[str], beams: int) -> Search:
        """The beams of these cases, which are read together, by the LLM as it is now."""
        import torch

        from lm.backbone import merged_adapters
        from lm.writing.decode import SharedPromptDecoder
        from lm.writing.packed import PackedForward

        prompts = self.prompts(cases, messages)
        beam_search = Search(self.trie, self.assistance(cases), self.alpha, beams)
        with (
            torch.no_grad(),
            # Adapters not folded, as in training: folded into bf16 they would be another model.
            merged_adapters(self.model, False) as causal_lm,
            # Logits in float32: in bf16 titles would tie that differ, and ties count against a method.
            SharedPromptDecoder(
                causal_lm, beams, torch.from_numpy(self.trie.tokens), PackedForward.of(causal_lm, with_head=False)
            ) as decoder,
        ):
            beam_search.run(decoder, prompts)
        return beam_search

    def prompts(self, cases: Cases, messages: list[str]) -> list[list[int]]:
        """Token ids of each case's prompt."""
        from lm.chat import prompt_ids

        return [prompt_ids(self.tokenizer, message) for message in messages]

    def assistance(self, cases: Cases) -> np.ndarray:
        """Log-probabilities of the assistant, or equal ones without it, float64 [n, places of the trie].

        They are -inf for the items of the history.
        """
        scores = np.zeros((len(cases), self.split.n_items))
        if self.assistant is not None:
            scores = np.concatenate([np.array(part, dtype=np.float64) for part in self.assistant.score(cases)])
        for i in range(len(cases)):
            scores[i, cases.history(i)] = -np.inf
        highest = scores.max(axis=1, keepdims=True)
        shifted = scores - np.where(np.isfinite(highest), highest, 0)  # a history of the whole catalogue leaves none
        with np.errstate(divide="ignore"):
            total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return np.asarray((shifted - np.where(np.isfinite(total), total, 0))[:, self.trie.items])

    def _first_titles(self, cases: Cases, messages: list[str], search: Search) -> pd.DataFrame:
        titles = self.builder.titles
        first = [titles[self.trie.items[best[0][1]]] if best else "" for best in search.best]
        return llm_texts.as_frame(cases, messages, [llm_texts.Text(title, 0, False, 0.0) for title in first])

    def texts(self) -> pd.DataFrame:
        """case, prompt, reasoning (the title on rank 1), cut (never), of the cases scored last."""
        return pd.concat(self._texts, ignore_index=True)

    def tokens_written(self) -> int:
        """Tokens that all beams have written and read."""
        return self._read

    def learned(self) -> Learned | None:
        return self.learned_from

    def report(self) -> dict[str, Any]:
        return self.fit_report
