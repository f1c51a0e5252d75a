"""The one exception for bad input, and how a command reports it."""

import difflib
import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

ModelT = TypeVar("ModelT", bound=BaseModel)


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


def checked(model: type[ModelT], value: Any, where: str) -> ModelT:
    """`value` as this pydantic model. Raises InputError: the place, the value, and what would be right."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            why = f"unknown setting {place!r}; check its spelling against config/README.md"
        elif first["type"] == "missing":
            why = f"setting {place!r} is missing; add it"
        elif first["type"] == "value_error":  # a rule of ours, whose sentence names the value itself
            said = first["msg"].removeprefix("Value error, ")
            why = f"{place}: {said}" if place else said
        else:
            why = f"{place or 'value'}: {first['msg'][0].lower()}{first['msg'][1:]} (found {first['input']!r})"
        raise InputError(f"{where}: {why}") from None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that this one may be a misspelling of, whatever its case and dashes; None: there is none.

    >>> nearest("foldr", ["folder", "attributes"]), nearest("popp", ["popularity", "caser"]), nearest("GRU4Rec", ["gru4rec"])
    ('folder', 'popularity', 'gru4rec')
    >>> nearest("zzz", ["folder"])
    """
    names = {_folded(one): one for one in known}
    key = _folded(name)
    alike = difflib.get_close_matches(key, names, n=1)
    if not alike:  # the beginning of a long name, or nearly so
        begun = [one for one in names if one[:3] == key[:3]]
        alike = difflib.get_close_matches(key, begun, n=1, cutoff=0.4)
    return names[alike[0]] if alike else None


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")


def among(name: object, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: which one may be meant, and all that are known.

    >>> among("foldr", ["folder", "attributes"])
    "; did you mean 'folder'? Known: folder, attributes"
    >>> among("zzz", ["folder"])
    '. Known: folder'
    """
    names = list(known)
    near = nearest(str(name), names)
    return f"{f'; did you mean {near!r}?' if near else '.'} Known: {', '.join(names)}"
