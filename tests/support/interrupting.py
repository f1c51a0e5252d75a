"""A function that is interrupted at one of its calls, as a killed job is."""

from typing import Any

import pytest


def interrupt(patch: pytest.MonkeyPatch, owner: Any, name: str, *, call: int) -> None:
    """Let the function `name` of a class or module raise KeyboardInterrupt at this call of it, counted from 1."""
    function, calls = getattr(owner, name), 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return function(*arguments, **named)

    patch.setattr(owner, name, counted)
