"""GPUs of this machine, each lent to one job at a time: a lock on a file that ends with the job, however the job ends.

The lock stands for the GPU itself (its UUID), not for its number: jobs that a cluster's scheduler gave other views of
the machine don't take each other's GPUs for their own. What a scheduler or the user has hidden by CUDA_VISIBLE_DEVICES
stays hidden.
"""

import fcntl
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import InputError

# One folder for all jobs of the machine, of whatever user; TMPDIR is often a job's own.
LOCKS = Path("/tmp/r2ec-bench-gpus")
GATE = "gate"  # its holder chooses next
LOOK_AGAIN = 0.2  # seconds
HIDES_THE_REST = ("-1", "NoDevFiles")  # in CUDA_VISIBLE_DEVICES; the second is Slurm's word for none


@dataclass(frozen=True)
class Gpu:
    """One GPU: `entry` is what CUDA_VISIBLE_DEVICES takes, its number in PCI order where it has one; `identity` its
    UUID."""

    entry: str
    identity: str


def visible() -> list[Gpu]:
    """The GPUs that a job may use: those of nvidia-smi, or those of them that CUDA_VISIBLE_DEVICES names, in its order.

    Raises InputError where nvidia-smi fails or lacks one that is named. Without nvidia-smi the names are taken as they
    are, as are those of MIG slices.
    """
    installed = _installed()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return installed or []
    found: list[Gpu] = []
    for entry in (part.strip() for part in named.split(",") if part.strip()):
        if entry in HIDES_THE_REST:
            break
        found.append(_named(entry, installed))
    return found


def _named(entry: str, installed: list[Gpu] | None) -> Gpu:
    if installed is None or entry.startswith("MIG-"):
        return Gpu(entry, entry)
    matches = [gpu for gpu in installed if entry == gpu.entry or gpu.identity.startswith(entry)]
    if len(matches) != 1:
        known = ", ".join(gpu.entry for gpu in installed) or "none"
        raise InputError(
            f"CUDA_VISIBLE_DEVICES names GPU {entry!r}, but nvidia-smi shows {known}; correct or unset the variable"
        )
    return matches[0]


def _installed() -> list[Gpu] | None:
    """All that nvidia-smi shows; None without nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise InputError(
            f"nvidia-smi ends with code {done.returncode} ({said[0] if said else 'no output'}); repair the driver, or set "
            "CUDA_VISIBLE_DEVICES= to do without GPUs"
        )
    rows = [line.split(",") for line in done.stdout.splitlines() if line.strip()]
    return [Gpu(index.strip(), uuid.strip()) for index, uuid in rows]


def hold(count: int, folder: Path = LOCKS) -> list[Gpu]:
    """Wait until `count` visible GPUs are free and take them, all at once, until this process and all that inherit from
    it have ended.

    The locks outlive `exec`. First come, first served: whoever waits has the gate, so that a job which wants many isn't
    passed by ones which want few. Raises InputError where there are never so many.
    """
    if count == 0:
        return []
    candidates = visible()
    if count > len(candidates):
        shown = ", ".join(gpu.entry for gpu in candidates) or "none"
        raise InputError(
            f"the job wants {count} GPUs, but this machine shows {shown}; lower `gpus` or run it elsewhere"
        )
    _make(folder)
    gate = _open(folder / GATE)
    fcntl.flock(gate, fcntl.LOCK_EX)
    told = False
    while True:
        held = _take(candidates, folder)
        if len(held) >= count:
            break
        if not told:
            print(f"waiting for {count} GPUs: {len(held)} of {len(candidates)} are free", file=sys.stderr, flush=True)
            told = True
        for _, lock in held:
            os.close(lock)
        time.sleep(LOOK_AGAIN)
    for _, lock in held[count:]:
        os.close(lock)
    for _, lock in held[:count]:
        os.set_inheritable(lock, True)
    os.close(gate)
    return [gpu for gpu, _ in held[:count]]


def _take(candidates: list[Gpu], folder: Path) -> list[tuple[Gpu, int]]:
    """Every free one, locked."""
    held = []
    for gpu in candidates:
        lock = _open(folder / gpu.identity)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            held.append((gpu, lock))
    return held


def _make(folder: Path) -> None:
    """A folder in which every user may make files and nobody remove another's, as /tmp is."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return
    folder.chmod(0o1777)


def _open(path: Path) -> int:
    """A file to lock; one that another user has made need only be readable."""
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
