"""Writing files so that nothing half-written is ever taken for done, and hashing them."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success rename it to `path`, on any error remove it.

    Works for a file or a folder. The rename is atomic because both names lie in one folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part{os.getpid()}")
    _remove(temporary)  # a killed process of the same number, as in a container, may have left it
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        _remove(temporary)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder that several jobs may want to make. It ends with the process that holds it, however that
    ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path.name}: another process makes it, waiting ...", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with its key order kept, atomically. NaN is refused (ValueError)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read one JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a Trainer's folder, None without one: trainer_state.json, which is written last, is whole.

    transformers' own `get_last_checkpoint` also takes one that a killed run has left half-written.
    """
    found = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        read_json(checkpoint / "trainer_state.json")
    except (OSError, ValueError):
        return False
    return True


def sha256_of(path: str | Path) -> str:
    """The hex sha256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """The hex sha256 of a value as JSON with sorted keys: equal settings, whatever their order, have equal hashes."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
