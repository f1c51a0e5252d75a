"""Tests of BIGRec: grounding by hand, tuning on a planted task, a killed tuning."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl import SFTTrainer

from baselines import bigrec
from baselines._writers import llm_texts
from baselines.bigrec import Grounding, divided_by, fit
from lm import backbone as backbones
from tests.baselines.test_popularity_mix import counted
from tests.support.interrupting import interrupt
from tests.support.tiny_fits import split, write_backbone
from tests.support.tiny_tokenizers import tiny_tokenizer
from tests.support.worded import planted_writer, worded_split


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    backbone = write_backbone(folder / "llm") if not (folder / "llm").exists() else folder / "llm"
    return {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "max_new_tokens": 3,
        "users_per_step": 4,
        "at_once": 2,
        "max_steps": 4,
        "save_steps": 2,
        "learning_rate": 1e-2,
        "tunings": str(folder / "tunings"),
    } | changes


def test_states_are_those_of_single_texts(tmp_path: Path) -> None:
    recommender = fit(split(), seed=1, params=settings(tmp_path, max_steps=0), workdir=tmp_path / "work")
    inner = recommender.inner
    assert isinstance(inner, llm_texts.ByText)
    texts = ["Thing", "Thing, number 31", "a much longer text than the others are"]
    states = llm_texts.states_of(inner.model, inner.tokenizer, texts)
    decoder = inner.model.get_base_model().get_decoder()  # type: ignore[operator]
    for text, row in zip(texts, states, strict=True):
        ids = inner.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            torch.testing.assert_close(row, decoder(ids).last_hidden_state[0, -1], rtol=1e-4, atol=1e-4)
    assert recommender.report() == {"losses": [], "popularity": 0.0, "popularity_tried": []}


def test_titles_are_compared_as_the_untuned_llm_reads_them(tmp_path: Path) -> None:
    """A title's distance to itself is 0, and adapters far from their start change no state."""
    data = split()
    recommender = fit(data, seed=1, params=settings(tmp_path, max_steps=0), workdir=tmp_path / "work")
    inner = recommender.inner
    assert isinstance(inner, llm_texts.ByText)
    titles = data.items["title"].tolist()[:4]
    before = inner.scores_of(titles)
    tuned = llm_texts.states_of(inner.model, inner.tokenizer, titles)
    for name, weight in inner.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    assert not torch.allclose(llm_texts.states_of(inner.model, inner.tokenizer, titles), tuned)
    np.testing.assert_array_equal(inner.scores_of(titles), before)
    assert before.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_distances_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    items = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    grounding = Grounding(None, None, items)  # type: ignore[arg-type]
    monkeypatch.setattr(llm_texts, "states_of", lambda model, tokenizer, texts: torch.tensor([[0.0, 0.0], [6.0, 8.0]]))
    # Distances 0, 5, 10 and 10, 5, 0 -> 0, 1/2, 1; popularity 1, 1/2, 1/2 of the highest.
    expected = np.array([[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]]) + 1e-3
    mix = divided_by(np.array([4, 2, 2]))
    np.testing.assert_allclose(mix(grounding.scores(["x", ""]), 2.0), -expected / np.array([2.0, 1.5, 1.5]) ** 2)
    np.testing.assert_allclose(mix(grounding.scores(["x", ""]), 0.0), -expected)


def test_popularity_counts_all_who_have_had_an_item(tmp_path: Path) -> None:
    recommender = fit(split(), seed=1, params=settings(tmp_path, max_steps=0), workdir=tmp_path / "work")
    scores = -np.random.default_rng(0).uniform(size=(2, split().n_items))
    np.testing.assert_allclose(recommender.mix(scores, 3.0), divided_by(counted(split()))(scores, 3.0))


def test_tuning_learns_to_write_the_next_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = backbones.Backbone(planted_writer(), tiny_tokenizer("llama"))
    monkeypatch.setattr(backbones, "load", lambda settings: loaded)
    monkeypatch.setattr(backbones, "add_lora", lambda model, settings: model)
    monkeypatch.setattr(bigrec, "REQUEST", "My {several}:\n{history}")  # a tiny LM reads what stands last
    data = worded_split()
    params = {
        "backbone": {"name": "planted"},
        "tunings": str(tmp_path / "tunings"),
        "max_new_tokens": 12,
        "users_per_step": 32,
        "at_once": 32,
        "max_steps": 60,
        "save_steps": 1000,
        "learning_rate": 0.02,
    }
    recommender = fit(data, seed=1, params=params, workdir=tmp_path)
    losses = recommender.report()["losses"]
    assert len(losses) == 60 and losses[-1] < 0.5 * losses[0]
    scores = np.concatenate(list(recommender.score(replace(data.valid, target=None))))
    assert data.valid.target is not None
    # One title for everybody finds a tenth.
    assert (scores.argmax(axis=1) == data.valid.target).mean() > 0.3
    assert recommender.texts()["case"].tolist() == data.valid.case.tolist() and recommender.tokens_written() > 0


def test_a_killed_tuning_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in step 3, behind the checkpoint of step 2, then fitted again."""
    cases = replace(split().valid.take(np.arange(12)), target=None)
    whole = fit(
        split(), seed=3, params=settings(tmp_path, tunings=str(tmp_path / "other tunings")), workdir=tmp_path / "whole"
    )
    expected = np.concatenate(list(whole.score(cases)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, SFTTrainer, "training_step", call=6)  # two micro-batches a step
        fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    tuning = tmp_path / "broken" / "tuning"
    assert [path.name for path in tuning.glob("checkpoint-*")] == ["checkpoint-2"]
    again = fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    np.testing.assert_array_equal(np.concatenate(list(again.score(cases))), expected)
    assert again.report()["losses"] == whole.report()["losses"]
