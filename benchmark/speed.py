"""`python -m benchmark.speed`: the two speeds that the benchmark itself promises, measured here and now.

evaluator   10,000 cases x 100,000 items: scores ranked per second, peak memory. Promise: over 1e8 on one core, under 1 GiB.
prepare     a made-up log of 450,000 interactions of 50,000 users with 17,000 items. Promise: under 15 s and 2 GiB.

Each runs in a process of its own, so that one's memory is not the other's.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd

from benchmark.config import DatasetConfig
from benchmark.contract import Cases
from benchmark.datasets import Raw
from benchmark.evaluate import rank
from benchmark.protocol import prepare
from benchmark.provenance import peak_memory_mib


def evaluator(cases: int = 10_000, items: int = 100_000, batch: int = 200) -> None:
    """Rank random scores; making them is timed apart and taken off."""
    generator = np.random.default_rng(0)
    made = Cases(
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
    rank(scores(), made, generator.integers(0, items, cases), items, "random")
    seconds = time.process_time() - began - making
    rate = cases * items / seconds
    print(f"evaluator: {rate:.2e} scores/s on one core ({seconds:.1f} s), peak {peak_memory_mib()} MiB")


def preparation(interactions: int = 450_000, users: int = 50_000, items: int = 17_000) -> None:
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
    print(f"prepare: {prepared.counts['cases']:,} cases in {seconds:.1f} s, peak {peak_memory_mib()} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["evaluator", "prepare"], help="one of the two; both by default")
    given = parser.parse_args()
    if given.part is None:
        for part in ("evaluator", "prepare"):
            subprocess.run([sys.executable, "-m", "benchmark.speed", part], check=True)
    elif given.part == "evaluator":
        evaluator()
    else:
        preparation()


if __name__ == "__main__":
    main()
