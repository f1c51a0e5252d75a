"""S-DPO: rejected titles by hand, what it begins with, and what preferences teach."""

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
    """Histories 0, 2 and 4; targets 1, whose title item 3 has, too, and 5."""
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
    found = list(rejected(two_cases(), TITLES, np.ones(6), 2, seed=1))
    # Outside the history and without the target's title: 4 and 5; for the second case 0, 1 or 3 and 2, each title once.
    assert sorted(found[0]) == [4, 5]
    for seed in range(50):
        one, two = list(rejected(two_cases(), TITLES, np.ones(6), 2, seed))[1]
        assert {one, two} <= {0, 1, 2, 3} and TITLES[one] != TITLES[two]
    assert list(rejected(two_cases(), TITLES, np.ones(6), 2, 1)) == found
    alone = two_cases().take(np.array([1]))
    assert list(rejected(alone, TITLES, np.ones(6), 2, 1)) == found[1:]  # seeded by case, whatever stands beside it


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
def test_what_is_preferred(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's title to three others, behind the prompt that is scored, against the tuned model."""
    given: list[tuple[Preferences, torch.Tensor]] = []

    def prefer(model: Any, preferences: Preferences, training: Any, **_: Any) -> list[Any]:
        given.append((preferences, torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])))
        assert (training.beta, training.steps, training.users_per_step) == (0.5, 2, 4)
        return []

    monkeypatch.setattr(pairwise, "prefer", prefer)
    own = settings(tmp_path)
    made = fit(
        split(),
        seed=1,
        params=own | {"beta": 0.5, "preference_steps": 2, "negatives_from": source},
        workdir=tmp_path / "work",
    )
    ((preferences, weights),) = given
    rows = s_dpo.preferred(split(), made.settings, 1)  # type: ignore[arg-type]
    cases = split().llm_train.take(rows)
    assert len(preferences) == 8 == len(set(rows.tolist())) and cases.target is not None
    titles = title_tokens(made.tokenizer, split().items["title"].tolist())
    asked = made.builder.user_messages(title_tuning.REQUEST, cases)
    targets = set(split().train.target.tolist())  # type: ignore[union-attr]
    for i, (prompt, (chosen, *others)) in enumerate(zip(preferences.prompts, preferences.titles, strict=True)):
        assert made.tokenizer.decode(prompt).count(asked[i]) == 1
        assert chosen == titles[cases.target[i]] and len(others) == 3
        items = [titles.index(other) for other in others]
        assert not set(items) & {*cases.history(i).tolist(), cases.target[i]}
        assert source == "uniform" or set(items) <= targets
    tuned = title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "sft")
    torch.testing.assert_close(
        weights, torch.cat([p.detach().flatten() for p in tuned.model.parameters() if p.requires_grad])
    )


def test_preferences_go_on_from_the_tuning(tmp_path: Path) -> None:
    own = settings(tmp_path)
    tuned = title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "sft")
    made = fit(split(), seed=1, params=own | {"preference_steps": 3}, workdir=tmp_path / "work")
    report = made.report()
    assert report["losses"] == tuned.report()["losses"]
    assert [sorted(step) for step in report["preferences"]] == [["below", "chosen", "loss", "margin"]] * 3
    assert report["preferences"][0]["loss"] == pytest.approx(np.log(4), abs=1e-3)
    assert not np.array_equal(scored(made), scored(tuned))
    learned, before = made.learned(), tuned.learned()
    assert learned is not None and before is not None
    assert before.targets == 12 < learned.targets <= 24


def quality(method: Recommender) -> float:
    """NDCG@10 on what has been seen of the planted task."""
    valid = worded_split().valid
    found = np.concatenate(list(method.score(replace(valid, target=None))))
    assert valid.target is not None
    own = found[np.arange(len(found)), valid.target]
    return float(ndcg(1 + (found > own[:, None]).sum(axis=1), 10).mean())


def planted(method: Any, tmp_path: Path, **changes: Any) -> ByTitle:
    tuning = {"users_per_step": 32, "at_once": 32, "max_steps": 1, "save_steps": 1000, "learning_rate": 0.01}
    params = {"backbone": {"name": "planted"}, "beams": N, "tunings": str(tmp_path / "tunings")} | tuning | changes
    made: ByTitle = method.fit(worded_split(), seed=1, params=params, workdir=tmp_path / method.__name__)
    return made


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
    made = planted(s_dpo, tmp_path, preference_steps=30, preference_rate=0.02, beta=0.2, **little)
    steps = made.report()["preferences"]
    assert steps[0]["loss"] == pytest.approx(np.log(4), abs=1e-3) and steps[-1]["loss"] < 0.5 * np.log(4)
    assert steps[-1]["margin"] > 1 and steps[-1]["below"] > 0.8
    assert quality(made) > before + 0.15
