"""Write files whole or not at all, lock them, read JSON, and hash."""

import contextlib
import csv
import errno
import glob
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmark.errors import InputError
from benchmark.processes import is_running

FORGOTTEN = 86_400.0  # seconds after which a temporary file of another machine is no longer anybody's
UMASK = os.umask(0)  # there is no other call that tells it
os.umask(UMASK)
MODE = 0o666 & ~UMASK  # of a new file
DAMAGED = "the file is damaged: delete it and run again what made it"


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success rename it to `path`, on any error remove it.

    Works for a file or a folder. The rename is atomic because both names lie in one folder. The content is flushed to
    the disk before it, and the folder after it, so that a power cut loses neither. Temporary files that killed
    processes have left of the same path are removed. Files have the modes that the umask gives, whoever wrote them.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_parts(path)
    temporary = path.with_name(f"{_part_of(path)}{os.getpid()}")
    _remove(temporary)  # a killed process of the same number, as in a container, may have left it
    try:
        yield temporary
        _let_others_read(temporary)
        flush_to_disk(temporary)
        if path.is_dir():
            _remove(path)  # of a link to a folder the link alone, whose folder may be anybody's
        temporary.rename(path)
        _flush(path.parent)
    finally:
        _remove(temporary)


def _part_of(path: Path) -> str:
    """The beginning of temporary names of `path` on this machine; the number of the process follows."""
    return f".{path.name}.part-{platform.node()}-"


def clear_parts(path: Path) -> None:
    """Remove temporary files of `path` whose processes have ended; those of other machines go after a day."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.part*"):
        number = part.name.removeprefix(_part_of(path))
        of_this_machine = number.isdecimal()
        with contextlib.suppress(OSError):  # another job clears it, too
            if (of_this_machine and not is_running(int(number))) or (
                not of_this_machine and part.stat().st_mtime < time.time() - FORGOTTEN
            ):
                _remove(part)


def _let_others_read(path: Path) -> None:
    """Give a file, or all files in a folder, the mode of a new file: safetensors' are for their owner alone."""
    for file in (inner for inner in [path, *path.rglob("*")] if inner.is_file() and not inner.is_symlink()):
        if (mode := file.stat().st_mode & 0o777) | MODE != mode:
            file.chmod(mode | MODE)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or all files and folders in a folder, are on the disk."""
    if path.is_dir():
        for inner in path.rglob("*"):
            _flush(inner)
    _flush(path)


def _flush(path: Path) -> None:
    """Call fsync, and ignore that some network file systems don't have it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder that several jobs may want to make.

    The lock ends with the process that holds it, however that ends. Whoever may write to the folder may hold it,
    whoever made its file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.parent.stat().st_mode & 0o666 | 0o600
    lock = FileLock(path.with_name(f".{path.name}.lock"), mode=mode)
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
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: str | Path, names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table with these columns, whole or not at all."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=names)
        table.writeheader()
        table.writerows(rows)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with its key order kept, atomically. NaN is refused (ValueError)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read one JSON file. Raises InputError with the path where it is damaged, FileNotFoundError without it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno} is not JSON ({error.msg}); {DAMAGED}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; {DAMAGED}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be JSON of ours; {DAMAGED}") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise InputError(f"{path}: is not JSON of ours ({error}); {DAMAGED}") from None


def sha256_of(path: str | Path) -> str:
    """The hex sha256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """The hex sha256 of a value as JSON with sorted keys: equal settings, whatever their order, have equal hashes."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
