"""Read timestamps of any unit in full precision, and say what is wrong with impossible ones."""

import datetime
import re

import numpy as np

from benchmark.datasets import Limits

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
# Plausible times of any file, whatever its dataset's config says: they tell two units in one file apart.
USUAL = Limits(first=631_152_000, end=2_524_608_000, unknown_items=0)  # 1990 to 2049
EPOCH = datetime.datetime(1970, 1, 1)
YEAR = 31_556_952  # seconds, the Gregorian calendar's mean


def seconds_and_fraction(values: np.ndarray, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Whole seconds (int64 or float64 as the values, rounded down) and the nanoseconds beyond them (int32).

    >>> seconds_and_fraction(np.array([1600000000150, -1]), "ms")
    (array([1600000000,         -1]), array([150000000, 999000000], dtype=int32))
    >>> seconds_and_fraction(np.array([1600000000.25]), "s")
    (array([1.6e+09]), array([250000000], dtype=int32))
    """
    per = PER_SECOND[unit]
    seconds, remainder = np.divmod(values, per)
    if values.dtype.kind == "f":
        remainder = np.minimum(np.rint(remainder * (1e9 / per)), 999_999_999)
        return seconds, remainder.astype(np.int32)
    return seconds, (remainder * (10**9 // per)).astype(np.int32)


def impossible(seconds: np.ndarray, limits: Limits) -> np.ndarray:
    """Rows whose time lies outside the limits, int64, ascending."""
    return np.flatnonzero(~((seconds >= limits.first) & (seconds < limits.end)))


def as_words(seconds: float) -> str:
    """The day of a time in Unix seconds, for a reader; its year, where Python's calendar does not reach so far.

    >>> as_words(1408506242), as_words(-62167219200), as_words(1.5e12)
    ('2014-08-20', 'the year 0', 'the year 49503')
    """
    if -62_135_596_800 <= seconds < 253_402_300_800:
        return str((EPOCH + datetime.timedelta(seconds=int(seconds // 1))).date())
    return f"the year {round(1970 + seconds / YEAR)}"


def said_of(value: object, unit: str, limits: Limits) -> str:
    """The sentence why a timestamp outside the limits is no time, without advice.

    >>> said_of(1408506242, "ms", Limits(631152000, 1830297600, 0))
    'timestamp 1408506242 is no time in milliseconds (it reads as 1970-01-17, outside 1990-01-01 to 2027-12-31)'
    """
    first, last = as_words(limits.first), as_words(limits.end - 1)
    moment = as_words(float(str(value)) / PER_SECOND[unit])
    return f"timestamp {value} is no time in {WORDS[unit]} (it reads as {moment}, outside {first} to {last})"


def other_unit(value: object, unit: str, limits: Limits) -> str | None:
    """A unit in which the value lies within the limits, None for none.

    >>> other_unit(1408506242, "ms", Limits(631152000, 1830297600, 0))
    's'
    """
    number = float(str(value))
    fits = [name for name, per in PER_SECOND.items() if limits.first <= number / per < limits.end]
    return fits[0] if fits and unit not in fits else None


def of_two_units(values: np.ndarray, unit: str, limits: Limits) -> tuple[int, int, str] | None:
    """A row that is a time in this unit, a row that is one only in another unit, and that unit; None without both.

    >>> of_two_units(np.array([1600000000, 1600000000000, 5]), "s", Limits(631152000, 1830297600, 0))
    (0, 1, 'ms')
    """
    in_this_unit = (values >= limits.first * PER_SECOND[unit]) & (values < limits.end * PER_SECOND[unit])
    if in_this_unit.all() or not in_this_unit.any():
        return None
    for other, per in PER_SECOND.items():
        in_other_unit = ~in_this_unit & (values >= limits.first * per) & (values < limits.end * per)
        if in_other_unit.any():
            return int(np.argmax(in_this_unit)), int(np.argmax(in_other_unit)), other
    return None


def as_day(value: object) -> str | None:
    """The day that a number such as 20140820 spells, None for none.

    >>> as_day(20140820), as_day(20141340), as_day(1408506242)
    ('2014-08-20', None, None)
    """
    match = re.fullmatch(r"((?:19|20)\d\d)(\d\d)(\d\d)(?:\.0)?", str(value))
    if match is None:
        return None
    try:
        return str(datetime.date(*map(int, match.groups())))
    except ValueError:
        return None
