"""Tuning on validation alone, what later repetitions take over of it, and an ablation's run beside its base's."""

import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import evaluate
from benchmark.contract import Split
from benchmark.data.store import read_split
from benchmark.jobs.records import read_run
from benchmark.metrics import ndcg
from benchmark.provenance import derive_seed
from tests.support.stub_method import GRID, SECTION, Fits, Job, Params, Stub, refused, stub_data, stub_fits


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    return stub_fits(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def job(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(data, tmp_path, monkeypatch)


def test_the_generators_that_all_code_shares_are_seeded_by_the_run(
    job: Job, fits: Fits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a method that draws from them by mistake is the same when it is run again, and another with each seed."""
    drawn: list[tuple[float, ...]] = []
    module = sys.modules["baselines.stub"]
    fit = module.fit

    def draws(split: Split, **about: Any) -> Stub:
        drawn.append((random.random(), float(np.random.random()), float(torch.rand(()))))
        stub: Stub = fit(split, **about)
        score = stub.score
        stub.score = lambda cases: (drawn.append((float(np.random.random()),)), score(cases))[1]  # type: ignore
        return stub

    monkeypatch.setattr(module, "fit", draws)
    job()
    first = drawn.copy()
    drawn.clear()
    np.random.random(3)  # whatever was drawn before
    shutil.rmtree(job.root)
    job()
    assert drawn == first and len(first) > 2
    drawn.clear()
    job(seed=2)
    assert all(one != other for one, other in zip(drawn, first, strict=True))


# Tuning


def test_the_grid_is_tried_on_validation_and_the_best_kept(job: Job, fits: Fits) -> None:
    record = read_run(job(params=json.dumps({"label": "base"}), grid=GRID) / "run.json")
    assert record.tuning is not None
    assert [trial.params["skill"] for trial in record.tuning.trials] == [0.2, 0.9, 0.5]
    assert [trial.params["label"] for trial in record.tuning.trials] == ["base", "best", "base"]  # grid over params
    assert record.tuning.chosen == 1 and record.tuning.criterion == "valid NDCG@10"
    assert record.params == {"skill": 0.9, "label": "best", "bad": "", "found": 0.0} | SECTION
    # One seed for all, each in a folder of its own; the test cases are scored once, by the chosen fit.
    assert {call["seed"] for call in fits} == {derive_seed("toy", "stub", 1)}
    assert len({call["workdir"] for call in fits}) == 3
    assert [[len(cases) for cases in call["stub"].scored] for call in fits] == [[40], [40, 60] + [1] * 6, [40]]


def test_a_trial_names_one_setting_of_a_section(job: Job, fits: Fits) -> None:
    grid = json.dumps([{"skill": 0.9, "section": {"b": 3}}, {"skill": 0.1}])
    record = read_run(job(params=json.dumps({"section": {"a": 7, "b": 8}}), grid=grid) / "run.json")
    assert [call["params"]["section"] for call in fits] == [{"a": 7, "b": 3}, {"a": 7, "b": 8}]
    assert record.params["section"] == {"a": 7, "b": 3}


def test_the_criterion_is_ndcg_of_the_one_evaluator(job: Job, fits: Fits, data: Path) -> None:
    record = read_run(job(grid=GRID) / "run.json")
    assert record.tuning is not None
    split = read_split(data)
    assert split.valid.target is not None
    table = evaluate.rank(
        Stub(split, Params(skill=0.2)).score(replace(split.valid, target=None)),
        split.valid,
        split.valid.target,
        split.n_items,
        "stub",
    )
    expected = ndcg(table.column("rank").to_numpy(), 10).mean()
    assert record.tuning.trials[0].value == pytest.approx(expected, abs=1e-6)
    assert 0.2 < expected < 0.6  # a fifth is right, and some of the rest by chance


def test_of_equals_the_first_is_kept(job: Job, fits: Fits) -> None:
    grid = json.dumps([{"skill": 0.1}, {"label": "first"}, {"label": "second"}])
    record = read_run(job(grid=grid) / "run.json")
    assert record.tuning is not None and record.tuning.chosen == 1
    assert record.tuning.trials[1].value == record.tuning.trials[2].value
    assert record.params["label"] == "first"


UNDECIDED = "have the same valid NDCG@10, "


def test_a_grid_that_fit_never_reads_is_said(job: Job, fits: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    """The stub reads neither label nor section when it fits."""
    grid = json.dumps([{"label": label, "section": {"b": b}} for label, b in (("x", 1), ("y", 1), ("x", 2))])
    record = read_run(job(grid=grid) / "run.json")
    assert record.tuning is not None and record.tuning.undecided and record.tuning.chosen == 0
    value = f"{record.tuning.trials[0].value:g}"
    assert (
        f"stub: all 3 settings {UNDECIDED}{value}, so that nothing was chosen; look whether fit() reads what they "
        "differ in (label, section.b)\n"
    ) in capsys.readouterr().out
    # One that differs is enough, and a single setting chooses nothing.
    for others in ([{"label": "x"}, {"label": "y"}, {"skill": 0.9}], [{"label": "x"}]):
        tuning = read_run(job(grid=json.dumps(others)) / "run.json").tuning
        assert tuning is None or not tuning.undecided
        assert UNDECIDED not in capsys.readouterr().out


def test_a_grid_of_one_has_nothing_to_choose(job: Job, fits: Fits) -> None:
    grid = json.dumps([{"label": "only"}])
    for seed in (1, 2):
        record = read_run(job(seed=seed, grid=grid) / "run.json")
        assert record.tuning is None and record.params["label"] == "only"


def test_later_repetitions_take_the_tuned_setting(job: Job, fits: Fits) -> None:
    first = job(grid=GRID)
    record = read_run(job(seed=2, grid=GRID, tuned=first / "run.json") / "run.json")
    assert len(fits) == 4  # three settings in repetition 1, one fit in repetition 2
    assert record.params == {"skill": 0.9, "label": "best", "bad": "", "found": 0.0} | SECTION == fits[3]["params"]
    assert record.seed_value == fits[3]["seed"] == derive_seed("toy", "stub", 2) != fits[0]["seed"]
    assert record.tuning == read_run(first / "run.json").tuning


# An ablation's run


def test_a_variant_has_the_random_streams_of_its_base(job: Job, fits: Fits) -> None:
    overlay = json.dumps({"section": {"b": 7}})
    named = {"method": "stub--section.b=7", "module": "stub", "stream": "stub", "out": job.root / "variant"}
    out = job(params=json.dumps(SECTION), overlay=overlay, **named)
    record = read_run(out / "run.json")
    assert record.method == "stub--section.b=7" and record.params["section"] == {"a": 1, "b": 7}
    assert record.seed_value == fits[0]["seed"] == derive_seed("toy", "stub", 1)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_variant_takes_the_tuned_setting_of_its_base(job: Job, fits: Fits, seed: int) -> None:
    first = job(grid=GRID)
    named = {"method": "stub--section.b=7", "module": "stub", "stream": "stub", "out": job.root / "variant"}
    arguments = named | {"grid": GRID, "overlay": json.dumps({"section": {"b": 7}}), "tuned": first / "run.json"}
    record = read_run(job(seed=seed, **arguments) / "run.json")
    assert len(fits) == 4  # nothing is tuned again
    assert (
        record.params
        == {"skill": 0.9, "label": "best", "bad": "", "found": 0.0, "section": {"a": 1, "b": 7}}
        == fits[3]["params"]
    )
    assert (
        record.seed_value == derive_seed("toy", "stub", seed) and record.tuning == read_run(first / "run.json").tuning
    )


def test_a_variant_of_a_tuned_base_waits_for_it(job: Job, fits: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    named = {"method": "variant", "module": "stub", "stream": "stub", "grid": GRID}
    assert "variant: repetition 1 needs --tuned, the run.json of repetition 1 of stub" in refused(job, capsys, **named)
    assert "methods.stub: unknown setting 'skil'" in refused(job, capsys, overlay='{"skil": 1}')
    assert "--overlay: expected settings, found []" in refused(job, capsys, overlay="[]")
