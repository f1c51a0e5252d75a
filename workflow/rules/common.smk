import functools
import json
import math
import sys
from pathlib import Path

# The packages of a checkout; those of an installed wheel are found without it.
sys.path.insert(0, str(Path(workflow.basedir).parent))

from benchmark.config.read import read_config, read_yaml
from benchmark.config.wording import printable
from benchmark.errors import InputError, in_a_sentence
from benchmark.jobs.estimates import RULES, of_job, of_rule, table
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import (
    ENCODER_SUMS,
    MANIFEST,
    Plan,
    data_files,
    run_files,
    shell_prefix,
)
from benchmark.jobs.stale import (
    FRESH,
    expect_as_before,
    forget,
    only_its_code,
    put_back,
    record_command,
    set_aside,
    take_fresh,
    why_stale,
)
from benchmark.provenance import memory_bytes, require_clean
from benchmark.storage.writable import check_writable


def stop(problem):
    """End with one sentence: Snakemake's own errors stand in a frame of files and lines of this project."""
    print(printable(f"error: {problem}"), file=sys.stderr)
    raise SystemExit(2)


def read_from():
    """What the config is called in sentences: its file, unless several or --config have a share in it."""
    files = workflow.overwrite_configfiles or workflow.configfiles
    alone = len(files) == 1 and not workflow.config_settings.config
    if not alone:
        return "config"
    file, root = Path(files[0]).resolve(), Path(workflow.basedir).parent.resolve()
    return str(file.relative_to(root) if file.is_relative_to(root) else file)


try:
    with in_a_sentence():
        if workflow.is_main_process:
            check_writable(Path())
        # Snakemake lets the last of two equal names win.
        for path in map(Path, workflow.overwrite_configfiles or workflow.configfiles):
            if path.suffix != ".json":
                if "fresh" in read_yaml(path):
                    raise InputError(
                        f"{path}: fresh is no setting of a config; say --config fresh=true"
                    )
        given = dict(config)
        fresh = take_fresh(given)
        settings = read_config(given, read_from())
        plan = Plan.of(settings, read_from())
        outputs = Outputs(plan)
        ablations = plan.ablations
        if fresh:
            plan.check_kept()
        if settings.require_clean and not workflow.output_settings.dryrun:
            require_clean()
except InputError as problem:
    stop(problem)

with_conda = any(
    method.name == "CONDA" for method in workflow.deployment_settings.deployment_method
)
shell.prefix(shell_prefix(settings.require_clean, with_conda))


wildcard_constraints:
    dataset="|".join(map(re.escape, settings.datasets)),
    method="|".join(map(re.escape, [*settings.methods, *ablations.variants])),
    seed=r"\d+",


def run_of(wildcards):
    """Dataset, name and seed of a run, as the plan takes them."""
    return wildcards.dataset, wildcards.method, int(wildcards.seed)


@functools.cache
def job_of_run(dataset, run, seed):
    return plan.run(dataset, run, seed)


def run_job(wildcards):
    """The job of a run. Snakemake asks for it several times."""
    return job_of_run(*run_of(wildcards))


asked = set()  # names of jobs whose inputs Snakemake has asked for
stale = {}  # by the first output of a job, why it has to run again
sound = set()  # the same outputs of jobs that don't have to run, or have no outputs
contents = {}  # sha256 by path of files that were hashed


def input_checksums(job, path):
    """The checksums that Snakemake has recorded of a file that a job has read, of which any other one makes the job run.

    Snakemake asks where the file has a newer date than the job's outputs, or where there are none than what was made from
    them. Its own notes lack runs that were imported, and files that were larger than a megabyte. Of sound jobs it is
    told what the file has now.
    """
    if job.output and str(job.output[0]) in sound and str(path) in contents:
        return {f"sha256:{contents[str(path)]}"}
    return type(workflow.persistence).input_checksums(workflow.persistence, job, path)


