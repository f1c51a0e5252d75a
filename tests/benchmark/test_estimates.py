"""Estimates of a config's jobs: every one has one, shared work counts once, and how the table reads."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.config.factors import ablations_of
from benchmark.config.methods import ROOT
from benchmark.config.read import read_config, read_config_file
from benchmark.jobs import lm_cost
from benchmark.jobs.estimates import GIB, GPU_SIZE, OUTPUTS, RULES, Estimate, estimate, in_words, of_job, rows, table
from benchmark.jobs.lm_cost import KNOWN, THREAD, Machine
from benchmark.jobs.sizes import USUAL
from benchmark.workload import STATES, Sizes
from tests.support.estimating import NOWHERE, SIZES, toy_config


@pytest.fixture(autouse=True)
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates are of a processor that multiplies in bfloat16, whatever the tests run on."""
    monkeypatch.setattr(lm_cost, "processor_has_bfloat16", lambda: True)


def test_jobs_ask_for_a_reserve() -> None:
    asked_estimate = Estimate(seconds=3600, memory=2e9, gpu_memory=4e9)
    assert (asked_estimate.runtime, asked_estimate.mem_mb, asked_estimate.gpu_mem_mb) == (180, 3000, 4000)
    assert Estimate(seconds=1, memory=1e9).runtime == 15


def test_more_takes_more() -> None:
    def seconds(threads: int = 1, gpus: int = 0, processes: int = 1, **changes: Any) -> Estimate:
        params = {"backbone": {"name": next(iter(KNOWN))}, "training": {"max_steps": 10} | changes}
        return estimate("r2ec", params, USUAL["ml_100k"], gpus=gpus, threads=threads, processes=processes)

    assert seconds(2).seconds < seconds(1).seconds
    assert seconds(1, 1).seconds < seconds(2).seconds and seconds(1, 1).gpu_memory > GIB
    assert seconds(max_steps=20).seconds > seconds().seconds
    twice = seconds(activation_checkpointing=True)
    assert twice.memory < seconds().memory and twice.seconds > seconds().seconds
    assert seconds(2, processes=2).memory > 1.9 * seconds(1).memory
    assert THREAD.times(2) == Machine(4.2e11, 2.8e11, 2.3e11, 0.01, 5.2e10)


def test_only_planned_jobs_are_counted(tmp_path: Path) -> None:
    config = read_config_file(ROOT / "config" / "smoke.yaml")
    planned = [
        ("run", {"dataset": "ml-100k", "method": "sasrec", "seed": "2"}),
        ("fetch_backbone", {}),
        ("run", {"dataset": "ml-100k", "method": "sasrec", "seed": "1"}),
        ("page", {}),
        ("all", {}),
    ]
    counts = {row.name: len(row.jobs) for row in rows(config, tmp_path, planned)}
    assert counts == {"fetch_backbone": 1, "run sasrec": 2, "page": 1}
    text = table(config, tmp_path, planned, cores=2)
    total = sum(job.seconds * row.threads for row in rows(config, tmp_path, planned) for job in row.jobs)
    longest = max(job.seconds for row in rows(config, tmp_path, planned) for job in row.jobs)
    assert longest > total / 2
    assert f"In all {in_words(total)} of one core, about {in_words(longest)} on 2 cores: these jobs alone." in text
    assert "whatever of it is done already" in table(config, tmp_path) and "these jobs" not in table(config, tmp_path)
    assert [row.name for row in rows(config, tmp_path, [])] == []


def test_every_rule_that_runs_a_command_has_an_estimate() -> None:
    """A rule without one would be missing in the plan."""
    files = (ROOT / "workflow" / "rules").glob("*.smk")
    parts = [part for file in files for part in re.split(r"^(?=rule )", file.read_text(), flags=re.M)[1:]]
    ran = {part.split(":")[0].removeprefix("rule ") for part in parts if "\n    shell:\n" in part}
    assert ran == {*RULES, "run"} and set(OUTPUTS) < set(RULES)
    assert all("\n    message:\n" in part for part in parts if "\n    shell:\n" in part)


CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_job_of_every_config_has_an_estimate(path: Path) -> None:
    config = read_config_file(path)
    every_row = list(rows(config, NOWHERE))
    runs = sum(config.seeds_of(name) for name in config.methods) * len(config.datasets)
    assert sum(len(row.jobs) for row in every_row if row.name.startswith("run ")) == runs
    for row in every_row:
        for job in row.jobs:
            assert job.known and 0 < job.seconds < 14 * 86400 and 0 < job.memory < 256 * GIB, row.name
            assert (job.gpu_memory > 0) == (row.gpus > 0) and job.gpu_memory < GPU_SIZE, row.name


