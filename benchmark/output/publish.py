"""Copy a finished run's tables, plots and page to results/published/NAME: `python -m benchmark.output.publish NAME`.

It copies all that belongs to the run's page: its statistics, tables, plots and ablations, each as the workflow recorded
it. about.json beside them says which commits made the runs. `--factors FOLDER` copies the ablations of that folder
instead, with their rankings; `--folder PART` copies a plain folder of results, such as speed.
"""

import shutil
from pathlib import Path
from typing import Any

from benchmark.config.wording import many
from benchmark.errors import InputError, command, command_line
from benchmark.jobs.outputs import STATISTICS
from benchmark.jobs.records import read_run
from benchmark.jobs.stale import RECORDS
from benchmark.storage.io import atomic, read_json, sha256_of, write_json

PUBLISHED = Path("results/published")
# Jobs whose records lie by the folder of the ablations.
FACTORS = ("factor_statistics", "ablation", "ablation_plot", "claims_statistics", "claims")


def read_records(place: Path) -> dict[str, dict[str, Any]]:
    """The records of all jobs that have ended in `place`, the folder that holds results/, by the job's name.

    Raises InputError for a damaged one.
    """
    folder = place / RECORDS
    records = {}
    for path in sorted(folder.rglob("*.json")):
        record = read_json(path)
        parts = [record.get(kind) if isinstance(record, dict) else None for kind in ("inputs", "outputs")]
        notes = [note for part in parts if isinstance(part, dict) for note in part.values()]
        if not all(isinstance(part, dict) for part in parts) or not all(
            isinstance(note, dict) and "sha256" in note for note in notes
        ):
            raise InputError(f"{path}: no record of a job; run the workflow again, which writes it anew")
        records[str(path.relative_to(folder))[: -len(".json")]] = record
    return records


