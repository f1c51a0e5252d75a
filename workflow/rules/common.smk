import json
import shlex
import sys
from pathlib import Path

ROOT = Path(workflow.basedir).parent
sys.path.insert(0, str(ROOT))

from benchmark.config import read_config, source_of
from benchmark.errors import InputError
from benchmark.estimates import RULES, of_job, table
from benchmark.methods import method_files, source_files
from benchmark.provenance import REQUIRE_CLEAN, require_clean

# The embedded backbone, which the rule fetch_backbone makes; any other folder is the user's own.
EMBEDDED = "resources/smollm2-135m-instruct"


def backbones(method):
    """The backbones that the settings of a method name."""
    named = [setting.get("backbone") for setting in method.settings()]
    return [one for one in named if isinstance(one, dict) and "name" in one]


def check_backbone(backbone, where):
    """A backbone that is neither embedded nor on the hub has to be there before the first job."""
    name = Path(backbone["name"])
    if not (name == Path(EMBEDDED) or name.is_dir() or backbone.get("revision")):
        raise InputError(
            f"{where}: backbone {backbone['name']!r}: no such folder; to take it from the hub, pin its revision"
        )


try:
    settings = read_config(dict(config))
    # The user's own files that each dataset reads. They have to be there before the first job, which may take hours.
    own = {}
    for name, entry in settings.datasets.items():
        source, options = source_of(entry, f"datasets.{name}")
        own[name] = [str(path) for path in source.inputs(options)]
    for name in settings.methods:
        for backbone in backbones(settings.method(name)):
            check_backbone(backbone, f"methods.{name}")
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
shell.prefix(
    f"set -euo pipefail; {own_python}{clean}export PYTHONPATH={shlex.quote(str(ROOT))}; "
)


wildcard_constraints:
    dataset="|".join(map(re.escape, settings.datasets)),
    method="|".join(map(re.escape, settings.methods)),
    seed=r"\d+",


def code(*modules):
    """Files of this project that a job runs: editing one of them, and no other, runs the job again."""
    return [str(ROOT / file) for file in source_files(*modules)]


def method_code(wildcards):
    """The files that one method is made of."""
    return [
        str(ROOT / file) for file in method_files(settings.module_of(wildcards.method))
    ]


def dataset_json(wildcards):
    """A dataset's entry in the config, as the jobs get it."""
    return settings.datasets[wildcards.dataset].model_dump_json()


def own_files(wildcards):
    """The user's own files that a dataset reads."""
    return own[wildcards.dataset]


def source_code(wildcards):
    """The file of a dataset's source."""
    return code(f"benchmark.datasets.{settings.datasets[wildcards.dataset].source}")


def tuned(wildcards):
    """Later repetitions of a method with a grid wait for the first, which chooses the setting."""
    if wildcards.seed != "1" and len(settings.method(wildcards.method).grid) > 1:
        return f"results/runs/{wildcards.dataset}/{wildcards.method}/seed1/run.json"
    return []


def embedded_backbone(wildcards):
    """What the rule fetch_backbone makes, for the methods with a setting that takes it."""
    named = backbones(settings.method(wildcards.method))
    if any(Path(backbone["name"]) == Path(EMBEDDED) for backbone in named):
        return f"{EMBEDDED}/manifest.json"
    return []


def urgency(wildcards):
    """Priority of a run. Of those for which there are cores, the ones with most cores go first, as they tend to take
    longest; then repetitions 1 of methods with a grid, for which the other repetitions wait.
    """
    method = settings.method(wildcards.method)
    awaited = wildcards.seed == "1" and len(method.grid) > 1
    # Snakemake maximises the sum over what it starts: squared, one wide run outweighs the narrow ones in its place.
    return 2 * method.threads**2 + awaited


def estimated(wildcards):
    """What one run is expected to take."""
    place = wildcards.dataset, wildcards.method, int(wildcards.seed)
    return of_job(settings, *place, Path("results"))


def all_runs(file):
    """One file of every run that the config asks for."""
    return [
        f"results/runs/{dataset}/{method}/seed{seed}/{file}"
        for dataset in settings.datasets
        for method in settings.methods
        for seed in range(1, settings.seeds_of(method) + 1)
    ]


def selection(wildcards):
    """What the output commands are told about the config."""
    datasets, methods = " ".join(settings.datasets), " ".join(settings.methods)
    numbers = [str(settings.seeds_of(method)) for method in settings.methods]
    # One number is that of all methods.
    seeds = " ".join(numbers if len(set(numbers)) > 1 else numbers[:1])
    return (
        f"--results results --datasets {datasets} --methods {methods} --seeds {seeds}"
    )
