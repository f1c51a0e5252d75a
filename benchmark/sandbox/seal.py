"""Seal a run of a method: hide all files with test targets from it, and let it write only to its own folders.

The evaluator, which reads the targets, is another process; it gets the method's scores and sends the ranks after the
last batch. The method can't read the folder of results with all datasets, runs and fetched files, nor the source's
files, which hold the targets, too; it can read the files of its dataset but the targets. It may write to its
checkpoints, to the folder of its runs, to kept states and texts, which methods share, to its user's caches, and to a
temporary folder of its own.

Where the kernel has no Landlock, a run says so in its log and in run.json, and nothing keeps a method from the targets.
Then `python -m benchmark.sandbox.canary` tests whether its recommendations follow them.
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
from benchmark.provenance import ROOT, commit
from benchmark.sandbox import landlock
from benchmark.sandbox.explain import TARGETS, WRITABLE

SANDBOX = "R2EC_BENCH_SANDBOX"  # in the environment: "off" from the user; to a job, what seals it
EVALUATOR = "R2EC_BENCH_EVALUATOR"  # in the environment of a job: the socket of its evaluator
NONE = "none"
SHOWN = ("items.parquet", "train.parquet", "valid.parquet", "test.parquet", "dataset.json")
# Settings that name folders which methods share.
SHARED = {"states": "results/states", "texts": "results/texts", "tunings": "results/tunings"}
CACHES = (".cache", ".nv", ".triton", ".vllm")  # of the user; also those that the variables name
NAMED_CACHES = ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "MPLCONFIGDIR")


def seal(arguments: list[str]) -> dict[str, str]:
    """Start an evaluator and seal this process, which is about to become `benchmark.jobs.run` with these arguments.

    Returns variables for its environment. Raises InputError where the kernel refuses.
    """
    args = _read(arguments)
    if os.environ.get(SANDBOX) == "off" or not (version := landlock.version()):
        why = f"{SANDBOX} is off" if os.environ.get(SANDBOX) == "off" else "this kernel has no Landlock"
        print(
            f"no sandbox, as {why}: the method could read the test targets; benchmark.sandbox.canary tells", flush=True
        )
        return {SANDBOX: NONE}
    temporary = own_temporary()
    socket = temporary / "evaluator"
    command = [sys.executable, "-m", "benchmark.sandbox.evaluator", "--data", str(args.data), "--socket", str(socket)]
    subprocess.Popen([*command, "--method", args.method, "--parent", str(os.getpid())])
    named = [args.work, args.out.parent, *(Path(folder) for folder in sorted(_shared(args)))]
    own = [*named, temporary / "tmp"]
    for folder in own:
        folder.mkdir(parents=True, exist_ok=True)
    # git compares a copied checkout's files by content, once, and notes it. A sealed run can't read the source's files:
    # a commit that holds them would be called dirty.
    commit()
    readable = [args.data / name for name in SHOWN] + list(filter(None, [args.tuned])) + list(_named(args))
    try:
        landlock.restrict(list(_hidden(args.data)), readable, [*own, *_caches(), Path("/dev"), Path("/proc")])
    except OSError as error:
        raise InputError(f"the sandbox can't be made ({error}); set {SANDBOX}=off to run without one") from None
    writable = f"{', '.join(map(str, named))}, a temporary folder and its user's caches"
    about = {SANDBOX: f"landlock {version}", EVALUATOR: str(socket), WRITABLE: writable}
    return about | {"TMPDIR": str(temporary / "tmp")}


def _read(arguments: list[str]) -> argparse.Namespace:
    """The arguments of a run that name files, folders and settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--data", "--work", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--tuned", type=Path)
    for name in ("--params", "--grid", "--overlay"):
        parser.add_argument(name, default="null")
    args, _ = parser.parse_known_args(arguments)
    return args


def _settings(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Every text among a run's settings, with its name. `benchmark.jobs.run` refuses settings that are no JSON."""

    def inner(name: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, entry in value.items():
                yield from inner(str(key), entry)
        elif isinstance(value, list):
            for entry in value:
                yield from inner(name, entry)
        elif isinstance(value, str):
            yield name, value

    for text in (args.params, args.grid, args.overlay):
        try:
            yield from inner("", json.loads(text))
        except ValueError:
            continue


def _shared(args: argparse.Namespace) -> set[str]:
    """The folders of kept states and texts: those that the settings name, and the defaults."""
    return {value for name, value in _settings(args) if name in SHARED} | set(SHARED.values())


def _named(args: argparse.Namespace) -> Iterator[Path]:
    """Files and folders that the settings name, such as a model's."""
    for name, value in _settings(args):
        if name not in SHARED and len(value) < 4096 and "\0" not in value and os.path.exists(value):
            yield Path(value)


def _hidden(data: Path) -> Iterator[Path]:
    """The files and folders that hold test targets: the dataset's own, the folder of results, and all fetched files."""
    yield data / TARGETS
    for results in {data.resolve().parent.parent, ROOT / "results"}:
        if (results / "data").is_dir():
            yield results
            for manifest in sorted((results / "fetched").glob("*.json")):
                yield from _fetched(manifest, results.parent)


def _fetched(manifest: Path, start: Path) -> Iterator[Path]:
    """The source files that a manifest names; none for a damaged one, which its own job will report."""
    try:
        yield from (start / entry["path"] for entry in json.loads(manifest.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        return


def _caches() -> list[Path]:
    named = [os.environ[name] for name in NAMED_CACHES if os.environ.get(name)]
    return [path for path in [*(Path.home() / name for name in CACHES), *map(Path, named)] if path.exists()]
