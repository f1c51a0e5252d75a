"""LLM reranking: likelihoods against plain transformers, and what it has to solve."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.llm_rerank import LLMRerank, fit
from benchmark.contract import Cases
from tests.support.tiny_fits import split, write_backbone

COUNT = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LLMRerank:
    folder = tmp_path_factory.mktemp("rerank")
    params = settings(folder)
    return fit(split(), seed=1, params=params, workdir=folder / "work")


def settings(folder: Path) -> dict[str, Any]:
    return {
        "backbone": {"name": str(write_backbone(folder / "llm")), "dtype": "float32"},
        "prompts": {"max_items": 3, "max_prompt_tokens": 400},
        "rollouts": {"max_new_tokens": 3},
        "sasrec": [{"epochs": 1}, {"epochs": 1, "learning_rate": 1e-6}],
        "candidates": COUNT,
    }


def cases(count: int = 20) -> Cases:
    return split().valid.take(np.arange(count))


def test_likelihoods_are_those_of_single_sequences(made: LLMRerank) -> None:
    prompts = made._reasoned(cases(2))
    items = np.array([[3, 40, 7], [11, 3, 59]])
    found = made.likelihoods(prompts, items)
    for row, prompt in enumerate(prompts):
        for column, item in enumerate(items[row]):
            title = made.titles[item]
            with torch.no_grad():
                logits = made.llm.model.causal_lm(torch.tensor([prompt + title])).logits[0]
            logps = logits.log_softmax(dim=-1)[len(prompt) - 1 : -1]
            expected = float(logps[torch.arange(len(title)), title].mean())
            assert found[row, column] == pytest.approx(expected, abs=1e-4)


def test_the_best_candidates_are_reordered_and_stay_above_the_rest(made: LLMRerank) -> None:
    some = replace(cases(), target=None)
    own = np.concatenate(list(made.sasrec.score(some))).astype(np.float64)
    found = np.concatenate(list(made.score(some)))
    for i in range(len(some)):
        own[i, some.history(i)] = -np.inf
        best = set(np.argsort(-own[i], kind="stable")[:COUNT].tolist())
        open_to = found[i].copy()
        open_to[some.history(i)] = -np.inf
        order = np.argsort(-open_to, kind="stable").tolist()
        assert set(order[:COUNT]) == best
        rest = [item for item in np.argsort(-own[i], kind="stable").tolist() if item not in best]
        left = len(rest) - len(set(some.history(i).tolist()))
        assert order[COUNT : COUNT + left] == rest[:left]
    texts = made.texts()
    assert texts["case"].tolist() == some.case.tolist() and made.tokens_written() >= len(some)


def test_a_target_that_the_llm_finds_likeliest_comes_first(made: LLMRerank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the history makes the target's title likelier than any other's; common titles are likely anyway."""
    some = cases(40)
    target = some.target
    assert target is not None
    common = np.linspace(-9, -1, split().n_items)
    monkeypatch.setattr(made, "without_history", common)
    monkeypatch.setattr(made, "likelihoods", lambda prompts, items: common[items] + (items == wanted[:, None]))
    own = np.concatenate(list(made.sasrec.score(replace(some, target=None)))).astype(np.float64)
    hits, candidates = 0, 0
    for i in range(len(some)):
        wanted = target[i : i + 1]
        one = replace(some.take(np.arange(i, i + 1)), target=None)
        scores = next(iter(made.score(one)))[0]
        scores[one.history(0)] = own[i, one.history(0)] = -np.inf
        retrieved = target[i] in np.argsort(-own[i], kind="stable")[:COUNT]
        candidates += retrieved
        hits += scores.argmax() == target[i]
        assert retrieved == (scores.argmax() == target[i])
    assert 0 < hits == candidates


def test_a_small_weight_keeps_sasrecs_order(made: LLMRerank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "settings", made.settings.model_copy(update={"weight": 1e-9}))
    some = replace(cases(), target=None)
    own, found = (np.concatenate(list(method.score(some))) for method in (made.sasrec, made))
    for i in range(len(some)):
        own[i, some.history(i)] = found[i, some.history(i)] = -np.inf
        assert (
            np.argsort(-found[i], kind="stable")[:COUNT].tolist() == np.argsort(-own[i], kind="stable")[:COUNT].tolist()
        )
