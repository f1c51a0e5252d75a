"""What an import asks of the workflow: to prepare data, and to forget a run that another one takes the place of."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark.errors import InputError
from benchmark.jobs.plan import data_files
from benchmark.jobs.stale import MADE_HERE, Job
from benchmark.shipped import shipped
from benchmark.storage.writable import check_cache, check_writable

LOCKED = "LockException"  # what Snakemake calls it
PATIENCE = 60  # seconds in which it may end its jobs
NOTHING_KEPT = "because the metadata was not present"  # its word where it knew nothing of a file that it should forget


def snakemake(config: Path, what: str, *arguments: str, fine: str | None = None) -> None:
    """Call Snakemake in the current folder. what: that is to be done, for the sentence where it fails.

    fine: words of a failure that is none. Where this process is ended, Snakemake ends with it.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(shipped("workflow/Snakefile"))]
    command += ["--configfile", str(config), "--cores", "all", *arguments]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with _ended_with_us(process):
        said, _ = process.communicate()
    if process.returncode == 0 or (fine is not None and fine in said):
        return
    if LOCKED in said:
        raise InputError(
            f"{Path.cwd()}: a workflow runs there, or was killed there; let it end, or give `r2ec-bench run {config} "
            f"--directory {Path.cwd()} -- --unlock` if none runs, and import again"
        )
    print(said, end="", file=sys.stderr)
    raise InputError(f"{what}; mend what is said above, and import again")


@contextlib.contextmanager
def _ended_with_us(process: subprocess.Popen[str]) -> Iterator[None]:
    """End Snakemake, as Ctrl-C does, where this process is ended: by itself it would go on, and keep its lock."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except BaseException as why:
        if not isinstance(why, KeyboardInterrupt):  # which a terminal sends to both
            process.send_signal(signal.SIGINT)  # at SIGTERM it would first let its jobs come to their end
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def prepare(datasets: list[str], models: list[str], config: Path) -> None:
    """Have the workflow prepare these datasets and fetch these models, where they aren't as the config wants them.

    models: their manifests. What a call of the workflow makes anew counts as changed for as long as it lasts: were a
    model fetched behind the import, each run that reads it would run again.

    Raises InputError where that fails.
    """
    check_cache()
    check_writable(Path())
    if missing := [dataset for dataset in datasets if not all(Path(path).is_file() for path in data_files(dataset))]:
        print(
            f"preparing {', '.join(missing)} first: a run is taken where its data are those that are here", flush=True
        )
    targets = [*(f"results/data/{dataset}/dataset.json" for dataset in datasets), *models]
    snakemake(config, f"{', '.join([*datasets, *models])}: could not be prepared", "--", *targets)


def forget_here(jobs: Sequence[Job], config: Path) -> None:
    """Have the workflow forget what it knows of these runs from when it made them here itself, if ever.

    By that it would run them again, whatever is imported: its notes hold the settings of then, or that a run was
    killed. The log, and the file of what a run has used, whose date counts as an output's, aren't of the imported run
    either.
    """
    outputs = [path for job in jobs for path in job.outputs]
    if not outputs:
        return
    snakemake(
        config, "what is known here of these runs can't be removed", "--cleanup-metadata", *outputs, fine=NOTHING_KEPT
    )
    for job in jobs:
        _, dataset, run, seed = job.name.split("/")
        for beside in (f"usage/runs/{dataset}.{run}.{seed}.tsv", f"logs/runs/{dataset}.{run}.{seed}.log"):
            Path(MADE_HERE, beside).unlink(missing_ok=True)
