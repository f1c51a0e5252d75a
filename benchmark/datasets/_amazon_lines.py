"""Find the broken line of a raw file of Amazon Reviews 2023, and say what is wrong with it."""

import contextlib
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmark.datasets import Limits
from benchmark.datasets._times import impossible, said_of
from benchmark.errors import InputError

# What is wrong with a line, None for nothing; a ValueError says it too.
Problem = Callable[[str], str | None]
HEADER = ["user_id", "parent_asin", "rating", "timestamp"]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of a gzip file. Raises InputError where it isn't one."""
    try:
        with gzip.open(path, "rb") as lines:
            yield lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: no whole gzip file ({error}); delete it and fetch it again") from None


def first_bad_line(path: Path, problem: Problem, otherwise: str, header: bool = False) -> str:
    """`line 7: what is wrong with it`, found by reading the file once more, slowly; `otherwise` if no line shows it.

    header: whether the first line holds the columns' names.
    """
    with opened(path) as lines:
        for number, line in enumerate(tqdm(lines, desc="looking for the line", unit="line", delay=5, leave=False), 1):
            try:
                text = line.decode("utf-8").rstrip("\r\n")
                problem_found = None if header and number == 1 else problem(text)
            # No UTF-8, no JSON, half a surrogate pair, which is no character; a number beyond floats; brackets in
            # brackets a thousand times.
            except (ValueError, OverflowError, RecursionError) as error:
                problem_found = str(error)
            if problem_found is not None:
                return f"line {number}: {problem_found} ({line[:60].decode('utf-8', 'replace').strip()!r})"
    return otherwise


def bad_interaction(text: str, limits: Limits) -> str | None:
    """What is wrong with a line of the interactions, or None. Raises ValueError for what is no number."""
    fields = text.split(",")
    if len(fields) != len(HEADER):
        return f"{len(fields)} columns instead of {len(HEADER)}"
    if missing := [name for name, value in zip(HEADER, fields, strict=True) if not value and name != "rating"]:
        return f"{missing[0]} is missing"
    if impossible(np.array([int(fields[3]) / 1000]), limits).size:
        return said_of(int(fields[3]), "ms", limits)
    with np.errstate(over="ignore"):
        return None if np.isfinite(np.float32(fields[2] or 0)) else "rating is no finite number"


def bad_item(text: str) -> str | None:
    """What is wrong with a line of the metadata, or None. Raises ValueError for what is no JSON."""
    if not text.strip():
        return None
    value = json.loads(text)
    json.dumps(value, ensure_ascii=False).encode()
    return None if isinstance(value, dict) and value.get("parent_asin") else "no object with a parent_asin"
