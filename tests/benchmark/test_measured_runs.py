"""Estimates against measured runs: seconds and memory of R2ec, of all small jobs, and of the outputs."""

import json
from pathlib import Path

import pytest

from benchmark.config.factors import ablations_of
from benchmark.config.methods import ROOT
from benchmark.config.read import read_config_file
from benchmark.config.schema import Config
from benchmark.jobs import lm_cost
from benchmark.jobs.estimates import of_job, of_rule, output_seconds
from benchmark.storage.checksums import seal
from tests.support.estimating import NOWHERE


@pytest.fixture(autouse=True)
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates are of a processor that multiplies in bfloat16, whatever the tests run on."""
    monkeypatch.setattr(lm_cost, "processor_has_bfloat16", lambda: True)


def untuned() -> Config:
    """config.yaml with R2ec's params but without its grid, on two threads, as these runs were measured."""
    config = read_config_file(ROOT / "config" / "config.yaml")
    measured = config.method("r2ec").model_copy(update={"grid": [], "threads": 2})
    return config.model_copy(update={"methods": config.methods | {"r2ec": measured}})


@pytest.mark.parametrize(("seconds", "mib"), [(338 + 72, 8424), (489, 6390)], ids=["3b02528", "cc4e7f8"])
def test_within_a_third_of_measured_runs(seconds: float, mib: float) -> None:
    """R2ec of config.yaml on ml-100k at two commits: seconds and peak memory.

    Its warm start taught no adapters then.
    """
    config = untuned()
    params = config.method("r2ec").params
    params["warm_start"]["adapters"]["steps"] = params["lora"]["layers_from"] = 0
    estimated = of_job(config, ablations_of(config), "ml-100k", "r2ec", 1, NOWHERE)
    assert estimated.seconds == pytest.approx(seconds, rel=1 / 3) and estimated.memory / 2**20 == pytest.approx(
        mib, rel=1 / 3
    )


def test_within_a_third_of_a_measured_run_with_taught_adapters() -> None:
    """R2ec of config.yaml on movielens-2016 at commit 99ad0bc: 406 + 90 s, and some 230 for the states that it found
    encoded."""
    config = untuned()
    estimated = of_job(config, ablations_of(config), "movielens-2016", "r2ec", 1, NOWHERE)
    assert estimated.seconds == pytest.approx(726, rel=1 / 3) and estimated.memory / 2**20 == pytest.approx(
        5014, rel=1 / 3
    )


def test_memory_of_an_lm_that_only_reads_and_writes() -> None:
    """The untrained R2ec of config.yaml on complete-journey at commit cc4e7f8: 3,179 MiB at the peak."""
    config = read_config_file(ROOT / "config" / "config.yaml")
    estimated = of_job(config, ablations_of(config), "complete-journey", "r2ec_untrained", 1, NOWHERE)
    assert estimated.memory / 2**20 == pytest.approx(3179, rel=0.1)


# Seconds of every job of smoke.yaml on a busy machine with 2 cores: an output's, or seed 1's and 2's.
SMOKE = {
    ("popularity", "planted"): (0.78, 0.81),
    ("popularity", "ml-100k"): (0.75, 0.85),
    ("item_knn", "planted"): (0.88, 0.81),
    ("item_knn", "ml-100k"): (1.15, 0.89),
    ("sasrec", "planted"): (7.77, 5.58),
    ("sasrec", "ml-100k"): (7.38, 5.43),
    ("r2ec", "planted"): (56.26,),
    ("r2ec", "ml-100k"): (123.42,),
}
SMOKE_OUTPUTS = {
    ("table", "planted"): 1.6,
    ("table", "ml-100k"): 1.6,
    ("tables", None): 1.6,
    ("against", None): 2,
    ("page", None): 2,
}
SMOKE_OUTPUTS |= {("plots", "planted"): 3.4, ("plots", "ml-100k"): 3.4}
SMOKE_COUNTS = {"planted": (60, 1558, 194, 196), "ml-100k": (906, 600, 200, 200)}


def test_small_jobs_are_within_a_factor_of_3_of_measured_ones(tmp_path: Path) -> None:
    config = read_config_file(ROOT / "config" / "smoke.yaml")
    ablations = ablations_of(config)
    for name, counts in SMOKE_COUNTS.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        about = {"counts": dict(zip(("items", "train", "valid", "test"), counts, strict=True))}
        (tmp_path / "data" / name / "dataset.json").write_text(json.dumps(seal(about)))
    measured, estimated = [], []
    for (method, dataset), seconds in SMOKE.items():
        for seed, measured_seconds in enumerate(seconds, start=1):
            measured.append(measured_seconds)
            estimated.append(of_job(config, ablations, dataset, method, seed, tmp_path).seconds)
    for rule, dataset, measured_seconds in (
        ("fetch", "planted", 1), ("fetch", "ml-100k", 2), ("prepare", "planted", 0.71), ("prepare", "ml-100k", 0.73)
    ):  # fmt: skip
        job = of_rule(config, ablations, rule, {"dataset": dataset}, tmp_path)
        measured.append(measured_seconds)
        estimated.append(job.seconds if job else 0)
    for (rule, of), measured_seconds in SMOKE_OUTPUTS.items():
        job = of_rule(config, ablations, rule, {"dataset": of} if of else {}, tmp_path)
        measured.append(measured_seconds)
        estimated.append(job.seconds if job else 0)
    wrong = [
        (measured_seconds, thought)
        for measured_seconds, thought in zip(measured, estimated, strict=True)
        if not 1 / 3 < thought / measured_seconds < 3
    ]
    assert not wrong and sum(estimated) == pytest.approx(sum(measured), rel=0.4)


@pytest.mark.parametrize(
    ("rule", "compared", "cases", "seconds"),
    [
        ("statistics", 3, [150], 1.8),
        ("statistics", 9, [1000] * 3, 3.3),
        ("statistics", 9, [6000], 2.6),
        ("overall_statistics", 9, [1000] * 3, 2.1),
        ("against_statistics", 3, [150], 1.6),
        ("against_statistics", 9, [1000] * 3, 2.2),
        ("against_statistics", 9, [6000], 2.0),
        ("table", 3, [150], 1.4),
        ("table", 9, [1000] * 3, 1.9),
        ("table", 9, [6000], 1.5),
        ("tables", 3, [150], 1.4),
        ("tables", 9, [1000] * 3, 2.0),
        ("tables", 9, [6000], 1.6),
        ("plots", 3, [150], 4.1),
        ("plots", 9, [1000] * 3, 11.8),
        ("plots", 9, [6000], 5.0),
        ("against", 3, [150], 2.5),
        ("against", 9, [1000] * 3, 3.2),
        ("against", 9, [6000], 2.8),
        ("page", 3, [150], 2.1),
        ("page", 9, [1000] * 3, 2.8),
        ("page", 9, [6000], 3.0),
    ],
)
def test_outputs_are_within_a_quarter_of_measured_ones(
    rule: str, compared: int, cases: list[int], seconds: float
) -> None:
    """Seconds of the processor, of made-up rankings, each command by itself."""
    assert output_seconds(rule, compared, cases) == pytest.approx(seconds, rel=0.25)
