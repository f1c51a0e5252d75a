"""Tests of TIGER: semantic ids and the trie by hand, beams against exact log-probabilities, a killed training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer

from baselines.tiger import END, PAD, Tiger, Tokens, fit, semantic_ids
from tests.support.interrupting import interrupt
from tests.support.tiny_encoders import encoder_in
from tests.support.tiny_fits import split

CASES = np.arange(12)


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    encoder = encoder_in(folder)
    small = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "codes": 6, "levels": 2}
    return {"encoder": str(encoder), **small, "epochs": 3, "batch_size": 256} | changes


def test_semantic_ids_by_hand() -> None:
    """Two clusters lie far apart, with two groups in each; equal vectors share all codes but the last."""
    vectors = np.array([[0.0], [1.0], [100.0], [101.0], [101.0]])
    ids = semantic_ids(vectors, codes=2, levels=2, seed=0)
    assert ids.shape == (5, 3)
    first, second, last = ids.T
    assert first[0] == first[1] != first[2] == first[3] == first[4]
    assert second[0] != second[1] and second[2] != second[3] and second[3] == second[4]
    assert last.tolist() == [0, 0, 0, 0, 1]
    assert len({tuple(row) for row in ids.tolist()}) == 5


def test_ids_are_distinct_with_more_codes_than_vectors() -> None:
    ids = semantic_ids(np.array([[0.0], [1.0], [1.0]]), codes=8, levels=2, seed=0)
    assert len({tuple(row) for row in ids.tolist()}) == 3


def test_tokens_and_trie_by_hand() -> None:
    tokens = Tokens(np.array([[0, 1, 0], [0, 1, 1], [2, 0, 0]]), codes=3)
    # pad, end; 3 codes of level one (2..4), 3 of level two (5..7), 2 of the last (8, 9); users from 10 on.
    assert tokens.items.tolist() == [[2, 6, 8], [2, 6, 9], [4, 5, 8]]
    assert (tokens.first_user, tokens.size) == (10, 2010)
    assert tokens.next == {(): [2, 4], (2,): [6], (2, 6): [8, 9], (4,): [5], (4, 5): [8]}
    cases = split().train.take(np.array([0]))
    history = np.array([2, 0], dtype=np.int32)
    offsets = np.array([0, 2])
    case = replace(
        cases, offsets=offsets, items=history, ratings=cases.ratings[:1].repeat(2), times=cases.times[:1].repeat(2)
    )
    ids, mask = tokens.encode(case, 3)
    assert ids.tolist() == [[10 + int(case.user[0]) % 2000, 4, 5, 8, 2, 6, 8, END, PAD, PAD, PAD]]
    assert mask.sum() == 8
    assert tokens.encode(case, 1)[0][0, 1:].tolist() == [2, 6, 8, END]  # the newest alone


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Tiger:
    folder = tmp_path_factory.mktemp("tiger")
    return fit(split(), seed=1, params=settings(folder, beams=60), workdir=folder / "work")


def test_wide_beams_give_every_items_exact_log_probability(recommender: Tiger) -> None:
    """With as many beams as items none is cut off; probabilities are normalized over the codes that continue an id."""
    cases = replace(split().valid.take(CASES[:3]), target=None)
    item_scores = np.concatenate(list(recommender.score(cases)))
    tokens = recommender.tokens
    for i in range(len(cases)):
        ids, mask = (torch.from_numpy(part) for part in tokens.encode(cases.take(np.array([i])), 20))
        for item in range(0, split().n_items, 7):
            codes = tokens.items[item]
            with torch.no_grad():
                start = torch.tensor([[PAD, *codes[:-1].tolist()]])
                logits = recommender.model(input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits[0]
            logps = logits.log_softmax(dim=-1)
            expected = float(logps[torch.arange(len(codes)), torch.from_numpy(codes)].sum())
            assert item_scores[i, item] == pytest.approx(expected, abs=1e-3)


def test_few_beams_retrieve_few_items(recommender: Tiger, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = replace(split().valid.take(CASES), target=None)
    whole = np.concatenate(list(recommender.score(cases)))
    assert np.isfinite(whole).all()
    monkeypatch.setattr(recommender, "settings", recommender.settings.model_copy(update={"beams": 10}))
    few = np.concatenate(list(recommender.score(cases)))
    assert (np.isfinite(few).sum(axis=1) == 10).all()
    kept = np.isfinite(few)
    np.testing.assert_allclose(few[kept], whole[kept], atol=1e-4)
    # Beams may lose one of the ten best, never many.
    best = np.take_along_axis(kept, np.argsort(-whole, axis=1)[:, :10], axis=1)
    assert best.mean() > 0.8
    assert recommender._allowed(0, torch.tensor([PAD, *recommender.tokens.items[0].tolist()])) == [END]


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the second epoch, behind the checkpoint of the first, then fitted again."""
    cases = replace(split().valid.take(CASES), target=None)
    whole = fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "whole")
    expected = np.concatenate(list(whole.score(cases)))
    per_epoch = -(-len(split().train) // 256)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, Trainer, "training_step", call=per_epoch + 2)
        fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    assert list((tmp_path / "broken" / "training").glob("checkpoint-*"))
    again = fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    assert again.report() == whole.report()
    np.testing.assert_array_equal(np.concatenate(list(again.score(cases))), expected)
