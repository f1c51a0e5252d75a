"""Read and filter the raw files of Amazon Reviews 2023 with DuckDB: each once, on disk, in bounded memory.

Both files are streamed into a database in a temporary folder (TMPDIR), of which DuckDB holds at most MEMORY. Only rows
that pass all filters reach Python, the items' attributes in a file. Tables: `log` (every interaction), `seen` (items
that have one), `lines` (every line of the metadata, its texts only where the item is seen), `usable` (items that pass
the rules), `recent` (their last interaction), `chosen` (the interactions that are kept), `kept` (the line of each item
that is kept), `left_over` (the columns of these lines).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType
from tqdm import tqdm

from benchmark.data.account import share
from benchmark.datasets import Limits
from benchmark.datasets._amazon_lines import HEADER, bad_interaction, bad_item, first_bad_line, opened
from benchmark.datasets._amazon_text import attribute, is_title
from benchmark.datasets._duckdb import number, quoted, read
from benchmark.datasets._texts import TextsOnDisk
from benchmark.datasets._times import seconds_and_fraction
from benchmark.errors import InputError

ID = pd.ArrowDtype(pa.string())
BETWEEN = {"categories": " > "}  # separator of the parts of an attribute's list, by attribute; else a space


@dataclass(frozen=True)
class Rules:
    """The rules that a preset and the options over it amount to. amazon_2023.py explains each."""

    start: pd.Timestamp  # UTC
    end: pd.Timestamp
    end_included: bool  # whether an interaction at `end` itself is kept
    min_items: int
    widen_months: int
    k_core: int
    title_words: int
    needs_price: bool
    title: Callable[[str], tuple[str, int]]
    cleaned: bool  # whether attributes are cleaned of HTML
    attributes: tuple[str, ...]
    attribute_words: int | None
    broken_lines: int


def read_interactions(con: duckdb.DuckDBPyConnection, path: Path, end_ms: int, limits: Limits) -> dict[str, int]:
    """Make `log` and `seen` from user_id, parent_asin, rating, timestamp in ms; end_ms: the first that counts no more.

    A rating of 0 is none: the source's begin at 1. Raises InputError, naming file, line and value, for another header,
    a missing id or time, a time outside the limits, or what is no number.
    """
    with opened(path) as lines:
        header = next(lines, b"").decode(errors="replace").strip()
    if header.split(",") != HEADER:
        raise InputError(f"{path}: line 1: columns are {header!r}, expected {','.join(HEADER)!r}; take the right file")
    columns = "{user_id: 'VARCHAR', parent_asin: 'VARCHAR', rating: 'FLOAT', timestamp: 'BIGINT'}"
    sql = f"""
        CREATE TABLE log AS SELECT user_id, parent_asin AS item_id, rating, "timestamp" AS ms
        FROM read_csv({quoted(path)}, auto_detect = false, header = true, delim = ',', quote = '', escape = '',
                      columns = {columns})
        """
    bad = functools.partial(bad_interaction, limits=limits)
    read(con, sql, path, "reading interactions", bad, header=True)
    missing = "user_id IS NULL OR item_id IS NULL OR ms IS NULL OR NOT isfinite(rating)"
    if number(con, f"SELECT count(*) FROM log WHERE {missing}"):
        why = first_bad_line(path, bad, "an id or a timestamp is missing, or a rating is not finite", header=True)
        raise InputError(f"{path}: {why}; fetch the file again")
    outside = number(con, f"SELECT count(*) FROM log WHERE ms < {limits.first * 1000} OR ms >= {limits.end * 1000}")
    if outside:
        why = first_bad_line(path, bad, "a timestamp is none", header=True)
        raise InputError(
            f"{path}: {why}, lines like it: {outside}; take the right file, or let earliest and latest say what can be"
        )
    zeros = number(con, "SELECT count(*) FROM log WHERE rating = 0")
    if zeros:
        con.execute("UPDATE log SET rating = NULL WHERE rating = 0")
    con.execute(f"CREATE TABLE seen AS SELECT DISTINCT item_id FROM log WHERE ms < {end_ms}")
    return {"interactions_read": number(con, "SELECT count(*) FROM log"), "ratings_of_zero": zeros}


def read_items(con: duckdb.DuckDBPyConnection, path: Path, rules: Rules) -> dict[str, int]:
    """Make `lines` and `usable` from the metadata: one JSON object per line.

    Counts lines read and, of the items with an interaction, those that each rule drops. Raises InputError, naming file
    and line, where more lines are broken (no JSON object with a parent_asin) than the rules tolerate.
    """
    types = {"parent_asin": "VARCHAR", "average_rating": "DOUBLE", "rating_number": "DOUBLE"}
    types |= dict.fromkeys(["title", "price", *rules.attributes], "JSON")
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in types.items())
    texts = "".join(f", CASE WHEN known THEN {name} END AS {name}" for name in rules.attributes)

    def title_of(raw: pa.ChunkedArray) -> pa.Array:
        titles = [rules.title(text) if text is not None and is_title(text) else None for text in raw.to_pylist()]
        return pa.array(
            [None if pair is None else {"text": pair[0], "words": pair[1]} for pair in titles],
            pa.struct([("text", pa.string()), ("words", pa.int32())]),
        )

    title_type = duckdb.struct_type({"text": "VARCHAR", "words": "INTEGER"})
    con.create_function(
        "title_of",
        title_of,
        ["VARCHAR"],
        title_type,
        type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL,
    )
    sql = f"""
        CREATE TABLE lines AS
        SELECT item_id, known,
               title_of(CASE WHEN known AND json_type(title) = 'VARCHAR' THEN title ->> '$' END) AS title,
               known AND json_type(title) NOT IN ('VARCHAR', 'NULL') AS titled_otherwise,
               coalesce(isfinite(TRY_CAST(price ->> '$' AS DOUBLE)), false) AS priced,
               average_rating, rating_number {texts}
        FROM (SELECT nullif(parent_asin, '') AS item_id, parent_asin IN (SELECT item_id FROM seen) AS known, *
              FROM read_json({quoted(path)}, format = 'newline_delimited', ignore_errors = true,
                             columns = {{{columns}}}))
        """
    try:
        read(con, sql, path, "reading items", bad_item)
    finally:
        con.remove_function("title_of")
    counts = {
        "items_read": number(con, "SELECT count(*) FROM lines"),
        "lines_broken": number(con, "SELECT count(*) FROM lines WHERE item_id IS NULL"),
        "titles_no_text": number(con, "SELECT count(*) FROM lines WHERE titled_otherwise"),
    }
    if counts["lines_broken"] > rules.broken_lines:
        why = first_bad_line(path, bad_item, "a line holds no JSON object with a parent_asin")
        raise InputError(
            f"{path}: {why}; broken lines: {counts['lines_broken']}, of {counts['items_read']}: fetch the file again, "
            f"or let broken_lines tolerate them (it is {rules.broken_lines})"
        )
    return counts | _mark_usable(con, rules)


def _mark_usable(con: duckdb.DuckDBPyConnection, rules: Rules) -> dict[str, int]:
    """Make `usable`: the items that pass the rules, one line each. Returns how many each rule drops, in its order."""
    drops = {
        "items_without_interaction": "known IS NOT TRUE AND item_id IS NOT NULL",
        "items_without_title": "known AND coalesce(title.words, 0) = 0",
        "items_title_too_long": f"known AND title.words > {rules.title_words}",
        "items_without_price": f"known AND title.words BETWEEN 1 AND {rules.title_words} AND NOT priced"
        if rules.needs_price
        else "false",
    }
    counts = {name: number(con, f"SELECT count(*) FROM lines WHERE {rule}") for name, rule in drops.items()}
    passes = f"known AND title.words BETWEEN 1 AND {rules.title_words}" + (" AND priced" if rules.needs_price else "")
    # Of an item's lines one stays, whatever their order in the file: the least by a hash of what they say.
    texts = ", ".join(["title", "average_rating", "rating_number", *rules.attributes])
    con.execute(
        f"CREATE TABLE usable AS SELECT item_id, arg_min(rowid, hash({texts})) AS line "
        f"FROM lines WHERE {passes} GROUP BY 1"
    )
    lines = number(con, f"SELECT count(*) FROM lines WHERE {passes}")
    return counts | {"items_repeated": lines - number(con, "SELECT count(*) FROM usable")}


def check_known(con: duckdb.DuckDBPyConnection, path: Path, limits: Limits) -> dict[str, int]:
    """Count the interactions whose item has no line of the metadata. Raises InputError where they are too many."""
    of_unknown = "FROM log ANTI JOIN lines USING (item_id)"
    unknown, rows = number(con, f"SELECT count(*) {of_unknown}"), number(con, "SELECT count(*) FROM log")
    if unknown > limits.unknown_items * rows:
        first = con.execute(f"SELECT min(item_id) {of_unknown}").fetchall()[0][0]
        raise InputError(
            f"{path}: {share(unknown, rows)} interactions name an item that the metadata doesn't have, such as "
            f"{first!r}; take both files of one category, or let max_unknown_items accept them "
            f"(it is {limits.unknown_items:g})"
        )
    return {"dropped_unknown_item": unknown}


def choose(
    con: duckdb.DuckDBPyConnection, rules: Rules, end_ms: int, unknown: int
) -> tuple[pd.Timestamp, dict[str, int]]:
    """Make `chosen`: the usable items' interactions in the window, which is widened by the rule of amazon_2023.py.

    unknown: interactions whose item the metadata doesn't have. Returns the window's start and what was dropped on the
    way.
    """
    con.execute(
        f"CREATE TABLE recent AS SELECT item_id, max(ms) AS ms FROM log SEMI JOIN usable USING (item_id) "
        f"WHERE ms < {end_ms} GROUP BY 1"
    )
    if not number(con, "SELECT count(*) FROM recent"):
        raise InputError(
            "no item with an interaction before the window's end passes the rules; take files of one category"
        )
    first = number(con, f"SELECT min(ms) FROM log SEMI JOIN usable USING (item_id) WHERE ms < {end_ms}")
    start, widened, distinct = rules.start, 0, 0
    while True:
        start_ms = _ms(start)
        # Without a k-core an item is in the window exactly if its last interaction is.
        items = number(con, f"SELECT count(*) FROM recent WHERE ms >= {start_ms}")
        at_the_end = start_ms <= first
        if items >= rules.min_items or at_the_end:
            if rules.k_core > 1:
                distinct = _fill(con, start_ms, end_ms, rules.k_core)
                items = number(con, "SELECT count(DISTINCT item_id) FROM chosen")
            if items >= rules.min_items or at_the_end:
                break
        widened += 1
        start = rules.start - pd.DateOffset(months=widened * rules.widen_months)
    if items < rules.min_items:
        print(
            f"window: {items:,} items although it goes back to the first interaction; min_items asks for "
            f"{rules.min_items:,}"
        )
    if rules.k_core == 1:
        distinct = _fill(con, start_ms, end_ms, 1)
    of_usable = "FROM log SEMI JOIN usable USING (item_id)"
    usable = number(con, f"SELECT count(*) {of_usable}")
    inside = number(con, f"SELECT count(*) {of_usable} WHERE ms >= {start_ms} AND ms < {end_ms}")
    kept = number(con, "SELECT count(*) FROM chosen")
    return start, {
        "dropped_of_dropped_items": number(con, "SELECT count(*) FROM log") - usable - unknown,
        "dropped_outside_window": usable - inside,
        "dropped_repeats": inside - distinct,
        "dropped_k_core": distinct - kept,
        "interactions": kept,
        "items": items,
        "months_widened": widened * rules.widen_months,
    }


def _fill(con: duckdb.DuckDBPyConnection, start_ms: int, end_ms: int, k_core: int) -> int:
    """Make `chosen`: one row per user and item, then the k-core. Returns the number of rows before the k-core.

    The row is that of the protocol: the first interaction; of those at one time, the one with the lowest rating.
    """
    con.execute(
        f"""
        CREATE OR REPLACE TABLE chosen AS
        SELECT user_id, item_id, least.ms AS ms, least.rating AS rating
        FROM (SELECT user_id, item_id, min({{'ms': ms, 'rating': rating}}) AS least
              FROM log SEMI JOIN usable USING (item_id) WHERE ms >= {start_ms} AND ms < {end_ms} GROUP BY 1, 2)
        """
    )
    distinct = before = number(con, "SELECT count(*) FROM chosen")
    while k_core > 1:
        for side in ("item_id", "user_id"):
            rare = f"SELECT {side} FROM chosen GROUP BY 1 HAVING count(*) < {k_core}"
            con.execute(f"DELETE FROM chosen WHERE {side} IN ({rare})")
        remaining = number(con, "SELECT count(*) FROM chosen")
        if remaining == before:
            break
        before = remaining
    return distinct


def interactions_left(con: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The interactions of `chosen`, sorted by time, user and item.

    Columns: user_id, item_id (Arrow's strings), timestamp (int64, s), rating (float32), fraction (int32, ns).
    """
    query = con.sql("SELECT user_id, item_id, ms, rating FROM chosen ORDER BY ms, user_id, item_id")
    table = query.to_arrow_table()
    ids = {name: table.column(name) for name in ("user_id", "item_id")}
    seconds, fraction = seconds_and_fraction(table.column("ms").to_numpy(), "ms")
    return pd.DataFrame(
        {name: pd.Series(column, dtype=ID) for name, column in ids.items()}
        | {
            "timestamp": seconds,
            "rating": table.column("rating").to_numpy().astype(np.float32),
            "fraction": fraction,
        }
    )


