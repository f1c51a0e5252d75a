"""Lines of the raw files of Amazon Reviews 2023: which one is broken, and why."""

import contextlib
import gzip
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

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
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: no whole gzip file ({error}); delete it and fetch it again") from None


def first_bad_line(path: Path, problem: Problem, otherwise: str) -> str:
    """`line 7: what is wrong with it`, found by reading the file once more, slowly; `otherwise` if no line shows it."""
    with opened(path) as lines:
        for number, line in enumerate(tqdm(lines, desc="looking for the line", unit="line", delay=5, leave=False), 1):
            try:
                text = line.decode("utf-8").rstrip("\r\n")
                why = problem(text) if number > 1 or problem is not bad_interaction else None
            except ValueError as error:  # no UTF-8, no JSON, or half a surrogate pair, which is no character
                why = str(error)
            if why is not None:
                return f"line {number}: {why} ({line[:60].decode('utf-8', 'replace').strip()!r})"
    return otherwise


def bad_interaction(text: str) -> str | None:
    """What is wrong with a line of the interactions, or None. Raises ValueError for what is no number."""
    fields = text.split(",")
    if len(fields) != len(HEADER):
        return f"{len(fields)} columns instead of {len(HEADER)}"
    if missing := [name for name, value in zip(HEADER, fields, strict=True) if not value and name != "rating"]:
        return f"{missing[0]} is missing"
    int(fields[3])
    return None if math.isfinite(float(fields[2] or 0)) else "rating is no finite number"


def bad_item(text: str) -> str | None:
    """What is wrong with a line of the metadata, or None. Raises ValueError for what is no JSON."""
    if not text.strip():
        return None
    value = json.loads(text)
    json.dumps(value, ensure_ascii=False).encode()
    return None if isinstance(value, dict) and value.get("parent_asin") else "no object with a parent_asin"
