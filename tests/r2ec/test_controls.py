"""Controls, which are read in the place of a model's own reasoning, and several samples of a reasoning."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.contract import Cases
from benchmark.errors import InputError
from lm.writing.rollouts import RolloutResult
from r2ec.fit import fit_r2ec
from r2ec.method import Params
from r2ec.scoring.controls import Controls
from r2ec.scoring.reader import Reader, combined
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.settings import EvaluationSettings
from tests.support.tiny_fits import scores, settings, split, write_backbone
from tests.support.tiny_tokenizers import tiny_tokenizer

END = "<|im_end|>"  # of a turn


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="module")
def fitted(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of a finished fit."""
    folder: Path = tmp_path_factory.mktemp("fit")
    fit_r2ec(split(), 3, Params.model_validate(settings(backbone)), folder)
    return folder


def read_with(fitted: Path, **evaluation: Any) -> R2ecRecommender:
    return R2ecRecommender.load(fitted / "model", split(), EvaluationSettings(**evaluation))


def some_cases(count: int = 20) -> Cases:
    return replace(split().valid.take(np.arange(count)), target=None)


def reasonings(recommender: R2ecRecommender) -> list[str]:
    return [text.removesuffix("<answer>") for text in recommender.texts()["reasoning"]]


def own(fitted: Path) -> tuple[np.ndarray, list[str]]:
    recommender = read_with(fitted)
    return scores(recommender), reasonings(recommender)


def test_each_control_replaces_the_reasoning_by_its_kind(fitted: Path) -> None:
    expected, texts = own(fitted)
    tokenizer = read_with(fitted).reader.prompts.tokenizer
    for reasoning in ("other", "permuted", "empty", "filler"):
        control = read_with(fitted, reasoning=reasoning)
        control_scores, read = scores(control), reasonings(control)
        assert np.isfinite(control_scores).all() and not np.allclose(control_scores, expected)
        if reasoning == "permuted":
            assert [text.endswith(END) for text in read] == [text.endswith(END) for text in texts]
            assert [sorted(text.removesuffix(END).split()) for text in read] == [
                sorted(text.removesuffix(END).split()) for text in texts
            ]
            assert [re.sub(r"\S+", "", text) for text in read] == [re.sub(r"\S+", "", text) for text in texts]
            assert control.tokens_written() > 0
        elif reasoning == "empty":
            assert set(read) == {""} and control.tokens_written() == 0
        elif reasoning == "filler":
            assert set("".join(read)) <= set(" .")
            dots = len(tokenizer(" ...", add_special_tokens=False)["input_ids"])
            for mine, dotted in zip(texts, read, strict=True):
                wanted = len(tokenizer(mine, add_special_tokens=False)["input_ids"]) if mine else 0
                assert abs(wanted - dotted.count(" ...") * dots) <= dots / 2
        else:
            assert control.reader.controls is not None
            lent = control.reader.controls._lent
            assert set(read) <= set(lent) and len(set(read)) > 1
            # Each lender is another user.
            lenders_of = {
                text: set(control.reader.controls.donors.user[[t == text for t in lent]].tolist()) for text in lent
            }
            for text, user in zip(read, some_cases().user.tolist(), strict=True):
                assert lenders_of[text] - {user}


def test_words_change_places_and_nothing_else() -> None:
    """Line breaks stay where they stood, and the end of the turn stays at the end."""
    controls: Any = SimpleNamespace(prompts=SimpleNamespace(tokenizer=tiny_tokenizer("llama")))
    texts = [Controls._permute(controls, "one  two\n\nthree four <|im_end|>", case) for case in range(40)]
    words = [re.fullmatch(r"(\w+)  (\w+)\n\n(\w+) (\w+) <\|im_end\|>", text) for text in texts]
    assert all(match and sorted(match.groups()) == ["four", "one", "three", "two"] for match in words)
    assert len(set(texts)) > 10 and Controls._permute(controls, "", 1) == ""


def test_its_own_reasoning_read_again_gives_the_same_scores(fitted: Path) -> None:
    expected, texts = own(fitted)
    again = read_with(fitted, reasoning="again")
    np.testing.assert_allclose(
        scores(again), expected, rtol=1e-4, atol=1e-5
    )  # float32: in bf16 they differ by rounding
    assert reasonings(again) == texts and again.tokens_written() > 0


