import json
import shlex
import sys
from pathlib import Path

ROOT = Path(workflow.basedir).parent
sys.path.insert(0, str(ROOT))

from benchmark.config import read_config
from benchmark.dataset_config import source_of
from benchmark.errors import InputError
from benchmark.estimates import RULES, of_job, of_rule, table
from benchmark.factors import ablations_of, settings_of
from benchmark.methods import method_files, model_files, source_files
from benchmark.provenance import REQUIRE_CLEAN, memory_bytes, require_clean

# The embedded backbone, which the rule fetch_backbone makes; any other folder is the user's own.
EMBEDDED = "resources/smollm2-135m-instruct"


def tried(run):
    """The settings of a method, or of an ablation's run."""
    return settings_of(run, settings, ablations)


def backbones(run):
    """The backbones that these settings name."""
    named = [setting.get("backbone") for setting in tried(run)]
    return [one for one in named if isinstance(one, dict) and "name" in one]


def check_backbone(backbone, where):
    """A backbone that is neither embedded nor on the hub has to be there before the first job."""
    name = Path(backbone["name"])
    if not (name == Path(EMBEDDED) or name.is_dir() or backbone.get("revision")):
        raise InputError(
            f"{where}: backbone {backbone['name']!r}: no such folder; to take it from the hub, pin its revision"
        )


def base(run):
    """The row of `methods` that a run is of: its own, or that of which it is an ablation's variant."""
    return ablations.variants[run].base if run in ablations.variants else run


def entry(run):
    """The entry of that row."""
    return settings.method(base(run))


def overlay(run):
    """The settings that an ablation lays over those of the row."""
    return ablations.variants[run].overlay if run in ablations.variants else {}


try:
    settings = read_config(dict(config))
    ablations = ablations_of(settings)
    # The user's own files that each dataset reads. They have to be there before the first job, which may take hours.
    own = {}
    for name, dataset in settings.datasets.items():
        source, options = source_of(dataset, f"datasets.{name}")
        own[name] = [str(path) for path in source.inputs(options)]
    for name in settings.methods:
        for backbone in backbones(name):
            check_backbone(backbone, f"methods.{name}")
    for name in ablations.variants:
        for backbone in backbones(name):
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
shell.prefix(
    f"set -euo pipefail; {own_python}{clean}export PYTHONPATH={shlex.quote(str(ROOT))}; "
)


wildcard_constraints:
    dataset="|".join(map(re.escape, settings.datasets)),
    method="|".join(map(re.escape, [*settings.methods, *ablations.variants])),
    seed=r"\d+",


def code(*modules):
    """Files of this project that a job runs: editing one of them, and no other, runs the job again."""
    return [str(ROOT / file) for file in source_files(*modules)]


