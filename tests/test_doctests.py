"""Examples in docstrings of the packages that pytest isn't pointed at: each gives what it says.

They are found by their text, so that no package is imported to find them; those of benchmark/ are among `testpaths`.
"""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("lm", "r2ec", "baselines")
    for path in (ROOT / package).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("module", MODULES)
def test_every_example_of_a_docstring_gives_what_it_says(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0 and results.failed == 0
