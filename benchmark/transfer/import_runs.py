"""Take a config's finished runs from a folder: `python -m benchmark.transfer.import_runs CONFIG FOLDER`.

FOLDER is what export wrote, on this machine or another one. A run is taken if it follows from what is here, by
checksums: the same settings, the same declared versions of its code and packages, the same prepared data, which are
prepared first where they aren't there. The workflow then runs only what is missing. Every run keeps its own record, so
that tables and page name its commit and its machine. Runs that are here already stay.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmark.config.wording import many
from benchmark.errors import InputError, command
from benchmark.jobs.plan import Plan, data_files
from benchmark.jobs.records import read_run
from benchmark.jobs.stale import MADE_HERE, Job, why_stale
from benchmark.shipped import shipped
from benchmark.storage.checksums import forget
from benchmark.storage.io import read_json, write_json
from benchmark.transfer.export_runs import (
    copy_run,
    every_run,
    named,
    parser_of,
    place_of,
    plan_in,
    record_in,
    sentences,
)

Run = tuple[str, str, int]


def in_folder(plan: Plan, folder: Path) -> dict[Run, Job]:
    """The runs of a plan that an export has. Raises InputError where it has none."""
    runs = {run: plan.run(*run) for run in every_run(plan) if (folder / place_of(run) / "run.json").is_file()}
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that r2ec-bench export has written")
    if not runs:
        raise InputError(f"{folder}: has no run of this config; give the config whose runs were exported to it")
    return runs


def prepare(datasets: list[str], config: Path) -> None:
    """Have the workflow prepare these datasets, where they aren't as the config wants them.

    Raises InputError where that fails.
    """
    if missing := [dataset for dataset in datasets if not all(Path(path).is_file() for path in data_files(dataset))]:
        print(
            f"preparing {', '.join(missing)} first: a run is taken where its data are those that are here", flush=True
        )
    command_line = [sys.executable, "-m", "snakemake", "--snakefile", str(shipped("workflow/Snakefile"))]
    command_line += ["--configfile", str(config), "--cores", "all", "--quiet", "all", "--"]
    targets = [f"results/data/{dataset}/dataset.json" for dataset in datasets]
    done = subprocess.run([*command_line, *targets], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        print(done.stdout, end="", file=sys.stderr)
        raise InputError(f"{', '.join(datasets)}: could not be prepared; mend what is said above, and import again")


def others_on_record(record: Any, job: Job) -> str | None:
    """What an export's record of a run says that its job here doesn't, in words; None for nothing. Reads no file."""
    if not isinstance(record, dict) or not {"settings", "code"} <= record.keys():
        return "what it was made from can't be read"
    if record["settings"] != job.settings:
        return "it has other settings here"
    return "it has other versions of its code or packages here" if record["code"] != job.code else None


def place(run: Run, job: Job, folder: Path) -> str | None:
    """Copy one run and its record to where the workflow has them. Returns why it was left out; None if it wasn't.

    Raises InputError for a damaged run.
    """
    try:
        record = read_json(record_in(folder, job))
    except FileNotFoundError:
        return "nothing says what it was made from"
    if (why := others_on_record(record, job)) is not None:
        return why
    source = folder / place_of(run)
    about = read_run(source / "run.json")
    if (about.dataset, about.method, about.seed) != run:
        found = named((about.dataset, about.method, about.seed))
        raise InputError(f"{source / 'run.json'}: is of {found}, not of {named(run)}; export that run again")
    copy_run(source, Path(MADE_HERE) / place_of(run))
    write_json(job.record, record)
    return None


def take(plan: Plan, folder: Path, runs: dict[Run, Job]) -> tuple[list[Run], list[Run], dict[str, list[str]]]:
    """Copy these runs from an export, and keep those that follow from what is here.

    Returns the runs taken, those that were here before, and the others in words by the reason.
    """
    known: dict[str, str] = {}
    here = [run for run, job in runs.items() if why_stale(job, known) is None]
    left_out: dict[str, list[str]] = {}
    taken: dict[Run, Job] = {}
    for run, job in runs.items():
        if run in here:
            continue
        if (why := place(run, job, folder)) is None:
            taken[run] = job
        else:
            left_out.setdefault(why, []).append(named(run))
    # A run may have read the record of another one, such as a setting that repetition 1 has chosen: what goes leaves
    # those behind that follow from it.
    while gone := _stale(taken):
        for run, why in gone.items():
            forget(Path(MADE_HERE) / place_of(run))
            taken.pop(run).record.unlink()
            left_out.setdefault(why, []).append(named(run))
    return list(taken), here, left_out


def _stale(runs: dict[Run, Job]) -> dict[Run, str]:
    known: dict[str, str] = {}
    return {run: why for run, job in runs.items() if (why := why_stale(job, known)) is not None}


@command
def main() -> None:
    args = parser_of(
        "benchmark.transfer.import_runs", __doc__, "a folder that r2ec-bench export has written"
    ).parse_args()
    folder, config = args.folder.resolve(), args.config.resolve()
    args.directory.mkdir(parents=True, exist_ok=True)  # as the workflow makes it
    plan = plan_in(config, args.directory, folder)
    runs = in_folder(plan, folder)
    prepare(sorted({dataset for dataset, _, _ in runs}), config)
    taken, here, left_out = take(plan, folder, runs)
    for line in sentences(left_out):
        print(line)
    before = f", {len(here)} were here" if here else ""
    print(f"{args.folder}: {many(len(taken), 'run')} of {len(every_run(plan))} imported{before}")


if __name__ == "__main__":
    main()
