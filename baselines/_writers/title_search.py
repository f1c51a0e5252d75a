"""Beam search over the trie of all titles: the LLM writes real titles only, and every item at a beam's end is scored.

As in D3 (Bao et al., arXiv 2406.14900), a score is the sum of log-probabilities without any length normalisation, and
log-probabilities of a second model are mixed in token by token with weight 1 - alpha. The LLM's probabilities are
normalised over the tokens that the trie allows; Hugging Face's constrained beam search normalises over the whole
vocabulary and masks afterwards. So a ghost token (the only one allowed) adds exactly nothing, and a title is complete
as soon as no other title begins like it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from lm.writing.decode import SharedPromptDecoder


def title_tokens(tokenizer: "PreTrainedTokenizerBase", titles: Sequence[str]) -> list[list[int]]:
    """Each title's tokens and the token that closes a turn, as a tuned LLM has learned to write them.

    A title that spells a special token is text, and no end. A line break that a template puts behind the turn is left
    out.
    """
    from lm.chat import turn_end_ids

    ends = turn_end_ids(tokenizer)
    # Gemma's eos is another.
    end = next((token for token in ends if token != tokenizer.eos_token_id), ends[0])
    tokens = tokenizer(list(titles), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [[*title, end] for title in tokens]


class Trie:
    """The titles of all items, as tokens. Items lie in the order of their titles, so that a node is a range of places.

    A node with one title below it is settled: it has no children, however many tokens the title has left.
    """

    def __init__(self, titles: Sequence[Sequence[int]]) -> None:
        """titles: tokens of each item's title; none begins another (end tokens see to that), but some may be equal."""
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
        self.tokens = np.unique(self.token[1:])  # all that lead somewhere, ascending

    def masses(self, node: int, logq: np.ndarray) -> np.ndarray:
        """log of the summed probabilities below each child of an unsettled node, float64 [children].

        logq: log-probability of each place, float64 [n].
        """
        start = self.first[node]
        starts = self.first[self.children[node]] - start
        return np.asarray(np.logaddexp.reduceat(logq[start : self.last[node]], starts))


def gains(logits: np.ndarray, masses: np.ndarray, alpha: float) -> np.ndarray:
    """The gain of a beam's score by each child, float64 [children]; -inf where no item below the child is open.

    logits: the LLM's; masses: the assistant's, logs. Each is normalised over the open children before they are mixed.
    """
    added, is_open = np.full(len(masses), -np.inf), masses > -np.inf
    if is_open.any():
        of_llm, of_assistant = logits[is_open], masses[is_open]
        added[is_open] = alpha * (of_llm - np.logaddexp.reduce(of_llm))
        added[is_open] += (1 - alpha) * (of_assistant - np.logaddexp.reduce(of_assistant))
    return added


class Search:
    """Beams of several users. `best` has, for each, up to `beams` (score, place) of whole titles, best first."""

    def __init__(self, trie: Trie, logq: np.ndarray, alpha: float, beams: int) -> None:
        """logq: the assistant's log-probabilities by user and place, float64 [users, n]; -inf: closed."""
        self.trie, self.logq, self.alpha, self.beams = trie, logq, alpha, beams
        self.best: list[list[tuple[float, int]]] = [[] for _ in logq]
        self.open = [(user, 0, 0.0) for user in range(len(logq))]  # user, node, score of each beam
        self.read = 0  # tokens that the LLM has read of titles

    def run(self, decoder: "SharedPromptDecoder", prompts: Sequence[Sequence[int]]) -> None:
        """Search until no open beam can displace a complete title, since scores only fall.

        decoder: gives logits of `trie.tokens`.
        """
        import torch

        # The root is settled where all items have the same title.
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
        """Each user's beams with one token more: score, node, and the row in `open` of the beam before.

        logits: of the rows, [rows, tokens of the trie].
        """
        import torch

        children = [self.trie.children[node] for _, node, _ in self.open]
        rows = np.repeat(np.arange(len(children)), [len(nodes) for nodes in children])
        columns = np.searchsorted(self.trie.tokens, self.trie.token[np.concatenate(children)])
        # One gather for all beams.
        picked = logits[torch.from_numpy(rows).to(logits.device), torch.from_numpy(columns).to(logits.device)]
        values = np.split(picked.double().numpy(force=True), np.cumsum([len(nodes) for nodes in children])[:-1])
        grown: list[list[tuple[float, int, int]]] = [[] for _ in self.best]
        for row, (user, node, score) in enumerate(self.open):
            added = gains(values[row], self.trie.masses(node, self.logq[user]), self.alpha)
            for child, gain in zip(children[row].tolist(), added.tolist(), strict=True):
                if gain > -np.inf:
                    grown[user].append((score + gain, child, row))
        return grown

    def _settle(self, grown: list[list[tuple[float, int, int]]]) -> tuple[list[int], list[tuple[int, int, float]]]:
        """Put complete titles into `best`; return the beams that go on, at most `beams` of a user.

        Returns the rows in `open` that they continue, and user, node and score of each.
        """
        parents, going = [], []
        for user, beams in enumerate(grown):
            for score, node, _ in beams:
                if not len(self.trie.children[node]):
                    self._add(user, node, score)
            best = self.best[user] = sorted(self.best[user], key=lambda title: (-title[0], title[1]))[: self.beams]
            bar = best[-1][0] if len(best) == self.beams else -np.inf
            unfinished = [beam for beam in beams if len(self.trie.children[beam[1]]) and beam[0] > bar]
            for score, node, row in sorted(unfinished, key=lambda beam: (-beam[0], beam[1]))[: self.beams]:
                parents.append(row)
                going.append((user, node, score))
        return parents, going

    def _add(self, user: int, node: int, score: float) -> None:
        """Add the open items of a settled node; the assistant's probabilities share its score out among them."""
        places = np.arange(self.trie.first[node], self.trie.last[node])
        places = places[self.logq[user, places] > -np.inf]
        own = self.logq[user, places]
        shares = score + (1 - self.alpha) * (own - np.logaddexp.reduce(own))
        self.best[user] += zip(shares.tolist(), places.tolist(), strict=True)
