"""A folder in which runs are started as the workflow starts them, with the code and a prepared planted dataset."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmark.provenance import CODE, ROOT
from tests.support.planted import planted, write_files, write_prepared

CONFIG = """
seeds: 1
datasets:
  planted: {source: files, options: {folder: planted}, category: thing, min_user_count: 1, min_item_count: 1}
methods:
  popularity:
  item_knn: {grid: [{decay: 0.9}, {decay: 0.6}]}
"""
LEFT = 6.0  # seconds after which nothing may be left of what was killed


def make(folder: Path) -> Path:
    """Make such a folder."""
    for part in CODE:
        for file in (ROOT / part).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                target = folder / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    for name in ("environment.yml", "requirements.txt"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "faults.yaml").write_text(CONFIG)
    write_files(folder / "planted", planted())
    return folder


def prepare(folder: Path) -> None:
    """Prepare the dataset without the workflow."""
    write_prepared(folder / "results" / "data" / "planted", planted())


def run_line(method: str, seconds: float = 200, mib: int = 0, module: str = "") -> list[str]:
    """The command of one run, as the rule has it."""
    out = f"results/runs/planted/{method}/seed1"
    line = [sys.executable, "-m", "benchmark.jobs.supervise", "--run", "planted", method, "1", "--out", out]
    line += [
        "--log",
        f"results/logs/runs/planted.{method}.seed1.log",
        "--max-seconds",
        str(seconds),
        "--max-mib",
        str(mib),
    ]
    line += [
        "benchmark.jobs.launch",
        "--seal",
        "benchmark.jobs.run",
        "--data",
        "results/data/planted",
        "--method",
        method,
    ]
    line += ["--module", module or method, "--work", f"results/work/planted/{method}/seed1", "--out", out]
    return line


def workflow_line(*more: str) -> list[str]:
    """The command of the whole workflow."""
    return [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "faults.yaml", "--quiet", "all", *more]


def start(folder: Path, line: list[str]) -> subprocess.Popen[bytes]:
    """Start a command there, in a session of its own."""
    about = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(line, cwd=folder, env=about, stdout=quiet, stderr=quiet, start_new_session=True)


def tree(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(processes: list[psutil.Process]) -> None:
    """Kill these processes as kill -9 does, the topmost first."""
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that are still running after a while."""
    until = time.monotonic() + LEFT
    while (
        alive := [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    ) and (time.monotonic() < until):
        time.sleep(0.1)
    return alive


def parts(folder: Path) -> list[str]:
    """The temporary files of atomic writes that are still there."""
    return [str(path.relative_to(folder)) for path in (folder / "results").rglob(".*.part*")]
