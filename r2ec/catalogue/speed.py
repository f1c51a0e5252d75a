"""`python -m r2ec.catalogue.speed`: measures a catalogue too large for memory, of synthetic vectors.

table     writing it in shards, and bringing it up to date when nothing, or one prompt in 10,000, has changed
exact     the 20 best items of a user and of 64 together, one pass over the table; from disk and again
reward    rank and softmax of 64 rollouts' targets, exact in one pass; the softmax from 10,000 drawn items
hnsw, ivf, ivf_pq   building each index within the memory limit, searches, their recall@20 against the exact answer

A vector has 576 numbers in bfloat16. It is synthetic, not an LM's state: 64 hidden dimensions with 2,000 clusters of
unequal size, rotated into 576 dimensions, with noise in all of them, so that an index has a structure to find. A user
is the vector of an item, moved at random within the hidden dimensions. Recall on an LM's states may be higher or lower.
Every step runs in a fresh process.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from benchmark import provenance
from benchmark.errors import InputError, command
from benchmark.provenance import derive_seed
from r2ec.catalogue import speed_report as report
from r2ec.catalogue.large_table import LargeTable, Refreshed, refresh
from r2ec.catalogue.nearest import KINDS, Kind, NearestIndex, lists, top_k
from r2ec.catalogue.sampled_softmax import draw, sampled_softmax
from r2ec.catalogue.speed_report import Measured, Point
from r2ec.recpo.reward import Rewards, recpo_rewards
from r2ec.speed.growth import resident_peak_mib
from r2ec.speed.limits import seconds_of

SIZES = (10_000, 100_000, 1_000_000)
WIDTH, HIDDEN, CLUSTERS = 576, 64, 2_000
VECTORS_AT_ONCE = 2**14  # vectors of one seed; a shard is so many times a whole number
# Standard deviations: within a cluster, of the noise in all dimensions, of users from their item.
WITHIN, BLUR, MOVED = (0.7, 0.1, 0.7)
TAU = 0.1
TAUS = (0.1, 0.02)  # of the sampled softmax: the embedded default's and the released code's
USERS, HISTORY, TOP = 64, 20, 20
ALONE, TOGETHER = 20, 3  # users answered one by one, and runs of all users together
FEW = 1_000_000  # beyond, a pass over the table is timed once
DRAWN, CERTAIN = 10_000, 1_000
CHANGED = 10_000  # one prompt in so many changes
EFFORTS: dict[Kind, tuple[int, ...]] = {"hnsw": (64, 128, 512), "ivf": (8, 32, 128, 512), "ivf_pq": (8, 32, 128, 512)}
DISK = 2.3  # times the table: two of them while it is refreshed, and the indexes


# Synthetic vectors


def synthetic_vectors(numbers: np.ndarray) -> Tensor:
    """Vectors of these items, float32 [n, WIDTH]. numbers: whole blocks of VECTORS_AT_ONCE, or the first of one block.

    An item's vector doesn't depend on the size of its catalogue.
    """
    parts = []
    for start in range(0, len(numbers), VECTORS_AT_ONCE):
        first, count = int(numbers[start]), min(VECTORS_AT_ONCE, len(numbers) - start)
        random = torch.Generator().manual_seed(derive_seed("catalogue", first))
        which = torch.multinomial(_weights(), VECTORS_AT_ONCE, replacement=True, generator=random)
        hidden = _centres()[which] + WITHIN * torch.randn(VECTORS_AT_ONCE, HIDDEN, generator=random)
        blur = BLUR * torch.randn(VECTORS_AT_ONCE, WIDTH, generator=random)
        parts.append((hidden @ _basis() + blur)[:count])
    return torch.cat(parts)


def _weights() -> Tensor:
    return (torch.arange(CLUSTERS) + 10.0) ** -0.7


def _centres() -> Tensor:
    return torch.randn(CLUSTERS, HIDDEN, generator=torch.Generator().manual_seed(derive_seed("catalogue", "centres")))


def _basis() -> Tensor:
    """Orthonormal rows, [HIDDEN, WIDTH]."""
    random = torch.Generator().manual_seed(derive_seed("catalogue", "basis"))
    return torch.linalg.qr(torch.randn(WIDTH, HIDDEN, generator=random)).Q.T


def synthetic_users(table: LargeTable) -> tuple[Tensor, Tensor, Tensor]:
    """USERS users [n, WIDTH], targets int64 [n] and histories int64 [n, HISTORY], any items of the catalogue."""
    random = torch.Generator().manual_seed(derive_seed("catalogue", "users"))
    near, targets = torch.randint(len(table), (2, USERS), generator=random)
    moved = MOVED * torch.randn(USERS, HIDDEN, generator=random) @ _basis()
    history = torch.randint(len(table), (USERS, HISTORY), generator=random)
    return table.rows(near).float() + moved, targets, history.masked_fill(history == targets[:, None], -1)


def write_table(folder: Path, items: int, changed: int | None = None) -> Refreshed:
    """Write the table of `items` synthetic vectors. changed: one prompt in so many is another one; None: none is."""

    def prompts(start: int, stop: int) -> list[list[int]]:
        return [[v, 1] if changed and v % changed == 0 else [v] for v in range(start, stop)]

    def encode(wanted: Sequence[Sequence[int]]) -> Tensor:
        if len(wanted[0]) == 1:
            return synthetic_vectors(np.array([prompt[0] for prompt in wanted]))
        random = torch.Generator().manual_seed(derive_seed("catalogue", "changed", wanted[0][0]))
        return torch.randn(len(wanted), HIDDEN, generator=random) @ _basis()

    return refresh(folder, items, prompts, encode, width=WIDTH, encoder="made vectors")


# The steps, each in a process of its own


def table_step(folder: Path, items: int) -> list[Point]:
    started = time.perf_counter()
    write_table(folder / "table", items)
    seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in (folder / "table").iterdir()) / 2**20
    return [_point(items, "table", "written", seconds=seconds, disk_mib=size)]


def refresh_step(folder: Path, items: int) -> list[Point]:
    """Nothing changed; then some prompts did, and an index follows."""
    points = []
    for setting, changed in (("nothing changed", None), (f"1 in {CHANGED:,} changed", CHANGED)):
        started = time.perf_counter()
        refreshed = write_table(folder / "table", items, changed)
        points.append(_point(items, "table", setting, seconds=time.perf_counter() - started, encoded=refreshed.encoded))
    if (folder / "ivf_pq").exists():
        index = faiss.read_index(str(folder / "ivf_pq" / "index.faiss"))
        table = LargeTable(folder / "table")
        nearest = NearestIndex(index, "ivf_pq", table, tau=TAU)
        started = time.perf_counter()
        nearest.update(table, refreshed.changed)
        points.append(_point(items, "ivf_pq", "updated", seconds=time.perf_counter() - started))
    return points


def exact_step(folder: Path, items: int) -> list[Point]:
    """Answers go to exact.npy: the best items for the indexes' recall, and enough of them for the sampled softmax."""
    table = LargeTable(folder / "table")
    users, _, history = synthetic_users(table)

    def search(count: int) -> Callable[[], Any]:
        return lambda: top_k(users[:count], table, history[:count], TOP, tau=TAU)

    _evict(folder / "table")
    cold = _seconds(search(1), 1)
    points = [_point(items, "exact", "one user, from disk", alone_ms=1000 * cold)]
    repeats = 1 if items > FEW else TOGETHER
    one_user, together = _seconds(search(1), repeats), _seconds(search(USERS), repeats)
    points.append(_point(items, "exact", "", alone_ms=1000 * one_user, together_ms=1000 * together, recall=1.0))
    np.save(folder / "exact.npy", top_k(users, table, history, min(CERTAIN, items // 2), tau=TAU)[0].numpy())
    return points


def reward_step(folder: Path, items: int) -> list[Point]:
    table = LargeTable(folder / "table")
    users, targets, history = synthetic_users(table)

    def reward() -> Rewards:
        return recpo_rewards(users, table, targets, history, tau=TAU)

    seconds = _seconds(reward, 1 if items > FEW else TOGETHER)
    return [_point(items, "reward", "", together_ms=1000 * seconds)]


def sampled_step(folder: Path, items: int) -> list[Point]:
    """How far log R_c from a sample is from the exact one: medians over the users."""
    table = LargeTable(folder / "table")
    users, targets, history = synthetic_users(table)
    best = torch.from_numpy(np.load(folder / "exact.npy"))
    draws = draw(items, DRAWN, torch.Generator().manual_seed(derive_seed("catalogue", "draws")))
    points = []
    for tau in TAUS:
        expected = recpo_rewards(users, table, targets, history, tau=tau).softmax.log()
        for name, certain in (("uniform", None), (f"and {best.shape[1]:,} best", best)):
            started = time.perf_counter()
            estimated = sampled_softmax(users, table, targets, draws, tau=tau, certain=certain).softmax.log()
            milliseconds = 1000 * (time.perf_counter() - started)
            error = float((estimated - expected).abs().median())
            setting = f"{DRAWN:,} {name}, tau {tau:g}"
            points.append(_point(items, "sampled", setting, together_ms=milliseconds, log_error=error))
    return points


def build_step(folder: Path, items: int, kind: Kind, memory_gib: float) -> list[Point]:
    table = LargeTable(folder / "table")
    started = time.perf_counter()
    try:
        nearest = NearestIndex.build(table, kind, tau=TAU, memory_gib=memory_gib)
    except InputError as error:
        return [_point(items, kind, f"not built: {error}")]
    seconds = time.perf_counter() - started
    nearest.save(folder / kind)
    size = sum(file.stat().st_size for file in (folder / kind).iterdir()) / 2**20
    return [_point(items, kind, "built", seconds=seconds, disk_mib=size)]


def search_step(folder: Path, items: int, kind: Kind) -> list[Point]:
    table = LargeTable(folder / "table")
    users, _, history = synthetic_users(table)
    exact = np.load(folder / "exact.npy")[:, :TOP]
    index = NearestIndex.load(folder / kind, table, tau=TAU)
    points = []
    for effort in EFFORTS[kind]:
        if kind != "hnsw" and effort > lists(items):
            continue

        def search(rows: slice, candidates: int | None = None, effort: int = effort) -> np.ndarray:
            numbers = index.search(users[rows], history[rows], TOP, effort=effort, candidates=candidates)[0]
            return numbers.numpy()

        rescored, bare = search(slice(None)), search(slice(None), 0)
        one_user = [_seconds(lambda u=user: search(slice(u, u + 1)), 1) for user in range(ALONE)]  # type: ignore[misc]
        together = _seconds(lambda: search(slice(None)), TOGETHER)
        points.append(
            _point(
                items,
                kind,
                f"effort {effort}",
                effort=effort,
                alone_ms=1000 * statistics.median(one_user),
                together_ms=1000 * together,
                recall=recall(rescored, exact),
                recall_bare=recall(bare, exact),
            )
        )
    return points


def recall(numbers: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact best items that an index found, over all users. int [n, k] each, -1 for none.

    >>> recall(np.array([[1, 2], [3, -1]]), np.array([[2, 1], [3, 4]]))
    0.75
    """
    hits = (numbers[:, :, None] == exact[:, None, :]) & (exact[:, None, :] >= 0)
    return float(hits.any(axis=1).sum() / (exact >= 0).sum())


def _point(items: int, method: str, setting: str, **values: Any) -> Point:
    return Point(items=items, method=method, setting=setting, peak_mib=resident_peak_mib(), **values)


def _seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median of runs; of several, a first one isn't counted."""
    if repeats > 1:
        work()
    return statistics.median(seconds_of(work, repeats))


def _evict(folder: Path) -> None:
    """Ask the system to drop these files from its cache, so that they are read from disk (Linux)."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# The whole measurement


def steps(
    kinds: Sequence[Kind], memory_gib: float
) -> Iterator[tuple[str, Callable[..., list[Point]], tuple[Any, ...]]]:
    """The steps of one size in order: title, function, further arguments."""
    yield "writing the table", table_step, ()
    yield "exact search", exact_step, ()
    yield "exact reward", reward_step, ()
    yield "sampled softmax", sampled_step, ()
    for kind in kinds:
        yield f"building {kind}", build_step, (kind, memory_gib)
        yield f"searching {kind}", search_step, (kind,)
    yield "refreshing the table", refresh_step, ()


def measure(sizes: Sequence[int], kinds: Sequence[Kind], memory_gib: float, folder: Path) -> Iterator[Measured]:
    """Yields all that has been measured so far after each step. The files of a size are deleted before the next."""
    measured = Measured(
        commit=provenance.commit(),
        hardware=provenance.hardware(),
        threads=torch.get_num_threads(),
        width=WIDTH,
        users=USERS,
        top=TOP,
        memory_gib=memory_gib,
        points=[],
    )
    context = multiprocessing.get_context("spawn")
    # A process per step: peak memory never falls within one.
    with ProcessPoolExecutor(max_workers=1, mp_context=context, max_tasks_per_child=1) as pool:
        for items in sizes:
            with tempfile.TemporaryDirectory(dir=folder, prefix="catalogue-") as name:
                for title, step, extra in steps(kinds, memory_gib):
                    if step is search_step and not (Path(name) / extra[0]).exists():
                        continue
                    print(f"{items:,} items: {title}", flush=True)
                    points = pool.submit(step, Path(name), items, *extra).result()
                    measured = measured.model_copy(update={"points": [*measured.points, *points]})
                    yield measured


def check(sizes: Sequence[int], folder: Path) -> None:
    """Raise InputError for sizes that are too small or need more than the free disk, before anything is written."""
    if min(sizes) < 10 * USERS:
        raise InputError(f"--sizes {min(sizes)}: give at least {10 * USERS}")
    needed, free = DISK * max(sizes) * WIDTH * 2, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {max(sizes):,} items need {needed / 2**30:.0f} GiB of disk, {free / 2**30:.0f} are free; "
            "give another --folder or smaller --sizes"
        )


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m r2ec.catalogue.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="items; 10000000 takes 27 GB of disk")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="indexes (all)")
    parser.add_argument("--memory-gib", type=float, default=4.0, help="an index that takes more isn't built (4)")
    parser.add_argument(
        "--folder", type=Path, default=Path("results/work"), help="for the table and the indexes meanwhile"
    )
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="folder of table and plot")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    check(args.sizes, args.folder)
    for measured in measure(sorted(args.sizes), args.kinds, args.memory_gib, args.folder):
        report.write(measured, args.out)  # after each step: a run that is stopped leaves what it has measured
    report.plot(measured, args.out)
    print(report.markdown(measured))
    print(f"Table: {args.out / 'catalogue.md'}   plot: {args.out / 'catalogue.png'}")


if __name__ == "__main__":
    main()
