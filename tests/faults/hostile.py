"""Inputs that somebody has broken: configs, tables, records, Amazon lines and wheels, whole ones mutated at random.

Each is read in a child process, so that a reader which ends the process is counted and not suffered.
"""

import contextlib
import csv
import gzip
import io
import multiprocessing
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.config.read import read_config, read_yaml
from benchmark.contract import check_scores
from benchmark.datasets import Limits, files
from benchmark.datasets._amazon_lines import bad_interaction, bad_item, first_bad_line
from benchmark.errors import InputError
from benchmark.jobs.records import read_failed, read_run, write_run
from benchmark.jobs.tuning import check_report
from benchmark.provenance import ROOT
from benchmark.storage.wheel import read_member
from tests.faults.count import Outcome
from tests.support.results_tree import record

READ, NAMED = "read", "one sentence"
AT_ONCE = 250  # inputs per child process
LIMITS = Limits(first=631_152_000, end=2_524_608_000, unknown_items=0.5)
ODD = [
    "", "nan", "inf", "-inf", "1e39", "-0", "007", "9" * 40, "0x10", "null", "true", "~", ".inf", ".nan", "2021-01-01",
    "2021-13-45", "12:30:00", "\x00", "\x1b[2J", "\u202e", "\ud800", "ü", "日本", "{x}", "'", '"', '""', ",", ";",
    "\t", "\n", "\r\n", "=1+1", "<|endoftext|>", "a" * 5000, "&a *a", "!!python/object:os.system", "- - -", "[" * 50,
    "99999999999999999999",
]  # fmt: skip


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few random changes: bytes, words, lines."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0 and changed:
            changed[at % len(changed)] = rng.randrange(256)
        elif kind == 1:
            changed[at:at] = rng.choice(ODD).encode("utf-8", "surrogatepass")
        elif kind == 2:
            del changed[at : at + rng.randrange(1, 40)]
        elif kind == 3:
            changed[at:at] = changed[at : at + rng.randrange(1, 80)]
        elif kind == 4:
            lines = bytes(changed).split(b"\n")
            rng.shuffle(lines)
            changed = bytearray(b"\n".join(lines))
        else:
            changed = bytearray(bytes(changed).decode("utf-8", "replace").encode("latin-1", "replace"))
    return bytes(changed)


def a_config(folder: Path, rng: random.Random) -> None:
    name = rng.choice(["smoke", "quick", "config", "ablations", "decoupled"])
    path = folder / "config.yaml"
    path.write_bytes(mutated((ROOT / "config" / f"{name}.yaml").read_bytes(), rng))
    read_config(read_yaml(path))


def two_tables(folder: Path, rng: random.Random) -> None:
    """Tables of the user's own, as csv with bytes changed, or as parquet with columns of any type."""
    rows = [[f"u{n % 7}", f"i{n % 5}", str(1_600_000_000 + n), "4"] for n in range(30)]
    items = [[f"i{n}", f"Title {n}"] for n in range(5)]
    for _ in range(rng.randrange(4)):
        rows[rng.randrange(30)][rng.randrange(4)] = rng.choice(ODD)
    for name, head, body in (
        ("interactions", ["user_id", "item_id", "timestamp", "rating"], rows),
        ("items", ["item_id", "title"], items),
    ):
        path = folder / f"{name}.csv"
        text = io.StringIO()
        csv.writer(text).writerows([head, *body])
        content = text.getvalue().encode("utf-8", "surrogatepass")
        path.write_bytes(mutated(content, rng) if rng.random() < 0.5 else content)
    options = files.Options(folder=folder, timestamp_unit=rng.choice(("s", "ms", "us", "ns")))
    paths = [folder / "interactions.csv", folder / "items.csv"]
    if rng.random() < 0.4:
        paths[0] = odd_parquet(folder / "interactions.parquet", rng)
    files.load(options, paths, LIMITS)


