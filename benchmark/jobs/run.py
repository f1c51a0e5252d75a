"""Fit one method on one prepared dataset, rank its test cases, and write down how that went: `python -m benchmark.jobs.run`.

The workflow calls this for each run behind its tables. By hand, it tries a method out:

    python -m benchmark.jobs.run --data results/data/ml-100k --method sasrec --params '{"epochs": 3}' --work work --out mine/sasrec

--out gets run.json (params, seeds, versions, seconds, memory), rankings.parquet (the place of each test case's next item, and the
20 items ranked best) and, of a method that writes, texts.parquet. The last line says its test NDCG@10. Options that hold
settings take JSON, as a config would have them.

A grid is tried on validation cases by repetition 1, which keeps the setting with the best NDCG@10; the other repetitions take it
from there (--tuned). Test cases are ranked after that choice, never before. An ablation's run takes settings and random
streams of its base, with its own settings laid over them (--overlay, --stream).
"""

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import statistics
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark import provenance
from benchmark.config.methods import (
    all_params,
    check_params,
    for_fitting,
    kind_of,
    laid_over,
    load_method,
    method_files,
    model_files,
    trains_in_processes,
)
from benchmark.contract import Cases, Learned, Recommender, Split, read_cases, read_split, watched
from benchmark.errors import InputError, command, command_line
from benchmark.evaluate import rank, validation_ndcg
from benchmark.jobs import launch
from benchmark.jobs.records import LearnedFrom, Phases, RunRecord, Trial, Tuning, read_run, write_run
from benchmark.jobs.stale import code_hash
from benchmark.metrics import ndcg
from benchmark.storage.io import alone, atomic, read_json, sha256_of
from benchmark.storage.ledger import Cost, account, timed_fit

CRITERION = "valid NDCG@10"
LATENCY_CASES = 5  # users scored alone, whose median time is recorded


def checkpoint_folder(
    work: Path,
    method: ModuleType,
    params: dict[str, Any],
    data_hash: str,
    code: str,
    processes: int = 1,
    category: str = "",
) -> Path:
    """A folder for a fit's checkpoints whose name changes with params, data, the word for an item in prompts, code, versions of
    packages, the files of the user's own models that the params name, and the number of processes: nothing stale is ever resumed.

    Params that a method names in `SCORING` are left out: only its scoring reads them, and what was fitted serves again.
    """
    params = for_fitting(method, params)
    about = json.dumps([params, provenance.versions()], sort_keys=True)
    parts = [about, data_hash, category, code]
    parts += [f"{file.name} {sha256_of(file)}" for file in model_files(params)]
    if processes > 1:
        parts.append(f"{processes} processes")
    return work / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def fit_best(
    method: ModuleType, name: str, split: Split, seed: int, settings: list[dict[str, Any]], folders: list[Path]
) -> tuple[Recommender, int, list[Trial], Cost, Learned]:
    """Fit each setting; return the best recommender, its index, the trials, what its fit cost and what it learned from.

    With a single setting nothing has to be chosen and validation is left out.
    """
    best: tuple[Recommender, Cost, Learned] | None = None
    chosen, trials = 0, list[Trial]()
    for number, (params, folder) in enumerate(zip(settings, folders, strict=True)):
        if len(settings) > 1:
            print(f"{name}: setting {number + 1} of {len(settings)}: {params}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        seen = watched(split)  # by this setting alone
        with alone(folder):  # runs that differ in scoring alone share a fit
            recommender, cost = timed_fit(partial(method.fit, seen, seed=seed, params=params, workdir=folder), folder)
        learned = recommender.learned() or seen.learned()
        if len(settings) == 1:
            return recommender, 0, [], cost, learned
        with account(own=frozenset({cost.by})) as validation:
            value = validation_ndcg(recommender, split.valid, split.n_items, name)
        took = round(cost.seconds + validation.seconds, 3)
        trials.append(Trial(params=params, value=round(value, 6), seconds=took))
        print(f"{name}: {CRITERION} {value:.4f} after {cost.seconds:.1f} s", flush=True)
        if best is None or trials[-1].value > trials[chosen].value:  # the recorded values decide; ties keep the first
            best, chosen = (recommender, cost, learned), number
    assert best is not None
    return best[0], chosen, trials, best[1], best[2]


def fit_along(method: ModuleType, split: Split, seed: int, settings: list[dict[str, Any]], folders: list[Path]) -> None:
    """What the other processes do: fit each setting together with the first one, which says and keeps what comes of it."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        for params, folder in zip(settings, folders, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            method.fit(split, seed=seed, params=params, workdir=folder)


def from_json(option: str, text: str, kind: type) -> Any:
    """The value of an option that holds JSON. Raises InputError."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{option}: not JSON ({error}); quote it for the shell") from None
    if not isinstance(value, kind):
        what = "a list of settings" if kind is list else "settings"
        raise InputError(f"{option}: expected {what}, found {text}; give JSON")
    return value


