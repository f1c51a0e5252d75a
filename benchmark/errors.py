"""The one exception for bad input, and how a command reports it."""

import functools
import sys
from collections.abc import Callable


class InputError(Exception):
    """Something the user gave is wrong. The message is one sentence: where, which value, what to do."""


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a `main()`: an InputError becomes one line on stderr and exit code 2, anything else a traceback."""

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return wrapped
