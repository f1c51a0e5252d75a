"""The workflow's jobs up to the runs: the files that each job of a config reads and writes, without any Snakemake.

The rules take their inputs and outputs from here, and `benchmark.jobs.stale` compares each job with what is on disk.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from benchmark.config.factors import Ablations, ablations_of, settings_of
from benchmark.config.methods import BACKBONE, ENCODER, all_params, load_method, named_files
from benchmark.config.overlay import flatten
from benchmark.config.schema import Config, MethodConfig
from benchmark.data.settings import source_of
from benchmark.errors import InputError
from benchmark.jobs.code import code_hash, made_by, method_files, source_files
from benchmark.jobs.stale import KEPT, Job
from benchmark.processes import WORKFLOW
from benchmark.provenance import REQUIRE_CLEAN, ROOT
from benchmark.storage.checksums import SUMS
from benchmark.storage.io import sha256_of_json

DATA = ("items.parquet", "train.parquet", "valid.parquet", "test.parquet", "test_targets.parquet", "dataset.json")
RUN = ("rankings.parquet", "run.json")
WORK = "results/work"
EMBEDDED = BACKBONE  # the backbone that the rule fetch_backbone makes; any other is the user's own
MANIFEST = f"{EMBEDDED}/manifest.json"
SENTENCES = "baselines/_writers/sentences.py"  # reads the sentence encoder
ENCODER_SUMS = f"{ENCODER}/{SUMS}"  # of the sentence encoder that the rule fetch_encoder makes
LONGEST_MINUTES = 400  # bounds a run's share in its priority, so that no run goes before the data


@cache
def files_of(*modules: str) -> tuple[str, ...]:
    """The source files of these modules and of all that they import, see `source_files`."""
    return tuple(source_files(*modules))


def data_files(*datasets: str) -> list[str]:
    """The files of prepared datasets."""
    return [f"results/data/{dataset}/{file}" for dataset in datasets for file in DATA]


def run_files(dataset: str, run: str, seed: int) -> list[str]:
    """The files of a run that tables are made from."""
    return [f"results/runs/{dataset}/{run}/seed{seed}/{file}" for file in RUN]


def check_backbone(backbone: dict[str, Any], where: str) -> None:
    """Raise InputError for a backbone that is neither embedded, nor there, nor on the hub under a pinned revision."""
    name = Path(backbone["name"])
    if not (name == Path(EMBEDDED) or name.is_dir() or backbone.get("revision")):
        advice = _whole_path(name) or "to take it from the hub, set backbone.revision to a commit"
        raise InputError(f"{where}: backbone {str(name)!r}: no such folder; {advice}")


def check_encoder(encoder: str, where: str) -> None:
    """Raise InputError for a sentence encoder that is neither embedded nor there."""
    name = Path(encoder)
    if not (name == Path(ENCODER) or name.is_dir()):
        raise InputError(
            f"{where}: encoder {encoder!r}: no such folder; {_whole_path(name) or 'give one that is there'}"
        )


def _whole_path(name: Path) -> str:
    return f"write the whole path in the place of {name.parts[0]}" if str(name).startswith("~") else ""


def shell_prefix(require_clean: bool, with_conda: bool) -> str:
    """The shell code that comes before the command of every job.

    The interpreter that runs Snakemake runs the jobs, wherever the current folder is: no environment has to be
    activated. With conda deployment each job has an environment of its own, which must come first.
    """
    own = "" if with_conda else f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    # An environment variable: as a setting of the jobs it would make all of them run again.
    clean = f"export {REQUIRE_CLEAN}=1; " if require_clean else ""
    # Waiting threads sleep. By default they spin, and take the core of the thread that they wait for as soon as
    # anything else runs on the machine: a job of two threads then takes five times as long (docs/log.md, "Processors").
    # Braces are doubled, as Snakemake formats the command.
    waiting = "export OMP_WAIT_POLICY=${{OMP_WAIT_POLICY:-PASSIVE}}; "
    # Jobs end with the workflow, also when only that is killed.
    watched = f"export {WORKFLOW}={os.getpid()}; "
    path = f"export PYTHONPATH={as_it_is(shlex.quote(str(ROOT)))}; "
    return f"set -euo pipefail; {as_it_is(own)}{clean}{waiting}{watched}{path}"


def as_it_is(text: str) -> str:
    """Text with its braces doubled, so that Snakemake leaves it as it is when it formats the command.

    >>> as_it_is("/home/{me}/bin")
    '/home/{{me}}/bin'
    """
    return text.replace("{", "{{").replace("}", "}}")


@dataclass(frozen=True)
class Plan:
    """All jobs of a checked config. Names of runs are rows of `methods` and folders of the ablations' variants."""

    config: Config
    ablations: Ablations
    own: dict[str, list[str]]  # by dataset, the user's own files that it reads

    @classmethod
    def of(cls, config: Config, where: str = "config") -> "Plan":
        """The plan of a checked config, which errors call `where`.

        Raises InputError where a file of the user's own, a backbone or a sentence encoder is missing: it would
        otherwise be found missing after hours of other jobs.
        """
        own = {}
        for name, dataset in config.datasets.items():
            source, options = source_of(dataset, f"{where}: datasets.{name}")
            own[name] = [str(path) for path in source.inputs(options)]
        plan = cls(config, ablations_of(config), own)
        for kind, names in (("methods.", config.methods), ("ablations: ", plan.ablations.variants)):
            for name in names:
                for backbone in plan.backbones(name):
                    check_backbone(backbone, f"{where}: {kind}{name}")
                for encoder in plan.encoders(name):
                    check_encoder(encoder, f"{where}: {kind}{name}")
        return plan

    def base(self, run: str) -> str:
        """The row of `methods` to which a run belongs: for an ablation's variant, that of its base."""
        return self.ablations.variants[run].base if run in self.ablations.variants else run

    def entry(self, run: str) -> MethodConfig:
        """The entry of that row."""
        return self.config.method(self.base(run))

    def overlay(self, run: str) -> dict[str, Any]:
        """The settings that an ablation's run lays over those of its row; none for other runs."""
        return self.ablations.variants[run].overlay if run in self.ablations.variants else {}

    def settings(self, run: str) -> list[dict[str, Any]]:
        """Each setting that a run may be made with."""
        return settings_of(run, self.config, self.ablations)

    def backbones(self, run: str) -> list[dict[str, Any]]:
        """The backbones that these settings name."""
        named = [setting.get("backbone") for setting in self.settings(run)]
        return [backbone for backbone in named if isinstance(backbone, dict) and "name" in backbone]

    def encoders(self, run: str) -> list[str]:
        """The sentence encoders that a run may be made with; a method that reads none may call anything its encoder."""
        module = self.config.module_of(self.base(run))
        method = load_method(module)
        named = [all_params(method, setting).get("encoder") for setting in self.settings(run)]
        encoders = [encoder for encoder in named if isinstance(encoder, str)]
        # Asked last: it follows all imports of the method, at each start.
        return encoders if encoders and SENTENCES in method_files(module) else []

    def fit_of(self, run: str) -> str:
        """The run whose folder of checkpoints this run uses: runs that differ only in what scoring reads share one."""
        return self.ablations.variants[run].fit if run in self.ablations.variants else run

    def tuned(self, dataset: str, run: str, seed: int) -> list[str]:
        """The record of repetition 1, if the run has to wait for it, because repetition 1 chooses among the grid."""
        row = self.base(run)
        waits = seed != 1 or run != row
        return run_files(dataset, row, 1)[1:] if waits and len(self.config.method(row).grid) > 1 else []

    def fitted(self, dataset: str, run: str, seed: int) -> list[str]:
        """The record of the run that makes this run's fit, if another one does."""
        after = self.ablations.variants[run].after if run in self.ablations.variants else None
        return [] if after is None else run_files(dataset, after, seed)[1:]

    def tuned_option(self, dataset: str, run: str, seed: int) -> str:
        """The argument --tuned of a run that takes the setting which repetition 1 has chosen; "" for others."""
        chosen = self.tuned(dataset, run, seed)
        return f"--tuned {shlex.join(chosen)}" if chosen else ""

    def variant_options(self, run: str) -> str:
        """The arguments --stream and --overlay of an ablation's run; "" for others."""
        if run not in self.ablations.variants:
            return ""
        overlay = json.dumps(self.overlay(run), sort_keys=True)
        return f"--stream {self.base(run)} --overlay {shlex.quote(overlay)}"

    def priority(self, run: str, seed: int, seconds: float) -> int:
        """Snakemake's priority of a run that takes about `seconds`.

        The longest and the widest runs go first, or they would run alone at the end. Of equal ones, repetition 1 of a
        method with a grid goes first, as other repetitions and variants wait for it. Runs that only the ablations need
        come after all that the tables need.
        """
        entry = self.entry(run)
        # Snakemake maximises the sum over what it starts: squared, one wide run outweighs the narrow ones in its place.
        weight = 2 * entry.threads**2 + min(int(seconds / 60), LONGEST_MINUTES)
        if self.only_for_ablations(run, seed):
            return weight
        awaited = seed == 1 and len(entry.grid) > 1
        return 100 * (weight + awaited)

    def embedded(self, run: str) -> list[str]:
        """Manifest or checksums of the embedded models that a run's settings use: a sealed run can't fetch them."""
        backbone = any(Path(backbone["name"]) == Path(EMBEDDED) for backbone in self.backbones(run))
        encoder = any(Path(name) == Path(ENCODER) for name in self.encoders(run))
        return ([MANIFEST] if backbone else []) + ([ENCODER_SUMS] if encoder else [])

    def own_files(self, run: str) -> list[str]:
        """The user's files that a run's settings name, such as models: it runs again when they change."""
        return sorted({str(file) for setting in self.settings(run) for file in named_files(setting)})

    def check_kept(self) -> None:
        """Raise InputError for a row that keeps states, texts or adapters in its own folder: a fresh start would find
        them.
        """
        kinds = {Path(folder).name: folder for folder in KEPT}
        for run in [*self.config.methods, *self.ablations.variants]:
            for setting in self.settings(run):
                for path, value in flatten(setting).items():
                    if value != kinds.get(path[-1], value):
                        raise InputError(
                            f"methods.{run}: {'.'.join(path)} is {value!r}, which fresh=true leaves alone; delete that "
                            f"folder and leave fresh=true out, or keep them in {kinds[path[-1]]}"
                        )

    def work(self, dataset: str, run: str, seed: int) -> str:
        """The folder of a run's checkpoints and of its finished model, as the rule `run` tells it."""
        return f"{WORK}/{dataset}/{self.fit_of(run)}/seed{seed}"

    def only_for_ablations(self, run: str, seed: int) -> bool:
        """Whether no table of the methods needs this run."""
        return run in self.ablations.variants or seed > self.config.seeds_of(run)

    @cached_property
    def runs(self) -> list[tuple[str, str, int]]:
        """Dataset, run and seed of every run that the methods' tables need."""
        return [
            (dataset, method, seed)
            for dataset in self.config.datasets
            for method in self.config.methods
            for seed in range(1, self.config.seeds_of(method) + 1)
        ]

    def runs_of(self, *factors: str) -> list[tuple[str, str, int]]:
        """Dataset, run and seed of every run that these factors need, sorted."""
        factors_wanted = (self.ablations.factors[name] for name in factors)
        return sorted(
            {
                (dataset, run, seed)
                for factor in factors_wanted
                for dataset in factor.datasets
                for run in factor.runs.values()
                for seed in range(1, factor.seeds + 1)
            }
        )

    # -- the jobs -----------------------------------------------------------------------------------------------------

    def fetch(self, dataset: str) -> Job:
        entry = self.config.datasets[dataset]
        code = files_of("benchmark.data.fetch", f"benchmark.datasets.{entry.source}")
        manifest = [f"results/fetched/{dataset}.json"]
        return job_of(f"fetch/{dataset}", manifest, self.own[dataset], entry.model_dump_json(), code)

    def prepare(self, dataset: str) -> Job:
        entry = self.config.datasets[dataset]
        code = files_of("benchmark.data.prepare", f"benchmark.datasets.{entry.source}")
        manifest = f"results/fetched/{dataset}.json"
        read, settings = [manifest, *self.own[dataset]], [dataset, entry.model_dump_json()]
        return job_of(f"prepare/{dataset}", data_files(dataset), read, settings, code, temporary=[manifest])

    def run(self, dataset: str, run: str, seed: int) -> Job:
        entry, variant = self.entry(run), self.ablations.variants.get(run)
        waits = self.tuned(dataset, run, seed) + self.fitted(dataset, run, seed)
        embedded = self.embedded(run)
        read = data_files(dataset) + waits + embedded + self.own_files(run)
        module = self.config.module_of(self.base(run))
        arguments = [
            dataset,
            run,
            seed,
            module,
            entry.params,
            entry.grid,
            entry.process_count(),
            self.fit_of(run),
            waits,
        ]
        settings = arguments if variant is None else [*arguments, variant.base, variant.overlay]
        name, files = f"run/{dataset}/{run}/seed{seed}", run_files(dataset, run, seed)
        settings_hash = sha256_of_json(settings)
        return Job(name, tuple(files), tuple(read), settings_hash, made_by(module), frozenset(embedded))


def job_of(
    name: str,
    outputs: list[str],
    inputs: list[str],
    settings: Any,
    code: Iterable[str],
    temporary: Iterable[str] = (),
) -> Job:
    """A job with these settings and source files. temporary: inputs that may be gone once it is done."""
    settings_hash, files = sha256_of_json(settings), code_hash(tuple(code))
    return Job(name, tuple(outputs), tuple(inputs), settings_hash, files, frozenset(temporary))