def settings_to_try(given: argparse.Namespace, method: ModuleType) -> tuple[list[dict[str, Any]], Tuning | None]:
    """The settings that this repetition fits, defaults filled in, and the tuning of repetition 1 for later ones."""
    if given.seed < 1:
        raise InputError(f"--seed is {given.seed}; repetitions are counted from 1")
    params, grid = from_json("--params", given.params, dict), from_json("--grid", given.grid, list)
    overlay, base = from_json("--overlay", given.overlay, dict), given.stream or given.method
    to_try = [laid_over(laid_over(params, trial), overlay) for trial in grid or [{}]]
    for tried in to_try:
        check_params(method, tried, f"methods.{given.method}")
    if (given.seed > 1 or base != given.method) and len(grid) > 1:
        if given.tuned is None:
            raise InputError(
                f"{given.method}: repetition {given.seed} needs --tuned, the run.json of repetition 1 of {base}"
            )
        first = read_run(given.tuned)
        if (first.method, first.seed) != (base, 1):
            raise InputError(f"{given.tuned}: is seed {first.seed} of {first.method}; --tuned takes seed 1 of {base}")
        return [all_params(method, laid_over(first.params, overlay))], first.tuning
    return [all_params(method, tried) for tried in to_try], None


def ranked_test(
    recommender: Recommender, test: Cases, n_items: int, data: Path, name: str, fit: str
) -> tuple[pa.Table, Cost]:
    """Rank the test cases: the table of rankings and what it cost. Targets are read here and nowhere else.

    fit: name of the fit's account; what that has left on disk is in its own cost.
    """
    answers = pq.read_table(data / "test_targets.parquet")
    if not np.array_equal(answers.column("case").to_numpy(), test.case):
        raise InputError(
            f"{data}: test_targets.parquet and test.parquet hold different cases; prepare the dataset again"
        )
    with account(own=frozenset({fit})) as now:
        table = rank(recommender.score(test), test, answers.column("target").to_numpy(), n_items, name)
        return table, now.cost()


def latency_alone(recommender: Recommender, cases: Cases) -> float:
    """Median seconds to score one test case, batch by batch of one; the first, which warms up, isn't counted."""
    fresh, seconds = recommender.uncached(), []
    for case in cases.take(np.arange(min(LATENCY_CASES + 1, len(cases)))).batches(1):
        start = time.monotonic()
        for _ in fresh.score(case):
            pass
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds[1:] or seconds)


def texts_with_ranks(texts: pd.DataFrame, rankings: pa.Table, name: str) -> pa.Table:
    """What was written for each case, beside its target, rank and top items: a reasoning can be read with its outcome.

    Raises InputError unless `texts` has every ranked case once and no other.
    """
    cases = rankings.column("case").to_numpy()
    if "case" not in texts.columns or sorted(texts["case"]) != cases.tolist():
        raise InputError(f"{name}: texts() holds other cases than were ranked; give one row per case scored last")
    outcome = rankings.select(["target", "rank", "top_items"])
    ordered = texts.drop(columns=outcome.column_names, errors="ignore").set_index("case").loc[cases].reset_index()
    table = pa.Table.from_pandas(ordered, preserve_index=False)
    for column in outcome.column_names:
        table = table.append_column(column, outcome.column(column))
    return table