@pytest.mark.parametrize(("name", "thinks"), [("decoupled.yaml", True), ("config.yaml", False)])
def test_the_table_by_what_is_computed_is_counted_where_it_is_made(name: str, thinks: bool) -> None:
    config = read_config_file(ROOT / "config" / name)
    assert ("thinking" in {row.name for row in rows(config, NOWHERE)}) == thinks


def test_repetition_1_fits_the_grid() -> None:
    config = toy_config(sasrec={"grid": [{"learning_rate": 0.1}, {"learning_rate": 0.01}, {"epochs": 1}]})
    first, second = (of_job(config, ablations_of(config), "toy", "sasrec", seed, NOWHERE) for seed in (1, 2))
    assert 2 * second.seconds < first.seconds < 3 * second.seconds and first.memory == second.memory


R2EC: dict[str, Any] = {
    "backbone": {"name": "resources/smollm2-135m-instruct"},
    "rollouts": {"max_new_tokens": 8},
    "warm_start": {"cases": 100, "adapters": {"steps": 5}},
    "training": {"max_steps": 5},
}


def test_trials_share_states_and_warm_starts() -> None:
    """Two rates of RecPO begin from one warm start, and a third from another.

    A result on disk counts for the first trial.
    """
    grid = [
        {},
        {"training": {"learning_rate": 0.1}},
        {"training": {"max_steps": 5}, "warm_start": {"adapters": {"steps": 0}}},
    ]
    config = toy_config(r2ec={"params": R2EC, "grid": grid, "seeds": 1})
    sizes = USUAL["ml_100k"]

    def single_fit(scored: int, **changes: Any) -> Estimate:
        return estimate("r2ec", R2EC | changes, replace(sizes, test=scored), gpus=0, threads=1, processes=1)

    with_adapters, without = single_fit(sizes.valid), single_fit(sizes.valid, warm_start={"cases": 100})
    states = {name for name in with_adapters.kept if name[0] == STATES}
    assert states == {name for name in without.kept if name[0] == STATES} and len(states) == 2
    assert len(with_adapters.kept) == 5 and len(without.kept) == 3 and all(with_adapters.kept.values())
    expected = 2 * with_adapters.seconds - sum(with_adapters.kept.values())
    expected += without.seconds - sum(with_adapters.kept[name] for name in states)
    expected += single_fit(sizes.test).seconds - single_fit(0).seconds  # of the chosen one
    estimated = of_job(config, ablations_of(config), "toy", "r2ec", 1, NOWHERE)
    assert estimated.seconds == pytest.approx(expected) and len(estimated.kept) == 6


def test_jobs_share_states_and_a_repetition_s_warm_start() -> None:
    """An ablation of RecPO finds its base's warm start, the untrained row its table, another repetition the states
    alone."""
    untrained = {"backbone": R2EC["backbone"], "rollouts": R2EC["rollouts"], "training": {"max_steps": 0}}
    rows_of_it = {"r2ec": {"params": R2EC}, "r2ec_untrained": {"module": "r2ec", "params": untrained, "seeds": 1}}
    value = toy_config(**rows_of_it).model_dump(mode="json")
    value["ablations"] = {"beta": {"base": "r2ec", "seeds": 1, "values": {"0": {"recpo": {"beta": 0}}}}}
    config = read_config(value)
    ablations = ablations_of(config)
    jobs_of = {row.name: row.jobs for row in rows(config, NOWHERE)}
    first, second = (of_job(config, ablations, "toy", "r2ec", seed, NOWHERE) for seed in (1, 2))
    states = sum(seconds for name, seconds in first.kept.items() if name[1] == STATES)
    assert 0 < states < sum(first.kept.values()) < first.seconds == second.seconds
    assert [job.seconds for job in jobs_of["run r2ec"]] == pytest.approx([first.seconds, second.seconds - states])
    (run,) = ablations.variants
    variant = of_job(config, ablations, "toy", run, 1, NOWHERE)
    assert [job.seconds for job in jobs_of["ablations of r2ec"]] == pytest.approx(
        [variant.seconds - sum(first.kept.values())]
    )
    bare = of_job(config, ablations, "toy", "r2ec_untrained", 1, NOWHERE)
    (table_of_items,) = bare.kept.values()
    assert [job.seconds for job in jobs_of["run r2ec_untrained"]] == pytest.approx([bare.seconds - table_of_items])


