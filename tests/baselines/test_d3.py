"""Tests of D3: trie, masses and mixing by hand, beams against exact scores, a planted task, a killed tuning."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl import SFTTrainer

from baselines import d3
from baselines._writers import title_tuning
from baselines._writers.title_ranking import ByTitle
from baselines._writers.title_search import Search, Trie, gains
from baselines.d3 import fit
from benchmark.contract import Cases, Recommender
from lm import backbone as backbones
from lm.chat import prompt_ids
from lm.writing.decode import SharedPromptDecoder
from tests.support.interrupting import interrupt
from tests.support.tiny_fits import backbone_in, split
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer
from tests.support.worded import N, planted_writer, worded_split

CASES = np.arange(7)
# Items 0..4; item 1 and item 3 have one title, item 4's begins like theirs and item 0's.
TITLES = [[5, 6, 9], [5, 7, 8, 9], [6, 9], [5, 7, 8, 9], [5, 7, 9]]
Q = np.array([0.1, 0.2, 0.4, 0.05, 0.25])  # of the items


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    backbone = backbone_in(folder)
    return {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "sasrec": [{"epochs": 1}],
        "max_items": 3,
        "users_per_step": 4,
        "at_once": 2,
        "max_steps": 4,
        "save_steps": 2,
        "learning_rate": 1e-2,
        "tunings": str(folder / "tunings"),
    } | changes


def test_the_trie_by_hand() -> None:
    trie = Trie(TITLES)
    assert trie.items.tolist() == [0, 1, 3, 4, 2]
    spans = list(zip(trie.token.tolist(), trie.first.tolist(), trie.last.tolist(), strict=True))
    # root; 5, 6 (settled: item 2 alone); 5 6 (settled), 5 7; 5 7 8 (settled: one title, twice), 5 7 9.
    assert spans == [(-1, 0, 5), (5, 0, 4), (6, 4, 5), (6, 0, 1), (7, 1, 4), (8, 1, 3), (9, 3, 4)]
    assert [nodes.tolist() for nodes in trie.children] == [[1, 2], [3, 4], [], [], [5, 6], [], []]
    logq = np.log(Q)[trie.items]
    np.testing.assert_allclose(np.exp(trie.masses(0, logq)), [0.6, 0.4])
    np.testing.assert_allclose(np.exp(trie.masses(1, logq)), [0.1, 0.5])
    np.testing.assert_allclose(np.exp(trie.masses(4, logq)), [0.25, 0.25])
    tiny = np.full(5, -800.0)  # whose probability is 0 in float64
    np.testing.assert_allclose(trie.masses(0, tiny), [-800 + np.log(4), -800])


def test_mixing_by_hand() -> None:
    logits, masses = np.log([1.0, 3.0, 4.0]), np.log([0.1, 0.3, 0.2])
    np.testing.assert_allclose(np.exp(gains(logits, masses, 1.0)), [1 / 8, 3 / 8, 4 / 8])
    expected = np.array([1 / 8, 3 / 8, 4 / 8]) ** 0.25 * np.array([1 / 6, 3 / 6, 2 / 6]) ** 0.75
    np.testing.assert_allclose(np.exp(gains(logits, masses, 0.25)), expected)
    # A closed child takes no part; a ghost token, the only open one, adds nothing, however unlikely the LLM finds it.
    closed = np.array([-np.inf, np.log(0.3), np.log(0.2)])
    expected = np.array([3 / 7, 4 / 7]) ** 0.5 * np.array([3 / 5, 2 / 5]) ** 0.5
    np.testing.assert_allclose(np.exp(gains(logits, closed, 0.5)), [0, *expected])
    np.testing.assert_array_equal(gains(logits, np.array([0.0, -np.inf, -np.inf]), 0.5), [0, -np.inf, -np.inf])
    assert (gains(logits, np.full(3, -np.inf), 0.5) == -np.inf).all()


class Fixed:
    """A decoder that gives every sequence the same distribution over the next token, one of the trie's."""

    group = 5

    def __init__(self, logits: np.ndarray) -> None:
        self.logits, self.forks = torch.from_numpy(logits), []

    def prefill(self, prompts: list[list[int]]) -> torch.Tensor:
        return self.logits.expand(len(prompts), -1)

    def fork(self, rows: torch.Tensor) -> None:
        self.forks.append(rows.tolist())

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(tokens), -1)