@functools.cache
def stays(dataset):
    """Whether a dataset is as it was, or fetched and prepared again only because code was edited, as after an update.

    What was made from it isn't planned again then, also where Snakemake itself prepares it again, as after a run that
    was cut off. Where the data come out otherwise after all, `prepare` fails and says what to do (`expect_as_before`).
    """
    if fresh:
        return False
    jobs = [plan.fetch(dataset), plan.prepare(dataset)]
    again = [job for job in jobs if why_stale(job, contents) is not None]
    return all(only_its_code(job, contents) for job in again)


STAYS = "; what was made from these data stays if they come out as they were"
dataset_of = {path: name for name in settings.datasets for path in data_files(name)}


class Followed:
    """The jobs that read what a job makes, but for those to which all of it is ancient."""

    def __init__(self, depending):
        self.depending = depending

    def __getitem__(self, job):
        return {
            other: files
            for other, files in self.depending[job].items()
            if not all(file.is_ancient for file in files)
        }


def traversal(direction, *jobs, **options):
    """Snakemake's own, which doesn't follow ancient files.

    Snakemake 9.27 takes all jobs behind one that runs for judged. Behind ancient files they aren't: none of them was
    planned then, whatever was missing.
    """
    if direction is workflow.dag.depending:
        direction = Followed(direction)
    return type(workflow.dag).bfs(workflow.dag, direction, *jobs, **options)


def inputs_of(job):
    """The files that a job reads; as a side effect, force the job if it is stale (benchmark/jobs/stale.py).

    Snakemake asks for inputs while it builds its graph, before it decides what to run. Contents decide, not dates: a
    copy may be older than the file that it replaces. A process that Snakemake starts for one job, on Slurm or for a
    group, is told what to run, and takes all else as it is.
    """
    if not workflow.is_main_process:
        return [ancient(path) for path in job.inputs]
    if job.name not in asked:
        asked.add(job.name)
        # Snakemake 9.27 has a trigger `mtime` that it never asks for: what keeps a job with newer inputs from running is
        # their checksums, which by default it takes of files up to a megabyte.
        workflow.dag.max_checksum_file_size = sys.maxsize
        workflow.persistence.input_checksums = input_checksums
        workflow.dag.bfs = traversal
        # Snakemake itself makes outputs that don't exist, where something needs them.
        exists = any(Path(path).exists() for path in job.outputs)
        if exists and (why := FRESH if fresh else why_stale(job, contents)):
            prepared = dataset_of.get(job.outputs[0])
            as_before = prepared is not None and stays(prepared)
            stale[job.outputs[0]] = f"{why}{STAYS if as_before else ''}"
            workflow.dag.forcefiles.add(job.outputs[0])
        else:
            sound.add(job.outputs[0])
    # Snakemake makes nothing anew because of an ancient input that is made anew, but still waits for it.
    return [
        ancient(path) if path in dataset_of and stays(dataset_of[path]) else path
        for path in job.inputs
    ]


def start_fresh():
    """Forget what the planned jobs made before, and say so."""
    planned = [
        run_of(job.wildcards)
        for job in workflow.dag.needrun_jobs()
        if job.rule.name == "run"
    ]
    forget(asked, [plan.work(*run) for run in planned])
    print(
        f"fresh=true: {len(asked)} jobs are made anew. Their records and checkpoints are removed, and so are all kept"
        " states, texts and tunings; downloads stay.",
        file=sys.stderr,
    )


def recorded(job):
    """The command that records what a job's outputs were made from. job: a function from wildcards to the job."""
    return lambda wildcards, input, output: record_command(
        job(wildcards), input, output
    )


def dataset_json(wildcards):
    """A dataset's entry in the config, as the jobs get it."""
    return settings.datasets[wildcards.dataset].model_dump_json()


def try_again(wildcards, resources):
    """The option that leaves a failure to Snakemake's next attempt; "" for the last attempt."""
    settings_of_run = workflow.execution_settings
    if settings_of_run is None:  # nothing is executed: snakemake --report
        return ""
    return "--try-again" if resources.attempt <= settings_of_run.retries else ""


def estimated(wildcards):
    """The estimate of one run."""
    return of_job(settings, ablations, *run_of(wildcards), Path("results"))
