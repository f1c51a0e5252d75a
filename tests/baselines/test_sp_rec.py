"""Tests of SPRec: which answers are rejected, a killed self-play, what two rankings share, a planted task."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl import SFTTrainer

from baselines import sp_rec, title_sft
from baselines._writers import pairwise, title_tuning
from baselines._writers.pairwise import Preferences
from baselines._writers.title_ranking import ByTitle
from baselines._writers.title_search import title_tokens
from baselines.sp_rec import fit, own_answers
from benchmark.storage import ledger
from lm import backbone as backbones
from lm.chat import prompt_ids
from tests.baselines.test_s_dpo import planted, quality
from tests.baselines.test_title_tuning import scored
from tests.baselines.test_title_tuning import settings as tuning
from tests.support.interrupting import interrupt
from tests.support.tiny_encoders import write_encoder
from tests.support.tiny_fits import split
from tests.support.tiny_tokenizers import tiny_tokenizer
from tests.support.worded import planted_writer


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    small = {"cases": 10, "tuning_steps": 2, "preference_steps": 2, "save_steps": 1, "max_new_tokens": 3}
    return tuning(folder) | small | {"ranking": "beams", "preference_rate": 1e-2} | changes


def weights_of(recommender: ByTitle) -> torch.Tensor:
    return torch.cat(
        [parameter.detach().flatten() for parameter in recommender.model.parameters() if parameter.requires_grad]
    )


def test_an_answer_is_the_likeliest_open_title(tmp_path: Path) -> None:
    """Each token is the likeliest, by plain forwards, of those that continue an open title."""
    recommender = title_sft.fit(split(), seed=1, params=tuning(tmp_path), workdir=tmp_path / "work")
    cases = split().llm_train.take(np.arange(6))
    titles = title_tokens(recommender.tokenizer, recommender.builder.titles)
    answers = own_answers(recommender, cases)
    for i, message in enumerate(recommender.builder.user_messages(title_tuning.REQUEST, cases)):
        is_open = [v for v in range(split().n_items) if v not in set(cases.history(i).tolist())]
        written: list[int] = []
        while len({tuple(titles[v]) for v in is_open}) > 1:
            with torch.no_grad():
                ids = torch.tensor([prompt_ids(recommender.tokenizer, message) + written])
                logits = recommender.model(ids).logits[0, -1]
            allowed = sorted({titles[v][len(written)] for v in is_open})
            written.append(allowed[int(logits[allowed].argmax())])
            is_open = [v for v in is_open if titles[v][: len(written)] == written]
        assert answers[i] in is_open and answers[i] not in cases.history(i)


def test_true_titles_are_preferred_to_the_llms_own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers come from the LLM before the iteration's tuning; right answers are left out."""
    answered: list[np.ndarray] = []
    trained_on: list[tuple[Preferences, Any]] = []
    answer, prefer = own_answers, pairwise.prefer

    def answers(recommender: ByTitle, cases: Any) -> np.ndarray:
        items = answer(recommender, cases)
        items[:3] = cases.target[:3]  # as if it had known these
        answered.append(items)
        return items

    def preferring(model: Any, preferences: Preferences, training: Any, **named: Any) -> list[dict[str, float]]:
        trained_on.append((preferences, training))
        return prefer(model, preferences, training, **named)

    monkeypatch.setattr(sp_rec, "own_answers", answers)
    monkeypatch.setattr(pairwise, "prefer", preferring)
    recommender = fit(split(), seed=1, params=settings(tmp_path, iterations=1, beta=0.3), workdir=tmp_path / "work")
    assert isinstance(recommender, ByTitle)
    cases = split().llm_train.take(sp_rec._drawn(split(), recommender.settings, 1, 0))  # type: ignore[arg-type]
    ((preferences, training),) = trained_on
    (report,) = recommender.report()["iterations"]
    assert cases.target is not None and len(cases) == 10
    titles = title_tokens(recommender.tokenizer, recommender.builder.titles)
    wrong = [i for i in range(10) if titles[answered[0][i]] != titles[cases.target[i]]]
    assert not set(wrong) & {0, 1, 2} and len(preferences) == len(wrong) > 0
    for (chosen, own), i in zip(preferences.titles, wrong, strict=True):
        assert chosen == titles[cases.target[i]] != own == titles[answered[0][i]]
    assert (training.beta, training.steps, training.learning_rate) == (0.3, 2, 1e-2)
    assert (report["answers"], report["right"]) == (10, 10 - len(wrong))
    assert len(report["losses"]) == len(report["preferences"]) == 2 and 0 <= report["changed"] <= 1
    # Against itself as it was right before this step.
    assert report["preferences"][0]["loss"] == pytest.approx(np.log(2), abs=1e-4)


def test_all_answers_right_teach_no_preference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp_rec, "own_answers", lambda recommender, cases: cases.target.astype(np.int64))
    recommender = fit(split(), seed=1, params=settings(tmp_path, iterations=1), workdir=tmp_path / "work")
    (report,) = recommender.report()["iterations"]
    assert (report["answers"], report["right"], report["preferences"]) == (10, 10, [])


