import functools
import json
import shlex
import sys
from pathlib import Path

# Of a checkout; the packages of an installed wheel are found anyway.
sys.path.insert(0, str(Path(workflow.basedir).parent))

from snakemake.settings.types import RerunTrigger

from benchmark.config.read import read_config, read_yaml
from benchmark.data.settings import source_of
from benchmark.errors import InputError
from benchmark.jobs.estimates import RULES, of_job, of_rule, table
from benchmark.config.factors import ablations_of
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import EMBEDDED, MANIFEST, Plan, data_files, run_files
from benchmark.provenance import REQUIRE_CLEAN, ROOT, memory_bytes, require_clean
from benchmark.jobs.stale import why_stale


def check_backbone(backbone, where):
    """A backbone that is neither embedded nor on the hub has to be there before the first job."""
    name = Path(backbone["name"])
    if not (name == Path(EMBEDDED) or name.is_dir() or backbone.get("revision")):
        raise InputError(
            f"{where}: backbone {backbone['name']!r}: no such folder; to take it from the hub, pin its revision"
        )


try:
    # Snakemake lets the last of two equal names win.
    for path in map(Path, workflow.overwrite_configfiles or workflow.configfiles):
        if path.suffix != ".json":
            read_yaml(path)
    settings = read_config(dict(config))
    ablations = ablations_of(settings)
    # The user's own files that each dataset reads. They have to be there before the first job, which may take hours.
    own = {}
    for name, dataset in settings.datasets.items():
        source, options = source_of(dataset, f"datasets.{name}")
        own[name] = [str(path) for path in source.inputs(options)]
    plan = Plan(settings, ablations, own)
    outputs = Outputs(plan)
    for name in settings.methods:
        for backbone in plan.backbones(name):
            check_backbone(backbone, f"methods.{name}")
    for name in ablations.variants:
        for backbone in plan.backbones(name):
            check_backbone(backbone, f"ablations: {name}")
    if settings.require_clean and not workflow.output_settings.dryrun:
        require_clean()
except InputError as problem:
    raise WorkflowError(str(problem)) from None

# The interpreter that runs Snakemake runs the jobs, wherever the current folder is: no environment has to be activated.
# With conda deployment each job has an environment of its own, which must come first.
with_conda = any(
    method.name == "CONDA" for method in workflow.deployment_settings.deployment_method
)
own_python = (
    ""
    if with_conda
    else f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
)
# Told by the environment: a setting that changes no result makes no job run again.
clean = f"export {REQUIRE_CLEAN}=1; " if settings.require_clean else ""
# A thread that waits sleeps: one that spins, as is the default, takes the core of the thread that it waits for as soon as
# anything else runs on the machine, and a job of two threads then takes five times as long (docs/log.md).
waiting = "export OMP_WAIT_POLICY=${{OMP_WAIT_POLICY:-PASSIVE}}; "
shell.prefix(
    f"set -euo pipefail; {own_python}{clean}{waiting}export PYTHONPATH={shlex.quote(str(ROOT))}; "
)


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


# Jobs that Snakemake has asked about; by their first output, why those no longer stand; and what files were found to hold.
asked = set()
stale = {}
contents = {}


def inputs_of(job):
    """The files that a job reads; on the way, whether its outputs still follow from them (benchmark/jobs/stale.py).

    Snakemake asks for inputs while it builds its graph, before it decides what to run. Contents decide, not dates: a copy
    may be older than what it replaces.
    """
    if workflow.is_main_process and job.name not in asked:
        asked.add(job.name)
        workflow.dag_settings.rerun_triggers = frozenset(
            workflow.dag_settings.rerun_triggers
        ) - {RerunTrigger.MTIME}
        # What isn't there at all is Snakemake's to make, where something needs it.
        there = any(Path(path).exists() for path in job.outputs)
        if there and (why := why_stale(job, contents)):
            stale[job.outputs[0]] = why
            workflow.dag.forcefiles.add(job.outputs[0])
    return list(job.inputs)


def recorded(job):
    """The command that writes down what a job's outputs were made from. job: gives it for the wildcards."""

    def command(wildcards, input, output):
        this = job(wildcards)
        files = [
            shlex.join(["--inputs", *input]) if input else "",
            shlex.join(["--outputs", *output]),
        ]
        told = f"--job {this.name} --settings {this.settings} --code {this.code}"
        return f"python -m benchmark.jobs.stale record {told} {' '.join(files)}"

    return command


def dataset_json(wildcards):
    """A dataset's entry in the config, as the jobs get it."""
    return settings.datasets[wildcards.dataset].model_dump_json()


def tuned(wildcards):
    """Where a run finds the setting that another one has chosen."""
    chosen = plan.tuned(*run_of(wildcards))
    return f"--tuned {shlex.join(chosen)}" if chosen else ""


def variant(wildcards):
    """What an ablation's run is told besides: what is laid over its base's settings, and whose random streams it takes."""
    if wildcards.method not in ablations.variants:
        return ""
    given = json.dumps(plan.overlay(wildcards.method), sort_keys=True)
    return f"--stream {plan.base(wildcards.method)} --overlay {shlex.quote(given)}"


def urgency(wildcards):
    """Priority of a run. Of those for which there are cores, the ones with most cores go first, as they tend to take
    longest; then repetitions 1 of methods with a grid, for which the other repetitions and all variants wait. What only
    the ablations need comes after all that the tables need.
    """
    method = plan.entry(wildcards.method)
    # Snakemake maximises the sum over what it starts: squared, one wide run outweighs the narrow ones in its place.
    wide = 2 * method.threads**2
    if plan.only_for_ablations(wildcards.method, int(wildcards.seed)):
        return wide
    awaited = wildcards.seed == "1" and len(method.grid) > 1
    return 100 * (wide + awaited)


def estimated(wildcards):
    """What one run is expected to take."""
    return of_job(settings, ablations, *run_of(wildcards), Path("results"))
