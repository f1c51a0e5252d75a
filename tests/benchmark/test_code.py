"""The hash of a job's code: what is read by people alone doesn't count."""

from pathlib import Path

import pytest

from benchmark.jobs import code
from benchmark.jobs.code import code_hash


def test_a_comment_changes_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "ROOT", tmp_path)

    def hashed(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        code._code_of.cache_clear()
        return code_hash((name,))

    plain = hashed("a.py", "def f(x):\n    return x + 1\n")
    same = '"""A module."""\n# why\ndef f(x):\n    """Add."""\n\n    return (x + 1)  # one\n'
    assert hashed("a.py", same) == plain
    assert hashed("a.py", same.replace("1)", "2)")) != plain
    assert hashed("a.jinja", "x") != hashed("b.jinja", "x")