def searched(alpha: float, beams: int, closed: int | None = None) -> tuple[Search, Fixed]:
    trie = Trie(TITLES)
    q = Q.copy()
    if closed is not None:
        q[closed] = 0
    with np.errstate(divide="ignore"):
        logq = np.log(q)[trie.items]
    assert trie.tokens.tolist() == [5, 6, 7, 8, 9]
    decoder = Fixed(np.log([2, 1, 3, 4, 1]))
    search = Search(trie, np.stack([logq, logq]), alpha, beams)
    search.run(decoder, [[1], [2]])  # type: ignore[arg-type]
    assert search.best[0] == search.best[1]
    return search, decoder


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_a_search_by_hand(alpha: float) -> None:
    """Summed over a title's tokens, the assistant's part is the log-probability of the item."""
    search, decoder = searched(alpha, beams=5)
    # 5: 2/3, then 6: 1/4 or 7: 3/4, then 8: 4/5 (the title of items 1 and 3) or 9: 1/5.
    lm = {0: 2 / 3 / 4, 1: 2 / 3 * 3 / 4 * 4 / 5, 2: 1 / 3, 3: 2 / 3 * 3 / 4 * 4 / 5, 4: 2 / 3 * 3 / 4 / 5}
    score_of = {int(search.trie.items[place]): score for score, place in search.best[0]}
    assert set(score_of) == set(range(5))
    for item, score in score_of.items():
        assert score == pytest.approx(alpha * np.log(lm[item]) + (1 - alpha) * np.log(Q[item]))
    assert [score for score, _ in search.best[0]] == sorted(score_of.values(), reverse=True)
    # One open beam a user: 5, then 5 7. At first every user has five equal rows.
    assert decoder.forks == [[0, 5], [0, 1]] and search.read == 4


def test_few_beams_keep_the_best() -> None:
    search, decoder = searched(1.0, beams=1)
    # 5 (2/3) against the whole title 6 (1/3); then 5 7 (1/2); then 5 7 8 (2/5): the lower of two equal places stays.
    assert [(round(np.exp(score), 3), place) for score, place in search.best[0]] == [(0.4, 1)]
    assert decoder.forks == [[0, 5], [0, 1]]