def items_left(con: duckdb.DuckDBPyConnection, rules: Rules, folder: Path) -> tuple[pd.DataFrame, TextsOnDisk | None]:
    """The items of `chosen`, sorted by id, and their attributes as text.

    Columns: item_id, title (Arrow's strings, which take a third of the memory of Python's), average_rating (NaN where
    missing) and rating_number (0 where missing). The attributes stay in a file in `folder`, which may be deleted.
    """
    names = ["item_id", "title", "average_rating", "rating_number"]
    # One table to join or to sort at a time: in a single statement they share the memory, and 2 GB of items have too
    # little.
    con.execute("CREATE TABLE kept AS SELECT item_id, line FROM usable SEMI JOIN chosen USING (item_id)")
    con.execute(
        f"""
        CREATE TABLE left_over AS
        SELECT lines.item_id, (lines.title).text AS title, average_rating,
               coalesce(rating_number, 0)::BIGINT AS rating_number
               {"".join(f", lines.{name}" for name in rules.attributes)}
        FROM lines JOIN kept ON lines.rowid = kept.line
        """
    )
    n = number(con, "SELECT count(*) FROM left_over")
    query = con.sql("SELECT * FROM left_over ORDER BY item_id")  # streamed, unlike what execute() gives
    schema = pa.schema([(name, pa.large_string()) for name in rules.attributes])
    path = str(folder / "texts.arrow")
    parts = []
    with (
        pa.OSFile(path, "wb") as file,
        pa.ipc.new_file(file, schema) as out,
        tqdm(total=n, desc="texts of items", unit="item", delay=5, leave=False) as bar,
    ):
        for batch in query.to_arrow_reader(10_000):
            # A copy: any column of DuckDB's batch keeps all of it in memory, the attributes' JSON too.
            parts.append(batch.select(names).take(pa.array(np.arange(batch.num_rows))))
            if rules.attributes:
                texts = [_texts_of(batch.column(name), name, rules) for name in rules.attributes]
                out.write_batch(pa.record_batch(texts, schema=schema))
            bar.update(batch.num_rows)
    whole = pa.Table.from_batches(parts)
    items = pd.DataFrame(
        {name: pd.Series(whole.column(name), dtype=ID) for name in names[:2]}
        | {name: whole.column(name).to_numpy() for name in names[2:]}
    )
    return items, TextsOnDisk(pa.ipc.open_file(pa.OSFile(path))) if rules.attributes else None


def _texts_of(column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """An attribute's JSON as text."""
    between = BETWEEN.get(name, " ")
    texts = [attribute(value, rules.attribute_words, between, rules.cleaned) for value in column.to_pylist()]
    return pa.array(texts, pa.large_string())


def _ms(moment: pd.Timestamp) -> int:
    return int(moment.timestamp()) * 1000
