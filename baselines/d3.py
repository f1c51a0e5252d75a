"""D3: an LLM tuned to write the next title writes only real ones, by beams in which a collaborative model has a say.

Bao et al., "Decoding Matters: Addressing Amplification Bias and Homogeneity Issue for LLM-based Recommendation", EMNLP 2024
(arXiv 2406.14900; github.com/SAI990323/DecodingMatters). Kept: BIGRec's tuning, beams held to the trie of all titles, the sum of
log-probabilities without any length normalisation, and a text-free assistant (SASRec) whose probability mass of the items below
each token is mixed in, token by token, in the logarithm, with weight 1 - alpha. Different: the LLM's probabilities are normalised
over the tokens that the trie allows, so that a ghost token (the only one allowed) adds exactly nothing, and a title is done
as soon as no other begins like it; the mass below a token is the items' sum, where the released code takes the
largest; items of the history are closed, since the evaluator would drop them; items of the same title are told
apart by the assistant alone, and don't differ where alpha is 1. Left out: the temperature. An item that no beam has reached isn't
retrieved (-inf), as in tiger.py: the assistant ranks nothing by itself.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from baselines._recbole.sasrec import PER_CASE, fit_best
from baselines._recbole.sasrec import Params as SASRecParams
from baselines._writers.title_tuning import CLOSING, REQUEST, TitleTuning, rows_of, tuned, work
from benchmark.contract import Cases, Learned, Recommender, Split
from benchmark.data.texts import TITLE_TOKENS
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, trained

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from lm.writing.decode import SharedPromptDecoder

FIT = Stage("d3", 1, packages=("torch", "transformers", "peft", "tokenizers", "trl", "recbole"))

__all__ = ["Params", "fit", "fit_cost", "work"]


class Params(TitleTuning):
    """alpha: weight of the LLM's log-probabilities, the assistant's is 1 - alpha (1: no assistant is fitted); beams: how many items
    are retrieved; sasrec: settings of the assistant, the best on validation cases is taken; evaluation_rows: users whose beams are
    read together."""

    sasrec: list[SASRecParams] = Field(default=[SASRecParams()], min_length=1)
    alpha: float = Field(default=0.5, gt=0, le=1)
    beams: int = Field(default=20, ge=1)
    evaluation_rows: int = Field(default=32, ge=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "D3":
    """Fit the assistant, then tune the LLM's adapters, which a killed fit goes on with from the last checkpoint."""
    settings = Params.model_validate(params)
    assistant, tried = None, list[dict[str, Any]]()
    if settings.alpha < 1:
        assistant, tried = fit_best(split, settings.sasrec, seed=seed, workdir=workdir)
    model, tokenizer, losses = tuned(split, settings, request=REQUEST, seed=seed, folder=workdir / "tuning")
    made = D3(split, settings, model, tokenizer, assistant, {"losses": losses, "sasrec_tried": tried})
    made.tuned_on = Learned.of_fit(split.llm_train.take(np.unique(rows_of(split, settings, seed))))
    return made


class Trie:
    """The titles of all items, as tokens. Items lie in the order of their titles, so that a node is a range of places.

    A node with one title below it is settled: it has no children, however many tokens the title has left.
    """

    def __init__(self, titles: Sequence[Sequence[int]]) -> None:
        """titles: of each item, none the beginning of another (an end token sees to that); equal ones may be there."""
        self.items = np.array(sorted(range(len(titles)), key=lambda item: list(titles[item])), dtype=np.int64)
        ordered = [list(titles[item]) for item in self.items]
        nodes = [(0, len(ordered), 0, -1)]  # first and last place, depth, the token that leads there; the root
        self.children: list[np.ndarray] = []  # of each node, int64
        while len(self.children) < len(nodes):
            first, last, depth, _ = nodes[len(self.children)]
            count = len(nodes)
            if ordered[first] != ordered[last - 1]:
                tokens = np.array([title[depth] for title in ordered[first:last]])
                starts = np.flatnonzero(np.r_[True, tokens[1:] != tokens[:-1]])
                stops = np.r_[starts[1:], len(tokens)]
                for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                    nodes.append((first + start, first + stop, depth + 1, int(tokens[start])))
            self.children.append(np.arange(count, len(nodes)))
        table = np.array(nodes, dtype=np.int64)
        self.first, self.last, self.token = table[:, 0], table[:, 1], table[:, 3]

    def masses(self, node: int, logq: np.ndarray) -> np.ndarray:
        """log of the summed probabilities below each child of an unsettled node, float64; logq: of each place, float64 [n]."""
        start = self.first[node]
        starts = self.first[self.children[node]] - start
        return np.asarray(np.logaddexp.reduceat(logq[start : self.last[node]], starts))


