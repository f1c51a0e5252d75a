"""Write a checksum with every kept file and check it before the file is read, so that a damaged file is never used.

A record in JSON carries the checksum of its own content as its last key (`seal`, `read_sealed`). A kept file has one
beside it, `{name}.sha256`; a kept folder has `SHA256SUMS` in it. Both have the form of sha256sum, so that
`sha256sum -c` checks them, too. A file is hashed before anything parses it, as readers of parquet and safetensors may
end the process on damaged bytes.
"""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.storage.io import read_json, sha256_of, sha256_of_json, write_text

SEAL = "sha256"  # key of a record: the checksum of all its other keys
SUMS = "SHA256SUMS"  # in a folder


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the checksum of its content as its last key."""
    # As it will be read: tuples are lists in JSON, and every key is text.
    content = json.loads(json.dumps({key: value for key, value in record.items() if key != SEAL}))
    return record | {SEAL: sha256_of_json(content)}


def check_seal(record: dict[str, Any], path: str | Path, advice: str) -> None:
    """Raise InputError unless the record, as `path` has it, has the content that it was sealed with."""
    if record.get(SEAL) != seal(record)[SEAL]:
        raise InputError(f"{path}: its content is not what was written there; {advice}")


def read_sealed(path: str | Path, advice: str) -> dict[str, Any]:
    """Read a sealed record. Raises InputError where it is missing, damaged or was edited. advice: what to do then."""
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(f"{path}: holds no settings by name; {advice}")
    check_seal(record, path, advice)
    return record


def check_file(path: Path, sha256: str | None, advice: str) -> None:
    """Raise InputError unless the file is there and has this checksum. advice: what to delete or to run again."""
    if sha256 is None:
        raise InputError(f"{path}: its record has no checksum of it; {advice}")
    try:
        sha256_now = sha256_of(path)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); {advice}") from None
    if sha256_now != sha256:
        raise InputError(
            f"{path}: damaged or replaced (sha256 {sha256_now[:12]}..., written was {sha256[:12]}...); {advice}"
        )


def sums_of(folder: Path) -> dict[str, str]:
    """sha256 by name of every file in a folder and its subfolders, but of `SHA256SUMS` itself."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256_of(path) for path in files if path != folder / SUMS}


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` over all that the folder holds now."""
    write_text(folder / SUMS, "".join(f"{sha256}  {name}\n" for name, sha256 in sums_of(folder).items()))


def note(path: Path, written: Path) -> None:
    """Write the checksums of a file or folder that is about to be renamed to `path`."""
    if written.is_dir():
        write_sums(written)
    else:
        note_sum(path, written)


def note_sum(path: Path, written: Path) -> None:
    """Write the checksum beside the kept file `path`. written: the file that is about to be renamed to it."""
    write_text(_beside(path), f"{sha256_of(written)}  {path.name}\n")


def damage(path: Path) -> str | None:
    """What is wrong with a kept file or folder, in words; None if it is as it was written.

    One without checksums was kept by an earlier version: it is accepted, and its checksums are written now, where the
    folder can be written to. Raises OSError where it can't be read: another user's file is not damaged for that.
    """
    sums = path / SUMS if path.is_dir() else _beside(path)
    if not sums.exists():
        try:
            note(path, path)
        except OSError as error:
            written = Path(str(error.filename)).parent == sums.parent and f".{sums.name}." in str(error.filename)
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not written:
                raise
        return None
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
        expected = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
    except ValueError:
        return f"{sums} can't be read"
    present = sums_of(path) if path.is_dir() else {path.name: sha256_of(path)}
    for name in sorted(expected.keys() | present.keys()):
        if present.get(name) != expected.get(name):
            place = path / name if path.is_dir() else path
            return f"{place} {'is missing' if name not in present else 'is not what was written there'}"
    return None


def intact(path: Path) -> bool:
    """Whether a kept file or folder is there and as it was written. A damaged one is reported and removed."""
    if not path.exists():
        return False
    if (why := damage(path)) is None:
        return True
    print(f"damaged: {why}; it is removed and made anew", flush=True)
    forget(path)
    return False


def check_kept(path: Path) -> None:
    """Raise InputError for a damaged file or folder, where the reader is not the job that can make it anew."""
    if (why := damage(path)) is not None:
        raise InputError(f"{why}; delete {path} and run again what made it")


def forget(path: Path) -> None:
    """Remove a kept file or folder and its checksum."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
