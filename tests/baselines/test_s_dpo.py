"""Tests of S-DPO: rejected titles by hand, the tuning it starts from, what preferences teach."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines import s_dpo, title_sft
from baselines._writers import pairwise, title_tuning
from baselines._writers.pairwise import Preferences
from baselines._writers.title_ranking import ByTitle
from baselines._writers.title_search import title_tokens
from baselines.s_dpo import fit, rejected
from benchmark.contract import Cases, Recommender
from benchmark.errors import InputError
from benchmark.metrics import ndcg
from lm import backbone as backbones
from tests.baselines.test_title_tuning import scored, settings
from tests.support.tiny_fits import split
from tests.support.tiny_tokenizers import tiny_tokenizer
from tests.support.worded import N, planted_writer, worded_split

TITLES = ["a", "b", "c", "b", "d", "e"]


def two_cases(first: int = 100) -> Cases:
    """Return two cases with targets 1 and 5; item 3 has the title of item 1."""
    return Cases(
        case=np.array([first, first + 1]),
        user=np.array([0, 1], np.int32),
        time=np.array([0, 0]),
        offsets=np.array([0, 2, 3]),
        items=np.array([0, 2, 4], np.int32),
        ratings=np.full(3, np.nan, np.float32),
        times=np.zeros(3, np.int64),
        target=np.array([1, 5], np.int32),
    )


def test_rejected_titles_by_hand() -> None:
    items = list(rejected(two_cases(), TITLES, np.ones(6), 2, seed=1))
    # Outside the history and without the target's title: 4 and 5; for the second case 0, 1 or 3 and 2, each title once.
    assert sorted(items[0]) == [4, 5]
    for seed in range(50):
        first, second = list(rejected(two_cases(), TITLES, np.ones(6), 2, seed))[1]
        assert {first, second} <= {0, 1, 2, 3} and TITLES[first] != TITLES[second]
    assert list(rejected(two_cases(), TITLES, np.ones(6), 2, 1)) == items
    second_case = two_cases().take(np.array([1]))
    # The draw is seeded by the case, whatever stands beside it.
    assert list(rejected(second_case, TITLES, np.ones(6), 2, 1)) == items[1:]


def test_rejected_titles_are_drawn_in_proportion() -> None:
    weights, drawn = np.array([6.0, 1, 3, 0, 1, 1]), Counter[int]()
    for first in range(0, 4000, 2):
        drawn.update(list(rejected(two_cases(first), TITLES, weights, 1, 3))[1])
    # Items 0, 1 and 2 by 6 : 1 : 3; item 3 has no weight, 4 is the history, 5 the target.
    assert set(drawn) == {0, 1, 2}
    shares = [drawn[item] / 2000 for item in range(3)]
    np.testing.assert_allclose(shares, [0.6, 0.1, 0.3], atol=0.04)  # 3.6 standard deviations


def test_too_few_titles_are_one_sentence() -> None:
    with pytest.raises(
        InputError, match=r"^case 100: 2 titles outside its history can be rejected, and negatives is 3;"
    ):
        list(rejected(two_cases(), TITLES, np.ones(6), 3, seed=1))


@pytest.mark.parametrize("source", ["uniform", "popularity"])
def test_the_targets_title_is_preferred_to_three_others(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt is the one that is scored, and the reference is the tuned model."""
    trained_on: list[tuple[Preferences, torch.Tensor]] = []

    def prefer(model: Any, preferences: Preferences, training: Any, **_: Any) -> list[Any]:
        trained_on.append(
            (preferences, torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad]))
        )
        assert (training.beta, training.steps, training.users_per_step) == (0.5, 2, 4)
        return []

    monkeypatch.setattr(pairwise, "prefer", prefer)
    own = settings(tmp_path)
    recommender = fit(
        split(),
        seed=1,
        params=own | {"beta": 0.5, "preference_steps": 2, "negatives_from": source},
        workdir=tmp_path / "work",
    )
    ((preferences, weights),) = trained_on
    rows = s_dpo.preferred(split(), recommender.settings, 1)  # type: ignore[arg-type]
    cases = split().llm_train.take(rows)
    assert len(preferences) == 8 == len(set(rows.tolist())) and cases.target is not None
    titles = title_tokens(recommender.tokenizer, split().items["title"].tolist())
    user_messages = recommender.builder.user_messages(title_tuning.REQUEST, cases)
    targets = set(split().train.target.tolist())  # type: ignore[union-attr]
    for i, (prompt, (chosen, *rejected_titles)) in enumerate(zip(preferences.prompts, preferences.titles, strict=True)):
        assert recommender.tokenizer.decode(prompt).count(user_messages[i]) == 1
        assert chosen == titles[cases.target[i]] and len(rejected_titles) == 3
        items = [titles.index(title) for title in rejected_titles]
        assert not set(items) & {*cases.history(i).tolist(), cases.target[i]}
        assert source == "uniform" or set(items) <= targets
    tuned = title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "sft")
    torch.testing.assert_close(
        weights, torch.cat([p.detach().flatten() for p in tuned.model.parameters() if p.requires_grad])
    )


