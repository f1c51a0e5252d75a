"""Say in one sentence what a method's code did that an exception's own words don't explain, and on which of its lines.

The sandbox denies it a file, and all that Python says is "Permission denied"; or it ends the process, without a word.
"""

import contextlib
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from benchmark.config.methods import authors_line, frames_of
from benchmark.errors import InputError, denied

TARGETS = "test_targets.parquet"
WRITABLE = "R2EC_BENCH_WRITABLE"  # in the environment of a sealed job: the folders that it may write to, in words


@contextlib.contextmanager
def explained(method: str) -> Iterator[None]:
    """Raise InputError where a method's code ends the process within it, or is denied something by the sandbox.

    Of what was denied the traceback is printed, too.
    """
    try:
        yield
    except SystemExit as end:
        raise InputError(
            f"{method}: its code ended the process by exit({'' if end.code is None else repr(end.code)}); let fit() "
            f"return a Recommender, or raise an error{_place(end)}"
        ) from None
    except OSError as error:
        if not denied(error):
            raise
        traceback.print_exception(error)
        name = Path(str(error.filename)).name
        if name == TARGETS:
            raise InputError(
                f"{method}: reads {name}, which no method may: what it says of the test cases would be no test"
                f"{_place(error)}"
            ) from None
        raise InputError(
            f"{type(error).__name__}: {error}; the sandbox lets a run write to {os.environ.get(WRITABLE)} alone, and "
            f"hides test targets and other runs: let {method} keep its files in workdir{_place(error)}"
        ) from None


def _place(error: BaseException) -> str:
    place = authors_line(frames_of(error))
    return "" if place is None else f" ({place})"