@pytest.mark.parametrize("module", ["d3", "llm_rerank"])
def test_each_sasrec_within_a_pipeline_is_counted(module: str) -> None:
    def seconds(name: str, *sasrec: dict[str, Any]) -> float:
        llm = {"backbone": {"name": "resources/smollm2-135m-instruct"}, "sasrec": list(sasrec)}
        params = {"epochs": 5} if name == "sasrec" else llm
        return estimate(name, params, SIZES, gpus=0, threads=1, processes=1).seconds

    five_epochs, ten_epochs = {"epochs": 5}, {"epochs": 10}
    five = estimate("sasrec", ten_epochs, SIZES, gpus=0, threads=1, processes=1).seconds - seconds("sasrec")
    more = seconds(module, five_epochs, ten_epochs) - seconds(module, five_epochs)
    assert more == pytest.approx(2 * five) and five > 0
    assert seconds(module, five_epochs, ten_epochs) > seconds(module, ten_epochs)


def test_ablations_count_each_run_once() -> None:
    entry = {"grid": [{"learning_rate": 0.1}, {"learning_rate": 0.01}], "seeds": 1, "params": {"epochs": 15}}
    value: dict[str, Any] = toy_config(sasrec=entry).model_dump(mode="json")
    value["ablations"] = {
        "length": {"base": "sasrec", "values": {"15": {}, "10": {"epochs": 10}}},
        "both": {"base": "sasrec", "seeds": 2, "values": {"half": {"epochs": 10}, "quarter": {"epochs": 5}}},
    }
    config = read_config(value)
    jobs_of = {row.name: row.jobs for row in rows(config, NOWHERE)}
    # Two values with two seeds each, and a second seed of the base; each takes the tuned setting and fits once.
    assert len(jobs_of["run sasrec"]) == 1 and len(jobs_of["ablations of sasrec"]) == 5
    assert len(jobs_of["ablation"]) == len(jobs_of["ablation_plot"]) == 2 and len(jobs_of["claims"]) == 1
    jobs = {(run, seed): of_job(config, ablations_of(config), "toy", run, seed, NOWHERE) for run in
            ("sasrec", "sasrec--epochs=10", "sasrec--epochs=5") for seed in (1, 2)}  # fmt: skip
    assert sum(job.seconds for job in jobs_of["ablations of sasrec"]) == pytest.approx(
        sum(job.seconds for place, job in jobs.items() if place != ("sasrec", 1))
    )
    full, ten, five = (jobs[run, 2].seconds for run in ("sasrec", "sasrec--epochs=10", "sasrec--epochs=5"))
    assert full - ten == pytest.approx(ten - five) and ten > five
    assert jobs["sasrec", 1].seconds > full and jobs["sasrec--epochs=10", 1] == jobs["sasrec--epochs=10", 2]


@pytest.mark.parametrize(("items", "train", "seconds"), [(3496, 71_021, 1.3), (10_000, 88_000, 24.2)])
def test_ease_asks_for_its_dense_matrix(items: int, train: int, seconds: float) -> None:
    """Seconds of a fit on one thread: movielens-2016, and walks of 8,000 made-up users. 8 bytes for each pair of
    items."""
    sizes = Sizes(items=items, train=train, valid=500, test=1000)
    ease, knn = (estimate(name, {}, sizes, gpus=0, threads=1, processes=1) for name in ("ease", "item_knn"))
    assert ease.memory - knn.memory == 8 * items**2 and ease.known
    assert 1 / 3 < (ease.seconds - knn.seconds) / seconds < 3


def test_the_table_has_a_line_per_rule_and_method(tmp_path: Path) -> None:
    lm = {"backbone": {"name": "Qwen/Qwen2.5-3B-Instruct", "revision": "1", "device": "cuda"}}
    config = toy_config(popularity=None, r2ec={"gpus": 2, "threads": 4, "params": lm})
    text = table(config, tmp_path)
    lines = {line[:14].strip(): line.split() for line in text.splitlines()}
    assert lines["run popularity"][2] == "2" and lines["run popularity"][-2:] == ["-", "-"]
    assert lines["run r2ec"][2] == "2" and lines["run r2ec"][-2] == "2" and int(lines["run r2ec"][-1]) > 10
    assert "of one GPU" in text and "nothing here has run on a GPU" in text
    assert "GPU:" not in table(toy_config(popularity=None), tmp_path)
    assert "nothing here has run on a GPU" not in table(toy_config(popularity=None), tmp_path)
    lm["backbone"]["name"] = "some/lm"
    unknown = next(
        line for line in table(toy_config(r2ec={"gpus": 2, "params": lm}), tmp_path).splitlines() if "r2ec" in line
    )
    assert unknown.split() == ["run", "r2ec", "2", "?", "?", "?", "1", "2", "?"]


def test_the_command_prints_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmark.jobs.estimates", "--configfile", str(ROOT / "config" / "smoke.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "run sasrec" in done.stdout
    done = subprocess.run([*command[:-1], str(tmp_path / "gone.yaml")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "gone.yaml: no such file" in done.stderr
