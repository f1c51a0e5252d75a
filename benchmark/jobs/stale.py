"""Decide whether a job has to run again: whether its settings, its code or the contents of its files have changed.

A job of the workflow ends with `python -m benchmark.jobs.stale record`, which writes results/made_from/{job}.json.
Before Snakemake plans, the workflow calls `why_stale` for each job. File dates decide nothing: a copy may have an older
date than the file that it replaces.
"""

import argparse
import os
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.errors import InputError, command
from benchmark.jobs.records import read_failed
from benchmark.storage.io import read_json, sha256_of, write_json, write_text

MADE_HERE = "results/"
RECORDS = f"{MADE_HERE}made_from"
ASIDE = Path(f"{MADE_HERE}work/.aside")  # not in RECORDS, whose files are all read as records
# What runs keep for others, whichever config they are of; a setting may name other folders.
KEPT = tuple(f"{MADE_HERE}{kind}" for kind in ("states", "texts", "tunings"))
FRESH = "everything is made anew (fresh=true)"
CODE = "its code has changed"


@dataclass(frozen=True)
class Job:
    """One job of the workflow, by what its result depends on."""

    name: str  # rule and wildcards, such as run/ml-100k/sasrec/seed1
    outputs: tuple[str, ...]  # files that it writes, relative to the folder in which Snakemake works
    inputs: tuple[str, ...]  # files that it reads
    settings: str  # sha256 of the settings that it is told
    code: str  # sha256 of its code, as `code_hash` gives it
    # Inputs that may be gone once the job is done, such as a download that has been read.
    temporary: frozenset[str] = frozenset()

    @property
    def record(self) -> Path:
        """The file that says what this job's outputs were made from."""
        return Path(RECORDS, f"{self.name}.json")

    @property
    def expected(self) -> Path:
        """The file that is there where the plan counts on the outputs that were there before."""
        return Path(RECORDS, f"{self.name}.as-before")

    @property
    def otherwise(self) -> Path:
        """The file that holds the code by which other outputs came out than the plan had counted on."""
        return Path(RECORDS, f"{self.name}.otherwise")

    @property
    def aside(self) -> Path:
        """The folder that keeps the outputs of before while the job runs again."""
        return ASIDE / self.name


def mark(path: Path) -> list[int]:
    """Numbers that change when a file is written or replaced. No copy can keep its ctime, which can't be set."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _noted(paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """sha256 and mark of each file. Raises InputError for a missing one."""
    notes = {}
    for path in sorted(set(paths)):
        try:
            noted = mark(Path(path))
            notes[path] = {"sha256": sha256_of(path), "mark": noted}
        except FileNotFoundError:
            raise InputError(f"{path}: is missing though its job has ended; start the run again") from None
    return notes


def write_record(job: Job) -> None:
    """Record what the outputs of a job that has just ended were made from.

    Raises InputError for other outputs than before where the plan counted on the same ones (`expect_as_before`).
    """
    inputs, outputs = _noted(job.inputs), _noted(job.outputs)
    if job.expected.exists():
        before = read_json(job.record)["outputs"]
        for path, note in outputs.items():
            if path not in before or before[path]["sha256"] != note["sha256"]:
                write_text(job.otherwise, job.code)
                raise InputError(
                    f"{path}: comes out otherwise since the code that makes it has changed; give the same command "
                    "again, which makes anew what follows from it"
                )
    write_json(job.record, {"settings": job.settings, "code": job.code, "inputs": inputs, "outputs": outputs})
    job.expected.unlink(missing_ok=True)
    job.otherwise.unlink(missing_ok=True)
    shutil.rmtree(job.aside, ignore_errors=True)


def expect_as_before(job: Job, expected: bool) -> None:
    """Note whether what follows from a job is planned as if its outputs came out as they were.

    A file says so to the job's own process, on whichever machine that runs, and to its second attempt.
    """
    if expected:
        write_text(job.expected, "")
    else:
        job.expected.unlink(missing_ok=True)


def set_aside(job: Job) -> None:
    """Keep the outputs of a job that is about to run again, if they are those of its record.

    Snakemake removes them as it begins. If the job then fails, what was made from them, maybe in hours, has no inputs.
    """
    recorded = _recorded_outputs(job)
    if recorded and all(Path(path).is_file() and sha256_of(path) == recorded[path] for path in recorded):
        shutil.rmtree(job.aside, ignore_errors=True)
        job.aside.mkdir(parents=True)
        for path in recorded:
            try:
                os.link(os.path.realpath(path), job.aside / Path(path).name)
            except OSError:  # not every file system has links
                shutil.copy2(path, job.aside)


def put_back(job: Job) -> None:
    """Put back what `set_aside` has kept of a job that has failed, if it and what is there are those of the record.

    For the process that holds Snakemake's lock: while the job runs, its outputs are missing, too.
    """
    recorded = _recorded_outputs(job)
    missing = [path for path in recorded if not Path(path).exists()]
    kept = {path: job.aside / Path(path).name for path in missing}
    there = [(path, Path(path)) for path in recorded if path not in kept]
    if all(file.is_file() and sha256_of(file) == recorded[path] for path, file in [*kept.items(), *there]):
        for path, file in kept.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, path)
        job.expected.unlink(missing_ok=True)
        shutil.rmtree(job.aside, ignore_errors=True)


def _recorded_outputs(job: Job) -> dict[str, str]:
    """sha256 by path of what the record says of the job's outputs; {} without a readable record of just these."""
    try:
        recorded = {path: str(note["sha256"]) for path, note in read_json(job.record)["outputs"].items()}
    except (OSError, InputError, KeyError, TypeError, AttributeError):
        return {}
    return recorded if set(recorded) == set(job.outputs) else {}


