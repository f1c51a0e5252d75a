"""Sentences about wrong settings, in the words of the config and not of pydantic, and guesses at misspelt names."""

import difflib
import types
import typing
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

AS_NEAR = 0.06  # of difflib's ratio
LONGEST = 60  # characters of a value that are shown
ONE_LINE = r"^[^\n]*$"
# Of a dataset, a method, a factor: a row, a file and a folder have it. A log's name holds two, in 255 characters.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,49}$"
DEVICE = r"^(cpu|mps|cuda(:\d+)?)$"

# By pydantic's type of an error, what would be right; braces hold fields of the error's context.
# tests/benchmark/test_typos.py checks that these are all types that our settings can raise.
EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_unicode": "text in UTF-8",
    "string_too_short": "text that isn't empty",
    "string_pattern_mismatch": "text of the form {pattern}",
    "dict_type": "settings by name",
    "model_type": "settings by name",
    "list_type": "a list",
    "too_short": "at least one entry",
    "literal_error": "{expected}",
    "date_type": "a date such as 2023-01-31",
    "date_from_datetime_parsing": "a date such as 2023-01-31",
    "date_from_datetime_inexact": "a date without a time",
    "path_type": "a path",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    # In what the program itself has written, and somebody has edited.
    "datetime_type": "a time with its zone",
    "datetime_parsing": "a time with its zone",
    "datetime_from_date_parsing": "a time with its zone",
    "timezone_aware": "a time with its zone",
}
PATTERNS = {
    NAME: "a name of letters, digits, '_', '.' and '-', beginning with a letter or a digit, at most 50",
    ONE_LINE: "text of one line",
    DEVICE: "cpu, cuda, a GPU such as cuda:0, or mps",
    r"^[^{}]+$": "text without braces",
}
TRIED = ("constrained-float", "constrained-int", "constrained-str")  # pydantic's names of types, where several may be
OTHERWISE = "something else; see config/README.md"


