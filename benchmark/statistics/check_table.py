"""Find rows of a table of Hit@k and NDCG@k that no ranking can have: `python -m benchmark.statistics.check_table`.

    python -m benchmark.statistics.check_table FILE.csv

The table is of rankings of the full catalogue with one target per case. A hit at a rank from a + 1 to b adds between
1 / log2(b + 1) and 1 / log2(a + 2) to NDCG@b - NDCG@a, so that Hit@b - Hit@a bounds this difference. Each number may be
off by half a unit of its last printed digit. Hit x n is a whole number, which bounds the numbers of cases n that a row
may have.

FILE has columns method, dataset, Hit@k and NDCG@k for some k, and optionally decimals (else the digits that are
printed) and n.
"""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linprog

from benchmark.errors import InputError, command, command_line

NUMBER = re.compile(r"\d*\.?\d+")
METRIC = re.compile(r"(Hit|NDCG)@([1-9]\d{0,8})")
SLACK = 1e-9  # of a linear programme's solution
MOST_CASES = 100_000  # numbers of cases that are tried
MOST_NAMES = 200  # characters of the columns' names in a message


@dataclass(frozen=True)
class Row:
    """One printed row: its place in the table, values by metric, and half a unit of their last digit."""

    name: str
    values: dict[str, float]
    half: dict[str, float]
    n: int | None = None


def cutoffs(values: Mapping[str, float]) -> list[int]:
    """The cut-offs that a row has both metrics of, ascending."""
    hits = (match[2] for name in values if (match := METRIC.fullmatch(name)) and match[1] == "Hit")
    return sorted(int(k) for k in hits if f"NDCG@{k}" in values)


def bounds(low: int, high: int) -> tuple[float, float]:
    """The least and the most that one hit at a rank from low + 1 to high adds to NDCG@high - NDCG@low.

    >>> bounds(0, 1)
    (1.0, 1.0)
    >>> [round(one, 4) for one in bounds(0, 3)], [round(one, 4) for one in bounds(6, 14)]
    ([0.5, 1.0], [0.256, 0.3333])
    """
    return 1 / math.log2(high + 1), 1 / math.log2(low + 2)


def excess(row: Row) -> float:
    """How far, beyond rounding, at least one number of a row has to be off; 0 for a possible row.

    The smallest t such that numbers within half a unit + t of the printed ones obey the bounds of every pair of
    neighbouring cut-offs: a linear programme.
    """
    ks = cutoffs(row.values)
    names = [f"{metric}@{k}" for k in ks for metric in ("Hit", "NDCG")]
    column = {name: i for i, name in enumerate(names)}
    t = len(names)
    rules = []  # each with the variables' sum at most 0
    for low, high in zip([0, *ks], ks, strict=False):
        least, most = bounds(low, high)
        for share, sign in ((least, 1.0), (most, -1.0)):  # least * dH <= dN <= most * dH
            rule = np.zeros(t + 1)
            for k, direction in ((high, 1.0), (low, -1.0)):
                if k:
                    rule[column[f"Hit@{k}"]] += sign * direction * share
                    rule[column[f"NDCG@{k}"]] -= sign * direction
            rules.append((rule, 0.0))
    for name in names:  # |x - printed| <= half a unit + t
        for sign in (1.0, -1.0):
            rule = np.zeros(t + 1)
            rule[column[name]], rule[t] = sign, -1.0
            rules.append((rule, sign * row.values[name] + row.half[name]))
    cost = np.zeros(t + 1)
    cost[t] = 1.0
    a, b = np.array([rule for rule, _ in rules]), np.array([limit for _, limit in rules])
    solution = linprog(cost, A_ub=a, b_ub=b, bounds=[(0, 1)] * t + [(0, None)])
    assert solution.status == 0, solution.message  # a large t obeys everything
    return 0.0 if solution.x[t] < SLACK else float(solution.x[t])


