"""Measure the speeds that the benchmark itself promises, on this machine: `python -m benchmark.speed`.

evaluator   10,000 cases x 100,000 items: scores ranked per second, peak memory. Promise: over 1e8 on one core, under 1
            GiB.
prepare     a made-up log of 450,000 interactions, or of --interactions, of 50,000 users with 17,000 items. Promise:
            under 15 s and 2 GiB.
raw         made-up raw files of Amazon Reviews 2023, --gigabytes of packed metadata, fetched from a folder and prepared
            with preset `paper`. Promise: under 2 GB of memory, whatever the size. Needs four times that on the disk
            (TMPDIR).

Each runs in a process of its own, so that their peaks of memory are told apart.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.contract import Cases
from benchmark.data.protocol import prepare
from benchmark.data.settings import DatasetConfig
from benchmark.datasets import Raw
from benchmark.evaluate import rank
from benchmark.provenance import peak_memory_mib
from benchmark.speed.alone import run_alone
from benchmark.storage.io import read_json

CATEGORY = "Toys_and_Games"  # not one of the paper's, whose counts made-up files would be compared with


def evaluator(cases: int = 10_000, items: int = 100_000, batch: int = 200) -> None:
    """Rank random scores; the time of making them is measured and subtracted."""
    generator = np.random.default_rng(0)
    random_cases = Cases(
        case=np.arange(cases),
        user=np.arange(cases, dtype=np.int32),
        time=np.arange(cases),
        offsets=np.arange(cases + 1) * 20,
        items=generator.integers(0, items, cases * 20).astype(np.int32),
        ratings=np.zeros(cases * 20, np.float32),
        times=np.zeros(cases * 20, np.int64),
        target=None,
    )
    pool = generator.random((batch, items), dtype=np.float32)
    making = 0.0

    def scores() -> Iterator[np.ndarray]:
        nonlocal making
        for start in range(0, cases, batch):
            began = time.process_time()
            rows = np.roll(pool, start, axis=0)
            making += time.process_time() - began
            yield rows

    began = time.process_time()
    rank(scores(), random_cases, generator.integers(0, items, cases), items, "random")
    seconds = time.process_time() - began - making
    rate = cases * items / seconds
    print(f"evaluator: {rate:.2e} scores/s on one core ({seconds:.1f} s), peak {peak_memory_mib()} MiB")


def preparation(interactions: int, users: int = 50_000, items: int = 17_000) -> None:
    """Clean, make cases and split; popular items and busy users as in real logs."""
    generator = np.random.default_rng(0)
    item = np.minimum(generator.zipf(1.3, interactions), items) - 1
    log = pd.DataFrame(
        {
            "user_id": generator.integers(0, users, interactions).astype(str),
            "item_id": item.astype(str),
            "timestamp": generator.integers(1_400_000_000, 1_500_000_000, interactions),
            "rating": generator.integers(1, 6, interactions).astype(np.float32),
        }
    )
    catalogue = pd.DataFrame({"item_id": [str(v) for v in range(items)], "title": [f"thing {v}" for v in range(items)]})
    settings = DatasetConfig(source="files", category="thing", min_user_count=2, min_item_count=2)
    began = time.process_time()
    prepared = prepare(Raw(log, catalogue), settings, "made up")
    seconds = time.process_time() - began
    cases = f"{prepared.counts['cases']:,} cases of {interactions:,} interactions"
    print(f"prepare: {cases} in {seconds:.1f} s, peak {peak_memory_mib()} MiB")


def raw_files(gigabytes: float) -> None:
    """Make up the files, then fetch and prepare them by the workflow's commands, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="r2ec-bench-speed-") as temporary:
        folder = Path(temporary)
        mirror = folder / "mirror"
        size = ("--category", CATEGORY, "--gigabytes", str(gigabytes))
        making, _ = run_alone("-m", "benchmark.speed.raw_amazon", str(mirror), *size)
        packed = sum(file.stat().st_size for file in mirror.rglob("*.gz")) / 1e9
        options = {"category": CATEGORY, "preset": "paper", "mirror": str(mirror)}
        settings = {"source": "amazon_2023", "category": "game", "options": options, "same_time": "order"}
        text = json.dumps(settings | {"min_user_count": 1, "min_item_count": 1})
        manifest = str(folder / "fetched.json")
        fetch = ("-m", "benchmark.data.fetch", "--settings", text, "--resources", str(folder), "--out", manifest)
        fetching, fetch_peak = run_alone(*fetch)
        out = folder / "data"
        command = ("-m", "benchmark.data.prepare", "--dataset", "made-up", "--settings", text, "--manifest", manifest)
        preparing, peak = run_alone(*command, "--out", str(out))
        about = read_json(out / "dataset.json")
    cases, read = about["counts"]["cases"], about["source"]["counts"]
    print(
        f"raw: {read['items_read']:,} items and {read['interactions_read']:,} interactions in {packed:.2f} GB packed, "
        f"made up in {making:.1f} s; checked in {fetching:.1f} s, peak {fetch_peak:,.0f} MB; prepared to {cases:,} "
        f"cases of {about['counts']['items']:,} items in {preparing:.1f} s, peak {peak:,.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ["evaluator", "prepare", "raw"]
    parser.add_argument("part", nargs="?", choices=parts, help="one of the three; all by default")
    parser.add_argument("--gigabytes", type=float, default=0.1, help="size of the packed metadata of the part `raw`")
    parser.add_argument("--interactions", type=int, default=450_000, help="size of the log of the part `prepare`")
    args = parser.parse_args()
    if args.interactions < 1:
        parser.error(f"--interactions {args.interactions}: give a number above 0")
    if args.gigabytes <= 0:
        parser.error(f"--gigabytes {args.gigabytes}: give a size above 0")
    if args.part is None:
        size = ["--gigabytes", str(args.gigabytes), "--interactions", str(args.interactions)]
        for part in parts:
            subprocess.run([sys.executable, "-m", "benchmark.speed", part, *size], check=True)
    elif args.part == "evaluator":
        evaluator()
    elif args.part == "prepare":
        preparation(args.interactions)
    else:
        raw_files(args.gigabytes)


if __name__ == "__main__":
    main()
