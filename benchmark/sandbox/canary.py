"""Test whether a method's recommendations follow the test targets, where no sandbox hides these from it.

    python -m benchmark.sandbox.canary --data results/data/ml-100k --method sasrec --params '{"epochs": 3}'

The method is fitted on two copies of the dataset that differ only in test_targets.parquet: in the second copy, each
case has the target of another case. A method that never reads targets recommends the same items both times. A method
that isn't deterministic differs, too; a third fit, on the first copy, tells which of both it is.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.data.store import read_about
from benchmark.errors import InputError, command, command_line
from benchmark.provenance import ROOT
from benchmark.sandbox.seal import SANDBOX, TARGETS
from benchmark.storage.checksums import seal, sums_of
from benchmark.storage.io import write_json

FOLLOWS, SAME, VARIES = "follows the test targets", "does not follow the test targets", "varies by itself"


def copy_with_targets(data: Path, out: Path, moved: int) -> None:
    """Copy a prepared dataset; case i gets the target of case i + moved, so that 0 leaves all as they are."""
    shutil.copytree(data, out)
    table = pq.read_table(out / TARGETS)
    targets = np.roll(table.column("target").to_numpy(), -moved)
    pq.write_table(pa.table({"case": table.column("case"), "target": targets}), out / TARGETS)
    (out / "dataset.json").unlink()
    write_json(out / "dataset.json", seal(read_about(data) | {"files": sums_of(out)}))


def recommended(args: argparse.Namespace, folder: Path, moved: int) -> list[list[int]]:
    """The best 20 items of each test case, by a fit of its own without a sandbox."""
    copy_with_targets(args.data, folder / "results" / "data" / args.data.name, moved)
    command = [sys.executable, "-m", "benchmark.jobs.run", "--data", f"results/data/{args.data.name}"]
    command += ["--method", args.method, "--params", args.params, "--work", "work", "--out", "out"]
    if args.module:
        command += ["--module", args.module]
    about = os.environ | {SANDBOX: "off", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=about, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise InputError(f"{args.method} fails by itself: {(done.stdout.strip().splitlines() or ['no word'])[-1]}")
    items: list[list[int]] = pq.read_table(folder / "out" / "rankings.parquet").column("top_items").to_pylist()
    return items


def verdict(args: argparse.Namespace) -> str:
    """Whether the recommendations follow the targets: FOLLOWS, SAME or VARIES."""
    with tempfile.TemporaryDirectory() as scratch:
        right = recommended(args, Path(scratch) / "right", 0)
        if right == recommended(args, Path(scratch) / "wrong", len(right) // 2 + 1):
            return SAME
        return FOLLOWS if right == recommended(args, Path(scratch) / "again", 0) else VARIES


@command
def main() -> None:
    parser = command_line("benchmark.sandbox.canary", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="a prepared dataset, such as results/data/ml-100k")
    parser.add_argument("--method", required=True, help="name of its row in the tables")
    parser.add_argument("--module", help="the method, if the row has another name: a file of baselines/, or r2ec")
    parser.add_argument("--params", default="{}", help="the method's settings (default: {}, its own defaults)")
    args = parser.parse_args()
    args.data = args.data.resolve()
    answer = verdict(args)
    print(f"{args.method}: {answer}")
    if answer != SAME:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
