"""Run one Python command in a process of its own, and measure what it took."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO


def run_alone(
    *command: str, folder: Path | None = None, env: Mapping[str, str] | None = None, log: IO[str] | None = None
) -> tuple[float, float]:
    """Seconds and peak resident memory (MB, 10^6 bytes) of one Python command. Raises RuntimeError if it fails.

    Linux hands on to a child the peak of the process that starts it. So this process must stay small, and whatever
    takes memory has to run in a process of its own. folder: in which it runs; env: its environment; log: what it
    prints goes there. None: those of this process.
    """
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=folder, env=env, stdout=log, stderr=log)
    # Unlike getrusage(RUSAGE_CHILDREN) this is of the one child alone.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: ended with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
