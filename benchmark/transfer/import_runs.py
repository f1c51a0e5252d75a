"""Take a config's finished runs from a folder: `python -m benchmark.transfer.import_runs CONFIG FOLDER`.

FOLDER is what export wrote, on this machine or another one. A run is taken if it follows from what is here, by
checksums: the same settings, the same declared versions of its code and packages, the same prepared data, which are
prepared first where they aren't there. The workflow then runs only what is missing. Every run keeps its own record, so
that tables and page name its commit and its machine. Runs that are here already stay.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.config.wording import many, printable
from benchmark.errors import InputError, command
from benchmark.jobs.plan import Plan
from benchmark.jobs.records import read_run
from benchmark.jobs.stale import MADE_HERE, Job, why_stale
from benchmark.storage.checksums import forget
from benchmark.storage.io import read_json, write_json
from benchmark.transfer.export_runs import (
    Run,
    check_plain,
    checked_files,
    copy_run,
    every_run,
    named,
    parser_of,
    place_of,
    plan_in,
    record_in,
    sentences,
)
from benchmark.transfer.workflow import forget_here, prepare


@dataclass
class Taken:
    """What became of the runs that an export has."""

    here: set[Run]  # were here before
    taken: dict[Run, Job] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # in words, by the reason
    damaged: list[str] = field(default_factory=list)  # a sentence each

    def leave_out(self, run: Run, why: str) -> None:
        self.left_out.setdefault(why, []).append(named(run))


@contextlib.contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder, as the workflow would. What was made is taken away again where the user gave something wrong."""
    new = [place for place in (folder.absolute(), *folder.absolute().parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: is a file, or lies below one; give a folder") from None
    try:
        yield
    except InputError:
        for place in new:
            with contextlib.suppress(OSError):
                place.rmdir()
        raise


def in_folder(plan: Plan, folder: Path) -> dict[Run, Job]:
    """The runs of a plan that an export has. Raises InputError where it has none."""
    runs = {run: plan.run(*run) for run in every_run(plan) if os.path.lexists(folder / place_of(run) / "run.json")}
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that r2ec-bench export has written")
    if not runs:
        raise InputError(f"{folder}: has no run of this config; give the config whose runs were exported to it")
    return runs


def others_on_record(record: Any, job: Job) -> str | None:
    """What an export's record of a run says that its job here doesn't, in words; None for nothing. Reads no file."""
    if not isinstance(record, dict) or not {"settings", "code"} <= record.keys():
        return "what it was made from can't be read"
    if record["settings"] != job.settings:
        return "it has other settings here"
    return "it has other versions of its code or packages here" if record["code"] != job.code else None


def checked(run: Run, job: Job, folder: Path) -> tuple[Any, list[str]] | str:
    """A run's record and the names of its files; or why it is left out, in words.

    Raises InputError for a damaged run.
    """
    check_plain(record_in(folder, job))
    try:
        record = read_json(record_in(folder, job))
    except FileNotFoundError:
        return "nothing says what it was made from"
    if (why := others_on_record(record, job)) is not None:
        return why
    source = folder / place_of(run)
    names = checked_files(source)
    about = read_run(source / "run.json")
    if (about.dataset, about.method, about.seed) != run:
        found = named((about.dataset, about.method, about.seed))
        raise InputError(f"{source / 'run.json'}: is of {found}, not of {named(run)}; export that run again")
    return record, names


def place(runs: dict[Run, Job], folder: Path, config: Path, outcome: Taken) -> None:
    """Copy runs and their records to where the workflow has them, but for those that are to be left out."""
    ready = {}
    for run, job in runs.items():
        try:
            found = checked(run, job, folder)
        except InputError as error:
            outcome.damaged.append(str(error))
            continue
        if isinstance(found, str):
            outcome.leave_out(run, found)
        else:
            ready[run] = found
    forget_here([runs[run] for run in ready], config)
    for run, (record, names) in ready.items():
        copy_run(folder / place_of(run), Path(MADE_HERE) / place_of(run), names)
        write_json(runs[run].record, record)
        outcome.taken[run] = runs[run]


def take(folder: Path, runs: dict[Run, Job], config: Path) -> Taken:
    """Copy these runs from an export, and keep those that follow from what is here. Runs that are here already stay."""
    outcome = Taken(set(runs))
    # A run may have read the record of another one, such as a setting that repetition 1 has chosen: where that one is
    # replaced, those that were here and rested on it are replaced, too.
    while changed := _stale({run: runs[run] for run in runs if run in outcome.here}):
        outcome.here -= changed.keys()
        place({run: runs[run] for run in changed}, folder, config, outcome)
    # And what goes leaves those behind that follow from it.
    while gone := _stale(outcome.taken):
        for run, why in gone.items():
            forget(Path(MADE_HERE) / place_of(run))
            outcome.taken.pop(run).record.unlink()
            outcome.leave_out(run, why)
    return outcome


def _stale(runs: dict[Run, Job]) -> dict[Run, str]:
    known: dict[str, str] = {}
    return {run: why for run, job in runs.items() if (why := why_stale(job, known)) is not None}


@command
def main() -> None:
    args = parser_of(
        "benchmark.transfer.import_runs", __doc__, "a folder that r2ec-bench export has written"
    ).parse_args()
    folder, config = args.folder.resolve(), args.config.resolve()
    with made(args.directory):
        plan = plan_in(config, args.directory, folder)
        runs = in_folder(plan, folder)
    models = sorted({manifest for _, run, _ in runs for manifest in plan.embedded(run)})
    prepare(sorted({dataset for dataset, _, _ in runs}), models, config)
    outcome = take(folder, runs, config)
    for line in sentences(outcome.left_out):
        print(line)
    before = f", {len(outcome.here)} were here" if outcome.here else ""
    print(f"{args.folder}: {many(len(outcome.taken), 'run')} of {len(every_run(plan))} imported{before}", flush=True)
    for problem in outcome.damaged[:-1]:
        print(f"error: {printable(problem)}", file=sys.stderr)
    if outcome.damaged:
        raise InputError(outcome.damaged[-1])


if __name__ == "__main__":
    main()
