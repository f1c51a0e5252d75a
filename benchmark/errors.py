"""The one exception for bad input, how a command reports it, and its help."""

import argparse
import contextlib
import errno
import functools
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from benchmark.config.wording import first_problem, printable, truth_for_number
from benchmark.processes import end_with_workflow

ModelT = TypeVar("ModelT", bound=BaseModel)


class InputError(Exception):
    """Something the user gave is wrong. The message is one sentence: where, which value, what to do."""


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a `main()`: an InputError becomes one line on stderr and exit code 2, and so does what a disk or its rights
    refuse; anything else a traceback.

    A job of the workflow ends soon after its workflow is gone.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        end_with_workflow()
        try:
            with in_a_sentence():
                main()
        except InputError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)
            sys.exit(2)

    return wrapped


# What no code is to blame for, and what to do then.
REFUSED = {
    errno.ENOSPC: "make room on the disk and run again",
    errno.EDQUOT: "make room, or have your quota raised, and run again",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f) and run again",
    errno.EROFS: "work in a folder that can be written",
    errno.EACCES: "get the rights to it, or work in a folder of your own",
    errno.EPERM: "get the rights to it, or work in a folder of your own",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EIO: "check the disk, or the connection to it, and run again",
    errno.ESTALE: "check the connection to the disk and run again",
}
RIGHTS = (errno.EACCES, errno.EPERM)
OF_THE_TARGET = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # of a copy: never of the file that it reads


def sealed() -> bool:
    """Whether this process is in the sandbox (`benchmark.sandbox.seal`)."""
    return os.environ.get("R2EC_BENCH_SANDBOX", "").startswith("landlock")


def denied(error: OSError) -> bool:
    """Whether the sandbox of this process has denied what raised this, and no file of another user's."""
    return sealed() and error.errno in RIGHTS and another_owner(error.filename) is None


def refused(error: OSError) -> str | None:
    """What a disk or its rights have refused, in a sentence; None for any other error.

    In its sandbox a method has few rights: where it wants others, `benchmark.sandbox.explain` says which of its lines
    does. A file that belongs to another user, as in a shared folder of kept states, is said there, too.

    >>> refused(OSError(errno.ENOSPC, "No space left on device", "results/x"))
    'results/x: No space left on device; make room on the disk and run again'
    >>> refused(OSError(errno.ENOSPC, "No space left on device", "read/x", None, "written/x"))
    'written/x: No space left on device; make room on the disk and run again'
    >>> refused(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    True
    """
    if error.errno not in REFUSED or denied(error):
        return None
    owner = another_owner(error.filename) if error.errno in RIGHTS else None
    advice = REFUSED[error.errno] if owner is None else f"{owner}; {OF_ANOTHER}"
    name = (error.errno in OF_THE_TARGET and error.filename2) or error.filename
    return f"{f'{name}: ' if name else ''}{error.strerror}; {advice}"


OF_ANOTHER = "have them give you the rights to it, or name a folder of your own"


def another_owner(name: object) -> str | None:
    """That a file, or else its folder, belongs to another user, in words; None where it doesn't, or for root."""
    if not isinstance(name, str | os.PathLike) or os.geteuid() == 0:
        return None
    path = Path(name)
    for place in (path, path.parent):
        try:
            owner = place.stat().st_uid
        except OSError:
            continue
        if owner != os.geteuid():
            return f"{place} belongs to {_user(owner)}"
    return None


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


@contextlib.contextmanager
def in_a_sentence() -> Iterator[None]:
    """Raise InputError where a disk or its rights refuse something within it."""
    try:
        yield
    except OSError as error:
        if (sentence := refused(error)) is None:
            raise
        raise InputError(sentence) from None


CALLED = "R2EC_BENCH_CALLED"  # in the environment: the command that r2ec-bench has become


def command_line(module: str, about: str | None) -> argparse.ArgumentParser:
    """The command line of `python -m {module}`, under the name that the user called it by.

    about: what it does, for its --help, lines as they are; its calls by `python -m` get that name, too.
    """
    shape = argparse.RawDescriptionHelpFormatter
    plain = f"python -m {module}"
    name = os.environ.get(CALLED) or plain
    return argparse.ArgumentParser(prog=name, description=about and about.replace(plain, name), formatter_class=shape)


def checked(model: type[ModelT], value: Any, where: str) -> ModelT:
    """`value` as this pydantic model. Raises InputError: the place, the value, and what would be right.

    A misspelt setting is named with the known one that it may stand for. `true` is no number; pydantic reads it as 1.
    """
    if (found := truth_for_number(value, model)) is not None:
        raise InputError(f"{where}: {found}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        place, why = first_problem(error, model)
        raise InputError(f"{where}: {place}: {why}" if place else f"{where}: {why}") from None