def test_each_iteration_has_cases_of_its_own(tmp_path: Path) -> None:
    recommender = fit(split(), seed=1, params=settings(tmp_path), workdir=tmp_path / "work")
    drawn = [sp_rec._drawn(split(), recommender.settings, 1, i).tolist() for i in range(2)]  # type: ignore[attr-defined]
    assert all(len(set(rows)) == 10 for rows in drawn) and set(drawn[0]) != set(drawn[1])
    learned = recommender.learned()
    assert learned is not None and 20 < learned.targets <= 12 + 20  # those of the tuning, and both iterations'
    assert len(recommender.report()["iterations"]) == 2 and len(recommender.report()["losses"]) == 3


@pytest.mark.parametrize("point", ["answers", "tuning", "preferences"])
def test_a_killed_self_play_ends_as_an_unbroken_one(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its second iteration, behind the answers, in the tuning, or in the preferences."""
    elsewhere = settings(tmp_path, tunings=str(tmp_path / "other tunings"))
    whole = fit(split(), seed=3, params=elsewhere, workdir=tmp_path / "whole")
    # The call at which it is killed; a step of either training has two micro-batches, the tuning before takes three.
    killed_at: dict[str, tuple[Any, str, int]] = {
        "answers": (sp_rec, "tune", 2),
        "tuning": (SFTTrainer, "training_step", 6 + 4 + 3),
        "preferences": (pairwise.PreferenceTrainer, "training_step", 4 + 3),
    }
    owner, name, at = killed_at[point]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, owner, name, call=at)
        fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    assert (tmp_path / "broken" / "iteration1" / "answers.npy").exists()
    again = fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    assert again.report() == whole.report()
    np.testing.assert_array_equal(scored(again), scored(whole))


def test_two_rankings_share_the_self_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger.account() as first:
        beams = fit(split(), seed=1, params=settings(tmp_path), workdir=tmp_path / "beams")
    monkeypatch.setattr(sp_rec, "play", lambda *_: 1 / 0)
    encoder = str(write_encoder(tmp_path / "encoder"))
    with ledger.account() as second:
        grounding = settings(tmp_path, ranking="grounding", encoder=encoder)
        grounded = fit(split(), seed=1, params=grounding, workdir=tmp_path / "grounded")
    assert first.reused == 0 < second.reused and not (tmp_path / "grounded" / "iteration0").exists()
    assert grounded.report() == beams.report() and grounded.learned() == beams.learned()
    assert isinstance(beams, ByTitle)
    weights = [parameter.detach().flatten() for parameter in grounded.model.parameters() if parameter.requires_grad]  # type: ignore
    assert torch.equal(torch.cat(weights), weights_of(beams))
    assert np.isfinite(scored(grounded)).all() and grounded.tokens_written() > 0
    again = fit(split(), seed=1, params=settings(tmp_path), workdir=tmp_path / "again")
    np.testing.assert_array_equal(scored(again), scored(beams))  # found, to the last bit


@pytest.mark.parametrize("changes", [{"beta": 0.2}, {"cases": 9}, {"learning_rate": 2e-2}, {"evaluation_rows": 4}])
def test_other_settings_are_another_self_play(tmp_path: Path, changes: dict[str, Any], monkeypatch: Any) -> None:
    fit(split(), seed=1, params=settings(tmp_path, iterations=1), workdir=tmp_path / "a")
    played: list[int] = []
    monkeypatch.setattr(sp_rec, "play", lambda *_: played.append(1) or [])
    fit(split(), seed=1, params=settings(tmp_path, iterations=1, beams=3), workdir=tmp_path / "b")
    assert not played
    fit(split(), seed=1, params=settings(tmp_path, iterations=1, **changes), workdir=tmp_path / "c")
    assert played


def test_grounding_by_hand(tmp_path: Path) -> None:
    """The answer is the title whose sentence embedding is nearest to the greedy text's."""
    encoder = str(write_encoder(tmp_path / "encoder"))
    params = settings(tmp_path, iterations=0, ranking="grounding", encoder=encoder)
    recommender = fit(split(), seed=1, params=params, workdir=tmp_path / "work")
    titles = split().items["title"].tolist()[:5]
    cosines = recommender.scores_of(titles)  # type: ignore[attr-defined]
    assert cosines.argmax(axis=1).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(cosines[np.arange(5), np.arange(5)], 1, atol=1e-5)


def test_self_play_teaches_what_a_short_tuning_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        backbones, "load", lambda settings: backbones.Backbone(planted_writer(), tiny_tokenizer("llama"))
    )
    monkeypatch.setattr(backbones, "add_lora", lambda model, settings: model)
    for module in (sp_rec, title_sft):
        monkeypatch.setattr(module, "REQUEST", "My {several}:\n{history}")  # a tiny LM reads what stands last
    before = quality(planted(title_sft, tmp_path))
    tuning = {"tuning_steps": 1, "tuning_rate": 1e-6}  # too small to teach anything
    preferring = {"preference_steps": 10, "preference_rate": 0.002, "beta": 1.0}
    recommender = planted(sp_rec, tmp_path, ranking="beams", cases=320, **tuning, **preferring)
    first, second = recommender.report()["iterations"]
    assert first["preferences"][0]["loss"] == pytest.approx(np.log(2), abs=1e-3)
    assert first["preferences"][-1]["margin"] > 1 and first["changed"] > 0.3 and second["preferences"][-1]["margin"] > 1
    assert second["right"] > first["right"] + 30  # of 320
    assert quality(recommender) > before + 0.1
