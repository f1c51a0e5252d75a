"""The cases that a fit reports to have learned from are those that it took; a kept fit reports the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import bigrec, d3, frozen_llm, langptune, rec_r1
from benchmark.contract import Cases, Learned, Recommender, Split, watched
from r2ec.fit import fit_r2ec
from r2ec.method import Params
from r2ec.recpo.trainer import RecPOBatch, RecPOTrainer
from r2ec.scoring.reader import Reader, sample
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.warm_start import start
from tests.support.tiny_encoders import write_encoder
from tests.support.tiny_fits import settings, split, write_backbone

LLM_ROWS = np.arange(100, 220)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


def data() -> Split:
    return replace(split(), llm_rows=LLM_ROWS)


NO_MAPS: dict[str, Any] = {"warm_start": {"cases": 0}}
UNTRAINED: dict[str, Any] = NO_MAPS | {"training": {"max_steps": 0}}


def r2ec(backbone: Path, folder: Path, **changes: Any) -> R2ecRecommender:
    changes["warm_start"] = {"states": str(folder / "states")} | changes.get("warm_start", {})
    return fit_r2ec(data(), 3, Params.model_validate(settings(backbone, **changes)), folder / "fit")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Learned.of(split().train)),  # the teacher's
        (UNTRAINED, Learned(0, 0, 0)),
        (UNTRAINED | {"recpo": {"prior": 1.0}}, Learned.of(split().train)),  # a count of all, and nothing else
    ],
    ids=["taught", "untrained", "prior alone"],
)
def test_r2ec_s_teacher_and_prior_have_all_training_cases(
    backbone: Path, tmp_path: Path, changes: dict[str, Any], expected: Learned
) -> None:
    assert r2ec(backbone, tmp_path, **changes).learned() == expected
    assert r2ec(backbone, tmp_path, **changes).learned() == expected  # kept


def test_r2ec_without_a_teacher_has_learned_from_its_recpo_cases(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps of six users, of the LLM's sample: 24 cases, whatever the prior counts."""
    taken: set[int] = set()
    compute_loss = RecPOTrainer.compute_loss

    def noted(self: RecPOTrainer, model: Any, inputs: RecPOBatch, *rest: Any, **named: Any) -> Any:
        taken.update(inputs.cases.case.tolist())
        return compute_loss(self, model, inputs, *rest, **named)

    monkeypatch.setattr(RecPOTrainer, "compute_loss", noted)
    fitted = r2ec(backbone, tmp_path, **NO_MAPS, recpo={"prior": 1.0})
    rows = np.flatnonzero(np.isin(split().train.case, list(taken)))
    assert len(rows) == 24 and set(rows) <= set(LLM_ROWS)
    assert fitted.learned() == Learned.of(split().train.take(rows))
    assert fitted.learned().targets == 24  # type: ignore[union-attr]


def test_r2ec_s_maps_without_a_teacher_have_their_sample(backbone: Path, tmp_path: Path) -> None:
    warm = {"cases": 60, "forms": ["tied"], "learning_rate": 1e-2, "epochs": 30}
    fitted = r2ec(backbone, tmp_path, warm_start=warm, training={"max_steps": 0})
    form = fitted.report()["warm_start"][0]["form"]
    sampled = sample(data().llm_train, 60, "planted")
    assert set(sampled.case) <= set(split().train.case[LLM_ROWS])
    read = Learned(len(np.unique(sampled.user)), 0, len(replace(sampled, target=None).interactions()[0]))
    assert fitted.learned() == (Learned.of(sampled) if form == "tied" else read)


def test_r2ec_s_lm_reads_for_its_sample_and_its_teacher_learns_from_all(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Cases] = []
    fitted_on = []
    frozen_states, fit_rec_head = start.frozen_states, start.fit_rec_head

    def states(reader: Reader, parts: dict[str, Cases]) -> Any:
        read.append(parts["train"])
        return frozen_states(reader, parts)

    def fit(warm_start_data: Any) -> Any:
        fitted_on.append(warm_start_data)
        return fit_rec_head(warm_start_data)

    monkeypatch.setattr(start, "frozen_states", states)
    monkeypatch.setattr(start, "fit_rec_head", fit)
    own = data()
    params = settings(backbone, warm_start={"states": str(tmp_path / "states"), "adapters": {"steps": 1}})
    fit_r2ec(own, 3, Params.model_validate(params), tmp_path / "fit")
    assert len(read[0]) == 60 and set(read[0].case) <= set(own.train.case[LLM_ROWS])
    assert fitted_on[0].cases is own.train and len(fitted_on[0].train.targets) == 60