def gains(logits: np.ndarray, masses: np.ndarray, alpha: float) -> np.ndarray:
    """What each child adds to a beam's score, float64 [children]; -inf where nothing below it is open.

    logits: the LLM's; masses: the assistant's, logs. Each is normalised over the open children before they are mixed.
    """
    found, is_open = np.full(len(masses), -np.inf), masses > -np.inf
    if is_open.any():
        own, others = logits[is_open], masses[is_open]
        found[is_open] = alpha * (own - np.logaddexp.reduce(own))
        found[is_open] += (1 - alpha) * (others - np.logaddexp.reduce(others))
    return found


class Search:
    """Beams of several users. `best` has, for each, up to `beams` (score, place) of whole titles, best first."""

    def __init__(self, trie: Trie, logq: np.ndarray, alpha: float, beams: int) -> None:
        """logq: the assistant's log-probabilities by user and place, float64 [users, n]; -inf: closed."""
        self.trie, self.logq, self.alpha, self.beams = trie, logq, alpha, beams
        self.best: list[list[tuple[float, int]]] = [[] for _ in logq]
        self.open = [(user, 0, 0.0) for user in range(len(logq))]  # user, node, score of each beam
        self.read = 0  # tokens that the LLM has read of titles

    def run(self, decoder: "SharedPromptDecoder", prompts: Sequence[Sequence[int]]) -> None:
        """Until no open beam can displace a whole title: scores only fall."""
        import torch

        # A settled root: there is one title in all.
        self.open = self._settle([[(0.0, 0, user)] for user in range(len(self.logq))])[1]
        if not self.open:
            return
        logits, rows_each = decoder.prefill(prompts), decoder.group
        while True:
            parents, self.open = self._settle(self._grown(logits))
            if not self.open:
                return
            device = logits.device
            decoder.fork(torch.tensor(parents, device=device) * rows_each)
            rows_each = 1  # before the first token every user has `group` equal rows, then one for each beam
            tokens = torch.from_numpy(self.trie.token[[node for _, node, _ in self.open]]).to(device)
            self.read += len(tokens)
            logits = decoder.step(tokens)

    def _grown(self, logits: "Tensor") -> list[list[tuple[float, int, int]]]:
        """Each user's beams with one token more: score, node, and the beam's row in `open`. logits: of the rows, [rows, v]."""
        import torch

        children = [self.trie.children[node] for _, node, _ in self.open]
        rows = np.repeat(np.arange(len(children)), [len(some) for some in children])
        tokens = self.trie.token[np.concatenate(children)]
        # One gather for all beams.
        picked = logits[torch.from_numpy(rows).to(logits.device), torch.from_numpy(tokens).to(logits.device)]
        values = np.split(picked.double().numpy(force=True), np.cumsum([len(some) for some in children])[:-1])
        grown: list[list[tuple[float, int, int]]] = [[] for _ in self.best]
        for row, (user, node, score) in enumerate(self.open):
            more = gains(values[row], self.trie.masses(node, self.logq[user]), self.alpha)
            for child, gain in zip(children[row].tolist(), more.tolist(), strict=True):
                if gain > -np.inf:
                    grown[user].append((score + gain, child, row))
        return grown

    def _settle(self, grown: list[list[tuple[float, int, int]]]) -> tuple[list[int], list[tuple[int, int, float]]]:
        """Whole titles go to `best`; the parents' rows and the beams that go on, at most `beams` of a user."""
        parents, going = [], []
        for user, beams in enumerate(grown):
            for score, node, _ in beams:
                if not len(self.trie.children[node]):
                    self._add(user, node, score)
            best = self.best[user] = sorted(self.best[user], key=lambda found: (-found[0], found[1]))[: self.beams]
            bar = best[-1][0] if len(best) == self.beams else -np.inf
            still = [beam for beam in beams if len(self.trie.children[beam[1]]) and beam[0] > bar]
            for score, node, row in sorted(still, key=lambda beam: (-beam[0], beam[1]))[: self.beams]:
                parents.append(row)
                going.append((user, node, score))
        return parents, going

    def _add(self, user: int, node: int, score: float) -> None:
        """The open items of a settled node; those of one title share its score by the assistant's probabilities."""
        places = np.arange(self.trie.first[node], self.trie.last[node])
        places = places[self.logq[user, places] > -np.inf]
        own = self.logq[user, places]
        shares = score + (1 - self.alpha) * (own - np.logaddexp.reduce(own))
        self.best[user] += zip(shares.tolist(), places.tolist(), strict=True)


