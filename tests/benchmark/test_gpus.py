"""GPUs lent to jobs: no two jobs hold one, a dead job's are free again. The GPUs are a script that says what nvidia-smi
says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.config.methods import ROOT
from benchmark.errors import InputError
from benchmark.jobs import gpus
from benchmark.jobs.gpus import Gpu
from benchmark.jobs.launch import LAUNCHER, command_line, environment, is_main_process

# A job: says what it sees and when, and ends when it is told to, or by itself.
JOB = """
import json, os, pathlib, sys, time
folder, name, seconds = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
rank = os.environ.get("RANK", "")
about = {"gpus": os.environ["CUDA_VISIBLE_DEVICES"], "pid": os.getpid(), "start": time.monotonic(),
         "order": os.environ["CUDA_DEVICE_ORDER"], "threads": os.environ.get("OMP_NUM_THREADS")}
(folder / f"{name}{rank}.part").write_text(json.dumps(about))
(folder / f"{name}{rank}.part").rename(folder / f"{name}{rank}.started")
sys.path.insert(0, ".")
from benchmark.jobs.launch import end_with_launcher
end_with_launcher()
while time.monotonic() < about["start"] + seconds and not (folder / f"{name}.stop").exists():
    time.sleep(0.02)
(folder / f"{name}{rank}.part").write_text(str(time.monotonic()))
(folder / f"{name}{rank}.part").rename(folder / f"{name}{rank}.ended")
"""


class Machine:
    """A machine with so many GPUs, and jobs on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        (folder / "job.py").write_text(JOB)
        monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{folder}")
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        for name in ("CUDA_VISIBLE_DEVICES", "RANK"):
            monkeypatch.delenv(name, raising=False)
        self.jobs: list[subprocess.Popen[str]] = []

    def shows(self, script: str) -> None:
        """From here on nvidia-smi is this shell script."""
        program = self.folder / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        self.monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def has(self, count: int) -> None:
        self.shows("\n".join(f"echo '{i}, GPU-{i}{i}aa-{'b' * 8}'" for i in range(count)))

    def start(self, name: str, count: int, seconds: float = 60, *options: str) -> subprocess.Popen[str]:
        launch = ["-m", "benchmark.jobs.launch", "--gpus", str(count), "--locks", str(self.folder / "locks"), *options]
        command = [sys.executable, *launch, "job", str(self.folder), name, str(seconds)]
        job = subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE)
        self.jobs.append(job)
        return job

    def wait(self, name: str, event: str = "started") -> Any:
        path = self.folder / f"{name}.{event}"
        deadline = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < deadline, f"{path.name} is not there"
            time.sleep(0.01)
        return json.loads(path.read_text())

    def has_started(self, name: str) -> bool:
        return (self.folder / f"{name}.started").exists()

    def stop(self, name: str) -> None:
        (self.folder / f"{name}.stop").touch()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    new_machine = Machine(tmp_path, monkeypatch)
    yield new_machine
    for job in new_machine.jobs:
        if job.poll() is None:
            job.kill()
        job.wait()
        if job.stderr is not None:
            job.stderr.close()


TWO = [Gpu("0", "GPU-00aa-bbbbbbbb"), Gpu("1", "GPU-11aa-bbbbbbbb")]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, TWO),
        ("1,0", TWO[::-1]),
        (" 1 ", TWO[1:]),
        ("GPU-11aa-bbbbbbbb", TWO[1:]),  # numbers go on: not every program takes UUIDs
        ("GPU-0", TWO[:1]),  # CUDA takes their beginnings
        ("MIG-7", [Gpu("MIG-7", "MIG-7")]),
        ("0,-1,1", TWO[:1]),
        ("NoDevFiles", []),
        ("", []),
    ],
)
def test_what_a_job_may_use(machine: Machine, named: str | None, expected: list[Gpu]) -> None:
    machine.has(2)
    if named is not None:
        machine.monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible() == expected


def test_without_nvidia_smi_there_is_what_is_named(machine: Machine) -> None:
    machine.monkeypatch.setenv("PATH", str(machine.folder))
    assert gpus.visible() == []
    machine.monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert gpus.visible() == [Gpu("0", "0"), Gpu("3", "3")]


def test_what_cannot_be_is_one_sentence(machine: Machine) -> None:
    machine.has(2)
    with pytest.raises(InputError, match=r"^the job wants 3 GPUs, but this machine shows 0, 1; lower `gpus` or run it"):
        gpus.hold(3, machine.folder / "locks")
    for named in ("2", "GPU-", "x"):
        machine.monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        with pytest.raises(
            InputError, match=f"^CUDA_VISIBLE_DEVICES names GPU '{named}', but nvidia-smi shows 0, 1; correct"
        ):
            gpus.visible()
    machine.monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    machine.shows("echo 'No devices were found' && exit 6")
    with pytest.raises(InputError, match=r"^nvidia-smi ends with code 6 \(No devices were found\); repair the driver"):
        gpus.visible()
    machine.has(0)
    job = machine.start("none", 1)
    assert job.wait(60) == 2 and job.stderr is not None
    assert (
        job.stderr.read()
        == "error: the job wants 1 GPU, but this machine shows none; lower `gpus` or run it elsewhere\n"
    )


