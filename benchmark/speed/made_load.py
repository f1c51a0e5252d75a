"""Make up finished runs of many methods, for `benchmark.speed.load`: `python -m benchmark.speed.made_load FOLDER`.

FOLDER gets results/data and results/runs as the workflow leaves them, of one dataset, and commands.json: the commands
by which the workflow makes statistics, tables, plots and page of these runs. Ranks are planted. A case is as hard for
all methods, a user's cases have something in common, each method is a little better than the one before, and each seed
adds noise of its own.
"""

import argparse
import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.config.factors import ablations_of
from benchmark.config.schema import Config
from benchmark.contract import Cases
from benchmark.data.prepare import sealed_about
from benchmark.data.store import write_cases
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import Plan
from benchmark.jobs.records import write_run
from benchmark.provenance import derive_seed
from benchmark.speed.load import read_arguments
from benchmark.speed.page import ITEMS, LONGEST, made_cases, record, write_items
from benchmark.storage.io import write_json

DATASET = "made-up"
TOP = 20  # items that a run keeps of each case
SPLIT = "made up"


def names_of(methods: int) -> list[str]:
    return [f"method_{number:02d}" for number in range(1, methods + 1)]


def outputs_of(methods: int, seeds: int) -> Outputs:
    """What comes after the runs of a config with these rows, which have no code, as nothing here runs them."""
    dataset = {"source": "files", "category": "thing", "options": {"folder": "."}}
    rows: dict[str, dict[str, object]] = {name: {} for name in names_of(methods)}
    config = Config.model_validate({"seeds": seeds, "datasets": {DATASET: dataset}, "methods": rows})
    return Outputs(Plan(config, ablations_of(config), own={}))


def commands_of(outputs: Outputs) -> dict[str, str]:
    """By rule the arguments of Python in the workflow's command, as `workflow/rules/output.smk` has them."""
    runs, shown = outputs.selection(DATASET), outputs.shown(DATASET)
    return {
        "statistics": f"-m benchmark.statistics.datasets {runs} --out results/statistics",
        "table": f"-m benchmark.output.tables {shown} --only datasets --out results/tables",
        "tables": f"-m benchmark.output.tables {outputs.shown()} --only main --out results/tables",
        "plots": f"-m benchmark.output.plots {shown} --out results/plots",
        "page": f"-m benchmark.output.page {outputs.selection()}{outputs.note()} --factors "
        f"{shlex.quote(outputs.factors_json())} --ablations {outputs.config.ablations_folder} --out results/report",
    }


def write_data(folder: Path, cases: int, users: int) -> Cases:
    """A prepared dataset with as many training cases as test cases. Returns the test cases with their targets."""
    folder.mkdir(parents=True)
    test = made_cases(cases, seed=1, users=users, shortest=1)
    for name, seed in (("train", 2), ("valid", 3)):
        made = made_cases(cases, seed, users, shortest=1)
        write_cases(folder / f"{name}.parquet", made, with_target=True, llm_rows=np.arange(cases))
    write_cases(folder / "test.parquet", test, with_target=False)
    pq.write_table(pa.table({"case": test.case, "target": test.target}), folder / "test_targets.parquet")
    write_items(folder)
    counts = {"items": ITEMS, "interactions": 2 * cases, "interactions_hidden": 0, "cold_targets_test": 0}
    settings = {"category": "thing", "history_length": LONGEST}
    about = {"dataset": DATASET, "settings": settings, "counts": counts, "split_hash": SPLIT, "sources": []}
    write_json(folder / "dataset.json", sealed_about(about, folder))
    return test


def planted_ranks(cases: Cases, candidates: np.ndarray, methods: int, seeds: int) -> np.ndarray:
    """int32 [methods, seeds, cases]: exp of a sum of normal terms, cut to 1..candidates."""
    generator = np.random.default_rng(derive_seed("made-up ranks"))
    number = len(cases)
    hard = 4.5 + 1.5 * generator.normal(size=number) + 0.7 * generator.normal(size=cases.user.max() + 1)[cases.user]
    ranks = np.empty((methods, seeds, number), np.int32)
    for method in range(methods):
        own = hard - method / methods + 0.7 * generator.normal(size=number)
        noise = 0.5 * generator.normal(size=(seeds, number))
        ranks[method] = np.clip(np.exp(own + noise), 1, candidates)
    return ranks


def write_rankings(path: Path, cases: Cases, ranks: np.ndarray, candidates: np.ndarray, seed: int) -> None:
    """One rankings.parquet: the target stands in the best items where its rank says so, no history item does."""
    assert cases.target is not None
    generator = np.random.default_rng(seed)
    half = ITEMS // 2
    # A start and 20 steps from it around the catalogue's second half, which has all targets, past the case's own.
    steps = (generator.integers(0, half - 1, (len(cases), 1)) + 7 * np.arange(TOP)) % (half - 1)
    top = half + (cases.target[:, None] - half + 1 + steps) % half
    inside = np.flatnonzero(ranks <= TOP)
    top[inside, ranks[inside] - 1] = cases.target[inside]
    columns = {"case": cases.case, "user": cases.user, "target": cases.target, "rank": ranks}
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(0, top.size + 1, TOP, dtype=np.int32)), pa.array(top.ravel().astype(np.int32))
    )
    table = pa.table(columns | {"candidates": candidates, "top_items": lists})
    pq.write_table(table, path, compression="zstd")


def write_runs(folder: Path, cases: Cases, methods: int, seeds: int) -> None:
    """Runs of all methods and seeds, the first half of them baselines, with records and checksums."""
    distinct = [len(np.unique(cases.history(row))) for row in range(len(cases))]
    candidates = np.array(ITEMS - np.array(distinct), dtype=np.int32)
    ranks = planted_ranks(cases, candidates, methods, seeds)
    for place, method in enumerate(names_of(methods)):
        kind = "baseline" if place < (methods + 1) // 2 else "reference"
        for seed in range(1, seeds + 1):
            run = folder / method / f"seed{seed}"
            run.mkdir(parents=True)
            number = derive_seed(method, seed)
            write_rankings(run / "rankings.parquet", cases, ranks[place, seed - 1], candidates, number)
            own = {"kind": kind, "seed": seed, "seed_value": number, "data_hash": SPLIT}
            write_run(run / "run.json", record(method, len(cases)).model_copy(update=own))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.speed.made_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="that is made")
    args = read_arguments(parser)
    cases = write_data(args.folder / "results" / "data" / DATASET, args.cases, args.users)
    write_runs(args.folder / "results" / "runs" / DATASET, cases, args.methods, args.seeds)
    commands = commands_of(outputs_of(args.methods, args.seeds))
    (args.folder / "commands.json").write_text(json.dumps(commands, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