class D3(Recommender):
    """Mixed log-probability of an item's title for the items that the beams find, -inf for the others."""

    def __init__(
        self,
        split: Split,
        settings: Params,
        model: "PeftModel",
        tokenizer: "PreTrainedTokenizerBase",
        assistant: Recommender | None,
        found: dict[str, Any],
    ) -> None:
        """found: what the fit reports."""
        from baselines._writers import llm_texts
        from lm.chat import turn_end_ids

        self.split, self.settings = split, settings
        self.model, self.tokenizer, self.assistant, self.found = model, tokenizer, assistant, found
        # What the chat template closes a turn with, as in the tuning; Gemma's eos is another.
        ends = turn_end_ids(tokenizer)
        end = next((token for token in ends if token != tokenizer.eos_token_id), ends[0])
        length = TITLE_TOKENS + CLOSING
        self.asker = llm_texts.Asker(split, model, tokenizer, settings.max_items, settings.max_prompt_tokens, length)
        # A title that spells a special token is text, and no end.
        tokens = tokenizer(self.asker.titles, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        self.trie = Trie([[*title, end] for title in tokens])
        self.tuned_on = Learned(0, 0, 0)
        self._texts: list[pd.DataFrame] = []
        self._read = 0

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        import torch

        from lm.backbone import merged_adapters
        from lm.chat import prompt_ids
        from lm.writing.decode import SharedPromptDecoder

        self._texts, self._read = [], 0
        beams = min(self.settings.beams, self.split.n_items)
        for batch in cases.batches(self.settings.evaluation_rows):
            messages = self.asker.about_users(REQUEST, batch)
            prompts = [prompt_ids(self.tokenizer, message) for message in messages]
            search = Search(self.trie, self.assistance(batch), self.settings.alpha, beams)
            with (
                torch.no_grad(),
                # As it was trained: folded into bf16 it would be another model.
                merged_adapters(self.model, False) as causal_lm,
                SharedPromptDecoder(causal_lm, beams) as decoder,
            ):
                search.run(decoder, prompts)
            self._read += search.read
            scores = np.full((len(batch), self.split.n_items), -np.inf)
            for user, best in enumerate(search.best):
                for value, place in best:
                    scores[user, self.trie.items[place]] = value
            self._texts.append(self._first_titles(batch, messages, search))
            yield scores

    def assistance(self, cases: Cases) -> np.ndarray:
        """SASRec's log-probabilities, float64 [n, places of the trie]; -inf for the history's items. Equal without SASRec."""
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
        from baselines._writers import llm_texts

        titles = self.asker.titles
        first = [titles[self.trie.items[best[0][1]]] if best else "" for best in search.best]
        return llm_texts.as_frame(cases, messages, [llm_texts.Text(title, 0, False, 0.0) for title in first])

    def texts(self) -> pd.DataFrame:
        """case, prompt, reasoning (the title on rank 1), cut (never), of the cases scored last."""
        return pd.concat(self._texts, ignore_index=True)

    def tokens_written(self) -> int:
        """Tokens that all beams have written and read."""
        return self._read

    def learned(self) -> Learned | None:
        """The LLM's cases where there is no assistant, which learns from all training cases."""
        return self.tuned_on if self.assistant is None else None

    def report(self) -> dict[str, Any]:
        """losses: of each step of the tuning; sasrec: what its fit found, null without one; sasrec_tried: settings and their
        NDCG@10 on validation cases, empty where there was no choice."""
        return self.found | {"sasrec": None if self.assistant is None else self.assistant.report()}


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, p["sasrec"], PER_CASE)