def test_a_case_alone_is_read_as_among_others(fitted: Path) -> None:
    for reasoning in ("other", "permuted", "filler"):
        control = read_with(fitted, reasoning=reasoning)
        together = scores(control, 3)
        one_by_one = np.concatenate([np.concatenate(list(control.score(case))) for case in some_cases(3).batches(1)])
        np.testing.assert_allclose(one_by_one, together, atol=1e-4)


def test_a_reasoning_with_no_other_user_to_lend_one_is_refused(fitted: Path) -> None:
    control = read_with(fitted, reasoning="other")
    assert control.reader.controls is not None
    cases = some_cases(1)
    donors = control.reader.controls.donors
    control.reader.controls.donors = replace(donors, user=np.full_like(donors.user, cases.user[0]))
    with pytest.raises(InputError, match="every case that could lend its reasoning is of user"):
        list(control.score(cases))


def test_several_samples_are_combined_by_hand() -> None:
    states = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0], [7.0, 1.0]])
    result = RolloutResult(
        rollouts=None,  # type: ignore[arg-type]
        lengths=torch.ones(4),
        log_probs=torch.tensor([[-1.0, -3.0], [-2.0, -1.0], [-0.5, 0.0], [-0.1, -0.5]]),
        cut=torch.tensor([True, False, True, True]),
        ended=torch.zeros(4, dtype=torch.bool),
        states=states,
        seconds=0.0,
    )
    texts = ["a", "b", "c", "d"]
    combined_states, read, cut = combined(result, states, texts, EvaluationSettings(samples=2))
    assert combined_states.tolist() == [[2.0, 1.0], [6.0, 3.0]]
    assert read == ["a\n\nb", "c\n\nd"] and cut.tolist() == [False, True]
    # Sums -4 and -3, then -0.5 and -0.6.
    combined_states, read, cut = combined(result, states, texts, EvaluationSettings(samples=2, combine="best"))
    assert combined_states.tolist() == [[3.0, 2.0], [5.0, 5.0]]
    assert read == ["b", "c"] and cut.tolist() == [False, True]


@pytest.mark.parametrize("combine", ["mean", "best"])
def test_several_samples_give_the_same_scores_again(fitted: Path, combine: str) -> None:
    recommender = read_with(fitted, samples=3, combine=combine)
    first_scores = scores(recommender)
    assert np.isfinite(first_scores).all() and recommender.tokens_written() > 20 * 3 - 1
    np.testing.assert_array_equal(scores(recommender), first_scores)  # the same samples again


def test_one_fit_serves_every_way_to_read(backbone: Path, fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r2ec.fit._fit", lambda *_: pytest.fail("fitted again"))
    changed = Params.model_validate(settings(backbone) | {"evaluation": {"reasoning": "empty"}})
    fitted_again = fit_r2ec(split(), 3, changed, fitted)
    np.testing.assert_array_equal(scores(fitted_again), scores(read_with(fitted, reasoning="empty")))


def test_a_fit_ignores_the_evaluation_settings(backbone: Path, fitted: Path, tmp_path: Path) -> None:
    """A fit under a control trains as without one: only the scores of what was fitted differ."""
    changed = Params.model_validate(settings(backbone) | {"evaluation": {"reasoning": "empty"}})
    fit_r2ec(split(), 3, changed, tmp_path)
    np.testing.assert_array_equal(scores(read_with(tmp_path)), own(fitted)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluation": {"reasoning": "none"}},
            "Input should be 'own', 'again', 'other', 'permuted', 'empty' or 'filler'",
        ),
        ({"evaluation": {"reasoning": "filler", "samples": 2}}, "set reasoning 'filler' to own"),
        ({"recpo": {"reasoning": False}, "evaluation": {"samples": 2}}, "leave evaluation out"),
        ({"evaluation": {"samples": 0}}, "greater than or equal to 1"),
    ],
)
def test_evaluation_settings_that_exclude_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Params.model_validate({"backbone": {"name": "x"}} | changes)


def test_one_sample_is_the_greedy_reasoning(backbone: Path) -> None:
    reader = Reader.build(split(), Params.model_validate(settings(backbone)))
    assert reader.engine.settings.greedy and reader.controls is None
