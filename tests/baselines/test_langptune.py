"""Tests of LangPTune: the encoder learns what profiles mean, the writer learns to write them, a killed fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from baselines import langptune
from baselines._writers.llm_texts import ByText
from baselines._writers.sentences import SentenceEncoder, item_texts
from baselines.langptune import Params, Ranking, contrast, fit
from lm import backbone as backbones
from tests.support.interrupting import interrupt
from tests.support.tiny_encoders import encoder_in, write_encoder
from tests.support.tiny_fits import backbone_in, split
from tests.support.tiny_tokenizers import tiny_tokenizer
from tests.support.worded import WORDS, planted_writer, worded_split


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    backbone = backbone_in(folder)
    encoder = encoder_in(folder)
    return {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "encoder": str(encoder),
        "max_new_tokens": 3,
        "group_size": 2,
        "users_per_step": 2,
        "max_steps": 2,
        "contrastive_cases": 24,
        "contrastive_batch": 8,
    } | changes


def test_the_encoder_learns_what_profiles_mean(tmp_path: Path) -> None:
    """Planted: a profile is a code word that has nothing in common with the item's text."""
    encoder = SentenceEncoder(write_encoder(tmp_path / "encoder"))
    items = item_texts(split().items, tiny_tokenizer("llama"))[:20]
    targets = np.random.default_rng(0).integers(0, 20, 200)
    profiles = [chr(ord("a") + target) * 3 for target in targets]
    params = Params.model_validate(
        settings(tmp_path, contrastive_epochs=12, contrastive_rate=3e-3, contrastive_batch=20)
    )

    def hits() -> float:
        scores = Ranking(encoder, items).scores([chr(ord("a") + item) * 3 for item in range(20)])
        return float((scores.argmax(axis=1) == np.arange(20)).mean())

    before = hits()
    losses = contrast(encoder, profiles, targets, items, params, seed=1)
    assert before < 0.3 and hits() > 0.8
    assert len(losses) == 12 and losses[-1] < 0.5 * losses[0]


def test_equal_targets_of_a_batch_are_one_candidate(tmp_path: Path) -> None:
    encoder = SentenceEncoder(write_encoder(tmp_path / "encoder"))
    params = Params.model_validate(settings(tmp_path, contrastive_epochs=1, contrastive_batch=4))
    # All four want the same item: one candidate, nothing to tell apart.
    assert contrast(encoder, ["red", "blue", "a", "b"], np.zeros(4, int), ["Thing"], params, seed=1) == [0.0]


def test_the_writer_learns_to_be_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = backbones.Backbone(planted_writer(), tiny_tokenizer("llama"))
    monkeypatch.setattr(backbones, "load", lambda settings: loaded)
    monkeypatch.setattr(backbones, "add_lora", lambda model, settings: model)
    monkeypatch.setattr(langptune, "REQUEST", "My {several}:\n{history}")  # a tiny LM reads what stands last
    monkeypatch.setattr(Ranking, "scores", lambda self, texts: _exact(texts))
    monkeypatch.setattr(langptune, "contrast", lambda *_: [0.0])
    several = {"group_size": 8, "users_per_step": 16, "rollouts_at_once": 128}
    params = settings(tmp_path, max_new_tokens=1, max_steps=90, learning_rate=0.01, ndcg_k=1, **several)
    data = worded_split()
    recommender = fit(data, seed=1, params=params, workdir=tmp_path / "work")
    rewards = recommender.report()["rewards"]
    assert len(rewards) == 90 and np.mean(rewards[:10]) < 0.15
    assert np.mean(rewards[-20:]) > 0.3  # one profile for everybody finds a tenth of the targets


def test_items_are_encoded_by_the_encoder_that_reads_the_profiles(tmp_path: Path) -> None:
    """Scores come from the encoder of the last turn, which differs from the first's."""
    recommender = fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "work")
    inner = recommender.inner
    assert isinstance(inner, ByText)
    cosines = {}
    for turn in (0, 1):
        encoder = SentenceEncoder(tmp_path / "encoder")
        encoder.model.load_state_dict(load_file(tmp_path / "work" / f"encoder{turn}" / "encoder.safetensors"))
        texts = ["red", "a much longer profile"]
        cosines[turn] = encoder.encode(texts) @ encoder.encode(item_texts(split().items, tiny_tokenizer("llama"))).T
    scores = torch.from_numpy(np.asarray(inner.scores_of(["red", "a much longer profile"])))
    torch.testing.assert_close(scores, cosines[1], rtol=0, atol=1e-5)
    assert not torch.allclose(cosines[0], cosines[1], rtol=0, atol=1e-4)


def _exact(texts: list[str]) -> np.ndarray:
    """Return 1 for the item that the text names and 0 for the others."""
    return np.array([[float(text.strip() == word) for word in WORDS] for text in texts])


def test_a_killed_fit_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the encoder learns for the second time, then fitted again."""
    cases = replace(split().valid.take(np.arange(12)), target=None)
    whole = fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "whole")
    expected = np.concatenate(list(whole.score(cases)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, langptune, "contrast", call=2)
        fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    assert {path.name for path in (tmp_path / "broken").iterdir()} == {"encoder0", "writer0"}
    again = fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    np.testing.assert_array_equal(np.concatenate(list(again.score(cases))), expected)
    assert again.report() == whole.report() and len(whole.report()["contrastive_losses"]) == 2
