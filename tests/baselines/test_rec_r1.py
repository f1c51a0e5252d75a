"""Tests of Rec-R1: BM25 and its reward by hand, GRPO on a planted task, a killed training."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl import GRPOTrainer

from baselines import rec_r1
from baselines._writers.grpo import ndcg_of
from baselines.rec_r1 import BM25, Params, fit
from lm import backbone as backbones
from tests.support.interrupting import interrupt
from tests.support.tiny_fits import split, write_backbone
from tests.support.tiny_tokenizers import tiny_tokenizer
from tests.support.worded import planted_writer, worded_split


def test_bm25_by_hand() -> None:
    """Lucene's BM25: idf = ln(1 + (N - n + 1/2) / (n + 1/2)), tf / (tf + k1 (1 - b + b length / mean length))."""
    index = BM25(["Red fish", "blue fish blue", "Green 7"])
    item_scores = index.scores(["BLUE", "fish, red!", "unknown", ""])
    idf_blue, mean = math.log(1 + (3 - 1 + 0.5) / 1.5), 7 / 3
    assert item_scores[0].tolist() == pytest.approx(
        [0, idf_blue * 2 / (2 + 1.5 * (0.25 + 0.75 * 3 / mean)), 0], rel=1e-5
    )
    assert item_scores[1].argmax() == 0 and item_scores[1][2] == 0 < item_scores[1][1]
    assert not item_scores[2:].any()
    assert index.scores(["7"])[0].argmax() == 2


def test_the_reward_by_hand() -> None:
    scores = np.array([[3.0, 2.0, 2.0, 1.0], [3.0, 2.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0], [3.0, 2.0, 2.0, 1.0]])
    targets, history = np.array([1, 1, 0, 3]), np.array([[-1, -1], [0, 2], [-1, -1], [-1, -1]])
    # Rank 3 (a tie counts against); rank 1 with both better ones in the history; all tied: 4; rank 4, beyond k = 3.
    expected = [1 / math.log2(4), 1.0, 1 / math.log2(5), 1 / math.log2(5)]
    np.testing.assert_allclose(ndcg_of(scores, targets, history, 4), expected)
    np.testing.assert_allclose(ndcg_of(scores, targets, history, 3), [*expected[:2], 0, 0])


def test_grpo_learns_to_write_the_query_that_finds_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = backbones.Backbone(planted_writer(), tiny_tokenizer("llama"))
    monkeypatch.setattr(backbones, "load", lambda settings: loaded)
    monkeypatch.setattr(backbones, "add_lora", lambda model, settings: model)
    # A tiny LM reads what stands last.
    monkeypatch.setattr(rec_r1, "REQUEST", "My {several}:\n{history}")
    # English stop words are among the planted ones.
    monkeypatch.setattr(BM25, "_words", lambda self, texts: [text.lower().split() for text in texts])
    params = {
        "backbone": {"name": "planted"},
        "max_new_tokens": 1,
        "group_size": 8,
        "users_per_step": 16,
        "rollouts_at_once": 128,  # one micro-batch a step is quicker
        "max_steps": 90,
        "learning_rate": 0.01,
        "ndcg_k": 1,
        "save_steps": 1000,
    }
    data = worded_split()
    recommender = fit(data, seed=1, params=params, workdir=tmp_path)
    rewards = recommender.report()["rewards"]
    assert len(rewards) == 90
    assert np.mean(rewards[:10]) < 0.15
    assert np.mean(rewards[-20:]) > 0.3  # one query for everybody finds a tenth of the targets
    scores = np.concatenate(list(recommender.score(replace(data.valid, target=None))))
    assert data.valid.target is not None
    assert (scores.argmax(axis=1) == data.valid.target).mean() > 0.2
    assert recommender.texts()["case"].tolist() == data.valid.case.tolist() and recommender.tokens_written() == 200


def tiny(folder: Path, **changes: Any) -> dict[str, Any]:
    backbone = write_backbone(folder / "llm") if not (folder / "llm").exists() else folder / "llm"
    return {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "max_new_tokens": 3,
        "group_size": 2,
        "users_per_step": 4,
        "max_steps": 4,
        "learning_rate": 1e-2,
        "save_steps": 2,
    } | changes


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in step 3, behind the checkpoint of step 2, then fitted again."""
    cases = replace(split().valid.take(np.arange(12)), target=None)
    whole = fit(split(), seed=3, params=tiny(tmp_path), workdir=tmp_path / "whole")
    expected = np.concatenate(list(whole.score(cases)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, GRPOTrainer, "training_step", call=3)
        fit(split(), seed=3, params=tiny(tmp_path), workdir=tmp_path / "broken")
    grpo = tmp_path / "broken" / "grpo"
    assert {path.name for path in grpo.glob("checkpoint-*")} == {"checkpoint-2"}
    resumed = fit(split(), seed=3, params=tiny(tmp_path), workdir=tmp_path / "broken")
    np.testing.assert_array_equal(np.concatenate(list(resumed.score(cases))), expected)
    assert resumed.report()["rewards"] == whole.report()["rewards"]
    weights = [dict(recommender.inner.model.named_parameters()) for recommender in (whole, resumed)]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_no_steps_leave_the_llm_as_it_is(tmp_path: Path) -> None:
    recommender = fit(split(), seed=1, params=tiny(tmp_path, max_steps=0), workdir=tmp_path / "work")
    assert recommender.report()["rewards"] == []
    assert all(not value.any() for name, value in recommender.inner.model.named_parameters() if "lora_B" in name)
    assert Params.model_validate(tiny(tmp_path)).group_size == 2 and rec_r1.REQUEST.count("{") == 3