def odd_parquet(path: Path, rng: random.Random) -> Path:
    """Interactions whose columns have types that nobody expects."""
    n = 12
    numbers = np.arange(n) + 1_600_000_000
    types = [
        pa.array(numbers),
        pa.array(numbers.astype("float64")),
        pa.array(numbers.astype("datetime64[s]")),
        pa.array(numbers % 86_400).cast(pa.int32()).cast(pa.time32("s")),
        pa.array(numbers // 86_400).cast(pa.int32()).cast(pa.date32()),
        pa.array([10**17 + k for k in range(n)]).cast(pa.timestamp("us")),
        pa.array([10**17 + k for k in range(n)]).cast(pa.timestamp("us", "Europe/Vienna")),
        pa.array(numbers).cast(pa.duration("s")),
        pa.array([str(v) for v in numbers]),
        pa.array([str(v) for v in numbers]).dictionary_encode(),
        pa.array([b"\xff\xfe"] * n),
        pa.array([[1, 2]] * n),
        pa.array([{"a": 1}] * n),
        pa.array([True] * n),
        pa.nulls(n),
        pa.array([None, *numbers[1:].tolist()]),
        pa.array([float("inf"), 1e300, *numbers[2:].tolist()]),
        pa.array(numbers).cast(pa.decimal128(25, 2)),
    ]
    columns = {name: rng.choice(types) for name in ("user_id", "item_id", "timestamp", "rating")}
    if rng.random() < 0.2:
        columns.pop(rng.choice(list(columns)))
    pq.write_table(pa.table(columns), path)
    if rng.random() < 0.2:
        path.write_bytes(mutated(path.read_bytes(), rng))
    return path


def a_record(folder: Path, rng: random.Random) -> None:
    """Reading it is right only where nothing but blanks and the order of names has changed."""
    whole, path = folder / "whole" / "run.json", folder / "run.json"
    if not whole.exists():
        write_run(whole, record("shop", "sasrec", 1, 10))
    path.write_bytes(mutated(whole.read_bytes(), rng))
    read_failed(path)
    assert read_run(path) == read_run(whole), "another record was read"


def amazon_lines(folder: Path, rng: random.Random) -> None:
    """The slow reader, which finds the line that duckdb has refused."""
    lines = b"user_id,parent_asin,rating,timestamp\n" + b"u1,B01,5.0,1600000000000\n" * 3
    path = folder / "log.csv.gz"
    packed = gzip.compress(mutated(lines, rng), mtime=0)
    path.write_bytes(mutated(packed, rng) if rng.random() < 0.3 else packed)
    first_bad_line(path, lambda text: bad_interaction(text, LIMITS), "none", header=True)
    path.write_bytes(gzip.compress(mutated(b'{"parent_asin": "B01", "title": "A"}\n' * 3, rng), mtime=0))
    first_bad_line(path, bad_item, "none")


def a_wheel(folder: Path, rng: random.Random) -> None:
    path = folder / "x.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/log.csv", "user,item\n" * 40)
    path.write_bytes(mutated(path.read_bytes(), rng))
    read_member(path, "data/log.csv")


def what_a_method_gives(folder: Path, rng: random.Random) -> None:
    """Scores and reports of every type."""
    n = 6
    scores = rng.choice(
        [
            None, [1.0], np.ones((2, n)), np.ones(n), np.ones((2, n + 1)), np.full((2, n), np.nan),
            np.full((2, n), np.inf), np.ones((2, n), object), np.ones((2, n), complex),
            np.ones((2, n), "datetime64[s]"),
            np.array([["a"] * n]),
            np.full((2, n), 2**60), np.ones((2, n), np.longdouble), np.ma.ones((2, n)), np.ones((0, n)),
            np.full((2, n), -np.inf), np.full((1, n), rng.uniform(-1e300, 1e300)), np.ones((2, n), bool),
            memoryview(b"abc"),
        ]
    )  # fmt: skip
    if scores is None or not isinstance(scores, np.ndarray) or scores.shape[0]:
        check_scores(scores, n, "method")
    report = rng.choice(
        [
            None,
            [],
            {"a": 1},
            {"a": float("nan")},
            {"a": [float("inf")]},
            {"a": {1, 2}},
            {"a": np.float32(1)},
            {1: 2},
            {"a": b"x"},
        ]
    )
    check_report(report, "method")


KINDS: dict[str, tuple[Callable[[Path, random.Random], None], int]] = {  # with shares of the whole
    "config": (a_config, 1),
    "the user's own two tables": (two_tables, 6),
    "run.json": (a_record, 6),
    "Amazon lines": (amazon_lines, 6),
    "wheel": (a_wheel, 11),
    "scores and report of a method": (what_a_method_gives, 10),
}


def _batch(kind: str, seeds: range, folder: Path, queue: "multiprocessing.Queue[tuple[int, str, str]]") -> None:
    read, _ = KINDS[kind]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for seed in seeds:
            queue.put((seed, *_tried(read, folder, seed)))


def _tried(read: Callable[[Path, random.Random], None], folder: Path, seed: int) -> tuple[str, str]:
    try:
        read(folder, random.Random(seed))
    except InputError as problem:
        return (
            (NAMED, "")
            if str(problem) and "\n" not in str(problem).strip()
            else ("more than a line", str(problem)[:200])
        )
    except Exception as error:
        return f"traceback ({type(error).__name__})", f"seed {seed}: {str(error)[:150]}"
    return READ, ""


def hostile(kind: str, tries: int, folder: Path, seed: int) -> Outcome:
    """Count what becomes of so many hostile inputs of one kind."""
    out = Outcome(f"hostile input: {kind}", (READ, NAMED))
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    start, end = seed, seed + tries
    with contextlib.suppress(Exception):  # what it imports is there for every child
        KINDS[kind][0](folder, random.Random(seed))
    while start < end:
        queue = context.SimpleQueue()
        seeds = range(start, min(start + AT_ONCE, end))
        child = context.Process(target=_batch, args=(kind, seeds, folder, queue))
        child.start()
        done = 0
        while done < len(seeds):
            if queue.empty():
                child.join(0.02)
                if child.exitcode is not None and queue.empty():
                    break
                continue
            _, outcome, about = queue.get()
            out.add(outcome, about)
            done += 1
        child.join()
        if done < len(seeds):  # it died on the next one
            out.add(f"ended the process ({child.exitcode})", f"seed {start + done}")
            done += 1
        start += done
    return out
