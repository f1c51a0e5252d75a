"""End processes together with those that they work for, so that no job goes on for a workflow that is gone."""

import ctypes
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

WORKFLOW = "R2EC_BENCH_WORKFLOW"  # in the environment of jobs: the number of the process that has started them
PR_SET_PDEATHSIG = 1  # from Linux's prctl.h
OWN_PREFIX = "r2ec-bench-"  # of temporary folders; the number of the process follows
LOOK_AGAIN = 1.0  # seconds


def end_with_parent(parent: int | None = None) -> None:
    """Let the kernel kill this process when its parent dies, however it dies; only on Linux.

    parent: the parent's number, where this process was told it; if its present parent is another one, the first is dead
    already, and this process ends.
    """
    if not sys.platform.startswith("linux"):
        return
    expected = os.getppid() if parent is None else parent
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != expected:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def end_with_workflow() -> None:
    """End this process soon after the workflow that has started it is gone, if one has.

    The parent of this process is a shell that outlives Snakemake, so that `end_with_parent` does not help.
    """
    number = os.environ.get(WORKFLOW, "")
    if number.isdecimal():
        threading.Thread(target=_watch, args=(int(number),), daemon=True, name="end with the workflow").start()


def _watch(number: int) -> None:
    while is_running(number):
        time.sleep(LOOK_AGAIN)
    os._exit(128 + signal.SIGTERM)


def own_temporary() -> Path:
    """Make a temporary folder for this process, which the caller removes. Folders of killed processes are removed."""
    folder = Path(tempfile.gettempdir())
    for abandoned in folder.glob(f"{OWN_PREFIX}*-*"):
        number = abandoned.name.removeprefix(OWN_PREFIX).partition("-")[0]
        if number.isdecimal() and not is_running(int(number)):
            shutil.rmtree(abandoned, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{OWN_PREFIX}{os.getpid()}-", dir=folder))


def is_running(number: int) -> bool:
    """Whether a process of this number runs, whoever owns it. One that was killed and is still listed does not."""
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
