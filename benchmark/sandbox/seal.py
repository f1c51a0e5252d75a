"""Seal a run of a method: what holds test targets is hidden from it, and it can write to its own folders alone.

The evaluator, which reads the targets, is another process; a method's scores go to it, and the ranks come back when the
last batch is there. Hidden is the folder of results with all datasets, runs and fetched files, and the source's files,
which hold the targets, too; shown are the dataset's files without its targets. A method may write to its checkpoints,
to the folder of its runs, to kept states and texts, which methods share, to caches of its user, and to a temporary
folder of its own.

Where the kernel has no Landlock, a run says so in its log and in run.json, and nothing keeps a method from the targets:
then `python -m benchmark.sandbox.canary` says whether scores follow them.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.processes import own_temporary
from benchmark.provenance import ROOT
from benchmark.sandbox import landlock

SANDBOX = "R2EC_BENCH_SANDBOX"  # in the environment: "off" from the user; to a job, what seals it
EVALUATOR = "R2EC_BENCH_EVALUATOR"  # in the environment of a job: the socket of its evaluator
NONE = "none"
TARGETS = "test_targets.parquet"
SHOWN = ("items.parquet", "train.parquet", "valid.parquet", "test.parquet", "dataset.json")
# Settings that name folders which methods share.
SHARED = {"states": "results/states", "texts": "results/texts", "tunings": "results/tunings"}
CACHES = (".cache", ".nv", ".triton", ".vllm")  # of the user; also those that the variables name
NAMED_CACHES = ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "MPLCONFIGDIR")


def seal(arguments: list[str]) -> dict[str, str]:
    """Seal this process, which is about to become `benchmark.jobs.run` with these arguments. Returns what its
    environment gets.

    An evaluator is started before. Raises InputError where the kernel refuses.
    """
    given = _read(arguments)
    if os.environ.get(SANDBOX) == "off" or not (version := landlock.version()):
        why = f"{SANDBOX} is off" if os.environ.get(SANDBOX) == "off" else "this kernel has no Landlock"
        print(
            f"no sandbox, as {why}: the method could read the test targets; benchmark.sandbox.canary tells", flush=True
        )
        return {SANDBOX: NONE}
    temporary = own_temporary()
    socket = temporary / "evaluator"
    command = [sys.executable, "-m", "benchmark.sandbox.evaluator", "--data", str(given.data), "--socket", str(socket)]
    subprocess.Popen([*command, "--method", given.method, "--parent", str(os.getpid())])
    own = [given.work, given.out.parent, temporary / "tmp", *(Path(folder) for folder in _shared(given))]
    for folder in own:
        folder.mkdir(parents=True, exist_ok=True)
    readable = [given.data / name for name in SHOWN] + list(filter(None, [given.tuned])) + list(_named(given))
    try:
        landlock.restrict(list(_hidden(given.data)), readable, [*own, *_caches(), Path("/dev"), Path("/proc")])
    except OSError as error:
        raise InputError(f"the sandbox can't be made ({error}); set {SANDBOX}=off to run without one") from None
    return {SANDBOX: f"landlock {version}", EVALUATOR: str(socket), "TMPDIR": str(temporary / "tmp")}


def _read(arguments: list[str]) -> argparse.Namespace:
    """What of a run's command line says where things are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--data", "--work", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--tuned", type=Path)
    for name in ("--params", "--grid", "--overlay"):
        parser.add_argument(name, default="null")
    given, _ = parser.parse_known_args(arguments)
    return given


def _settings(given: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Every text among a run's settings, with its name. What is no JSON is refused later, in words."""

    def inner(name: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, entry in value.items():
                yield from inner(str(key), entry)
        elif isinstance(value, list):
            for entry in value:
                yield from inner(name, entry)
        elif isinstance(value, str):
            yield name, value

    for text in (given.params, given.grid, given.overlay):
        try:
            yield from inner("", json.loads(text))
        except ValueError:
            continue


def _shared(given: argparse.Namespace) -> set[str]:
    """The folders of kept states and texts: those that the settings name, and where they are otherwise."""
    return {value for name, value in _settings(given) if name in SHARED} | set(SHARED.values())


def _named(given: argparse.Namespace) -> Iterator[Path]:
    """Files and folders that the settings name, such as a model's."""
    for name, value in _settings(given):
        if name not in SHARED and len(value) < 4096 and "\0" not in value and os.path.exists(value):
            yield Path(value)


def _hidden(data: Path) -> Iterator[Path]:
    """What holds test targets: those of the dataset; where it lies in a folder of results, all of that, and what was
    fetched."""
    yield data / TARGETS
    for results in {data.resolve().parent.parent, ROOT / "results"}:
        if (results / "data").is_dir():
            yield results
            for manifest in sorted((results / "fetched").glob("*.json")):
                yield from _fetched(manifest, results.parent)


def _fetched(manifest: Path, start: Path) -> Iterator[Path]:
    """The source files that a manifest names; a damaged one, of which its own job will speak, names none."""
    try:
        yield from (start / entry["path"] for entry in json.loads(manifest.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        return


def _caches() -> list[Path]:
    named = [os.environ[name] for name in NAMED_CACHES if os.environ.get(name)]
    return [path for path in [*(Path.home() / name for name in CACHES), *map(Path, named)] if path.exists()]