def record_command(job: Job, inputs: Iterable[str], outputs: Iterable[str]) -> str:
    """The command at the end of a job, which records what its outputs were made from."""
    read, written = shlex.join(["--inputs", *inputs]), shlex.join(["--outputs", *outputs])
    options = f"--job {job.name} --settings {job.settings} --code {job.code}"
    return f"python -m benchmark.jobs.stale record {options} {read if inputs else ''} {written}"


def why_stale(job: Job, known: dict[str, str]) -> str | None:
    """Why a job has to run, in words; None if its outputs exist and follow from its present inputs.

    known: sha256 by path of files that were hashed before; files that are hashed here are added. Files that the
    workflow has made are always hashed, as a bit that flips on the disk changes no date. Other files, such as downloads
    of gigabytes, are hashed only where their size, times or inode differ from the record.
    """
    for path in job.outputs:
        if Path(path).name == "run.json" and (why := _failed(path)) is not None:
            return why
    try:
        record = read_json(job.record)
        recorded = {kind: dict(record[kind]) for kind in ("inputs", "outputs")}
        settings, code = record["settings"], record["code"]
    except FileNotFoundError:
        return "nothing says what it was made from"
    except (OSError, InputError, ValueError, KeyError, TypeError):
        return f"{job.record} can't be read"
    if settings != job.settings:
        return "its settings have changed"
    if code != job.code:
        return CODE
    for kind, paths in (("outputs", job.outputs), ("inputs", job.inputs)):
        if set(recorded[kind]) != set(paths):
            return f"it has other {kind} now"
        for path in paths:
            if kind == "inputs" and path in job.temporary and not Path(path).exists():
                continue
            noted = recorded[kind][path]
            if not isinstance(noted, dict) or not {"sha256", "mark"} <= noted.keys():
                return f"{job.record} can't be read"
            if (sha256 := _content(path, noted, known)) != noted["sha256"]:
                return f"{path} {'is missing' if sha256 is None else 'has changed'}"
    return None


def only_its_code(job: Job, known: dict[str, str]) -> bool:
    """Whether a job has to run only because of its code: what it makes may come out as it was.

    Not so once it has come out otherwise by this code. known: as in `why_stale`.
    """
    if why_stale(job, known) != CODE or (job.otherwise.exists() and job.otherwise.read_text() == job.code):
        return False
    return why_stale(replace(job, code=read_json(job.record)["code"]), known) is None


def _failed(path: str) -> str | None:
    """Why a run is tried again, by its record: it failed, or the record can't be read; None for neither."""
    try:
        failed = read_failed(path)
    except (InputError, OSError):
        return f"{path} can't be read"
    return None if failed is None else f"it failed: {failed.failed}"


def _content(path: str, recorded: dict[str, Any], known: dict[str, str]) -> str | None:
    """The sha256 of a file's present content, None without one."""
    try:
        if path not in known:
            same = not path.startswith(MADE_HERE) and mark(Path(path)) == recorded["mark"]
            known[path] = recorded["sha256"] if same else sha256_of(path)
        return known[path]
    except OSError:
        return None


def take_fresh(config: dict[str, Any]) -> bool:
    """Take `fresh` out of what Snakemake was told by --config: it is a wish for this call and no setting of a config.

    Raises InputError unless it is true or false.
    """
    fresh = config.pop("fresh", False)
    word = str(fresh).lower()  # Snakemake reads True as a truth value, and true as text
    if word not in ("true", "false"):
        raise InputError(f"--config fresh is {fresh!r}; say fresh=true, or leave it out")
    return word == "true"


def forget(jobs: Iterable[str], folders: Iterable[str]) -> None:
    """Remove the records of these jobs (by name), these folders of their fits, and all that is kept for several runs.

    A call that is stopped on the way needs no second wish: the next one makes anew what has no record. Downloads stay.
    """
    for job in jobs:
        for ending in ("json", "as-before", "otherwise"):
            Path(RECORDS, f"{job}.{ending}").unlink(missing_ok=True)
    shutil.rmtree(ASIDE, ignore_errors=True)
    for folder in map(Path, folders):
        if folder.is_dir():
            shutil.rmtree(folder)
    for kept in map(Path, KEPT):
        for path in kept.iterdir() if kept.is_dir() else ():  # the folder may be a link that several runs share
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.jobs.stale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["record"])
    parser.add_argument("--job", required=True, help="its name")
    parser.add_argument("--settings", required=True, help="sha256 of its settings")
    parser.add_argument("--code", required=True, help="sha256 of its code")
    parser.add_argument("--inputs", nargs="*", default=[], help="files that it has read")
    parser.add_argument("--outputs", nargs="+", required=True, help="files that it has written")
    args = parser.parse_args()
    write_record(Job(args.job, tuple(args.outputs), tuple(args.inputs), args.settings, args.code))


if __name__ == "__main__":
    main()