def fits(row: Row, n: int) -> bool:
    """Whether n cases can have these Hits: each times n is a whole number, within rounding.

    >>> row = Row("m", {"Hit@5": 0.3333, "NDCG@5": 0.2}, {"Hit@5": 5e-5, "NDCG@5": 5e-5})
    >>> [n for n in range(1, 12) if fits(row, n)]
    [3, 6, 9]
    """
    for name, value in row.values.items():
        if name.startswith("Hit@"):
            low, high = (value - row.half[name]) * n, (value + row.half[name]) * n
            if math.floor(high + SLACK * n) < low - SLACK * n:
                return False
    return True


def smallest_n(row: Row) -> int | None:
    """The smallest number of cases that fits; None where no number up to MOST_CASES does."""
    return next((n for n in range(1, MOST_CASES + 1) if fits(row, n)), None)


def impossible(row: Row) -> str | None:
    """Why a row is impossible, in words; None for a possible one."""
    if over := excess(row):
        return f"impossible: a number is off by at least {over:.3g} beyond rounding"
    if row.n is not None and not fits(row, row.n):
        return f"impossible: Hit times {row.n:,} cases is no whole number"
    return None


def read_table(path: Path) -> list[Row]:
    """The rows of a csv. Raises InputError with file, row and value where it is no such table."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; give a csv file with columns method, dataset, Hit@k and NDCG@k"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read as csv ({error}); give a table in UTF-8 with commas") from None
    if not lines:
        raise InputError(f"{path}: no rows; give columns method, dataset, Hit@k and NDCG@k")
    names = reader.fieldnames or []
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: column {twice[0]!r} occurs twice; keep one")
    ks = cutoffs(dict.fromkeys((name for name in lines[0] if name), 0.0))
    if not ks:
        found = " ".join(", ".join(names).split())[:MOST_NAMES]
        raise InputError(
            f"{path}: no cut-off k has both Hit@k and NDCG@k (found {found}); name the columns such as Hit@10 and "
            "NDCG@10, with commas between them"
        )
    return [_row(line, f"{path}: row {number}", ks) for number, line in enumerate(lines, 1)]


def _row(line: Mapping[str, str | None], where: str, ks: Sequence[int]) -> Row:
    if (more := line.get(None)) is not None:  # type: ignore[call-overload]
        raise InputError(f"{where}: {more[0]!r} stands behind the last column; give each value one column")
    values, half = {}, {}
    for k in ks:
        pair = {name: (line.get(name) or "").strip() for name in (f"Hit@{k}", f"NDCG@{k}")}
        if "" in pair.values():  # a number that isn't printed or can't be read
            continue
        for name, text in pair.items():
            if not NUMBER.fullmatch(text) or float(text) > 1:
                raise InputError(f"{where}: {name} is {text!r}; give a share from 0 to 1, such as 0.0412")
            values[name] = float(text)
            half[name] = 0.5 * 10.0 ** -_whole(line, "decimals", where, len(text.partition(".")[2]))
    if not values:
        raise InputError(f"{where}: no cut-off has both its Hit and its NDCG; give them, or leave the row out")
    name = ", ".join(filter(None, ((line.get(part) or "").strip() for part in ("dataset", "method")))) or where
    n = _whole(line, "n", where, 0)
    return Row(name, values, half, n or None)


def _whole(line: Mapping[str, str | None], column: str, where: str, without: int) -> int:
    text = (line.get(column) or "").strip()
    if text and not (text.isdecimal() and len(text) < 16):
        raise InputError(f"{where}: {column} is {text[:30]!r}; give a whole number, or leave the column out")
    return int(text) if text else without


def report(rows: Sequence[Row]) -> list[str]:
    """A line per row, then the number of impossible rows."""
    lines, bad = [], 0
    for row in rows:
        why = impossible(row)
        bad += why is not None
        n = smallest_n(row)
        about = "no number of cases up to 100,000 fits its Hits" if n is None else f"Hits fit from {n:,} cases on"
        lines.append(f"{row.name}: {why or 'possible'}; {about}")
    return [*lines, f"{bad} of {len(rows)} rows are impossible."]


@command
def main() -> None:
    parser = command_line("benchmark.statistics.check_table", __doc__)
    parser.add_argument("file", type=Path, metavar="FILE.csv", help="the table")
    args = parser.parse_args()
    rows = read_table(args.file)
    print("\n".join(report(rows)))
    if any(impossible(row) for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
