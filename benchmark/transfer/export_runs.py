"""Copy a config's finished runs to a folder: `python -m benchmark.transfer.export_runs CONFIG FOLDER`.

Another machine, or a fresh clone, takes them from there (import) and runs only what is missing. So a
long experiment can be split over machines and sittings, and a new method be compared with rows that somebody has run.

FOLDER gets of each run the folder that the workflow wrote, runs/DATASET/METHOD/seedN, and made_from/run/..., which says
by checksums what it was made from. A run that failed, or that its config, code or data have left behind, stays out.
"""

import argparse
import os
import shutil
from pathlib import Path

from benchmark.config.read import read_config_file
from benchmark.config.wording import many, names_in_words
from benchmark.errors import InputError, command, command_line
from benchmark.jobs.plan import RUN, Plan
from benchmark.jobs.records import check_beside, read_run
from benchmark.jobs.stale import MADE_HERE, RECORDS, Job, why_stale
from benchmark.output.publish import commits_of
from benchmark.storage.io import atomic, read_json, sha256_of, write_json

TEXTS = "texts.parquet"
RUNS, MADE_FROM = "runs", Path(RECORDS).name  # folders of an export
Run = tuple[str, str, int]  # dataset, name of the run, seed


def parser_of(module: str, about: str | None, folder: str) -> argparse.ArgumentParser:
    """The command line that export and import share. folder: what FOLDER is."""
    parser = command_line(module, about)
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="the config of the runs, such as config/claims.yaml"
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=folder)
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("."),
        metavar="FOLDER",
        help="where the runs' results/ lies, as of r2ec-bench run (default: here)",
    )
    return parser


def plan_in(config: Path, directory: Path, folder: Path) -> Plan:
    """The plan of a config file whose paths count from `directory`, which becomes the current folder.

    folder: the export's, resolved. Raises InputError for a config that is none, a folder that isn't there, and an
    export that would be the results themselves: copying a run to its own place could lose what it is copied from.
    """
    read = read_config_file(config)
    try:
        os.chdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{directory}: no such folder; give the one in which the workflow has run") from None
    if folder == Path(MADE_HERE).resolve():
        raise InputError(f"{folder}: is where the runs themselves lie; give a folder of its own for the export")
    return Plan.of(read, str(config))


def every_run(plan: Plan) -> list[Run]:
    """Dataset, run and seed of all runs of a plan, those of its ablations included, sorted."""
    return sorted({*plan.runs, *plan.runs_of(*plan.ablations.factors)})


def named(run: Run) -> str:
    """A run in words.

    >>> named(("ml-100k", "sasrec", 2))
    'sasrec on ml-100k, seed 2'
    """
    dataset, name, seed = run
    return f"{name} on {dataset}, seed {seed}"


def place_of(run: Run) -> Path:
    """The folder of a run in an export and, below results/, in the workflow.

    >>> place_of(("ml-100k", "sasrec", 2)).as_posix()
    'runs/ml-100k/sasrec/seed2'
    """
    dataset, name, seed = run
    return Path(RUNS, dataset, name, f"seed{seed}")


def record_in(folder: Path, job: Job) -> Path:
    """The file in an export that says what a run was made from."""
    return folder / MADE_FROM / f"{job.name}.json"


def check_plain(path: Path) -> None:
    """Raise InputError where something other than a file has this name: a pipe would be waited for without end."""
    if os.path.lexists(path) and not path.is_file():
        raise InputError(f"{path}: is no plain file; remove it, and export that run again")


def checked_files(source: Path, texts: bool = True) -> list[str]:
    """The names of a run's files, each of which is the one that run.json was written with.

    texts: whether what a method wrote is one of them, where it is there. Raises InputError otherwise.
    """
    check_plain(source / "run.json")
    record = read_run(source / "run.json")
    names = sorted({*RUN, *(record.files or {})})
    for name in names:
        if Path(name).name != name or "\0" in name:
            raise InputError(f"{source / 'run.json'}: names {name!r}, which is no file beside it; run this seed again")
    # Texts may have been left out of an export.
    names = [name for name in names if name != TEXTS or (texts and os.path.lexists(source / name))]
    for name in names:
        check_plain(source / name)
        if name != "run.json":
            check_beside(source / name)
    return names


