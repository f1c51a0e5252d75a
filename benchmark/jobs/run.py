"""Fit one method on one prepared dataset, rank its test cases, and record the run: `python -m benchmark.jobs.run`.

The workflow calls this for each run behind its tables. By hand, it tries a method out:

    python -m benchmark.jobs.run --data results/data/ml-100k --method sasrec --params '{"epochs": 3}' --work work \\
        --out mine/sasrec

--out gets run.json (params, seeds, versions, seconds, memory), rankings.parquet (the place of each test case's next
item, and the 20 items ranked best) and, of a method that writes, texts.parquet. The last line says its test NDCG@10.
Options that hold settings take JSON, as a config would have them.

A grid is tried on validation cases by repetition 1, which keeps the setting with the best NDCG@10; the other
repetitions take it from there (--tuned). Test cases are ranked after that choice, never before. An ablation's run takes
settings and random streams of its base, with its own settings laid over them (--overlay, --stream).
"""

import argparse
import datetime
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from benchmark import provenance
from benchmark.config.methods import kind_of, load_method, named_files, stream_of, trains_in_processes
from benchmark.config.wording import first_problem
from benchmark.contract import Cases, Recommender, Split
from benchmark.data.store import read_about, read_split, read_test
from benchmark.errors import InputError, command, command_line
from benchmark.evaluate import rank
from benchmark.jobs import launch
from benchmark.jobs.code import code_files, code_hash, declared_stages, made_by
from benchmark.jobs.records import LearnedFrom, Phases, RunRecord, Tuning, write_run
from benchmark.jobs.stale import mark
from benchmark.jobs.tuning import Fitted, check_report, checkpoint_folder, fit_along, fit_best, settings_to_try
from benchmark.metrics import ndcg
from benchmark.sandbox.evaluator import rank_by, read_targets
from benchmark.sandbox.explain import explained
from benchmark.sandbox.seal import EVALUATOR, NONE, SANDBOX
from benchmark.storage.io import atomic
from benchmark.storage.ledger import Cost, account

LATENCY_CASES = 5  # users scored alone, whose median time is recorded


@dataclass(frozen=True)
class Task:
    """One run, as its command line describes it: method, data, seed, settings and folders of checkpoints."""

    name: str  # of the row, or of an ablation's run
    repetition: int
    method: ModuleType
    data: Path
    split: Split
    data_hash: str
    seed: int
    settings: list[dict[str, Any]]  # each of them is fitted
    folders: list[Path]  # of their checkpoints
    tuning: Tuning | None  # of repetition 1, where this one takes its choice
    commit: str
    code: str  # sha256
    stages: dict[str, int]  # declared versions
    files: dict[Path, list[int]]  # the user's files that the settings name, with their marks before the fit


@dataclass(frozen=True)
class Ranked:
    """The ranked test cases and what it took; texts, one row per case, of a method that writes."""

    rankings: pa.Table
    cost: Cost
    texts: pa.Table | None
    tokens: int  # written by an LM
    report: dict[str, Any]


def rank_test(fitted: Fitted, test: Cases, n_items: int, data: Path, name: str) -> Ranked:
    """Rank the test cases. The evaluator's process reads their targets; without a sandbox, this process does.

    Raises InputError where test_targets.parquet, or the method's texts, hold other cases.
    """
    recommender, socket = fitted.recommender, os.environ.get(EVALUATOR)
    # Results that the fit itself has left on disk are in its own cost.
    with account(own=frozenset({fitted.cost.by})) as open_account:
        if socket:
            rankings = rank_by(socket, recommender.score(test), n_items, name)
        else:
            rankings = rank(recommender.score(test), test, read_targets(data, test), n_items, name)
        cost = open_account.cost()
    written, tokens, report = recommender.texts(), recommender.tokens_written(), recommender.report()
    check_report(report, name)
    texts = None if written is None else texts_with_ranks(written, rankings, name)
    return Ranked(rankings, cost, texts, tokens, report)


def texts_with_ranks(texts: pd.DataFrame, rankings: pa.Table, name: str) -> pa.Table:
    """The text of each case beside its target, rank and top items, so that a reasoning can be read with its outcome.

    Raises InputError unless `texts` has every ranked case once and no other, and the columns that the page shows.
    """
    cases = rankings.column("case").to_numpy()
    if not isinstance(texts, pd.DataFrame):
        raise InputError(f"{name}: texts() gave {type(texts).__name__}; return a pandas DataFrame, or None")
    if "case" not in texts.columns or sorted(texts["case"].tolist(), key=str) != sorted(cases.tolist(), key=str):
        raise InputError(f"{name}: texts() holds other cases than were ranked; give one row per case scored last")
    if missing := [column for column in ("prompt", "reasoning") if column not in texts.columns]:
        raise InputError(f"{name}: texts() has no column {missing[0]!r}; give case, prompt and reasoning")
    outcome = rankings.select(["target", "rank", "top_items"])
    ordered = texts.drop(columns=outcome.column_names, errors="ignore").set_index("case").loc[cases].reset_index()
    try:
        table = pa.Table.from_pandas(ordered, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:  # mixed types, or half a surrogate pair
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{name}: texts() holds what parquet can't ({why}); give text and numbers") from None
    for column in outcome.column_names:
        table = table.append_column(column, outcome.column(column))
    return table


def seconds_of_one_case(recommender: Recommender, cases: Cases, name: str) -> float:
    """Median seconds to score a single test case, without the first, which warms up.

    Raises InputError where uncached() gives no Recommender.
    """
    fresh, seconds = recommender.uncached(), []
    if not isinstance(fresh, Recommender):
        raise InputError(f"{name}: uncached() gave {type(fresh).__name__}; return a Recommender, such as itself")
    for case in cases.take(np.arange(min(LATENCY_CASES + 1, len(cases)))).batches(1):
        start = time.monotonic()
        for _ in fresh.score(case):
            pass
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds[1:] or seconds)


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


