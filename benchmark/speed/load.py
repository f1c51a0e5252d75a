"""Measure what follows the runs of a large table, on this machine: `python -m benchmark.speed.load`.

40 methods with 5 seeds each on 10,000 test cases of as many users are made up (`benchmark.speed.made_load`). Then the
workflow's commands make statistics, tables, plots and the page, one after the other, each in a process of its own.
Aim: at most 45 s in all; docs/speed.md has what was measured. --folder keeps what was made, so that it can be looked
at and compared.
"""

import argparse
import json
import os
import shlex
import tempfile
from pathlib import Path

from benchmark.speed.alone import run_alone

ROOT = Path(__file__).resolve().parents[2]


SIZES = {"methods": 40, "seeds": 5, "cases": 10_000, "users": 10_000}  # by option, with what is measured by default


def read_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, with an option for each of SIZES."""
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size, help=f"so many are made up (default: {size:,})")
    args = parser.parse_args()
    for name in SIZES:
        if (size := getattr(args, name)) < 1:
            parser.error(f"--{name} {size}: give a number above 0")
    return args


def measure(folder: Path, given: list[str]) -> dict[str, tuple[float, float]]:
    """Make up the runs in `folder`; seconds and peak memory (MB) of making them and of each command after them."""
    # As in the workflow's jobs: this code, wherever the current folder is, and waiting threads that sleep.
    env = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {"PYTHONPATH": str(ROOT)}
    taken = {"made up": run_alone("-m", "benchmark.speed.made_load", str(folder), *given, env=env)}
    commands = json.loads((folder / "commands.json").read_text(encoding="utf-8"))
    for name, command in commands.items():
        with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
            taken[name] = run_alone(*shlex.split(command), folder=folder, env=env, log=log)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.speed.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, help="keep everything in this new folder (default: keep nothing)")
    args = read_arguments(parser)
    with tempfile.TemporaryDirectory(prefix="r2ec-bench-load-") as temporary:
        folder = (args.folder or Path(temporary) / "load").resolve()
        if folder.exists():
            parser.error(f"--folder {args.folder}: is there already; name a new folder, or delete it")
        given = [f"--{name}={getattr(args, name)}" for name in SIZES]
        taken = measure(folder, given)
        page = (folder / "results" / "report" / "index.html").stat().st_size / 1e6
    making, _ = taken.pop("made up")
    print(f"load: made up in {making:.1f} s")
    for name, (seconds, peak) in taken.items():
        print(f"load: {name} in {seconds:.1f} s, peak {peak:,.0f} MB")
    print(f"load: {sum(seconds for seconds, _ in taken.values()):.1f} s in all; the page is a file of {page:.1f} MB")


if __name__ == "__main__":
    main()