def test_a_plan_says_that_gpus_are_missing(machine: Machine) -> None:
    machine.has(2)
    assert gpus.too_few(0) == gpus.too_few(2) == ""
    assert gpus.too_few(3) == (
        "Jobs ask for up to 3 GPUs each, and this machine shows 2: run here, they fail; lower `gpus` or run them "
        "elsewhere."
    )
    machine.has(0)
    assert "up to 1 GPU each, and this machine shows none" in gpus.too_few(1)
    machine.shows("echo broken; exit 9")
    assert gpus.too_few(1).startswith("Jobs ask for up to 1 GPU each: nvidia-smi ends with code 9 (broken); repair")


def test_a_job_without_gpus_sees_none(machine: Machine) -> None:
    machine.has(2)
    job = machine.start("plain", 0, 0.0)
    assert job.wait(60) == 0
    assert machine.wait("plain") | {"pid": 0, "start": 0} == {
        "gpus": "",
        "order": "PCI_BUS_ID",
        "threads": "5",
        "pid": 0,
        "start": 0,
    }


def test_no_two_jobs_hold_one_gpu(machine: Machine) -> None:
    """Seven jobs of one to three GPUs on four, all at once."""
    machine.has(4)
    counts = [1, 3, 2, 1, 3, 2, 1]
    for number, count in enumerate(counts):
        machine.start(f"job{number}", count, 0.3)
    held = []
    for number, count in enumerate(counts):
        ended, started = machine.wait(f"job{number}", "ended"), machine.wait(f"job{number}")
        gpus = started["gpus"].split(",")
        assert len(set(gpus)) == count and set(gpus) <= set("0123")
        held += [(gpu, started["start"], ended) for gpu in gpus]
    assert len(held) == 13
    for i, (gpu, start, end) in enumerate(held):
        for other, begun, done in held[i + 1 :]:
            assert gpu != other or end <= begun or done <= start


def test_a_killed_job_gives_its_gpus_back(machine: Machine) -> None:
    machine.has(2)
    first = machine.start("first", 2)
    machine.wait("first")
    second = machine.start("second", 1, 0.0)
    assert second.stderr is not None and second.stderr.readline() == "waiting for 1 GPUs: 0 of 2 are free\n"
    assert not machine.has_started("second")
    first.send_signal(signal.SIGKILL)
    assert machine.wait("second")["gpus"] == "0"


def test_who_wants_many_is_not_passed_by_who_wants_few(machine: Machine) -> None:
    machine.has(2)
    machine.start("one", 1)
    machine.wait("one")
    wide = machine.start("wide", 2, 0.0)
    assert wide.stderr is not None and wide.stderr.readline() == "waiting for 2 GPUs: 1 of 2 are free\n"
    machine.start("late", 1, 0.0)  # there is one for it, but it came later
    time.sleep(0.5)
    assert not machine.has_started("late")
    machine.stop("one")
    assert machine.wait("wide")["start"] < machine.wait("late")["start"]


def test_the_processes_of_a_job_share_its_gpus_and_die_with_their_launcher(machine: Machine) -> None:
    """torchrun starts them without the locks; after SIGKILL of torchrun none of them is left on a GPU."""
    machine.has(3)
    launcher = machine.start("both", 2, 60, "--processes", "2")
    both = [machine.wait(f"both{rank}") for rank in "01"]
    assert [about["gpus"] for about in both] == ["0,1", "0,1"] and [about["threads"] for about in both] == ["2", "2"]
    assert not machine.start("third", 1, 0.0).wait(60) and machine.wait("third")["gpus"] == "2"
    machine.start("next", 2, 0.0)
    time.sleep(0.3)
    assert not machine.has_started("next")
    launcher.send_signal(signal.SIGKILL)
    assert machine.wait("next")["gpus"] == "0,1"
    deadline = time.monotonic() + 60
    while any(runs(about["pid"]) for about in both):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (machine.folder / "both0.ended").exists()


def test_a_process_whose_launcher_died_while_it_began_ends_at_once() -> None:
    """The kernel tells of deaths that come after the request alone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = "from benchmark.jobs.launch import end_with_launcher; end_with_launcher(); print('goes on')"
    for launcher, expected in ((gone.pid, (-signal.SIGKILL, "")), (os.getpid(), (0, "goes on\n"))):
        told = os.environ | {LAUNCHER: str(launcher)}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=told, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == expected, done.stderr
    assert environment([], 2)[LAUNCHER] == str(os.getpid()) and LAUNCHER not in environment([], 1)


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie, which the first process of a container may leave."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_several_processes_are_started_by_torchrun_and_share_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_line(["benchmark.jobs.run", "--seed", "1"], 1) == [
        sys.executable,
        "-m",
        "benchmark.jobs.run",
        "--seed",
        "1",
    ]
    assert command_line(["benchmark.jobs.run"], 3)[2:] == [
        "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m", "benchmark.jobs.run",
    ]  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert environment(["1", "4"], 1)["CUDA_VISIBLE_DEVICES"] == "1,4"
    assert environment([], 1)["OMP_NUM_THREADS"] == "2" and environment([], 4)["OMP_NUM_THREADS"] == "1"
    monkeypatch.delenv("RANK", raising=False)
    assert is_main_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "-1", "job"], "error: --gpus -1 --processes 1: at least 0 GPUs and 1 process\n"),
        (["--processes", "0", "job"], "error: --gpus 0 --processes 0: at least 0 GPUs and 1 process\n"),
        ([], "error: no module is named; give one, such as benchmark.jobs.run, and its arguments behind it\n"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "benchmark.jobs.launch", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, message)
