"""Jobs within limits: whatever ends one becomes a sentence in run.json.

A job that somebody stops leaves nothing.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmark.jobs.records import read_failed
from benchmark.jobs.supervise import CutLog
from benchmark.processes import WORKFLOW, is_running
from benchmark.provenance import ROOT

FAULTS = {
    "raises": ("raise ValueError('broken\\x1b[2J on purpose')", "ValueError: broken\\u001b[2J on purpose"),
    "says_nothing": ("import sys; sys.exit(3)", "ended with exit code 3 without a word"),
    "says_what_it_caught": (
        "import os, traceback\ntry: 1 / 0\nexcept ZeroDivisionError: traceback.print_exc()\n"
        "print('epoch 2', flush=True); os._exit(7)",
        "ended with exit code 7; the last line of its log: epoch 2",
    ),
    "leaves": (
        "import os; os._exit(0)",
        "ended with exit code 0 but without a result; its code must not end the process",
    ),
    "crashes": ("import ctypes; ctypes.string_at(0)", "was ended by SIGSEGV"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL, for lack of memory, or by hand"),
    "never_ends": ("import time; time.sleep(60)", "took longer than its limit of 0.0005"),
    "grows": (
        "kept = []\nimport time\nwhile True: kept.append(b'1' * 10**8); time.sleep(0.02)",
        "took more than its limit of 0.488 GiB of main memory; raise max_memory_gib",
    ),
}


def command(folder: Path, module: str, *more: str) -> list[str]:
    line = [sys.executable, "-m", "benchmark.jobs.supervise", "--run", "shop", module, "2", "--out", "runs/seed2"]
    return [*line, "--log", "logs/it.log", *(more or ("--max-seconds", "100")), module]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT}:{folder}"}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_ends_a_job_is_a_sentence(fault: str, tmp_path: Path) -> None:
    code, message = FAULTS[fault]
    (tmp_path / f"{fault}.py").write_text(code)
    limits = ("--max-seconds", "2" if fault == "never_ends" else "60", "--max-mib", "500")
    line = command(tmp_path, fault, *limits)
    done = subprocess.run(line, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 3
    failed = read_failed(tmp_path / "runs/seed2/run.json")
    assert failed is not None and message in failed.failed
    assert fault != "leaves" or failed.failed == message  # one advice
    assert (failed.dataset, failed.method, failed.seed, failed.log) == ("shop", fault, 2, "logs/it.log")
    assert done.stderr.startswith(f"failed: {fault} on shop, seed 2: ") and "\x1b" not in done.stderr
    log = (tmp_path / "logs/it.log").read_text()
    if fault in ("crashes", "never_ends"):  # where it was
        assert f'{fault}.py", line 1 in <module>' in log
    # A failure that is left to the next attempt is written nowhere.
    if fault == "raises":
        (tmp_path / "runs/seed2/run.json").unlink()
        again = subprocess.run([*line[:-1], "--try-again", fault], cwd=tmp_path, env=environment(tmp_path), check=False)
        assert again.returncode == 2 and not (tmp_path / "runs/seed2/run.json").exists()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGKILL", "workflow"])
def test_a_job_that_is_stopped_leaves_nothing_and_no_process(how: str, tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(
        "import subprocess, sys, time, benchmark.jobs.launch as l, os, benchmark.processes as p\n"
        "p.end_with_parent(int(os.environ[l.SUPERVISOR]))\n"
        "print('here', flush=True)\ntime.sleep(60)\n"
    )
    workflow = subprocess.Popen(["sleep", "60"])
    about = environment(tmp_path) | {WORKFLOW: str(workflow.pid)}
    job = subprocess.Popen(command(tmp_path, "waits"), cwd=tmp_path, env=about)
    log = tmp_path / "logs/it.log"
    until = time.monotonic() + 30
    while not (log.exists() and "here" in log.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    (child,) = psutil.Process(job.pid).children()
    if how != "workflow":
        job.send_signal(signal.Signals[how])
    else:
        workflow.kill()
        workflow.wait()
    assert job.wait(10) not in (0, 3)
    until = time.monotonic() + 5
    while is_running(child.pid):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not (tmp_path / "runs").exists()
    workflow.kill()
    workflow.wait()


def test_a_job_that_is_stopped_while_it_imports_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "psutil.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    about = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command(tmp_path, "waits"), cwd=tmp_path, env=about, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    assert not (tmp_path / "logs").exists()


def test_a_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = CutLog(tmp_path / "logs" / "it.log", most=1000)
    for number in range(5000):
        log.write(b"%05d\n" % number)
    log.close()
    text = (tmp_path / "logs" / "it.log").read_text()
    assert len(text) <= 1100 and text.startswith("00000\n00001\n") and text.endswith("04998\n04999\n")
    assert "bytes are left out here ...]" in text
    shown = len(text) - len(log.note)
    assert log.left_out + shown == 5000 * 6


def test_a_full_disk_ends_no_job() -> None:
    log = CutLog(Path("/dev/full"))
    log.write(b"x" * 100)
    log.close()