def copy_run(source: Path, out: Path, names: list[str]) -> None:
    """Copy these files of a run's folder, all of them or none."""
    with atomic(out) as temporary:
        temporary.mkdir()
        for name in names:
            shutil.copyfile(source / name, temporary / name)


def sentences(left_out: dict[str, list[str]]) -> list[str]:
    """A line for each reason why runs were left out.

    >>> sentences({"its code has changed": ["a", "b", "c"]})
    ['left out: its code has changed (3 runs: a, b and 1 more)']
    """
    return [
        f"left out: {why} ({many(len(runs), 'run')}: {names_in_words(runs)})" for why, runs in sorted(left_out.items())
    ]


def check_not_another(job: Job, source: Path, out: Path, run: Run) -> None:
    """Raise InputError where an export has another run in this one's place, of equal settings and code.

    Other runs that it has may rest on that one, as repetition 1 chooses the setting of a row with a grid. The place may
    also be this run's own, by a link: what is left out of the export would be lost.
    """
    if (out / place_of(run)).resolve() == source.resolve():
        raise InputError(
            f"{out / place_of(run)}: is where the run itself lies; give a folder of its own for the export"
        )
    there, about = out / place_of(run) / "run.json", record_in(out, job)
    if not there.is_file() or sha256_of(there) == sha256_of(source / "run.json"):
        return
    recorded = read_json(about) if about.is_file() else None
    if isinstance(recorded, dict) and (recorded.get("settings"), recorded.get("code")) == (job.settings, job.code):
        raise InputError(
            f"{there}: another machine's run of this seed, or an earlier one, is there and others may rest on it; "
            "export to a folder of its own, or delete that run there"
        )


def export(plan: Plan, out: Path, texts: bool, dirty: bool) -> tuple[list[str], dict[str, list[str]]]:
    """Copy the finished runs of a plan to `out`. Returns these in words, and those left out by the reason.

    A run that `out` has of other settings or code is replaced. Raises InputError for a damaged run, for one of code
    that is in no commit, unless `dirty`, and, before anything is written, where `out` has another run in its place.
    """
    known: dict[str, str] = {}
    ready: list[tuple[Run, Job, Path]] = []
    left_out: dict[str, list[str]] = {}
    for run in every_run(plan):
        job = plan.run(*run)
        if not any(Path(path).exists() for path in job.outputs):
            left_out.setdefault("not run so far", []).append(named(run))
            continue
        if (why := why_stale(job, known)) is not None:
            left_out.setdefault(why, []).append(named(run))
            continue
        source = Path(MADE_HERE) / place_of(run)
        commits_of([source], dirty)
        check_not_another(job, source, out, run)
        ready.append((run, job, source))
    for run, job, source in ready:
        copy_run(source, out / place_of(run), checked_files(source, texts))
        write_json(record_in(out, job), read_json(job.record))
    return [named(run) for run, _, _ in ready], left_out


@command
def main() -> None:
    parser = parser_of(
        "benchmark.transfer.export_runs", __doc__, "the folder to write; what it has of other configs stays"
    )
    parser.add_argument("--without-texts", action="store_true", help="leave out what methods wrote, the largest files")
    parser.add_argument("--dirty", action="store_true", help="export runs of code that is in no commit, too")
    args = parser.parse_args()
    out = args.folder.resolve()
    if not next(place for place in (out, *out.parents) if place.exists()).is_dir():
        raise InputError(f"{args.folder}: is a file, or lies below one; give a folder for the export")
    plan = plan_in(args.config, args.directory, out)
    done, left_out = export(plan, out, not args.without_texts, args.dirty)
    for line in sentences(left_out):
        print(line)
    if not done:
        raise InputError(f"no run of {args.config} has finished in {Path.cwd()}; nothing is exported")
    print(f"{args.folder}: {many(len(done), 'run')} of {len(every_run(plan))} exported")


if __name__ == "__main__":
    main()
