"""The one exception for bad input, how a command reports it, and its help."""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from benchmark.config.wording import first_problem, printable
from benchmark.processes import end_with_workflow

ModelT = TypeVar("ModelT", bound=BaseModel)


class InputError(Exception):
    """Something the user gave is wrong. The message is one sentence: where, which value, what to do."""


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a `main()`: an InputError becomes one line on stderr and exit code 2, anything else a traceback.

    A job of the workflow ends soon after its workflow is gone.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        end_with_workflow()
        try:
            main()
        except InputError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)
            sys.exit(2)

    return wrapped


CALLED = "R2EC_BENCH_CALLED"  # in the environment: the command that r2ec-bench has become


def command_line(module: str, about: str | None) -> argparse.ArgumentParser:
    """The command line of `python -m {module}`, under the name that the user called it by.

    about: what it does, for its --help, lines as they are.
    """
    shape = argparse.RawDescriptionHelpFormatter
    name = os.environ.get(CALLED) or f"python -m {module}"
    return argparse.ArgumentParser(prog=name, description=about, formatter_class=shape)


def checked(model: type[ModelT], value: Any, where: str) -> ModelT:
    """`value` as this pydantic model. Raises InputError: the place, the value, and what would be right.

    A misspelt setting is named with the known one that it may stand for.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        place, why = first_problem(error, model)
        raise InputError(f"{where}: {place}: {why}" if place else f"{where}: {why}") from None