def method_code(wildcards):
    """The files that one method is made of."""
    return [
        str(ROOT / file)
        for file in method_files(settings.module_of(base(wildcards.method)))
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
    """Of a method with a grid, later repetitions and all variants wait for the first, which chooses the setting."""
    row = base(wildcards.method)
    waits = wildcards.seed != "1" or wildcards.method != row
    if waits and len(settings.method(row).grid) > 1:
        return f"results/runs/{wildcards.dataset}/{row}/seed1/run.json"
    return []


def fit_of(run):
    """Whose folder of checkpoints a run has: runs that differ only in what scoring reads share it."""
    return ablations.variants[run].fit if run in ablations.variants else run


def fitted(wildcards):
    """A run that scores another one's fit waits for it."""
    run = wildcards.method
    after = ablations.variants[run].after if run in ablations.variants else None
    if after is None:
        return []
    return f"results/runs/{wildcards.dataset}/{after}/seed{wildcards.seed}/run.json"


def variant(wildcards):
    """What an ablation's run is told besides: what is laid over its base's settings, and whose random streams it takes."""
    if wildcards.method not in ablations.variants:
        return ""
    given = shlex.quote(json.dumps(overlay(wildcards.method), sort_keys=True))
    return f"--stream {base(wildcards.method)} --overlay {given}"


def embedded_backbone(wildcards):
    """What the rule fetch_backbone makes, for the methods with a setting that takes it."""
    named = backbones(wildcards.method)
    if any(Path(backbone["name"]) == Path(EMBEDDED) for backbone in named):
        return f"{EMBEDDED}/manifest.json"
    return []


def own_models(wildcards):
    """Files of the user's own models that a run's settings name: other weights make it run again."""
    found = [model_files(setting) for setting in tried(wildcards.method)]
    return sorted({str(file) for files in found for file in files})


def urgency(wildcards):
    """Priority of a run. Of those for which there are cores, the ones with most cores go first, as they tend to take
    longest; then repetitions 1 of methods with a grid, for which the other repetitions and all variants wait. What only
    the ablations need comes after all that the tables need.
    """
    method = entry(wildcards.method)
    # Snakemake maximises the sum over what it starts: squared, one wide run outweighs the narrow ones in its place.
    wide = 2 * method.threads**2
    only_ablations = wildcards.method in ablations.variants or int(
        wildcards.seed
    ) > settings.seeds_of(wildcards.method)
    if only_ablations:
        return wide
    awaited = wildcards.seed == "1" and len(method.grid) > 1
    return 100 * (wide + awaited)


def estimated(wildcards):
    """What one run is expected to take."""
    place = wildcards.dataset, wildcards.method, int(wildcards.seed)
    return of_job(settings, ablations, *place, Path("results"))


def all_runs(file):
    """One file of every run that the config asks for."""
    return [
        f"results/runs/{dataset}/{method}/seed{seed}/{file}"
        for dataset in settings.datasets
        for method in settings.methods
        for seed in range(1, settings.seeds_of(method) + 1)
    ]


def against_outputs(wildcards):
    """What the config's reference ends in, nothing without one."""
    if settings.reference is None:
        return []
    return [
        *expand("results/tables/against.{ending}", ending=["csv", "md"]),
        *expand("results/plots/against.{ending}", ending=["png", "pdf"]),
    ]


def selection(wildcards):
    """What the output commands are told about the config."""
    datasets, methods = " ".join(settings.datasets), " ".join(settings.methods)
    numbers = [str(settings.seeds_of(method)) for method in settings.methods]
    # One number is that of all methods.
    seeds = " ".join(numbers if len(set(numbers)) > 1 else numbers[:1])
    wanted = {method: tried(method) for method in settings.methods}
    return (
        f"--results results --datasets {datasets} --methods {methods} --seeds {seeds}"
        f" --settings {shlex.quote(json.dumps(wanted))}"
    )


def factors_json(*names):
    """Factors as the output commands get them."""
    return json.dumps(
        [ablations.factors[name].model_dump(mode="json") for name in names]
    )


def ablation_runs(file, *names):
    """One file of every run of these factors."""
    return sorted(
        {
            f"results/runs/{dataset}/{run}/seed{seed}/{file}"
            for factor in (ablations.factors[name] for name in names)
            for dataset in factor.datasets
            for run in factor.runs.values()
            for seed in range(1, factor.seeds + 1)
        }
    )


def data_of_factors(*names):
    """dataset.json of every dataset that these factors are measured on."""
    used = {dataset for name in names for dataset in ablations.factors[name].datasets}
    return [f"results/data/{dataset}/dataset.json" for dataset in sorted(used)]


def ablation_outputs(wildcards):
    """What the config's ablations end in, nothing without any."""
    if not ablations.factors:
        return []
    folder = settings.ablations_folder
    tables = expand(
        f"results/{folder}/{{factor}}.{{ending}}",
        factor=ablations.factors,
        ending=["csv", "md", "tex", "tests.csv"],
    )
    plots = expand(
        f"results/plots/{folder}/{{factor}}.{{ending}}",
        factor=ablations.factors,
        ending=["png", "pdf"],
    )
    claims = [f"results/{folder}/claims.{ending}" for ending in ("csv", "md")]
    return [*tables, *plots, *claims]
