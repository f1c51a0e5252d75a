"""Lend each GPU of this machine to one job at a time, by a file lock that ends with the job, however the job ends.

The lock names the GPU's UUID, not its number: a cluster's scheduler may number the GPUs differently in each job. GPUs
that a scheduler or the user has hidden by CUDA_VISIBLE_DEVICES stay hidden.
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
    """One GPU. entry: its name in CUDA_VISIBLE_DEVICES, a number in PCI order where it has one. identity: its UUID."""

    entry: str
    identity: str


def visible() -> list[Gpu]:
    """The GPUs that a job may use: all of nvidia-smi, or those of CUDA_VISIBLE_DEVICES, in its order.

    Names of MIG slices, and all names where there is no nvidia-smi, are not checked. Raises InputError where nvidia-smi
    fails or does not show a GPU that is named.
    """
    installed = _installed()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return installed or []
    gpus: list[Gpu] = []
    for entry in (part.strip() for part in named.split(",") if part.strip()):
        if entry in HIDES_THE_REST:
            break
        gpus.append(_named(entry, installed))
    return gpus


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
    """The GPUs that nvidia-smi shows; None without nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip().splitlines()
        raise InputError(
            f"nvidia-smi ends with code {done.returncode} ({output[0] if output else 'no output'}); repair the driver, "
            "or set CUDA_VISIBLE_DEVICES= to do without GPUs"
        )
    rows = [line.split(",") for line in done.stdout.splitlines() if line.strip()]
    return [Gpu(index.strip(), uuid.strip()) for index, uuid in rows]


def hold(count: int, folder: Path = LOCKS) -> list[Gpu]:
    """Wait until `count` visible GPUs are free, and lock them together until this process and its children have ended.

    The locks outlive `exec`. First come, first served: the job that waits holds the gate, so that jobs which want few
    GPUs can't pass one which wants many. Raises InputError where the machine has fewer.
    """
    if count == 0:
        return []
    candidates = visible()
    if count > len(candidates):
        shown = ", ".join(gpu.entry for gpu in candidates) or "none"
        raise InputError(
            f"the job wants {_in_words(count)}, but this machine shows {shown}; lower `gpus` or run it elsewhere"
        )
    _make(folder)
    gate = _open(folder / GATE)
    fcntl.flock(gate, fcntl.LOCK_EX)
    announced = False
    while True:
        held = _take(candidates, folder)
        if len(held) >= count:
            break
        if not announced:
            print(f"waiting for {count} GPUs: {len(held)} of {len(candidates)} are free", file=sys.stderr, flush=True)
            announced = True
        for _, lock in held:
            os.close(lock)
        time.sleep(LOOK_AGAIN)
    for _, lock in held[count:]:
        os.close(lock)
    for _, lock in held[:count]:
        os.set_inheritable(lock, True)
    os.close(gate)
    return [gpu for gpu, _ in held[:count]]


def _in_words(count: int) -> str:
    # As benchmark.config.wording.many, whose imports each job's launcher would wait for.
    return f"{count} GPU{'s' if count > 1 else ''}"


def too_few(wanted: int) -> str:
    """A sentence on jobs of so many GPUs each where this machine has fewer; "" where it has enough."""
    if wanted == 0:
        return ""
    ask = f"Jobs ask for up to {_in_words(wanted)} each"
    try:
        shown = len(visible())
    except InputError as problem:
        return f"{ask}: {problem}."
    if shown >= wanted:
        return ""
    return f"{ask}, and this machine shows {shown or 'none'}: run here, they fail; lower `gpus` or run them elsewhere."


def _take(candidates: list[Gpu], folder: Path) -> list[tuple[Gpu, int]]:
    """Lock every free GPU; return each with the file descriptor of its lock."""
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
    """Make a folder like /tmp, in which every user may make files and nobody remove another's."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return
    folder.chmod(0o1777)


def _open(path: Path) -> int:
    """Open a file to lock; a file of another user needs only be readable."""
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
