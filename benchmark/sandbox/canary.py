"""Whether a method's recommendations follow the test targets: `python -m benchmark.sandbox.canary`, where no sandbox
hides them.

    python -m benchmark.sandbox.canary --data results/data/ml-100k --method sasrec --params '{"epochs": 3}'

The method is fitted twice, on two copies of the dataset that differ in test_targets.parquet alone: in the second, each
case has another one's target. A method that never reads them recommends the same both times. One that isn't
deterministic differs, too: then it is fitted a third time, on the first copy, which tells the two apart.
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


def recommended(given: argparse.Namespace, folder: Path, moved: int) -> list[list[int]]:
    """The best 20 items of each test case, by a fit of its own without a sandbox."""
    copy_with_targets(given.data, folder / "results" / "data" / given.data.name, moved)
    command = [sys.executable, "-m", "benchmark.jobs.run", "--data", f"results/data/{given.data.name}"]
    command += ["--method", given.method, "--params", given.params, "--work", "work", "--out", "out"]
    if given.module:
        command += ["--module", given.module]
    about = os.environ | {SANDBOX: "off", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=about, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise InputError(f"{given.method} fails by itself: {(done.stdout.strip().splitlines() or ['no word'])[-1]}")
    found: list[list[int]] = pq.read_table(folder / "out" / "rankings.parquet").column("top_items").to_pylist()
    return found


def verdict(given: argparse.Namespace) -> str:
    """What the fits say."""
    with tempfile.TemporaryDirectory() as scratch:
        right = recommended(given, Path(scratch) / "right", 0)
        if right == recommended(given, Path(scratch) / "wrong", len(right) // 2 + 1):
            return SAME
        return FOLLOWS if right == recommended(given, Path(scratch) / "again", 0) else VARIES


@command
def main() -> None:
    parser = command_line("benchmark.sandbox.canary", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="a prepared dataset, such as results/data/ml-100k")
    parser.add_argument("--method", required=True, help="name of its row in the tables")
    parser.add_argument("--module", help="the method, if the row has another name: a file of baselines/, or r2ec")
    parser.add_argument("--params", default="{}", help="the method's settings (default: {}, its own defaults)")
    given = parser.parse_args()
    given.data = given.data.resolve()
    found = verdict(given)
    print(f"{given.method}: {found}")
    if found != SAME:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
