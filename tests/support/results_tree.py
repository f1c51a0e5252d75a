"""A small made-up results tree, as `benchmark.jobs.run` would leave it, for the tests of tables, plots and the page."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.contract import Cases
from benchmark.data.prepare import sealed_about
from benchmark.data.store import write_cases
from benchmark.jobs.records import LearnedFrom, Phases, RunRecord, read_run, write_run
from benchmark.storage.io import read_json, write_json

N_ITEMS = 60
HISTORY = 20


def make_cases(n_users: int, n_cases: int, seed: int, first_case: int = 0, items: int = N_ITEMS) -> Cases:
    """Random cases with history lengths 1..HISTORY, never holding their target; users have unequal numbers of cases."""
    generator = np.random.default_rng(seed)
    user = np.minimum(generator.geometric(2 / n_users, n_cases) - 1, n_users - 1).astype(np.int32)
    lengths = generator.integers(1, HISTORY + 1, n_cases)
    drawn = [(generator.permutation(items) ** 2 // items)[: n + 1] for n in lengths]  # low item numbers are popular
    drawn = [[*np.where(d[:-1] == d[-1], (d[-1] + 1) % items, d[:-1]).tolist(), d[-1]] for d in drawn]
    offsets = np.r_[0, np.cumsum(lengths)]
    time = 1_000_000 + 1000 * (first_case + np.arange(n_cases))
    return Cases(
        case=first_case + np.arange(n_cases, dtype=np.int64),
        user=user,
        time=time,
        offsets=offsets,
        items=np.concatenate([d[:-1] for d in drawn]).astype(np.int32),
        ratings=np.full(offsets[-1], 4, dtype=np.float32),
        times=np.repeat(time - 500, lengths),
        target=np.array([d[-1] for d in drawn], dtype=np.int32),
    )


def write_dataset(results: Path, dataset: str, n_users: int = 30, n_cases: int = 120) -> Cases:
    """Write results/data/{dataset}; the test cases come back with their targets."""
    folder = results / "data" / dataset
    folder.mkdir(parents=True)
    seed = sum(dataset.encode())
    parts = {
        "train": make_cases(n_users, 200, seed, items=N_ITEMS - 6),  # the last six items are cold
        "valid": make_cases(n_users, 20, seed + 1, 200),
        "test": make_cases(n_users, n_cases, seed + 2, 220),
    }
    for name, cases in parts.items():
        write_cases(
            folder / f"{name}.parquet",
            cases,
            with_target=name != "test",
            llm_rows=np.arange(200) if name == "train" else None,
        )
    items = pd.DataFrame({"item_id": range(N_ITEMS), "title": [f"Title <{v}> & Co" for v in range(N_ITEMS)]})
    items.to_parquet(folder / "items.parquet")
    counts = {"users": n_users, "items": N_ITEMS, "train": 200, "valid": 20, "test": n_cases}
    about = {
        "dataset": dataset,
        "settings": {"category": "movie", "history_length": HISTORY},
        "counts": counts | {"cold_targets_test": 3, "interactions": 400, "interactions_hidden": 25},
        "sources": [{"file": "made-up", "sha256": "0" * 64}],
        "split_hash": f"hash-{dataset}",
    }
    write_json(folder / "dataset.json", sealed_about(about, folder))
    return parts["test"]


def sealed_again(folder: Path) -> None:
    """Write dataset.json with the checksums of what lies in the folder now, as a test has left it."""
    about = read_json(folder / "dataset.json")
    (folder / "dataset.json").unlink()
    write_json(folder / "dataset.json", sealed_about(about, folder))


def noted_again(run: Path) -> None:
    """Write run.json with the checksums of what lies beside it now."""
    write_run(run / "run.json", read_run(run / "run.json"))


def write_ranks(run: Path, cases: Cases, ranks: np.ndarray, candidates: int = N_ITEMS - 1) -> None:
    """Write rankings.parquet of one run."""
    assert cases.target is not None
    generator = np.random.default_rng(0)
    top = [generator.permutation(N_ITEMS)[:20].tolist() for _ in range(len(cases))]
    columns = {
        "case": pa.array(cases.case),
        "user": pa.array(cases.user),
        "target": pa.array(cases.target),
        "rank": pa.array(ranks.astype(np.int32)),
        "candidates": pa.array(np.full(len(cases), candidates, dtype=np.int32)),
        "top_items": pa.array(top, type=pa.list_(pa.int32())),
    }
    pq.write_table(pa.table(columns), run / "rankings.parquet")


def record(dataset: str, method: str, seed: int, n_cases: int, seconds: float = 1.0) -> RunRecord:
    """A valid RunRecord. Methods whose names begin with r2ec are references."""
    return RunRecord(
        dataset=dataset,
        method=method,
        kind="reference" if method.startswith("r2ec") else "baseline",
        seed=seed,
        seed_value=seed * 17,
        params={"layers": 2},
        tuning=None,
        commit="0123456789abcdef0123456789abcdef01234567",
        versions={"python": "3.11.0", "numpy": "2.4.6"},
        hardware={"processor": "made-up", "cores": 2, "memory_gib": 8, "gpus": 0, "gpu": "none"},
        data_hash=f"hash-{dataset}",
        learned=LearnedFrom(users=30, targets=200, positions=230),
        n_cases=n_cases,
        seconds=Phases(fit=10 * seconds, score=seconds),
        latency_ms_per_case=seconds / n_cases * 1000,
        peak_memory_mib=500,
        latency_ms_alone=seconds / n_cases * 4000,
        tokens_written=0,
        report={"epochs": 3},
        finished_at=datetime(2025, 1, 1, tzinfo=UTC),
    )


def write_method(results: Path, dataset: str, cases: Cases, method: str, by_seed: list[list[int]]) -> None:
    """Write runs of one method with given ranks, one list per seed."""
    for seed, ranks in enumerate(by_seed, start=1):
        run = results / "runs" / dataset / method / f"seed{seed}"
        run.mkdir(parents=True)
        write_ranks(run, cases, np.array(ranks))
        write_run(run / "run.json", record(dataset, method, seed, len(cases)))


def write_by_hand(results: Path, first: str, second: str) -> Cases:
    """Two methods, two seeds, four cases of two users in dataset `tiny`, with ranks whose every number can be worked by
    hand."""
    cases = write_dataset(results, "tiny", n_users=2, n_cases=4)
    cases = Cases(**{**vars(cases), "user": np.array([0, 0, 1, 1], dtype=np.int32)})
    write_cases(results / "data" / "tiny" / "test.parquet", cases, with_target=False)
    sealed_again(results / "data" / "tiny")
    write_method(results, "tiny", cases, first, [[1, 7, 30, 31], [1, 3, 30, 31]])
    write_method(results, "tiny", cases, second, [[1, 1, 1, 1], [1, 1, 1, 1]])
    return cases


def write_results(
    results: Path,
    datasets: list[str],
    skill: dict[str, float],
    seeds: int | dict[str, int] = 2,
    n_users: int = 30,
    n_cases: int = 120,
) -> None:
    """Write a whole tree. `skill` maps each method to 0 (random ranks) .. 1 (always first); popularity has no seed
    noise.

    `seeds` is one number for all methods, or one by method.
    """
    numbers = dict.fromkeys(skill, seeds) if isinstance(seeds, int) else seeds
    for dataset in datasets:
        cases = write_dataset(results, dataset, n_users, n_cases)
        generator = np.random.default_rng(1)
        hard = generator.uniform(size=n_cases) * 0.7 + generator.uniform(size=n_users)[cases.user] * 0.3
        for method, level in skill.items():
            for seed in range(1, numbers[method] + 1):
                noise = np.random.default_rng([len(method), 0 if method == "popularity" else seed]).uniform(
                    size=n_cases
                )
                ranks = 1 + np.floor((N_ITEMS - 2) * np.clip(0.8 * hard + 0.2 * noise, 0, 1) ** (1 + 4 * level))
                run = results / "runs" / dataset / method / f"seed{seed}"
                run.mkdir(parents=True)
                write_ranks(run, cases, ranks)
                write_run(run / "run.json", record(dataset, method, seed, n_cases, seconds=0.1 + 20 * level))