def printable(text: str) -> str:
    r"""Text that is safe to print: control characters are written as JSON escapes them.

    Line breaks, tabs and the joiners of letters of some scripts stay; marks of the direction of writing are escaped.

    >>> printable("Alien\x1b[2J\r\u202e (1979)\n")
    'Alien\\u001b[2J\\u000d\\u202e (1979)\n'
    """
    return "".join(
        c if c in "\n\t\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else _escaped(c) for c in text
    )


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def first_problem(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """The place of the first error in a value of this model ("": the value as a whole), and a sentence about it."""
    errors = error.errors()
    first = errors[0]
    if first["type"] == "missing":  # it may be there, misspelt
        beside = [detail for detail in errors if _unknown(detail) and detail["loc"][:-1] == first["loc"][:-1]]
        first = beside[0] if beside else first
    return problem(first, model)


def problem(error: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    """The place of one error, and a sentence about it."""
    loc = error["loc"]
    if _unknown(error):
        return _path(loc[:-1]), f"unknown setting {loc[-1]!r}{among(loc[-1], _names_at(model, loc[:-1]))}"
    if error["type"] == "missing":
        return "", f"setting {_path(loc)!r} is missing; add it"
    if error["type"] == "value_error":  # a rule of ours, whose sentence names the value itself
        return _path(loc), error["msg"].removeprefix("Value error, ")
    if loc and loc[-1] == "[key]":  # pydantic's word for the name of an entry
        loc = loc[:-2]
    return _path(loc), f"expected {_expected(error)}, found {shown(error['input'])}{_advice(error)}"


def _unknown(error: ErrorDetails) -> bool:
    return error["type"] in ("extra_forbidden", "invalid_key")


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc if part not in TRIED)


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if context.get("pattern") in PATTERNS:
        return PATTERNS[context["pattern"]]
    return EXPECTED.get(error["type"], OTHERWISE).format(**context)


def _advice(error: ErrorDetails) -> str:
    """The end of the sentence that says how to mend this value; "" for none."""
    value = error["input"]
    if error["type"] == "string_type" and isinstance(value, bool | int | float):
        return "; put it in quotes"
    if error["type"] == "literal_error" and isinstance(value, str):
        # Pydantic's list is a sentence of quoted names.
        return did_you_mean(value, error.get("ctx", {})["expected"].split("'")[1::2])
    return ""


def shown(value: Any) -> str:
    """A value as a sentence can hold it.

    >>> shown(None), shown("x"), shown([1])
    ('nothing', "'x'", '[1]')
    """
    text = "nothing" if value is None else " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _names_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The settings of the section at this place of a model."""
    kind: Any = model
    for part in loc:
        kind = _plain(kind)
        # If it is no section, it is a list or has names of the user's own.
        kind = kind.model_fields[part].annotation if _is_section(kind) else typing.get_args(kind)[-1]
    return list(_plain(kind).model_fields)


def _plain(kind: Any) -> Any:
    """A type without `Annotated` and `None`."""
    if typing.get_origin(kind) is typing.Annotated:
        return _plain(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return _plain(next(member for member in typing.get_args(kind) if member is not type(None)))
    return kind


def truth_for_number(value: Any, kind: Any, place: str = "") -> str | None:
    """Place of the first `true` or `false` where a number is expected, and a sentence about it; None without one.

    kind: the type that `value` should have, such as a model.
    """
    kinds = list(_members(kind))
    if isinstance(value, bool):
        wanted = EXPECTED["int_type"] if int in kinds else EXPECTED["float_type"] if float in kinds else None
        plain_truth = wanted is None or bool in kinds or Any in kinds
        return None if plain_truth else f"{place}: expected {wanted}, found {shown(value)}"
    for one in kinds:
        inner: list[tuple[Any, Any, Any]] = []  # name, value, type
        if isinstance(value, dict) and _is_section(one):
            inner = [(n, value[n], field.annotation) for n, field in one.model_fields.items() if n in value]
        elif isinstance(value, dict) and typing.get_origin(one) is dict:
            inner = [(n, part, typing.get_args(one)[1]) for n, part in value.items()]
        elif isinstance(value, list) and typing.get_origin(one) is list:
            inner = [(n, part, typing.get_args(one)[0]) for n, part in enumerate(value)]
        for name, part, expected in inner:
            if (found := truth_for_number(part, expected, f"{place}.{name}" if place else str(name))) is not None:
                return found
    return None


def _members(kind: Any) -> Iterator[Any]:
    """The types that a value may have, without `Annotated`."""
    if typing.get_origin(kind) is typing.Annotated:
        yield from _members(typing.get_args(kind)[0])
    elif typing.get_origin(kind) in (typing.Union, types.UnionType):
        for member in typing.get_args(kind):
            yield from _members(member)
    else:
        yield kind


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


# Misspelt names


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that this one may be a misspelling of, whatever its case and dashes: none, one, or two as near.

    >>> nearest("foldr", ["folder", "attributes"]), nearest("popp", ["popularity", "caser"])
    (['folder'], ['popularity'])
    >>> nearest("GRU4Rec", ["gru4rec"])
    ['gru4rec']
    >>> nearest("zzz", ["folder"]), nearest("top_l", ["top_k", "top_p", "tau"])
    ([], ['top_p', 'top_k'])
    """
    names = {_folded(candidate): candidate for candidate in known}
    key = _folded(name)
    alike = difflib.get_close_matches(key, names, n=2)
    if not alike:  # the beginning of a long name, or nearly so
        same_start = [candidate for candidate in names if candidate[:3] == key[:3]]
        alike = difflib.get_close_matches(key, same_start, n=1, cutoff=0.4)
    likeness = [difflib.SequenceMatcher(None, candidate, key).ratio() for candidate in alike]
    return [names[candidate] for candidate, like in zip(alike, likeness, strict=True) if like > likeness[0] - AS_NEAR]


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
    if not names:
        return "; none is known here"
    return f"{did_you_mean(str(name), names) or '.'} Known: {', '.join(names)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question behind a sentence that names what may be meant; empty where nothing is near."""
    near = " or ".join(map(repr, nearest(name, known)))
    return f"; did you mean {near}?" if near else ""


def many(number: int, noun: str) -> str:
    """A number and its noun.

    >>> many(1, "user"), many(1200, "user"), many(0, "case")
    ('1 user', '1,200 users', '0 cases')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def names_in_words(names: Sequence[str], shown: int = 2) -> str:
    """A few names, and the number of the others.

    >>> names_in_words(["a"]), names_in_words(["a", "b"]), names_in_words(["a", "b", "c", "d"])
    ('a', 'a and b', 'a, b and 2 more')
    """
    if len(names) <= shown:
        return " and ".join(names)
    return f"{', '.join(names[:shown])} and {len(names) - shown} more"