def test_closed_items_are_not_retrieved_and_cost_nothing() -> None:
    search, _ = searched(1.0, beams=5, closed=4)
    probability_of = {int(search.trie.items[place]): np.exp(score) for score, place in search.best[0]}
    # Without item 4, 8 is a ghost token behind 5 7.
    assert probability_of == pytest.approx({0: 1 / 6, 1: 1 / 2, 2: 1 / 3, 3: 1 / 2})
    whole = Search(Trie(TITLES), np.full((1, 5), -np.inf), 0.5, 5)
    whole.run(Fixed(np.zeros(10)), [[1]])  # type: ignore[arg-type]
    assert whole.best == [[]]
    same_title = Search(Trie([[3, 9], [3, 9]]), np.log([[0.2, 0.8]]), 0.5, 5)
    same_title.run(Fixed(np.zeros(10)), [[1]])  # type: ignore[arg-type]
    assert (
        same_title.best[0] == [(pytest.approx(0.5 * np.log(0.8)), 1), (pytest.approx(0.5 * np.log(0.2)), 0)]
        and not same_title.read
    )


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@torch.no_grad()
def test_forked_rows_go_on_as_copies(family: str) -> None:
    """Groups grow and shrink, a user ends, and for Gemma 2 the window is shorter than the sequences."""
    model = tiny_lm(family)
    prompts = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [5, 6, 9], [5, 6, 20, 21], [5, 6, 30]]
    owners = [user for user in range(4) for _ in range(3)]
    texts: list[list[int]] = [[] for _ in owners]
    seen: list[tuple[list[int], torch.Tensor]] = []
    plan = [[0, 0, 3, 6, 6, 6, 9], [1, 0, 2, 3, 4, 6], [0, 1, 1, 4, 5], [0, 4], [1, 1, 1]]
    with SharedPromptDecoder(model, 3) as decoder:
        decoder.prefill(prompts)
        for step, rows in enumerate(plan):
            decoder.fork(torch.tensor(rows))
            tokens = [30 + (7 * step + 3 * at) % 20 for at in range(len(rows))]
            owners = [owners[row] for row in rows]
            texts = [[*texts[row], token] for row, token in zip(rows, tokens, strict=True)]
            logits = decoder.step(torch.tensor(tokens))
            whole = [prompts[owner] + text for owner, text in zip(owners, texts, strict=True)]
            seen += zip(whole, logits.clone(), strict=True)
    for sequence, logits in seen:
        torch.testing.assert_close(logits, model(torch.tensor([sequence])).logits[0, -1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@torch.no_grad()
def test_logits_of_few_tokens_are_float32(family: str) -> None:
    """bf16 makes some of 60 logits equal that differ. Gemma's soft cap is applied to both."""
    model = tiny_lm(family).bfloat16()
    prompts, tokens = [[5, 6, 7, 8, 9, 10], [5, 6, 20, 21]], torch.arange(1, 61)
    head = model.get_output_embeddings()
    with SharedPromptDecoder(model, 1) as decoder:
        whole = decoder.prefill(prompts)
        whole_then = decoder.step(torch.tensor([30, 31]))
    with SharedPromptDecoder(model, 1, tokens) as decoder:
        few, states = decoder.prefill(prompts), decoder.states
        few_then = decoder.step(torch.tensor([30, 31]))
    assert model.get_output_embeddings() is head and states is not None
    assert whole.dtype == torch.bfloat16 and few.dtype == torch.float32 and few.shape == (2, 60)
    exact = states.double() @ head.weight.double()[tokens].T
    cap = model.config.to_dict().get("final_logit_softcapping")
    exact = exact if cap is None else cap * torch.tanh(exact / cap)
    torch.testing.assert_close(few.double(), exact, rtol=1e-5, atol=1e-5)
    for rough, fine in ((whole, few), (whole_then, few_then)):
        torch.testing.assert_close(rough[:, tokens].float(), fine, rtol=0.02, atol=0.02)
        if cap is None:  # the tiny Gemma's cap of 3 makes most of them 3
            assert all(len(row.unique()) < 60 for row in rough[:, tokens])
            assert all(len(row.unique()) == 60 for row in fine)


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> ByTitle:
    folder = tmp_path_factory.mktemp("d3")
    return fit(split(), seed=1, params=settings(folder, beams=60, alpha=0.6), workdir=folder / "work")


def scored(method: Recommender, cases: Cases) -> np.ndarray:
    return np.concatenate(list(method.score(replace(cases, target=None))))


def test_wide_beams_give_every_items_exact_score(recommender: ByTitle) -> None:
    """The scores equal those by plain forwards of whole titles, normalized over the tokens that continue an open
    title."""
    cases = split().valid.take(CASES[:3])
    item_scores = scored(recommender, cases)
    titles = [recommender.tokenizer(title, add_special_tokens=False)["input_ids"] for title in split().items["title"]]
    end = recommender.tokenizer.eos_token_id
    titles = [[*title, end] for title in titles]
    assistant = scored(recommender.assistant, cases).astype(np.float64)  # type: ignore[arg-type]
    for i in range(len(cases)):
        closed = set(cases.history(i).tolist())
        is_open = [item for item in range(split().n_items) if item not in closed]
        logq = assistant[i] - np.logaddexp.reduce(assistant[i][is_open])
        prompt = prompt_ids(
            recommender.tokenizer, recommender.builder.user_messages(d3.REQUEST, cases.take(np.array([i])))[0]
        )
        assert np.flatnonzero(np.isfinite(item_scores[i])).tolist() == is_open
        for item in is_open[::9]:
            with torch.no_grad():
                logits = recommender.model(torch.tensor([prompt + titles[item]])).logits[0, len(prompt) - 1 :].double()
            logp = 0.0
            for at, token in enumerate(titles[item]):
                allowed = sorted({titles[v][at] for v in is_open if titles[v][:at] == titles[item][:at]})
                logp += float(logits[at, allowed].log_softmax(dim=0)[allowed.index(token)])
            assert item_scores[i, item] == pytest.approx(0.6 * logp + 0.4 * logq[item], abs=1e-3)


def test_titles_are_scored_by_the_adapters_as_they_were_trained(
    recommender: ByTitle, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded: list[bool] = []

    def merged_adapters(model: Any, merge: bool = True) -> Any:
        folded.append(merge)
        return plain(model, merge)

    plain = backbones.merged_adapters
    monkeypatch.setattr(backbones, "merged_adapters", merged_adapters)
    scored(recommender, split().valid.take(CASES[:3]))
    assert folded == [False]


def test_few_beams_retrieve_few_items(recommender: ByTitle, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = split().valid.take(CASES)
    whole = scored(recommender, cases)
    monkeypatch.setattr(recommender, "settings", recommender.settings.model_copy(update={"beams": 10}))
    few = scored(recommender, cases)
    kept = np.isfinite(few)
    assert (kept.sum(axis=1) == 10).all()
    np.testing.assert_allclose(few[kept], whole[kept], atol=1e-4)
    best = np.take_along_axis(kept, np.argsort(-whole, axis=1)[:, :10], axis=1)
    assert best.mean() > 0.8
    texts = recommender.texts()
    assert texts["case"].tolist() == cases.case.tolist() and recommender.tokens_written() > 0
    assert texts["reasoning"].tolist() == split().items["title"].to_numpy()[few.argmax(axis=1)].tolist()


def test_a_small_alpha_is_the_assistants_order(recommender: ByTitle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommender, "alpha", 1e-6)
    cases = split().valid.take(CASES)
    assistant_scores, mixed_scores = scored(recommender.assistant, cases), scored(recommender, cases)  # type: ignore[arg-type]
    assistant_scores[~np.isfinite(mixed_scores)] = -np.inf
    assert (np.argsort(-assistant_scores, axis=1)[:, :10] == np.argsort(-mixed_scores, axis=1)[:, :10]).mean() > 0.95


class Knows(Recommender):
    """An assistant that knows whether the next item is an even one."""

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        wanted = (cases.items[cases.offsets[1:] - 1] + 3) % N
        yield np.where(np.arange(N) % 2 == wanted[:, None] % 2, 0.0, -3.0)


def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> ByTitle:
    loaded = backbones.Backbone(planted_writer(), tiny_tokenizer("llama"))
    monkeypatch.setattr(backbones, "load", lambda settings: loaded)
    monkeypatch.setattr(backbones, "add_lora", lambda model, settings: model)
    monkeypatch.setattr(d3, "REQUEST", "My {several}:\n{history}")  # a tiny LM reads what stands last
    monkeypatch.setattr(d3, "fit_best", lambda split, tried, **_: (Knows(), []))
    tuning = {"users_per_step": 32, "at_once": 32, "max_steps": 60, "save_steps": 1000, "learning_rate": 0.02}
    params = {"backbone": {"name": "planted"}, "beams": N, "tunings": str(tmp_path / "tunings")} | tuning | changes
    return fit(worded_split(), seed=1, params=params, workdir=tmp_path)


def hits(method: ByTitle) -> float:
    valid = worded_split().valid
    assert valid.target is not None
    return float((scored(method, valid).argmax(axis=1) == valid.target).mean())


def test_it_learns_to_write_the_next_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = planted(tmp_path, monkeypatch, alpha=1.0)
    losses = recommender.report()["losses"]
    assert len(losses) == 60 and losses[-1] < 0.5 * losses[0]
    assert recommender.assistant is None and recommender.report()["sasrec"] is None
    assert hits(recommender) > 0.8  # one title for everybody finds a tenth


def test_llm_and_assistant_together_find_more_than_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The LLM is tuned too shortly to know the title; the assistant knows which half of the catalogue it is in."""
    recommender = planted(tmp_path, monkeypatch, alpha=0.5, max_steps=1, learning_rate=0.01)
    with_assistant = hits(recommender)
    recommender.assistant = None
    without_assistant = hits(recommender)
    # The assistant alone finds a fifth.
    assert 0.3 < without_assistant < 0.6 and with_assistant > max(without_assistant + 0.05, 0.4)


def test_a_killed_tuning_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in step 3, behind the checkpoint of step 2, then fitted again."""
    cases = split().valid.take(CASES)
    whole = fit(
        split(), seed=3, params=settings(tmp_path, tunings=str(tmp_path / "other tunings")), workdir=tmp_path / "whole"
    )
    expected = scored(whole, cases)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, SFTTrainer, "training_step", call=6)  # two micro-batches a step
        fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    tuning = tmp_path / "broken" / "tuning"
    assert [path.name for path in tuning.glob("checkpoint-*")] == ["checkpoint-2"]
    again = fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    np.testing.assert_array_equal(scored(again, cases), expected)
    assert again.report() == whole.report()


def test_bigrec_and_d3_share_one_request() -> None:
    from baselines import bigrec

    assert bigrec.REQUEST is d3.REQUEST is title_tuning.REQUEST
