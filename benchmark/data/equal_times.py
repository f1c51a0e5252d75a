"""Count interactions of one user that share their second, and warn of what `same_time` does to them.

All functions take columns of a log that is sorted by user and time, one row per interaction: user (int), time (int,
Unix seconds) and fraction (int, nanoseconds within the second).
"""

import numpy as np

from benchmark.data.account import share

DAY = 86_400  # seconds


def in_shared_second(user: np.ndarray, time: np.ndarray) -> int:
    """How many interactions share user and second with another one."""
    same = _as_the_one_before(user, time)
    return int((np.r_[False, same] | np.r_[same, False]).sum())


def hidden(user: np.ndarray, time: np.ndarray) -> int:
    """How many interactions `same_time: exclude` takes out of the history of a case of their own second.

    They are those that `same_time: order` would show there: in each second that has cases, all but the last one. A
    user's first second has no cases, as nothing lies before it.

    >>> hidden(np.array([1, 1, 1, 1, 1, 2, 2]), np.array([5, 5, 8, 8, 8, 5, 5]))
    2
    """
    same = np.r_[_as_the_one_before(user, time), False]  # as the next one
    starts = np.r_[True, np.diff(user) != 0] if len(user) else np.zeros(0, bool)
    first_time = time[np.maximum.accumulate(np.where(starts, np.arange(len(user)), 0))]
    return int((same & (time != first_time)).sum())


def whole_days(time: np.ndarray, fraction: np.ndarray) -> bool:
    """Whether the times are dates: several, each at the same time of its day.

    >>> whole_days(np.array([0, 86_400, 86_400]), np.zeros(3)), whole_days(np.array([0, 86_401]), np.zeros(2))
    (True, False)
    """
    return len(np.unique(time)) > 1 and len(np.unique(time % DAY)) == 1 and not fraction.any()


def warnings_of(user: np.ndarray, time: np.ndarray, fraction: np.ndarray, same_time: str) -> list[str]:
    """Warnings where `exclude` hides interactions because times are dates, or a hash orders most of what `order` reads.

    There is at most one sentence.
    """
    if len(user) < 2:
        return []
    if same_time == "exclude":
        lost = hidden(user, time)
        if not lost or not whole_days(time, fraction):
            return []
        return [
            f"timestamps are whole days, so that same_time: exclude takes {share(lost, len(user))} interactions out of "
            "the histories of cases of their own day; same_time: order would keep them there, in the order of a hash"
        ]
    same = _as_the_one_before(user, time) & (np.diff(fraction) == 0)
    of_ties = int((np.append(same, False) | np.append(False, same)).sum())
    if of_ties <= len(user) / 2:
        return []
    return [
        f"{of_ties} of {len(user)} interactions have the very time of another of their user, so that a hash orders them"
    ]


def _as_the_one_before(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Whether each interaction but the first has the user and second of the one before it, bool [n - 1]."""
    return (np.diff(user) == 0) & (np.diff(time) == 0)
