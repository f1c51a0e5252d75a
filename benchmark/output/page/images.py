"""Pictures inside the page."""

import base64
from pathlib import Path

from benchmark.errors import InputError


def plot_uri(path: Path, command: str) -> str:
    """A png as a data URI. Raises InputError where `command` hasn't drawn it."""
    if not path.exists():
        raise InputError(f"{path}: missing; run `python -m {command}` with the same arguments first")
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
