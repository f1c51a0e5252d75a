"""Fetching and preparing in the test's own process, as the workflow calls both commands."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.data import fetch, prepare
from tests.support.planted import settings

LIMITS = settings(earliest="1990-01-01").limits
SETTINGS = {"source": "files", "category": "thing", "min_user_count": 1, "min_item_count": 1}


def command(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: object) -> int:
    """The exit code of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
    return 0


def fetch_and_prepare(monkeypatch: pytest.MonkeyPatch, root: Path, folder: Path, **settings: Any) -> int:
    """Both commands on a folder of files, as the workflow calls them: the exit code of the one that fails, or 0."""
    text = json.dumps(SETTINGS | {"options": {"folder": str(folder)}} | settings)
    manifest = root / "fetched.json"
    code = command(monkeypatch, fetch.main, "--settings", text, "--resources", root / "resources", "--out", manifest)
    if code:
        return code
    arguments = ("--dataset", "mine", "--settings", text, "--manifest", manifest, "--out", root / "data" / "mine")
    return command(monkeypatch, prepare.main, *arguments)
