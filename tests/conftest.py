"""Settings of all tests."""

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# Files that take minutes, the longest first: two processes that share the files then end at about the same time.
LONGEST = ("tests/workflow/test_workflow.py", "tests/benchmark/test_last_words.py", "tests/faults/test_faults.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all others stay in their order."""
    place = {file: number for number, file in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONGEST)))
