"""Open a DuckDB database in a temporary folder, in bounded memory, and read files into it under a progress bar."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import duckdb
from tqdm import tqdm

from benchmark.datasets._amazon_lines import Problem, first_bad_line
from benchmark.errors import InputError

MEMORY = "500MB"
THREADS = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
# What DuckDB and the system say where disk, quota or memory run out.
FULL = ("No space left", "Could not write", "File too large", "Out of Memory", "offload")


@contextlib.contextmanager
def workspace(*files: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A database and the temporary folder that it is in, removed afterwards.

    Raises InputError where the disk is too small for these files, or gets full.
    """
    needed = sum(file.stat().st_size for file in files)
    with tempfile.TemporaryDirectory(prefix="amazon-2023-") as folder:
        if (free := shutil.disk_usage(folder).free) < needed:
            raise InputError(
                f"{folder}: {free / 1e9:.2f} GB are left and up to {needed / 1e9:.2f} GB may be needed; free some, or "
                "set TMPDIR to a larger disk"
            )
        con = duckdb.connect(
            f"{folder}/tables.duckdb",
            config={
                "memory_limit": MEMORY,
                "threads": THREADS,
                "temp_directory": f"{folder}/spilled",
                "preserve_insertion_order": False,  # would hold back what is read out of turn
            },
        )
        try:
            # query_progress() works only while DuckDB's own bar is enabled; the bar that is shown is tqdm's.
            con.execute(
                "SET enable_progress_bar = true; SET enable_progress_bar_print = false; SET progress_bar_time = 0"
            )
            yield con, Path(folder)
        except (duckdb.Error, OSError) as error:
            message = str(error).splitlines()[0]
            if "could not allocate" in message:
                raise InputError(
                    f"{folder}: {MEMORY} of memory are too little for these files ({message}); raise MEMORY in "
                    f"{Path(__file__).name}"
                ) from None
            if not any(word in message for word in FULL):
                raise
            raise InputError(
                f"{folder}: no room is left ({message}); free some, or set TMPDIR to a larger disk"
            ) from None
        finally:
            con.close()


def read(
    con: duckdb.DuckDBPyConnection, sql: str, file: Path, label: str, problem: Problem, header: bool = False
) -> None:
    """Execute the statement that reads a file, under a progress bar with this label. header: its first line is one.

    Raises InputError where the file is cut off, and for its first line in which `problem` finds something wrong.
    """
    try:
        with ThreadPoolExecutor(1) as pool, tqdm(total=100, desc=label, unit="%", delay=5, leave=False) as bar:
            job = pool.submit(con.execute, sql)
            try:
                while wait([job], timeout=0.2).not_done:
                    bar.update(max(0, round(con.query_progress()) - bar.n))
            except BaseException:
                con.interrupt()
                raise
            job.result()
    except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
        why = first_bad_line(file, problem, str(error).splitlines()[0], header)
        raise InputError(f"{file}: {why}; fetch the file again") from None
    except duckdb.IOException as error:
        if "GZIP" not in str(error).upper():
            raise
        raise InputError(f"{file}: no whole gzip file; delete it and fetch it again") from None


def number(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    """The one number that a query gives, 0 for none."""
    rows = con.execute(sql).fetchall()  # all of it: an unfinished result keeps the connection from other work
    return int(rows[0][0] or 0)


def quoted(path: Path) -> str:
    """A file's name as a string of SQL."""
    return "'" + str(path).replace("'", "''") + "'"