def common(backbone: Path, **changes: Any) -> dict[str, Any]:
    return {"backbone": {"name": str(backbone), "dtype": "float32"}, "max_new_tokens": 3, "users_per_step": 4} | changes


def within_the_sample(learned: Learned | None, targets: int) -> bool:
    """So many targets, and no more users and positions than the LLM's sample has."""
    most = Learned.of(data().llm_train)
    assert learned is not None
    return learned.targets == targets and learned.users <= most.users and learned.positions <= most.positions


def test_tuning_and_grpo_have_the_cases_of_their_steps(backbone: Path, tmp_path: Path) -> None:
    """Three steps of four users, though popularity counts all; without a step, what is counted."""
    tuned = {"at_once": 2, "max_steps": 3, "tunings": str(tmp_path / "tunings")}
    grpo = {"group_size": 2, "max_steps": 3, "popularity": [1.0]}
    for module, own, share in ((bigrec, tuned, "gamma"), (rec_r1, grpo, "popularity")):
        params = common(backbone, **own) | {share: [1.0]}
        fitted = module.fit(data(), seed=1, params=params, workdir=tmp_path / share)
        assert within_the_sample(fitted.learned(), 12)
        again = module.fit(data(), seed=1, params=params, workdir=tmp_path / share)
        assert again.learned() == fitted.learned()
        params |= {"max_steps": 0}
        counted = module.fit(data(), seed=1, params=params, workdir=tmp_path / f"{share} untuned")
        assert counted.learned() == Learned.of(split().train)


def test_more_steps_than_cases_are_no_more_cases(backbone: Path, tmp_path: Path) -> None:
    few = replace(split(), llm_rows=np.arange(5))
    params = common(backbone, at_once=2, max_steps=3, tunings=str(tmp_path / "tunings"))
    learned = bigrec.fit(few, seed=1, params=params, workdir=tmp_path).learned()
    assert learned == Learned.of(split().train.take(np.arange(5)))


def test_langptune_has_learned_from_the_cases_of_its_writer_and_its_encoder(backbone: Path, tmp_path: Path) -> None:
    """30 profiles in each of two turns and 8 cases of the writer, some of them the same."""
    params = common(backbone, group_size=2, max_steps=2, contrastive_cases=30, contrastive_batch=8)
    params["encoder"] = str(write_encoder(tmp_path / "encoder"))
    learned = langptune.fit(data(), seed=1, params=params, workdir=tmp_path / "work").learned()
    assert 30 < learned.targets <= 68 and within_the_sample(learned, learned.targets)


class Assistant(Recommender):
    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        yield np.zeros((len(cases), split().n_items))


def test_d3_has_learned_from_all_cases_where_its_assistant_has(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = common(backbone, at_once=2, max_steps=3, alpha=1.0, tunings=str(tmp_path / "tunings"))
    del params["max_new_tokens"]
    without_assistant = d3.fit(data(), seed=1, params=params, workdir=tmp_path / "alone")
    assert within_the_sample(without_assistant.learned(), 12)

    def fit_best(split: Split, *_: Any, **__: Any) -> tuple[Recommender, list[Any]]:
        assert len(split.train) > 1000  # as SASRec does
        return Assistant(), []

    monkeypatch.setattr(d3, "fit_best", fit_best)
    seen = watched(data())
    with_assistant = d3.fit(seen, seed=1, params=params | {"alpha": 0.5}, workdir=tmp_path / "both")
    assert (with_assistant.learned() or seen.learned()) == Learned.of(split().train)


@pytest.mark.parametrize("count", [0, 40])
def test_the_frozen_llm_has_read_what_it_standardises_by(backbone: Path, tmp_path: Path, count: int) -> None:
    params = {"backbone": {"name": str(backbone), "dtype": "float32"}, "prompts": {"max_items": 3}}
    params |= {"standardize": [count], "states": str(tmp_path / "states")}
    learned = frozen_llm.fit(data(), seed=1, params=params, workdir=tmp_path).learned()
    sampled = sample(data().llm_train, count, "planted")
    read = {(int(sampled.user[i]), int(item)) for i in range(len(sampled)) for item in sampled.history(i)}
    assert learned == Learned(len({user for user, _ in read}), 0, len(read))
