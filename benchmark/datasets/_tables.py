"""Read a user's table, .csv or .parquet: required and optional columns, with sentences about those that are ignored."""

import contextlib
import csv
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from benchmark.config.wording import many
from benchmark.errors import InputError

NAMES_FIRST = "the first line has to name the columns"
ADD = "add it, or rename the column that has it"
MOST_NAMES = 300  # characters of the columns' names in a message
NUMBERS = ("timestamp", "rating")
# What pandas calls a column of row numbers that was written by mistake: to_csv() and to_parquet() without index=False.
INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
ROW_OF_ANOTHER_LENGTH = "columns, got"
# What to do, by what the readers' messages hold.
ADVICE = {
    "UTF8": "save it in UTF-8",
    "utf-8": "save it in UTF-8",
    "Empty CSV": "its first line has to name the columns",
    "Parquet": "it is cut short or no parquet file: copy it again",
    ROW_OF_ANOTHER_LENGTH: "put a text that holds commas in double quotes (the line of names is row 1 here)",
}
# What a file that is called .csv may be instead, by its first bytes.
NO_CSV = {
    b"\x1f\x8b": "it is packed by gzip: unpack it",
    b"PK\x03\x04": "it is a zip file or a spreadsheet: unpack it, or save it as csv",
    b"PAR1": "it is a parquet file: name it .parquet",
}
EXACT = {16: 2**11, 32: 2**24, 64: 2**53}  # by bits of a floating-point number, how far it tells whole numbers apart
ROW_NUMBERS = ("index", "level_0")  # such a column only where it holds 0, 1, 2, ...


