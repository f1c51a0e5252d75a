"""`benchmark.jobs.run` in two processes, as the rule starts it: one process's results, written by the first alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmark.config.methods import ROOT
from benchmark.jobs.records import read_run
from benchmark.storage.io import read_json
from tests.support.planted import planted, write_prepared
from tests.support.tiny_fits import settings, write_backbone

USERS = 6
# Two settings: the processes fit both together, and the first one alone says which is better.
GRID = [{"recpo": {"tau": 0.1}}, {"recpo": {"tau": 0.5}}]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "toy", planted(n_users=60), test_cases=60, valid_cases=40)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


class Job:
    """One run in so many processes, all its folders under `root`."""

    def __init__(self, data: Path, backbone: Path, root: Path, processes: int, **changes: Any) -> None:
        self.out, self.work, self.log = root / "run", root / "work", root / "log"
        own = {"per_device_train_batch_size": USERS // processes, "learning_rate": 1e-3, "save_steps": 2}
        changes["training"] = own | changes.get("training", {})
        taught = {"steps": 3, "batch_size": USERS // processes, "learning_rate": 1e-3, "held_items": 4}
        changes["warm_start"] = {"states": str(root / "states"), "adapters": taught} | changes.get("warm_start", {})
        self.params = settings(backbone, **changes)
        self.processes = processes
        launch = ["-m", "benchmark.jobs.launch", "--processes", str(processes), "benchmark.jobs.run"]
        names = ["--data", data, "--method", "r2ec", "--work", self.work, "--out", self.out]
        settings_to_try = ["--params", json.dumps(self.params), "--grid", json.dumps(GRID)]
        self.command = [sys.executable, *launch, *map(str, names), *settings_to_try]
        self.environment = os.environ | {"OMP_NUM_THREADS": str(processes), "PYTHONPATH": str(ROOT)}

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)

    def run(self) -> None:
        code = self.start().wait(300)
        assert code == 0, self.log.read_text()[-4000:]

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors of all fits, with their tau in front of the names."""
        tensors = {}
        for model in self.work.glob("*/model"):
            tau = read_json(model / "settings.json")["params"]["recpo"]["tau"]
            tensors |= {f"{tau} {name}": value for name, value in load_file(model / "r2ec.safetensors").items()}
        return tensors


@pytest.fixture(scope="module")
def one_process(data: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(data, backbone, tmp_path_factory.mktemp("one"), 1)
    job.run()
    return job


@pytest.fixture(scope="module")
def two_processes(data: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = Job(data, backbone, tmp_path_factory.mktemp("two"), 2)
    job.run()
    return job


def test_two_processes_give_the_results_of_one(one_process: Job, two_processes: Job) -> None:
    of_two, of_one = two_processes.weights(), one_process.weights()
    assert of_two.keys() == of_one.keys() and {name.split()[0] for name in of_two} == {"0.1", "0.5"}
    for name, value in of_one.items():
        assert float((of_two[name] - value).abs().max()) <= 1e-4, name  # 4 steps of 1e-3
    ranks = [pd.read_parquet(job.out / "rankings.parquet") for job in (one_process, two_processes)]
    assert ranks[0]["case"].tolist() == ranks[1]["case"].tolist()
    assert (ranks[0]["rank"] == ranks[1]["rank"]).mean() >= 0.95  # rounding may swap neighbours
    texts = [pd.read_parquet(job.out / "texts.parquet")["reasoning"].tolist() for job in (one_process, two_processes)]
    assert sum(a == b for a, b in zip(*texts, strict=True)) >= 0.95 * len(texts[0])


def test_the_record_says_how_many_there_were(one_process: Job, two_processes: Job) -> None:
    first, second = (read_run(job.out / "run.json") for job in (one_process, two_processes))
    assert ("processes" in first.hardware, second.hardware["processes"]) == (False, 2)
    assert first.seed_value == second.seed_value and first.report["recpo_steps"] == second.report["recpo_steps"] == 4
    assert first.report["warm_start"] == second.report["warm_start"]
    assert first.tuning is not None and second.tuning is not None
    assert first.tuning.chosen == second.tuning.chosen and len(second.tuning.trials) == 2
    for of_two, of_one in zip(second.report["recpo_log"], first.report["recpo_log"], strict=True):
        assert of_two["reward"] == pytest.approx(of_one["reward"], rel=1e-3)


def test_the_first_process_alone_writes_and_speaks(two_processes: Job) -> None:
    output = two_processes.log.read_text()
    assert output.count("warm start: ") == 2 and output.count("toy r2ec seed 1: test NDCG@10") == 1
    assert sorted(path.name for path in two_processes.out.iterdir()) == [
        "rankings.parquet",
        "run.json",
        "texts.parquet",
    ]
    assert (
        len(list((two_processes.out.parent / "states").glob("*.safetensors"))) == 3
    )  # items, training and validation cases
    assert not list(two_processes.out.parent.rglob(".*.part*"))


def test_a_killed_run_of_two_resumes_to_the_same_results(
    two_processes: Job, data: Path, backbone: Path, tmp_path: Path
) -> None:
    job = Job(data, backbone, tmp_path, 2)
    job.params["warm_start"]["states"] = two_processes.params["warm_start"]["states"]
    launcher = job.start()
    deadline = time.monotonic() + 120
    while not list(job.work.glob("*/recpo/checkpoint-2/trainer_state.json")):
        assert launcher.poll() is None and time.monotonic() < deadline, job.log.read_text()[-3000:]
        time.sleep(0.02)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    assert not job.out.exists()
    time.sleep(1)  # its processes die with it
    job.run()
    for name, value in two_processes.weights().items():
        assert torch.equal(job.weights()[name], value), name
    pd.testing.assert_frame_equal(*(pd.read_parquet(each.out / "rankings.parquet") for each in (job, two_processes)))


def test_a_method_for_one_process_is_refused(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmark.jobs.run", "--data", str(data), "--method", "popularity", "--seed", "1"]
    environment = os.environ | {"RANK": "1", "WORLD_SIZE": "2"}
    done = subprocess.run(
        [*command, "--work", str(tmp_path / "w"), "--out", str(tmp_path / "o")],
        env=environment, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: popularity: popularity trains in one process alone, not in 2; start one\n"
