"""Bits flipped and ends cut off, in every kind of file that is kept; dates and sizes as a failing disk leaves them."""

import contextlib
import io
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmark.analysis.collect import collect
from benchmark.data.store import read_about, read_split, read_test
from benchmark.errors import InputError
from benchmark.jobs.stale import Job, why_stale, write_record
from benchmark.sandbox.evaluator import read_targets
from benchmark.storage import checksums, ledger
from benchmark.storage.checkpoints import finish_checkpoint, last_checkpoint
from benchmark.storage.io import atomic, write_json
from benchmark.storage.wheel import check_sha256
from r2ec.catalogue.large_table import LargeTable, refresh
from tests.faults.count import Outcome
from tests.support.planted import planted, write_prepared
from tests.support.results_tree import write_results

NAMED, ANEW, SAME = "named, with what to delete", "said and made anew", "read as it was written"
WORD = "said and left out"


@dataclass(frozen=True)
class Kept:
    """A kept file, or one of a kept folder, with a reader that returns its content, or None where it is made anew."""

    name: str
    path: Path
    read: Callable[[], Any]


def flipped(path: Path, rng: random.Random) -> None:
    """Flip one bit; size and dates stay."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    _replace(path, bytes(content))


def cut(path: Path, rng: random.Random) -> None:
    """Cut at a random place."""
    _replace(path, path.read_bytes()[: rng.randrange(path.stat().st_size)])


def _replace(path: Path, content: bytes) -> None:
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def keep_everything(folder: Path) -> list[Kept]:
    """A file of every kind, each with its reader."""
    data = write_prepared(folder / "data" / "planted", planted(n_users=20))

    def dataset() -> Any:
        about = read_about(data)
        split, test = read_split(data), read_test(data, about)
        return [
            about,
            _arrays(split.train),
            _arrays(split.valid),
            _arrays(test),
            split.items.to_csv(),
            read_targets(data, test),
        ]

    kept_files = [Kept(f"prepared dataset, {path.name}", path, dataset) for path in sorted(data.iterdir())]
    write_results(folder / "results", ["shop"], {"popularity": 0.2, "sasrec": 0.6}, n_cases=40)
    run = folder / "results" / "runs" / "shop" / "sasrec" / "seed1"

    def results() -> Any:
        collected = collect(folder / "results", "shop", {"popularity": 2, "sasrec": 2})
        return [collected.ranks, [record.model_dump() for record in collected.records.values()]]

    kept_files += [Kept(f"run, {name}", run / name, results) for name in ("rankings.parquet", "run.json")]
    kept_files += [
        _states(folder / "states.safetensors"),
        *_model(folder / "model"),
        _cost(folder / "warm"),
        _record(folder),
        *_checkpoint(folder / "training"),
        *_table_on_disk(folder / "table"),
    ]
    return kept_files


def _arrays(cases: Any) -> list[Any]:
    return [value.tolist() for value in vars(cases).values() if value is not None]


def _states(path: Path) -> Kept:
    """Encoded states, as r2ec/warm_start/kept_states.py keeps them."""
    with atomic(path) as temporary:
        save_file({"states": torch.arange(512.0)}, temporary)
        checksums.note_sum(path, temporary)
    return Kept("kept states", path, lambda: load_file(path)["states"].tolist() if checksums.intact(path) else None)


def _model(folder: Path) -> list[Kept]:
    """A folder such as a warm start's or a fitted model's, as r2ec/scoring/reader.py writes it."""
    with atomic(folder) as temporary:
        temporary.mkdir()
        save_file({"weight": torch.arange(256.0)}, temporary / "weights.safetensors")
        write_json(temporary / "settings.json", {"params": {"tau": 0.1}})
        checksums.write_sums(temporary)

    def read() -> Any:
        if not checksums.intact(folder):
            return None
        return [load_file(folder / "weights.safetensors")["weight"].tolist(), (folder / "settings.json").read_bytes()]

    return [Kept(f"warm start or model, {path.name}", path, read) for path in sorted(folder.iterdir())]


def _checkpoint(folder: Path) -> list[Kept]:
    """The newest checkpoint of a training, with the one that it goes back to."""
    for step in (2, 4):
        path = folder / f"checkpoint-{step}"
        path.mkdir(parents=True)
        save_file({"weight": torch.full((256,), float(step))}, path / "weights.safetensors")
        write_json(path / "trainer_state.json", {"global_step": step, "best_model_checkpoint": None})
        finish_checkpoint(folder, step, None)
    newest = folder / "checkpoint-4"

    def read() -> Any:
        last = last_checkpoint(folder)
        if last != newest:
            assert last is not None and (load_file(last / "weights.safetensors")["weight"] == 2).all()
            shutil.rmtree(newest, ignore_errors=True)
            return None
        return [load_file(last / "weights.safetensors")["weight"].tolist()]

    return [Kept(f"checkpoint, {path.name}", path, read) for path in sorted(newest.iterdir())]


def _table_on_disk(folder: Path) -> list[Kept]:
    """One shard of an item table of ten items."""
    prompts = [[item] for item in range(10)]

    def encode(token_ids: Any) -> torch.Tensor:
        return torch.tensor([[float(prompt[0])] * 8 for prompt in token_ids])

    refresh(folder, 10, lambda start, stop: prompts[start:stop], encode, width=8, encoder="e", dtype="float32")

    def read() -> Any:
        table = LargeTable(folder)
        return [table[:10].tolist(), table.prompt_hashes().tolist()]

    return [Kept(f"item table on disk, {path.suffixes[0]}", path, read) for path in sorted(folder.glob("*.npy*"))]


def _cost(path: Path) -> Kept:
    """A note of costs: a damaged one is ignored, or gives another sum, which changes no ranking."""
    with ledger.account(), ledger.making(path):
        path.write_text("made")

    def read() -> Any:
        with ledger.account() as now:
            ledger.charge_for(path)
            return round(now.reused, 3)

    return Kept("note of costs", path.with_name(f"{path.name}.spent.json"), read)


def _record(folder: Path) -> Kept:
    """The record of a job, and its output: damage of either makes the job run again."""
    place = folder / "workflow"
    (place / "results").mkdir(parents=True)
    (place / "results" / "table.csv").write_text("method,NDCG@10\npopularity,0.1\n" * 20)
    job = Job("table", ("results/table.csv",), (), "settings", "code")
    with contextlib.chdir(place):
        write_record(job)

    def read() -> Any:
        with contextlib.chdir(place):
            return (place / "results" / "table.csv").read_text() if why_stale(job, {}) is None else None

    return Kept("output of a job", place / "results" / "table.csv", read)


def damaged(kept: list[Kept], how: Callable[[Path, random.Random], None], label: str, tries: int, seed: int) -> Outcome:
    """Damage one file after the other, `tries` times in all, and see what its reader says."""
    rng, out = random.Random(seed), Outcome(label, (NAMED, ANEW, SAME, WORD))
    for number in range(tries):
        target = kept[number % len(kept)]
        folder = target.path.parent
        copy = folder.with_name(f".{folder.name}.whole")
        shutil.copytree(folder, copy)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                before = target.read()
                how(target.path, rng)
                after = target.read()
            out.add(_outcome(target, before, after, printed.getvalue()), target.name)
        except InputError as problem:
            out.add(
                NAMED if str(target.path.parent) in str(problem) else "named without its path",
                f"{target.name}: {problem}",
            )
        except Exception as error:
            out.add(f"traceback ({type(error).__name__})", f"{target.name}: {error}")
        shutil.rmtree(folder, ignore_errors=True)
        copy.rename(folder)
    return out


def _outcome(target: Kept, before: Any, after: Any, printed: str) -> str:
    if after is None:
        return ANEW
    if target.name == "note of costs" and "is left out" in printed:
        return WORD
    same = (
        all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        if isinstance(before, list)
        else before == after
    )
    # Of a note of costs a digit may change: no run reads more from it than seconds.
    return SAME if same else WORD if target.name == "note of costs" else "SILENT"


def wheels(folder: Path, tries: int, seed: int) -> Outcome:
    """A wheel whose checksum is pinned."""
    import zipfile

    path = folder / "data.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/log.csv", "user,item\n" * 300)
    pinned = checksums.sha256_of(path)
    rng, whole = random.Random(seed), path.read_bytes()
    out = Outcome("pinned download: a bit flipped or cut short", (NAMED, SAME))
    for number in range(tries):
        (flipped if number % 2 else cut)(path, rng)
        try:
            check_sha256(path, pinned)
            out.add(SAME if path.read_bytes() == whole else "SILENT")
        except InputError as problem:
            out.add(NAMED if str(path) in str(problem) else "named without its path")
        path.write_bytes(whole)
    return out