def parse() -> argparse.Namespace:
    parser = command_line("benchmark.jobs.run", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="a prepared dataset, such as results/data/ml-100k")
    parser.add_argument("--method", required=True, help="name of its row in the tables")
    parser.add_argument("--module", help="the method, if the row has another name: a file of baselines/, or r2ec")
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="number of the repetition, from 1 (default: 1); another number, other random streams",
    )
    parser.add_argument("--params", default="{}", help="the method's settings (default: {}, its own defaults)")
    parser.add_argument(
        "--grid", default="[]", help="a list of settings to try on validation cases, each laid over --params"
    )
    parser.add_argument("--overlay", default="{}", help="an ablation's settings, laid over all others")
    parser.add_argument(
        "--stream", help="the row whose random streams are taken: an ablation's base (default: --method)"
    )
    parser.add_argument("--tuned", type=Path, help="run.json of repetition 1, whose chosen setting is taken")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for checkpoints, from which a run that was stopped goes on"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="the folder to write, such as results/runs/ml-100k/sasrec/seed1; it appears whole or not at all",
    )
    return parser.parse_args()


@command
def main() -> None:
    given = parse()
    launch.end_with_launcher()
    commit = provenance.commit()  # of the code that runs, whatever is committed meanwhile
    if provenance.REQUIRE_CLEAN in os.environ:  # edits while Snakemake was running
        provenance.require_clean()
    module = given.module or given.method
    method = load_method(module, "--method")
    processes = launch.process_count()
    if processes > 1 and not trains_in_processes(method):
        raise InputError(f"{given.method}: {module} trains in one process alone, not in {processes}; start one")
    settings, tuning = settings_to_try(given, method)
    split = read_split(given.data)
    data_hash = read_json(given.data / "dataset.json")["split_hash"]
    seed = provenance.derive_seed(split.name, given.stream or given.method, given.seed)
    code = code_hash(tuple(method_files(module)))  # without comments and docstrings
    words = "\n".join(filter(None, [split.category, split.category_plural]))
    key = partial(checkpoint_folder, data_hash=data_hash, code=code, processes=processes, category=words)
    folders = [key(given.work, method, params) for params in settings]
    if not launch.is_main_process():  # of several processes all fit; the first alone validates, ranks and writes
        fit_along(method, split, seed, settings, folders)
        return
    recommender, chosen, trials, fit, learned = fit_best(method, given.method, split, seed, settings, folders)
    test = read_cases(given.data / "test.parquet", targets=False)
    rankings, score = ranked_test(recommender, test, split.n_items, given.data, given.method, fit.by)
    written, tokens, report = recommender.texts(), recommender.tokens_written(), recommender.report()
    alone = latency_alone(recommender, test)
    texts = None if written is None else texts_with_ranks(written, rankings, given.method)
    record = RunRecord(
        dataset=split.name,
        method=given.method,
        kind=kind_of(method),
        seed=given.seed,
        seed_value=seed,
        params=settings[chosen],
        tuning=Tuning(criterion=CRITERION, trials=trials, chosen=chosen) if trials else tuning,
        commit=commit,
        versions=provenance.versions(),
        hardware=provenance.hardware(),
        data_hash=data_hash,
        learned=LearnedFrom(**asdict(learned)),
        n_cases=len(rankings),
        seconds=Phases(
            fit=round(fit.seconds, 3), score=round(score.seconds, 3), reused=round(fit.reused + score.reused, 3)
        ),
        latency_ms_per_case=round(score.seconds / len(rankings) * 1000, 4),
        latency_ms_alone=round(alone * 1000, 4),
        peak_memory_mib=provenance.peak_memory_mib(),
        tokens_written=tokens,
        report=report,
        finished_at=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
    )
    with atomic(given.out) as temporary:
        temporary.mkdir()
        pq.write_table(rankings, temporary / "rankings.parquet", compression="zstd")
        if texts is not None:
            pq.write_table(texts, temporary / "texts.parquet", compression="zstd")
        write_run(temporary / "run.json", record)
    ranks = rankings.column("rank").to_numpy()
    print(
        f"{split.name} {given.method} seed {given.seed}: test NDCG@10 {ndcg(ranks, 10).mean():.4f}, fit {fit.seconds:.1f} s"
    )


if __name__ == "__main__":
    main()
