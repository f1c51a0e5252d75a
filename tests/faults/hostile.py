"""Inputs that somebody has broken: configs, tables, records, Amazon lines and wheels, whole ones mutated at random.

Each is read in a child process, so that a reader which ends the process is counted and not suffered.
"""

import contextlib
import csv
import gzip
import io
import json
import multiprocessing
import random
import unittest.mock
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue, TypeAdapter

from benchmark.analysis import registered
from benchmark.behaviours.ratings import read_ratings
from benchmark.behaviours.rules import BEHAVIOURS
from benchmark.config.read import read_config, read_yaml
from benchmark.config.schema import ClaimConfig
from benchmark.contract import check_scores
from benchmark.datasets import Limits, files
from benchmark.datasets._amazon_lines import bad_interaction, bad_item, first_bad_line
from benchmark.datasets._amazon_text import attribute
from benchmark.errors import InputError, in_a_sentence
from benchmark.jobs.lm_cost import lm_of
from benchmark.jobs.plan import Plan
from benchmark.jobs.records import read_failed, read_run, write_run
from benchmark.jobs.stale import Job, why_stale
from benchmark.jobs.tuning import check_report
from benchmark.output.publish import check, of_the_page, read_records
from benchmark.provenance import ROOT
from benchmark.statistics.check_table import fits, read_table
from benchmark.storage.wheel import read_member
from r2ec.recommend import Catalogue, as_case, from_file
from tests.faults.count import Outcome
from tests.support.results_tree import record

READ, NAMED = "read", "one sentence"
RUN_JSON: TypeAdapter[object] = TypeAdapter(dict[str, JsonValue])
AT_ONCE = 250  # inputs per child process
LIMITS = Limits(first=631_152_000, end=2_524_608_000, unknown_items=0.5)
ODD = [
    "", "nan", "inf", "-inf", "1e39", "-0", "007", "9" * 40, "0x10", "null", "true", "~", ".inf", ".nan", "2021-01-01",
    "2021-13-45", "12:30:00", "\x00", "\x1b[2J", "\u202e", "\ud800", "ü", "日本", "{x}", "'", '"', '""', ",", ";",
    "\t", "\n", "\r\n", "=1+1", "<|endoftext|>", "a" * 5000, "&a *a", "!!python/object:os.system", "- - -", "[" * 50,
    "99999999999999999999", "010", "1:30", "0x_", "&a {x: *a}", "9" * 400, "9" * 5000, "[" * 2000, "\\ud800", "²",
    "٣", "1_0", "2021-01-01 10:00:00", "<<: *a", "!!set {a}", "!!binary aGk=", "{1: 2}", "\ufeff",
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
    plan = Plan.of(read_config(read_yaml(path)))
    for run in [*plan.config.methods, *plan.ablations.variants]:
        json.dumps(plan.settings(run), allow_nan=False)  # as its jobs get them


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


def amazon_texts(folder: Path, rng: random.Random) -> None:
    """Attributes of an item, which are JSON within JSON."""
    text = mutated(b'{"Brand": "A &amp; B", "Sizes": [1, 2.5, null, true], "Note": "<b>x</b> \\u00e9"}', rng)
    pa.array([attribute(text.decode("utf-8", "replace"), 20)], pa.large_string())


def a_raters_sheet(folder: Path, rng: random.Random) -> None:
    """What two raters have filled in; the second one's is whole."""
    names = [one.name for one in BEHAVIOURS]
    rows = [["id", "reasoning", *names], *([str(n), "because, so", *(str(n % 2) for _ in names)] for n in range(1, 9))]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    paths = [folder / "one.csv", folder / "two.csv"]
    paths[0].write_bytes(mutated(text.getvalue().encode(), rng))
    paths[1].write_text(text.getvalue())
    read_ratings(paths, range(1, 9))


def a_printed_table(folder: Path, rng: random.Random) -> None:
    lines = (
        b"method,dataset,Hit@5,NDCG@5,Hit@10,NDCG@10,n,decimals\nm,d,0.1,0.05,0.2,0.08,100,4\no,d,0.3,0.2,0.4,0.25,,\n"
    )
    (folder / "table.csv").write_bytes(mutated(lines, rng))
    rows = read_table(folder / "table.csv")
    [fits(row, row.n or 1) for row in rows]


def a_users_history(folder: Path, rng: random.Random) -> None:
    """What r2ec-bench recommend is asked about."""
    items = pd.DataFrame({"item_id": [f"i{n}" for n in range(5)], "title": [f"Title {n}" for n in range(5)]})
    split: Any = SimpleNamespace(name="toy", items=items, train=SimpleNamespace(ratings=np.ones(1)))
    text = b"title,item_id,rating,time\nTitle 1,,4,1600000000\n,i2,3.5,1600000001\nTitle 3,i3,,2021-01-01\n"
    (folder / "history.csv").write_bytes(mutated(text, rng))
    cases = as_case(from_file(folder / "history.csv", Catalogue(split)), split)
    assert np.isfinite(cases.ratings[~np.isnan(cases.ratings)]).all()


def records_of_jobs(folder: Path, rng: random.Random) -> None:
    """What the workflow and the publisher read of results/made_from."""
    whole = {"settings": "s", "code": "c", "inputs": {}, "outputs": {"o": {"sha256": "0" * 64, "mark": [1, 2, 3, 4]}}}
    path = folder / "results" / "made_from" / "page.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mutated(json.dumps(whole).encode(), rng))
    with contextlib.chdir(folder):
        assert why_stale(Job("page", ("o",), (), "s", "c"), {}) is not None, "o is not there"
    check(folder, of_the_page(read_records(folder)))


def an_earlier_config(folder: Path, rng: random.Random) -> None:
    """Claims as they were registered at some commit, whose config may be of another schema."""
    claim = ClaimConfig(says="It helps.", value="with", against="without", smallest_effect=0.05)
    entry = b"{says: It helps., value: with, against: without, smallest_effect: .05}"
    text = b"ablations:\n  f:\n    claims:\n      - " + entry + b"\n"
    changed = mutated(text, rng).decode("utf-8", "replace")
    with unittest.mock.patch.object(registered, "_config_at", lambda *_: changed):
        registered.was_registered(claim, "c", "config.yaml")


def a_models_config(folder: Path, rng: random.Random) -> None:
    """The shape of a user's own LM, which the estimates read."""
    whole = {"num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    about = whole | {"vocab_size": 99, "head_dim": 4, "num_key_value_heads": 1}
    (folder / "config.json").write_bytes(mutated(json.dumps(about).encode(), rng))
    lm_of({"name": str(folder)})


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
            {"a": (1, 2)},
            {"a": "\ud800"},
            {"a": 10**5000},
            {"a": {1: 2}},
        ]
    )
    check_report(report, "method")
    RUN_JSON.validate_json(json.dumps(report))


KINDS: dict[str, tuple[Callable[[Path, random.Random], None], int]] = {  # with shares of the whole
    "config": (a_config, 1),
    "the user's own two tables": (two_tables, 6),
    "run.json": (a_record, 6),
    "Amazon lines": (amazon_lines, 6),
    "Amazon texts": (amazon_texts, 2),
    "sheet of a rater": (a_raters_sheet, 1),
    "printed table": (a_printed_table, 2),
    "history of a user": (a_users_history, 1),
    "records of jobs": (records_of_jobs, 2),
    "claims of a commit": (an_earlier_config, 1),
    "config.json of a model": (a_models_config, 2),
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
        with in_a_sentence():  # as every command does
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
