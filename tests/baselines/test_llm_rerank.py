"""Tests of LLM reranking: likelihoods against plain transformers, and a planted task."""

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
def recommender(tmp_path_factory: pytest.TempPathFactory) -> LLMRerank:
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


def test_likelihoods_are_those_of_single_sequences(recommender: LLMRerank) -> None:
    prompts = recommender._reasoned(cases(2))
    items = np.array([[3, 40, 7], [11, 3, 59]])
    likelihoods = recommender.likelihoods(prompts, items)
    for row, prompt in enumerate(prompts):
        for column, item in enumerate(items[row]):
            title = recommender.titles[item]
            with torch.no_grad():
                logits = recommender.llm.model.causal_lm(torch.tensor([prompt + title])).logits[0]
            logps = logits.log_softmax(dim=-1)[len(prompt) - 1 : -1]
            expected = float(logps[torch.arange(len(title)), title].mean())
            assert likelihoods[row, column] == pytest.approx(expected, abs=1e-4)


def test_the_best_candidates_are_reordered_and_stay_above_the_rest(recommender: LLMRerank) -> None:
    hidden = replace(cases(), target=None)
    sasrec_scores = np.concatenate(list(recommender.sasrec.score(hidden))).astype(np.float64)
    reordered = np.concatenate(list(recommender.score(hidden)))
    for i in range(len(hidden)):
        sasrec_scores[i, hidden.history(i)] = -np.inf
        best = set(np.argsort(-sasrec_scores[i], kind="stable")[:COUNT].tolist())
        allowed = reordered[i].copy()
        allowed[hidden.history(i)] = -np.inf
        order = np.argsort(-allowed, kind="stable").tolist()
        assert set(order[:COUNT]) == best
        rest = [item for item in np.argsort(-sasrec_scores[i], kind="stable").tolist() if item not in best]
        left = len(rest) - len(set(hidden.history(i).tolist()))
        assert order[COUNT : COUNT + left] == rest[:left]
    texts = recommender.texts()
    assert texts["case"].tolist() == hidden.case.tolist() and recommender.tokens_written() >= len(hidden)


def test_a_target_that_the_llm_finds_likeliest_comes_first(
    recommender: LLMRerank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the planted LLM the history raises the target's title most, but common titles are likely whatever it is."""
    valid = cases(40)
    target = valid.target
    assert target is not None
    common = np.linspace(-9, -1, split().n_items)
    monkeypatch.setattr(recommender, "without_history", common)
    monkeypatch.setattr(recommender, "likelihoods", lambda prompts, items: common[items] + (items == wanted[:, None]))
    sasrec_scores = np.concatenate(list(recommender.sasrec.score(replace(valid, target=None)))).astype(np.float64)
    hits, candidates = 0, 0
    for i in range(len(valid)):
        wanted = target[i : i + 1]
        case = replace(valid.take(np.arange(i, i + 1)), target=None)
        scores = next(iter(recommender.score(case)))[0]
        scores[case.history(0)] = sasrec_scores[i, case.history(0)] = -np.inf
        retrieved = target[i] in np.argsort(-sasrec_scores[i], kind="stable")[:COUNT]
        candidates += retrieved
        hits += scores.argmax() == target[i]
        assert retrieved == (scores.argmax() == target[i])
    assert 0 < hits == candidates


def test_a_small_weight_keeps_sasrecs_order(recommender: LLMRerank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommender, "settings", recommender.settings.model_copy(update={"weight": 1e-9}))
    hidden = replace(cases(), target=None)
    sasrec_scores, mixed_scores = (
        np.concatenate(list(method.score(hidden))) for method in (recommender.sasrec, recommender)
    )
    for i in range(len(hidden)):
        sasrec_scores[i, hidden.history(i)] = mixed_scores[i, hidden.history(i)] = -np.inf
        assert (
            np.argsort(-mixed_scores[i], kind="stable")[:COUNT].tolist()
            == np.argsort(-sasrec_scores[i], kind="stable")[:COUNT].tolist()
        )
