"""A wheel of a few files."""

import hashlib
import zipfile
from pathlib import Path


def tiny_wheel(path: Path, **members: bytes) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()
