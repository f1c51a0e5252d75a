"""The registered claims: their verdicts by rule, their family, and runs that may not stand for them."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmark.analysis import registered as module
from benchmark.analysis.registered import (
    CANT_TELL,
    CONTRADICTS,
    NOT_RUN,
    NOT_WORTH,
    SUPPORTS,
    as_markdown,
    by_dataset,
    measure,
    registered,
    verdict,
    verdicts,
    was_registered,
)
from benchmark.analysis.trainings import Components, Part, judge
from benchmark.config.factors import Factor, ablations_of
from benchmark.config.methods import all_params, load_method
from benchmark.config.read import read_config_file
from benchmark.config.schema import ClaimConfig
from benchmark.provenance import ROOT
from tests.support.results_tree import write_results
from tests.support.terminal import without_make

CONFIG = "config/claims.yaml"


def claim(expect: str = "higher", **more: object) -> ClaimConfig:
    margin = {"margin": 0.05} if expect == "equal" else {}
    entry = {"says": "It helps.", "value": "with", "against": "without", "metric": "NDCG@100", "smallest_effect": 0.05}
    return ClaimConfig.model_validate(entry | {"expect": expect} | margin | more)


def factor(*claims: ClaimConfig, datasets: tuple[str, ...] = ("one", "two"), seeds: int = 5) -> Factor:
    runs = {"with": "r2ec_claims", "without": "r2ec_claims--recpo.reasoning=false"}
    return Factor(
        name="f", title="F", datasets=list(datasets), seeds=seeds, base="with", runs=runs, claims=list(claims)
    )


@pytest.mark.parametrize(
    ("expect", "difference", "error", "p_holm", "expected"),
    [
        ("higher", 0.10, 0.01, 0.001, SUPPORTS),
        ("higher", -0.10, 0.01, 0.001, CONTRADICTS),
        ("lower", -0.10, 0.01, 0.001, SUPPORTS),
        ("higher", 0.10, 0.01, 0.06, CANT_TELL),  # not after the correction
        ("higher", 0.02, 0.005, 0.001, NOT_WORTH),  # there, and too small to be worth having
        ("higher", 0.00, 0.01, 1.0, NOT_WORTH),
        ("equal", 0.00, 0.01, 1.0, SUPPORTS),
        ("equal", 0.02, 0.005, 0.001, SUPPORTS),  # not 0, and still equal
        ("equal", 0.10, 0.01, 0.001, CONTRADICTS),
        ("equal", 0.06, 0.01, 0.001, CANT_TELL),  # beyond the margin or not
        ("equal", 0.00, 0.10, 1.0, CANT_TELL),
    ],
)
def test_verdicts_by_rule(expect: str, difference: float, error: float, p_holm: float, expected: str) -> None:
    judged = judge([Components(difference, Part(error**2, 1e6), (), (5, 5), True)])
    assert verdict(claim(expect), judged, 0.05, p_holm) == expected


@pytest.fixture
def any_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "was_registered", lambda *_: True)


def test_a_claim_is_judged_once_over_datasets_and_trainings(tmp_path: Path, any_commit: None) -> None:
    names = {"r2ec_claims": 0.9, "r2ec_claims--recpo.reasoning=false": 0.1}
    write_results(tmp_path, ["one", "two"], names, seeds=5)
    two_claims = factor(claim(), claim("lower"))
    measured = [measure(two_claims, entry, tmp_path, CONFIG) for entry in two_claims.claims]
    frame = verdicts(measured)
    assert frame.verdict.tolist() == [SUPPORTS, CONTRADICTS]
    assert frame.family_size.tolist() == [2, 2]
    assert frame.covers.unique().tolist() == ["users and trainings"]
    assert frame.p_holm.tolist() == pytest.approx((2 * frame.p).tolist())
    rows = by_dataset(measured)
    assert rows.dataset.tolist() == ["one", "two", "one", "two"]
    assert frame.difference[0] == pytest.approx(rows.difference[:2].mean())  # each dataset weighs the same
    assert len(rows.by_training[0].split()) == 5
    runs = tmp_path.glob("runs/*/*/seed*/run.json")
    seconds = [json.loads(path.read_text())["seconds"] for path in runs]
    assert frame.seconds.tolist() == pytest.approx(
        [sum(two_claims["fit"] + two_claims["score"] for two_claims in seconds)] * 2
    )
    assert len(seconds) == 20 and frame.seconds[0] > 0
    assert "**supports**" in as_markdown(frame)


def test_what_was_not_run_counts_in_the_family(tmp_path: Path, any_commit: None) -> None:
    names = {"r2ec_claims": 0.9, "r2ec_claims--recpo.reasoning=false": 0.1}
    write_results(tmp_path, ["one", "two"], names, seeds={"r2ec_claims": 5, "r2ec_claims--recpo.reasoning=false": 4})
    complete, lacking = factor(claim(), seeds=4), factor(claim())
    measured = [
        measure(complete, complete.claims[0], tmp_path, CONFIG),
        measure(lacking, lacking.claims[0], tmp_path, CONFIG),
    ]
    frame = verdicts(measured)
    assert frame.verdict.tolist() == [SUPPORTS, NOT_RUN]
    assert frame.missing[1] == "18 of 20 runs are there"
    assert frame.p_holm[0] == pytest.approx(2 * frame.p[0])
    assert np.isnan(frame.difference[1])
    page = as_markdown(frame)
    assert "18 of 20 runs are there" in page
    assert "| NDCG@100 | 4 |" in page and "| NDCG@100 | 5 |" in page  # each claim's own number of trainings


def test_runs_of_another_claim_do_not_stand_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"r2ec_claims": 0.9, "r2ec_claims--recpo.reasoning=false": 0.1}
    write_results(tmp_path, ["one"], names, seeds=2)
    written = "ablations:\n  f:\n    claims:\n      - {says: It helps., value: with, against: without, "
    written += "metric: NDCG@100, smallest_effect: 0.05}\n"
    monkeypatch.setattr(module, "_config_at", lambda *_: written)
    assert was_registered(claim(), "abc", CONFIG)
    assert not was_registered(claim("lower"), "abc", CONFIG)  # turned round after the fact
    assert not was_registered(claim(smallest_effect=0.01), "abc", CONFIG)
    turned = factor(claim("lower"), datasets=("one",), seeds=2)
    measured = measure(turned, turned.claims[0], tmp_path, CONFIG)
    assert measured.missing.endswith("of its runs had no such claim")
    assert verdicts([measured]).verdict.tolist() == [NOT_RUN]


@pytest.mark.parametrize("earlier", ["a: [", "ablations: [1]", "ablations: {f: }", "ablations: {f: {claims: 3}}"])
def test_a_config_that_no_longer_can_be_read_registered_nothing(earlier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_config_at", lambda *_: earlier)
    assert not was_registered(claim(), "abc", CONFIG)
    monkeypatch.setattr(module, "_config_at", lambda *_: "ablations: {f: {claims: [{says: x, of_old: 1}, 5]}}")
    assert not was_registered(claim(), "abc", CONFIG)


def test_a_commit_that_is_not_there_registered_nothing() -> None:
    assert not was_registered(claim(), "0" * 40, CONFIG)


@pytest.mark.skipif(not shutil.which("make"), reason="make is missing")
def test_make_claims_takes_some_factors_and_refuses_others() -> None:
    def make(factors: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", "-o", ".venv/.ready", *options, "claims", f"FACTORS={factors}"]
        return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env=without_make())

    # It stops before it makes a folder or calls anything. A method's name stands in the config, too, and is no factor.
    for wrong in ("prats", "title_sft", "parts prats"):
        done = make(wrong)
        assert done.returncode == 2
        said = "the section ablations of config/claims.yaml has no such factor; say one of its names"
        assert done.stdout == f"error: FACTORS={wrong.split()[-1]}: {said}\n"
    names = list(ablations_of(read_config_file(ROOT / CONFIG)).factors)
    planned = make(" ".join(names), "-n").stdout
    assert all(f" results/claims/{name}.md results/plots/claims/{name}.png " in planned for name in names)
    check = planned.partition("mkdir")[0]
    assert subprocess.run(check, shell=True, cwd=ROOT, capture_output=True).returncode == 0


def test_the_registered_family_is_whole() -> None:
    """Each claim names statistic, effect, datasets and trainings. No run has the random numbers of an earlier row."""
    family = registered(list(ablations_of(read_config_file(ROOT / CONFIG)).factors.values()))
    assert len(family) == 12
    for factor_of_claim, entry in family:
        # Rows that rank by beams retrieve 20 items: what ends later would read ties.
        assert entry.metric == ("NDCG@20" if factor_of_claim.streams else "NDCG@100")
        against_r2ec = "R2ec" in (entry.value, entry.against) and bool(factor_of_claim.streams)
        assert entry.smallest_effect == (0.1 if against_r2ec else 0.05)
        assert len(factor_of_claim.datasets) >= 2
        assert factor_of_claim.seeds >= 5
        assert factor_of_claim.streams or factor_of_claim.runs[factor_of_claim.base] == "r2ec_claims"
        assert not [other for other in factor_of_claim.claims if other.smallest_effect is None]


def test_rows_with_streams_of_their_own_are_not_paired(tmp_path: Path, any_commit: None) -> None:
    """Of unpaired trainings each side's variance counts; of paired ones that of their difference."""
    names = {"r2ec_claims": 0.9, "title_sft": 0.1}
    write_results(tmp_path, ["one", "two"], names, seeds=5)
    runs = {"with": "r2ec_claims", "without": "title_sft"}
    paired = factor(claim()).model_copy(update={"runs": runs, "streams": dict.fromkeys(runs.values(), "shared")})
    apart = paired.model_copy(update={"streams": {run: run for run in runs.values()}})
    parts = [measure(rows, claim(), tmp_path, CONFIG).datasets[0].parts for rows in (paired, apart)]
    assert len(parts[0].trainings) == 1 and len(parts[1].trainings) == 2
    assert parts[0].difference == parts[1].difference


def test_registered_rows_are_paired_where_they_begin_with_one_tuning() -> None:
    factors = ablations_of(read_config_file(ROOT / CONFIG)).factors
    assert factors["signal"].share_random_numbers("in the input", "in the decoding")
    assert factors["thoughts"].share_random_numbers("S-DPO", "title tuning")
    assert not factors["thoughts"].share_random_numbers("R2ec", "title tuning")


def test_tuned_rows_are_held_against_rows_that_train_for_as_many_steps() -> None:
    """Of title tuning and of what a row trains after it, 16 cases each."""
    config = read_config_file(ROOT / CONFIG)

    def steps(row: str) -> tuple[int, int]:
        params = all_params(load_method(row), config.method(row).params)
        trained = [params.get(name, 0) for name in ("max_steps", "preference_steps", "hybrid_steps")]
        return sum(trained), params["users_per_step"]

    assert [steps(row) for row in ("s_dpo", "title_sft", "llara", "d3")] == [(80, 16)] * 4