def read(path: Path, required: list[str], optional: list[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """The required columns, the optional ones that the table has, and sentences about columns that are ignored.

    optional: None for all others; where it names some, it is said which others aren't read. Columns are text, but for
    those in NUMBERS. Sentences are also of texts that seem to hold further rows of the file, read or not. Raises
    InputError for a file that is no table, a missing column, one that occurs twice or in another spelling, a quote that
    is never closed, and ids of a type that rounds them.
    """
    table, swallowed = _table(path, required)
    names = [name for name in table.column_names if not INDEX.fullmatch(name)]
    ignored = [name for name in table.column_names if name not in names]
    known = [*required, *(optional or [])]
    _check_names(path, names, required, known, everything=optional is None)
    if optional is None:  # else no further column is read at all
        numbers = [name for name in ROW_NUMBERS if name in names and name not in known and _counts_rows(table, name)]
        names, ignored = [name for name in names if name not in numbers], ignored + numbers
    else:
        ignored = []
    chosen = names if optional is None else [*required, *(name for name in optional if name in names)]
    unread = [name for name in names if name not in chosen] if optional else []
    columns = {}
    for name in chosen:
        column = table.column(name)
        if name.endswith("_id") and name in required:
            _check_ids(column, name, path)
        if name not in NUMBERS:
            try:
                column = column.cast(pa.string())
            except pa.ArrowException:
                raise InputError(f"{path}: column {name!r} has type {column.type}; give text or numbers") from None
        try:
            columns[name] = _plain_numbers(column, name, path).to_pandas() if name in NUMBERS else column.to_pandas()
        except pa.ArrowException as error:  # of a damaged file
            raise InputError(f"{path}: column {name!r} can't be read ({error}); write the file anew") from None
    notes = [f"{path.name}: column {name!r} holds row numbers and is ignored" for name in ignored]
    return pd.DataFrame(columns), swallowed + notes + _unread(unread, path)


def _unread(names: list[str], path: Path) -> list[str]:
    """A sentence about columns of interactions that nothing reads, such as the kind of an event; none for none."""
    if not names:
        return []
    listed = ", ".join(map(repr, names))[:MOST_NAMES]
    columns, are, they = ("column", "is", "it says") if len(names) == 1 else ("columns", "are", "they say")
    return [f"{path.name}: {columns} {listed} {are} not read: every row counts as an interaction, whatever {they}"]


def _plain_numbers(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """A column of numbers as pandas can hold it; anything else, such as times, as text.

    Text is refused later, with its row. pandas itself raises for times that it can't hold.
    """
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_string(kind) or pa.types.is_boolean(kind):
        return column
    if pa.types.is_dictionary(kind):
        return _plain_numbers(column.cast(kind.value_type), name, path)
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise InputError(f"{path}: column {name!r} has type {kind}; give numbers") from None


def _check_ids(column: pa.ChunkedArray, name: str, path: Path) -> None:
    """Raise InputError for ids of a type that makes several of them one: large numbers that are rounded, and truths."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_boolean(kind):
        raise InputError(f"{path}: column {name!r} has type {kind}; give ids as text or whole numbers")
    if not pa.types.is_floating(kind):
        return
    rounded = pc.greater_equal(pc.abs(column.cast(kind).cast(pa.float64())), float(EXACT[kind.bit_width]))
    row = pc.index(rounded, True).as_py()
    if row >= 0:
        raise InputError(
            f"{path}: row {row + 1}: {name} {column[row].as_py():.0f} is of type {kind}, which rounds numbers from "
            f"{EXACT[kind.bit_width]} on; write the column as whole numbers or text (the first data row is 1)"
        )


def _table(path: Path, required: list[str]) -> tuple[pa.Table, list[str]]:
    names: list[str] = []
    try:
        if path.suffix != ".csv":
            return pa.parquet.read_table(path), []
        swallowed = check_quotes(path)
        with open(path, newline="", encoding="utf-8-sig") as file:
            names = next(csv.reader(file), [])
        text = {name: pa.string() for name in names if name not in NUMBERS}
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(use_threads=False),  # only so do its errors name the row
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types=text),
        )
        return table, swallowed
    # UnicodeDecodeError: of a header, or of a column's name in a parquet file. csv.Error: a field of many megabytes.
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        message = (str(error).splitlines() or [type(error).__name__])[0]
        advice = _advice(path, message, names, required)
        raise InputError(f"{path}: can't be read ({message}){f'; {advice}' if advice else ''}") from None


def _advice(path: Path, message: str, names: list[str], required: list[str]) -> str:
    """What to do about a file that a reader refuses with this message; "" where nobody knows.

    names: what its first line holds, as far as it could be read.
    """
    with contextlib.suppress(OSError), open(path, "rb") as file:
        start = file.read(4)
        if path.suffix == ".csv" and (other := [advice for mark, advice in NO_CSV.items() if start.startswith(mark)]):
            return other[0]
    # A text with commas isn't to blame where the line of names is none, or has other separators.
    if ROW_OF_ANOTHER_LENGTH in message and not set(required) & set(names):
        return _by_commas(names) or NAMES_FIRST
    return next((advice for part, advice in ADVICE.items() if part in message), "")


def _by_commas(names: list[str]) -> str:
    """What to do where the line of names has other separators than commas, else ""."""
    separator = len(names) == 1 and re.search(r"[;\t|]", names[0])
    return f"separate columns by commas, not by {separator[0]!r}" if separator else ""


def check_quotes(path: Path) -> list[str]:
    """A sentence about texts that seem to hold further rows of the file, as between two stray quotes; none for none.

    Raises InputError where a quote isn't closed at the end of its field: what follows would be read as its text.
    """
    with open(path, "rb") as file:
        if not any(b'"' in block for block in iter(lambda: file.read(2**20), b"")):
            return []
    before = csv.field_size_limit(2**31 - 1)
    line = 1
    swallowed: list[tuple[int, str, int]] = []  # line, column and number of rows of each such text
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as text:
            rows = csv.reader(text, strict=True)
            names = next(rows, [])
            line = rows.line_num + 1
            for row in rows:
                if rows.line_num > line and len(row) == len(names):
                    held = [_rows_within(field, place, len(names)) for place, field in enumerate(row)]
                    swallowed += [(line, name, count) for name, count in zip(names, held, strict=True) if count]
                line = rows.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path}: line {line}: a quote isn't closed at the end of its field ({error}); close it, or double a quote "
            "that stands for itself"
        ) from None
    finally:
        csv.field_size_limit(before)
    if not swallowed:
        return []
    rows_in_all = sum(count for _, _, count in swallowed)
    first, name, _ = swallowed[0]
    return [
        f"{path.name}: {many(len(swallowed), 'text')} may hold {many(rows_in_all, 'further row')} of the file, first "
        f"that of column {name!r} in line {first}: if a quote there belongs to no text, take it out, or double it"
    ]


def _rows_within(field: str, place: int, width: int) -> int:
    """How many further rows a text in this column of a table of `width` columns seems to hold; 0 for a text as such.

    Between two stray quotes the first line is the end of one row, the last the beginning of another, and those between
    are whole ones.

    >>> _rows_within("ok\\nu2,i1,7,ok\\nu3,i1,8,ok", 3, 4), _rows_within("good,\\nand cheap", 3, 4)
    (2, 0)
    """
    lines = field.splitlines()
    expected = [width - place, *[width] * (len(lines) - 2), place + 1]
    found = [len(next(csv.reader([line]), [])) for line in lines]
    return len(lines) - 1 if len(lines) > 1 and found == expected else 0


def _check_names(path: Path, names_found: list[str], required: list[str], known: list[str], everything: bool) -> None:
    """Raise InputError for a column that is missing, occurs twice, or is one that is read in another spelling."""
    if twice := [name for name in names_found if names_found.count(name) > 1]:
        raise InputError(f"{path}: column {twice[0]!r} occurs twice; keep one")
    plain = {_plain(name): name for name in reversed(names_found)} if everything else {}
    plain |= {_plain(name): name for name in reversed(known)}
    for name in names_found:
        meant = plain.get(_plain(name), name)
        if meant != name and meant in names_found:
            raise InputError(f"{path}: columns {meant!r} and {name!r} differ in spelling alone; keep or rename one")
        if meant != name:
            raise InputError(f"{path}: column {name!r} must be called {meant!r}; rename it")
    if missing := [name for name in required if name not in names_found]:
        advice = _by_commas(names_found) or (ADD if set(required) & set(names_found) else NAMES_FIRST)
        names = " ".join(", ".join(names_found).split())[:MOST_NAMES]
        raise InputError(f"{path}: column {missing[0]!r} is missing (found {names}); {advice}")


def _plain(name: str) -> str:
    """A column's name in lower case, without separators of words.

    >>> _plain(" Item ID"), _plain("item_id"), _plain("price $"), _plain("_")
    ('itemid', 'itemid', 'price$', '_')
    """
    return re.sub(r"[\s_.-]+", "", name.casefold()) or name


def _counts_rows(table: pa.Table, name: str) -> bool:
    values = table.column(name)
    try:
        return bool((values.cast(pa.int64()).to_numpy() == range(len(values))).all())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError):
        return False