def hashes(notes: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The sha256 of each file that a record notes."""
    return {path: note["sha256"] for path, note in notes.items()}


def of_the_page(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The records of the page's job, of the jobs whose outputs it shows, and of those that show its statistics, too.

    A job of an earlier config, which no longer runs, had other statistics. Raises InputError without a page.
    """
    if "page" not in records:
        raise InputError(f"{RECORDS}/page.json: missing; let the run come to its end before you publish it")
    shown = hashes(records["page"]["inputs"])
    outputs = {name: record for name, record in records.items() if not name.startswith(("run/", "prepare/", "fetch/"))}
    statistics = {path: sha256 for path, sha256 in shown.items() if Path(path).is_relative_to(STATISTICS)}
    return {
        name: record
        for name, record in outputs.items()
        if name == "page"
        or shown.keys() & record["outputs"].keys()
        or (record["inputs"] and hashes(record["inputs"]).items() <= statistics.items())
    }


def of_factors(records: dict[str, dict[str, Any]], folder: str) -> dict[str, dict[str, Any]]:
    """The records of the ablations whose tables lie in results/{folder}.

    Raises InputError without the record of the claims, which come last.
    """
    if f"claims/{folder}" not in records:
        raise InputError(f"{RECORDS}/claims/{folder}.json: missing; let the ablations come to their end first")
    prefixes = tuple(f"{rule}/{folder}" for rule in FACTORS)
    return {name: record for name, record in records.items() if name.startswith(prefixes)}


def check(place: Path, jobs: dict[str, dict[str, Any]]) -> None:
    """Raise InputError unless every file that these jobs read or wrote is there and as it was then."""
    for name, record in jobs.items():
        for path, noted in (record["inputs"] | record["outputs"]).items():
            if not (place / path).is_file():
                raise InputError(f"{place / path}: missing, but {name} was made with it; run the workflow again")
            if sha256_of(place / path) != noted["sha256"]:
                raise InputError(f"{place / path}: has changed since {name} was made; run the workflow again")


def runs_behind(place: Path, jobs: dict[str, dict[str, Any]]) -> list[Path]:
    """The folders of the runs that these jobs have read."""
    read = {path for record in jobs.values() for path in record["inputs"]}
    return sorted(place / Path(path).parent for path in read if Path(path).name == "run.json")


def commits_of(runs: list[Path], dirty: bool) -> dict[str, int]:
    """The number of runs by commit. Raises InputError for runs of code that is in no commit, unless `dirty`."""
    count_of: dict[str, int] = {}
    for folder in runs:
        commit = read_run(folder / "run.json").commit
        if not dirty and (commit == "unknown" or commit.endswith("-dirty")):
            raise InputError(
                f"{folder / 'run.json'}: commit is {commit!r}, so that nobody can have its code; commit it and run "
                "again, or say --dirty"
            )
        count_of[commit] = count_of.get(commit, 0) + 1
    return dict(sorted(count_of.items(), key=lambda entry: (-entry[1], entry[0])))


def target_of(path: str, factors: str | None) -> str:
    """The place of a file of results/ in the published folder: the same; for ablations tables, plots or statistics.

    >>> target_of("results/plots/ml-100k.cost.png", None), target_of("results/plots/many/beta.png", "many")
    ('plots/ml-100k.cost.png', 'plots/beta.png')
    >>> target_of("results/many/beta.md", "many"), target_of("results/statistics/many/beta.tests.csv", "many")
    ('tables/beta.md', 'statistics/beta.tests.csv')
    """
    inner = Path(path).relative_to("results")
    if factors is None:
        return inner.as_posix()
    return f"{inner.parts[0] if inner.parts[0] in ('plots', 'statistics') else 'tables'}/{inner.name}"


def publish(place: Path, out: Path, factors: str | None = None, dirty: bool = False) -> dict[str, Any]:
    """Copy the run whose results/ lies in `place` to `out`, whole or not at all, and in place of what was there.

    Returns the content of about.json. Raises InputError as `check` and `commits_of` do.
    """
    records = read_records(place)
    jobs = of_the_page(records) if factors is None else of_factors(records, factors)
    check(place, jobs)
    runs = runs_behind(place, jobs)
    about = {"commits": commits_of(runs, dirty), "runs": len(runs)}
    with atomic(out) as temporary:
        files = {path: temporary / target_of(path, factors) for record in jobs.values() for path in record["outputs"]}
        if factors is not None:
            for folder in runs:
                for name in ("rankings.parquet", "run.json"):
                    path = (folder / name).relative_to(place)
                    files[path.as_posix()] = temporary / path.relative_to("results")
        for path, target in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place / path, target)
        write_json(temporary / "about.json", about | {"files": len(files)})
    return about


def copy_folder(source: Path, out: Path) -> None:
    """Copy a plain folder, whole or not at all."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; run what makes it first")
    with atomic(out) as temporary:
        shutil.copytree(source, temporary)


@command
def main() -> None:
    parser = command_line("benchmark.output.publish", __doc__)
    parser.add_argument("name", metavar="NAME", help="the folder in results/published that it becomes")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("."),
        metavar="FOLDER",
        help="where the run's results/ lies (default: here)",
    )
    parser.add_argument("--factors", metavar="FOLDER", help="publish the ablations whose tables lie in results/FOLDER")
    parser.add_argument("--folder", metavar="PART", help="publish results/PART as it is, such as speed")
    parser.add_argument("--dirty", action="store_true", help="publish runs of code that is in no commit, too")
    args = parser.parse_args()
    if not args.name or Path(args.name).name != args.name or args.name.startswith("."):
        raise InputError(f"{args.name!r} is no name of a folder; give one such as default")
    out = PUBLISHED / args.name
    if args.folder:
        copy_folder(args.directory / "results" / args.folder, out)
        print(f"{out}: copied from {args.directory / 'results' / args.folder}")
        return
    about = publish(args.directory, out, args.factors, args.dirty)
    commits = ", ".join(f"{commit[:10]} ({count})" for commit, count in about["commits"].items())
    readme = "; `make readme` takes its tables into README.md" if args.name == "default" else ""
    made_by = "commit" if len(about["commits"]) == 1 else "commits"
    print(f"{out}: {many(about['runs'], 'run')} of {made_by} {commits}{readme}")


if __name__ == "__main__":
    main()
