"""What each job is given: its params, its resources and its GPUs; and which jobs go first."""

import os
import re
from pathlib import Path

import pytest

from benchmark.jobs.records import read_run
from benchmark.provenance import ROOT, memory_bytes
from tests.support.project import SEEING, changed_config, copy_of_project, planned, snakemake

NESTED = '''
"""Scores by item number; whether upwards or downwards is a setting in a section."""
import numpy as np
from pydantic import BaseModel, ConfigDict
from benchmark.contract import Recommender

class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sign: float = 0.5
    words: str | None = "x"
    sizes: list[int] = []

class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    warm_start: Section = Section()
    training: Section = Section()

def fit(split, *, seed, params, workdir):
    counts = np.bincount(split.train.target, minlength=split.n_items)
    return Made(counts.astype(np.float32) * params["training"]["sign"])

class Made(Recommender):
    def __init__(self, scores):
        self.scores = scores

    def score(self, cases):
        yield np.tile(self.scores, (len(cases), 1))
'''


def test_params_in_sections_reach_every_repetition(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    (project / "baselines" / "nested.py").write_text(NESTED)
    params = {"warm_start": {"words": 'it\'s "{so}" $HOME', "sizes": [1, 2]}, "training": {"sign": -1, "words": None}}
    entry = {"params": params, "grid": [{}, {"training": {"sign": 1}}]}
    config = changed_config(project, "nested.yaml", only=True, nested=entry)
    done = snakemake(project, "results/runs/planted/nested/seed2/run.json", config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    first, second = (read_run(project / f"results/runs/planted/nested/seed{n}/run.json") for n in (1, 2))
    assert first.tuning is not None and first.tuning.chosen == 1
    assert [trial.params["training"] for trial in first.tuning.trials] == [
        {"sign": sign, "words": None, "sizes": []} for sign in (-1, 1)
    ]
    assert first.params == second.params == first.tuning.trials[1].params
    assert first.params["warm_start"] == {"sign": 0.5, "words": 'it\'s "{so}" $HOME', "sizes": [1, 2]}


def test_wide_runs_and_those_that_others_wait_for_go_first(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    tuned = {"grid": [{"decay": 0.9}, {"decay": 0.6}]}
    wide = {"module": "item_knn", "threads": 2}
    config = changed_config(project, "wide.yaml", only=True, item_knn=tuned, popularity=None, wide=wide)
    output = snakemake(project, "--dry-run", "--printshellcmds", config=config).stdout
    jobs = dict(re.findall(r"method=(\w+, seed=\d).*?priority: (\d+)", output, flags=re.S))
    by_urgency = [("wide", 1), ("wide", 2), ("item_knn", 1), ("item_knn", 2), ("popularity", 1), ("popularity", 2)]
    priorities = [int(jobs[f"{method}, seed={seed}"]) for method, seed in by_urgency]
    assert (
        priorities[0] == priorities[1] > 2 * priorities[2]
        and priorities[2] > priorities[3] == priorities[4] == priorities[5] > 0
    )
    data = re.findall(r"^rule (?:fetch|prepare):.*?priority: (\d+)", output, flags=re.M | re.S)
    assert len(data) == 2 and min(map(int, data)) > priorities[0]


QWEN = {"name": "Qwen/Qwen2.5-3B-Instruct", "revision": "0123abc", "device": "cuda"}


def asked_for(output: str) -> dict[str, dict[str, str]]:
    """Resources of each method's first job, from a dry run."""
    jobs = re.findall(r"method=(\w+), seed=1\n(?: +(?:priority|threads): \d+\n)* +resources: (.*)\n", output)
    return {method: dict(part.split("=") for part in line.split(", ")) for method, line in jobs}


def test_a_dry_run_prints_what_each_job_takes(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    large = {"module": "r2ec", "gpus": 4, "threads": 8, "params": {"backbone": QWEN}}
    config = changed_config(project, "large.yaml", only=True, popularity=None, r2ec_large=large)
    # On this machine no job may ask for more memory than there is: it runs alone.
    machine = memory_bytes() // 10**6
    here = asked_for(snakemake(project, "--dry-run", "--printshellcmds", config=config).stdout)
    assert 0 < int(here["popularity"]["mem_mb"]) <= machine and int(here["r2ec_large"]["mem_mb"]) <= machine
    plenty = ("--resources", "mem_mb=9999999")  # as if there were enough
    output = snakemake(project, "--dry-run", "--printshellcmds", *plenty, config=config).stdout
    resources = asked_for(output)
    assert int(here["r2ec_large"]["mem_mb"]) == min(machine, int(resources["r2ec_large"]["mem_mb"]))
    assert resources["popularity"]["gpu"] == "0" and resources["r2ec_large"]["gpu"] == "4"
    # At least the weights, twice, on each GPU, and their way through main memory; more hours than counting takes
    # minutes.
    assert int(resources["r2ec_large"]["gpu_mem_mb"]) > 12_000 and int(resources["r2ec_large"]["mem_mb"]) > 4 * 6_000
    assert int(resources["popularity"]["runtime"]) < 60 < int(resources["r2ec_large"]["runtime"])
    for rule in ("fetch", "prepare", "tables", "plots", "page"):
        line = re.search(rf"rule {rule}:.*?\n +resources: (.*)\n", output, flags=re.S)
        assert line is not None and "mem_mb=" in line[1] and "runtime=" in line[1]
    assert "benchmark.jobs.launch --seal --gpus 4 --processes 4 benchmark.jobs.run" in output
    assert "benchmark.jobs.launch --seal --gpus 0 --processes 1 benchmark.jobs.run" in output
    table = output[output.index("estimates  ") :]
    assert re.search(r"^run r2ec_large +2 .* 4 +\d+$", table, flags=re.M) and "of one GPU" in table
    assert planned(output)["run"] == 4  # the table is no statistics


def test_what_the_makefile_asks_of_the_workflow_can_be_made(tmp_path: Path) -> None:
    """Targets are files that a rule makes, and not folders that hold them."""
    project = copy_of_project(tmp_path)
    commands = re.findall(r"snakemake .*--quiet all -- (.+)", (ROOT / "Makefile").read_text())
    assert commands
    for targets in commands:
        plan = snakemake(project, "--dry-run", *targets.split(), config="config/config.yaml")
        assert plan.returncode == 0, plan.stdout


def test_a_job_gets_gpus_that_no_other_job_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two repetitions at once on a machine with two GPUs; a method without any sees none."""
    project = copy_of_project(tmp_path)
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '0, GPU-a-{os.getpid()}'\necho '1, GPU-b-{os.getpid()}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TOGETHER", "2")
    (project / "baselines" / "seeing.py").write_text(SEEING)
    methods = {"seeing": {"gpus": 1}, "blind": {"module": "seeing"}}
    config = changed_config(project, "gpus.yaml", only=True, **methods)
    runs = [f"results/runs/planted/{method}/seed{n}/run.json" for method in methods for n in (1, 2)]
    done = snakemake(project, *runs, config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    gpus = [read_run(project / run).report["gpus"] for run in runs]
    assert sorted(map(str, gpus[:2])) == ["0", "1"] and gpus[2:] == ["", ""]