def task_of(args: argparse.Namespace) -> Task:
    """The run that a command line describes, checked. Raises InputError."""
    commit = provenance.commit()  # of the code that runs, whatever is committed meanwhile
    if provenance.REQUIRE_CLEAN in os.environ:  # edits while Snakemake was running
        provenance.require_clean()
    module = args.module or args.method
    method = load_method(module, "--method")
    processes = launch.process_count()
    if processes > 1 and not trains_in_processes(method):
        raise InputError(f"{args.method}: {module} trains in one process alone, not in {processes}; start one")
    settings, tuning = settings_to_try(args, method)
    split = read_split(args.data)
    data_hash = read_about(args.data, "split_hash")["split_hash"]
    words = "\n".join(filter(None, [split.category, split.category_plural]))
    folder_of = partial(
        checkpoint_folder, data_hash=data_hash, code=made_by(module), processes=processes, category=words
    )
    return Task(
        name=args.method,
        repetition=args.seed,
        method=method,
        data=args.data,
        split=split,
        data_hash=data_hash,
        seed=provenance.derive_seed(split.name, stream_of(method, args.stream or args.method), args.seed),
        settings=settings,
        folders=[folder_of(args.work, method, params) for params in settings],
        tuning=tuning,
        commit=commit,
        code=code_hash(code_files(module)),
        stages=declared_stages(module),
        files={file: mark(file) for params in settings for file in named_files(params)},
    )


def record_of(task: Task, fitted: Fitted, ranked: Ranked, latency: float) -> RunRecord:
    """The record of a run. latency: seconds to score a single case.

    Raises InputError for a value of the method's that no record can hold, such as a number of tokens that is none.
    """
    try:
        return _record(task, fitted, ranked, latency)
    except ValidationError as error:
        place, why = first_problem(error, RunRecord)
        raise InputError(f"{task.name}: {place}: {why}; mend what the method gives for it") from None


def _record(task: Task, fitted: Fitted, ranked: Ranked, latency: float) -> RunRecord:
    n_cases, fit, score = len(ranked.rankings), fitted.cost, ranked.cost
    waited = provenance.waited_for_cores()
    return RunRecord(
        dataset=task.split.name,
        method=task.name,
        kind=kind_of(task.method),
        seed=task.repetition,
        seed_value=task.seed,
        params=task.settings[fitted.chosen],
        tuning=fitted.tuning or task.tuning,
        commit=task.commit,
        code=task.code,
        stages=task.stages,
        versions=provenance.versions(),
        hardware=provenance.hardware(),
        data_hash=task.data_hash,
        learned=LearnedFrom(**asdict(fitted.learned)),
        n_cases=n_cases,
        seconds=Phases(
            fit=round(fit.seconds, 3), score=round(score.seconds, 3), reused=round(fit.reused + score.reused, 3)
        ),
        latency_ms_per_case=round(score.seconds / n_cases * 1000, 4),
        latency_ms_alone=round(latency * 1000, 4),
        waited=None if waited is None else round(waited, 3),
        peak_memory_mib=provenance.peak_memory_mib(),
        tokens_written=ranked.tokens,
        report=ranked.report,
        sandbox=os.environ.get(SANDBOX, NONE) if EVALUATOR in os.environ else NONE,
        finished_at=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
    )


def write(out: Path, ranked: Ranked, record: RunRecord) -> None:
    """Write the run's folder, whole or not at all."""
    with atomic(out) as temporary:
        temporary.mkdir()
        pq.write_table(ranked.rankings, temporary / "rankings.parquet", compression="zstd")
        if ranked.texts is not None:
            pq.write_table(ranked.texts, temporary / "texts.parquet", compression="zstd")
        write_run(temporary / "run.json", record)


def check_unchanged(files: Mapping[Path, list[int]]) -> None:
    """Raise InputError for a file that was replaced while the run used it: what the run was made from isn't known."""
    for file, before in files.items():
        if not file.is_file() or mark(file) != before:
            raise InputError(f"{file}: has changed while the run used it; leave it alone and start the run again")


def fit_and_rank(task: Task, out: Path) -> None:
    """Fit a run, rank its test cases, and write its folder."""
    if not launch.is_main_process():  # of several processes all fit; the first alone validates, ranks and writes
        fit_along(task.method, task.split, task.seed, task.settings, task.folders)
        return
    fitted = fit_best(task.method, task.name, task.split, task.seed, task.settings, task.folders)
    test = read_test(task.data, read_about(task.data))
    provenance.seed_generators(task.seed)  # a fit that went on from a checkpoint has drawn less
    ranked = rank_test(fitted, test, task.split.n_items, task.data, task.name)
    latency = seconds_of_one_case(fitted.recommender, test, task.name)
    check_unchanged(task.files)
    write(out, ranked, record_of(task, fitted, ranked, latency))
    value = ndcg(ranked.rankings.column("rank").to_numpy(), 10).mean()
    about = f"{task.split.name} {task.name} seed {task.repetition}"
    print(f"{about}: test NDCG@10 {value:.4f}, fit {fitted.cost.seconds:.1f} s")


@command
def main() -> None:
    args = parse()
    launch.end_with_launcher()
    with explained(args.method):
        fit_and_rank(task_of(args), args.out)


if __name__ == "__main__":
    main()