def test_preferences_go_on_from_the_tuning(tmp_path: Path) -> None:
    own = settings(tmp_path)
    tuned = title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "sft")
    recommender = fit(split(), seed=1, params=own | {"preference_steps": 3}, workdir=tmp_path / "work")
    report = recommender.report()
    assert report["losses"] == tuned.report()["losses"]
    assert [sorted(step) for step in report["preferences"]] == [["below", "chosen", "loss", "margin"]] * 3
    assert report["preferences"][0]["loss"] == pytest.approx(np.log(4), abs=1e-3)
    assert not np.array_equal(scored(recommender), scored(tuned))
    learned, before = recommender.learned(), tuned.learned()
    assert learned is not None and before is not None
    assert before.targets == 12 < learned.targets <= 24


def quality(method: Recommender) -> float:
    """Return NDCG@10 on the validation cases of the planted task."""
    valid = worded_split().valid
    item_scores = np.concatenate(list(method.score(replace(valid, target=None))))
    assert valid.target is not None
    own = item_scores[np.arange(len(item_scores)), valid.target]
    return float(ndcg(1 + (item_scores > own[:, None]).sum(axis=1), 10).mean())


def planted(method: Any, tmp_path: Path, **changes: Any) -> ByTitle:
    tuning = {"users_per_step": 32, "at_once": 32, "max_steps": 1, "save_steps": 1000, "learning_rate": 0.01}
    params = {"backbone": {"name": "planted"}, "beams": N, "tunings": str(tmp_path / "tunings")} | tuning | changes
    recommender: ByTitle = method.fit(worded_split(), seed=1, params=params, workdir=tmp_path / method.__name__)
    return recommender


def test_preferences_teach_what_a_short_tuning_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        backbones, "load", lambda settings: backbones.Backbone(planted_writer(), tiny_tokenizer("llama"))
    )
    monkeypatch.setattr(backbones, "add_lora", lambda model, settings: model)
    for module in (s_dpo, title_sft):
        monkeypatch.setattr(module, "REQUEST", "My {several}:\n{history}")  # a tiny LM reads what stands last
    little = {
        "learning_rate": 0.001
    }  # of the tuning: .53, where ten times as much leaves little to learn on some machines
    before = quality(planted(title_sft, tmp_path, **little))
    recommender = planted(s_dpo, tmp_path, preference_steps=30, preference_rate=0.02, beta=0.2, **little)
    steps = recommender.report()["preferences"]
    assert steps[0]["loss"] == pytest.approx(np.log(4), abs=1e-3) and steps[-1]["loss"] < 0.5 * np.log(4)
    assert steps[-1]["margin"] > 1 and steps[-1]["below"] > 0.8
    assert quality(recommender) > before + 0.15
