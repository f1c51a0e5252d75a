"""What the workflow makes of a config: each job with the files that it reads and writes. No Snakemake in it.

The rules take their inputs and outputs from here, and `benchmark.jobs.stale` compares each job with what is on disk.
"""

import json
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from benchmark.config.factors import Ablations, ablations_of, settings_of
from benchmark.config.methods import BACKBONE, model_files
from benchmark.config.schema import Config, MethodConfig
from benchmark.data.settings import source_of
from benchmark.errors import InputError
from benchmark.jobs.code import code_hash, made_by, source_files
from benchmark.jobs.stale import Job
from benchmark.provenance import REQUIRE_CLEAN, ROOT
from benchmark.storage.io import sha256_of_json

DATA = ("items.parquet", "train.parquet", "valid.parquet", "test.parquet", "test_targets.parquet", "dataset.json")
RUN = ("rankings.parquet", "run.json")
EMBEDDED = BACKBONE  # the backbone that the rule fetch_backbone makes; any other is the user's own
MANIFEST = f"{EMBEDDED}/manifest.json"


@cache
def page_files() -> tuple[str, ...]:
    """What the page is made of beside its modules: template, style, scripts, libraries."""
    files = [path for path in (ROOT / "benchmark/output/page").rglob("*") if path.is_file() and path.suffix != ".py"]
    return tuple(sorted(str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"))


@cache
def files_of(*modules: str) -> tuple[str, ...]:
    """The files that these modules are made of."""
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
        raise InputError(
            f"{where}: backbone {backbone['name']!r}: no such folder; to take it from the hub, pin its revision"
        )


def shell_prefix(require_clean: bool, with_conda: bool) -> str:
    """What comes before the command of every job.

    The interpreter that runs Snakemake runs the jobs, wherever the current folder is: no environment has to be activated. With
    conda deployment each job has an environment of its own, which must come first.
    """
    own = "" if with_conda else f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    # Told by the environment: a setting that changes no result makes no job run again.
    clean = f"export {REQUIRE_CLEAN}=1; " if require_clean else ""
    # A thread that waits sleeps: one that spins, as is the default, takes the core of the thread that it waits for as soon as
    # anything else runs on the machine, and a job of two threads then takes five times as long (docs/log.md). Braces are
    # doubled, as Snakemake fills in what stands in single ones.
    waiting = "export OMP_WAIT_POLICY=${{OMP_WAIT_POLICY:-PASSIVE}}; "
    return f"set -euo pipefail; {own}{clean}{waiting}export PYTHONPATH={shlex.quote(str(ROOT))}; "


@dataclass(frozen=True)
class Plan:
    """All jobs of a checked config. Names of runs are rows of `methods` and folders of the ablations' variants."""

    config: Config
    ablations: Ablations
    own: dict[str, list[str]]  # by dataset, the user's own files that it reads

    @classmethod
    def of(cls, config: Config) -> "Plan":
        """The plan of a checked config. Raises InputError where a file of the user's own, or a backbone, isn't there.

        They have to be there before the first job, which may take hours.
        """
        own = {}
        for name, dataset in config.datasets.items():
            source, options = source_of(dataset, f"datasets.{name}")
            own[name] = [str(path) for path in source.inputs(options)]
        plan = cls(config, ablations_of(config), own)
        for kind, names in (("methods.", config.methods), ("ablations: ", plan.ablations.variants)):
            for name in names:
                for backbone in plan.backbones(name):
                    check_backbone(backbone, f"{kind}{name}")
        return plan

    def base(self, run: str) -> str:
        """The row of `methods` that a run is of: its own, or that of which it is an ablation's variant."""
        return self.ablations.variants[run].base if run in self.ablations.variants else run

    def entry(self, run: str) -> MethodConfig:
        """The entry of that row."""
        return self.config.method(self.base(run))

    def overlay(self, run: str) -> dict[str, Any]:
        """The settings that an ablation lays over those of the row."""
        return self.ablations.variants[run].overlay if run in self.ablations.variants else {}

    def settings(self, run: str) -> list[dict[str, Any]]:
        """Each setting that a run may be made with."""
        return settings_of(run, self.config, self.ablations)

    def backbones(self, run: str) -> list[dict[str, Any]]:
        """The backbones that these settings name."""
        named = [setting.get("backbone") for setting in self.settings(run)]
        return [one for one in named if isinstance(one, dict) and "name" in one]

    def fit_of(self, run: str) -> str:
        """Whose folder of checkpoints a run has: runs that differ only in what scoring reads share it."""
        return self.ablations.variants[run].fit if run in self.ablations.variants else run

    def tuned(self, dataset: str, run: str, seed: int) -> list[str]:
        """Of a method with a grid, later repetitions and all variants wait for the first, which chooses the setting."""
        row = self.base(run)
        waits = seed != 1 or run != row
        return run_files(dataset, row, 1)[1:] if waits and len(self.config.method(row).grid) > 1 else []

    def fitted(self, dataset: str, run: str, seed: int) -> list[str]:
        """A run that scores another one's fit waits for it."""
        after = self.ablations.variants[run].after if run in self.ablations.variants else None
        return [] if after is None else run_files(dataset, after, seed)[1:]

    def tuned_option(self, dataset: str, run: str, seed: int) -> str:
        """Where a run finds the setting that another one has chosen, as part of its command line."""
        chosen = self.tuned(dataset, run, seed)
        return f"--tuned {shlex.join(chosen)}" if chosen else ""

    def variant_options(self, run: str) -> str:
        """What an ablation's run is told besides: what is laid over its base's settings, and whose random streams it takes."""
        if run not in self.ablations.variants:
            return ""
        overlay = json.dumps(self.overlay(run), sort_keys=True)
        return f"--stream {self.base(run)} --overlay {shlex.quote(overlay)}"

    def priority(self, run: str, seed: int) -> int:
        """Of a run. Of those for which there are cores, the ones with most cores go first, as they tend to take longest; then
        repetitions 1 of methods with a grid, for which the other repetitions and all variants wait. What only the ablations
        need comes after all that the tables need.
        """
        entry = self.entry(run)
        # Snakemake maximises the sum over what it starts: squared, one wide run outweighs the narrow ones in its place.
        wide = 2 * entry.threads**2
        if self.only_for_ablations(run, seed):
            return wide
        awaited = seed == 1 and len(entry.grid) > 1
        return 100 * (wide + awaited)

    def embedded(self, run: str) -> list[str]:
        """What the rule fetch_backbone makes, for the methods with a setting that takes it."""
        return [MANIFEST] if any(Path(one["name"]) == Path(EMBEDDED) for one in self.backbones(run)) else []

    def own_models(self, run: str) -> list[str]:
        """Files of the user's own models that a run's settings name: other weights make it run again."""
        return sorted({str(file) for setting in self.settings(run) for file in model_files(setting)})

    def only_for_ablations(self, run: str, seed: int) -> bool:
        """Whether no table of the methods needs this run."""
        return run in self.ablations.variants or seed > self.config.seeds_of(run)

    @cached_property
    def runs(self) -> list[tuple[str, str, int]]:
        """Dataset, run and seed of all that the methods' tables need."""
        return [
            (dataset, method, seed)
            for dataset in self.config.datasets
            for method in self.config.methods
            for seed in range(1, self.config.seeds_of(method) + 1)
        ]

    def runs_of(self, *factors: str) -> list[tuple[str, str, int]]:
        """Dataset, run and seed of all that these factors need, sorted."""
        wanted = (self.ablations.factors[name] for name in factors)
        return sorted(
            {
                (dataset, run, seed)
                for factor in wanted
                for dataset in factor.datasets
                for run in factor.runs.values()
                for seed in range(1, factor.seeds + 1)
            }
        )

    def data_of(self, *factors: str) -> list[str]:
        """The prepared datasets that these factors are measured on."""
        return data_files(*sorted({dataset for name in factors for dataset in self.ablations.factors[name].datasets}))

    def factors_json(self, *names: str) -> str:
        """Factors as the output commands get them."""
        return json.dumps([self.ablations.factors[name].model_dump(mode="json") for name in names])

    def selection(self, *datasets: str) -> str:
        """What the output commands are told about the config, as part of a command line. datasets: these alone."""
        methods = " ".join(self.config.methods)
        numbers = [str(self.config.seeds_of(method)) for method in self.config.methods]
        # One number is that of all methods.
        seeds = " ".join(numbers if len(set(numbers)) > 1 else numbers[:1])
        wanted = json.dumps({method: self.settings(method) for method in self.config.methods})
        less = {name: self.config.method(name).less_information for name in self.config.methods}
        reasons = {name: reason for name, reason in less.items() if reason is not None}
        more = f" --less-information {shlex.quote(json.dumps(reasons))}" if reasons else ""
        more += f" --note {shlex.quote(self.config.note)}" if self.config.note else ""
        return (
            f"--results results --datasets {' '.join(datasets or self.config.datasets)} --methods {methods} --seeds {seeds}"
            f" --settings {shlex.quote(wanted)}{more}"
        )

    def against_files(self) -> list[str]:
        """What the config's reference ends in, nothing without one."""
        if self.config.reference is None:
            return []
        tables = [f"results/tables/against.{ending}" for ending in ("csv", "md")]
        return tables + [f"results/plots/against.{ending}" for ending in ("png", "pdf")]

    def factor_tables(self, factor: str) -> list[str]:
        """The tables of one factor."""
        folder = f"results/{self.config.ablations_folder}"
        return [f"{folder}/{factor}.{ending}" for ending in ("csv", "md", "tex", "tests.csv")]

    def factor_plots(self, factor: str) -> list[str]:
        """The plot of one factor."""
        return [f"results/plots/{self.config.ablations_folder}/{factor}.{ending}" for ending in ("png", "pdf")]

    def claims_files(self) -> list[str]:
        """What the runs say about each claim."""
        return [f"results/{self.config.ablations_folder}/claims.{ending}" for ending in ("csv", "md")]

    def ablation_files(self) -> list[str]:
        """What the config's ablations end in, nothing without any."""
        if not self.ablations.factors:
            return []
        of_factors = [
            file for name in self.ablations.factors for file in self.factor_tables(name) + self.factor_plots(name)
        ]
        return of_factors + self.claims_files()

    def dataset_tables(self, dataset: str) -> list[str]:
        """The tables of one dataset."""
        return [f"results/tables/{dataset}.{ending}" for ending in ("csv", "md", "tex", "tests.csv")]

    def table_files(self) -> list[str]:
        """The tables of all datasets together."""
        main = [f"results/tables/main.{ending}" for ending in ("csv", "md", "tex", "txt")]
        return main + [f"results/tables/costs.{ending}" for ending in ("csv", "md")]

    def plot_files(self, dataset: str) -> list[str]:
        """The plots of one dataset."""
        stems = [f"results/plots/{dataset}.{name}" for name in ("metrics", "slices", "cost")]
        return [f"{stem}.{ending}" for stem in stems for ending in ("png", "pdf")]

    def all_run_files(self, runs: Iterable[tuple[str, str, int]]) -> list[str]:
        """The files of these runs."""
        return [file for run in runs for file in run_files(*run)]

    def read_by_tables(self, *datasets: str) -> list[str]:
        """What tables, plots and page of all methods are made from. datasets: these alone."""
        wanted = datasets or tuple(self.config.datasets)
        return self.all_run_files(run for run in self.runs if run[0] in wanted) + data_files(*wanted)

    def read_by_factors(self, *names: str) -> list[str]:
        """What tables, plots and claims of these factors are made from."""
        return self.all_run_files(self.runs_of(*names)) + self.data_of(*names)

    # -- the jobs -----------------------------------------------------------------------------------------------------

    def fetch(self, dataset: str) -> Job:
        entry = self.config.datasets[dataset]
        code = files_of("benchmark.data.fetch", f"benchmark.datasets.{entry.source}")
        manifest = [f"results/fetched/{dataset}.json"]
        return _job(f"fetch/{dataset}", manifest, self.own[dataset], entry.model_dump_json(), code)

    def prepare(self, dataset: str) -> Job:
        entry = self.config.datasets[dataset]
        code = files_of("benchmark.data.prepare", f"benchmark.datasets.{entry.source}")
        manifest = f"results/fetched/{dataset}.json"
        read, settings = [manifest, *self.own[dataset]], [dataset, entry.model_dump_json()]
        return _job(f"prepare/{dataset}", data_files(dataset), read, settings, code, spent=[manifest])

    def run(self, dataset: str, run: str, seed: int) -> Job:
        entry, variant = self.entry(run), self.ablations.variants.get(run)
        waits = self.tuned(dataset, run, seed) + self.fitted(dataset, run, seed)
        embedded = self.embedded(run)
        read = data_files(dataset) + waits + embedded + self.own_models(run)
        module = self.config.module_of(self.base(run))
        told = [dataset, run, seed, module, entry.params, entry.grid, entry.process_count(), self.fit_of(run), waits]
        settings = told if variant is None else [*told, variant.base, variant.overlay]
        name, files = f"run/{dataset}/{run}/seed{seed}", run_files(dataset, run, seed)
        told_hash = sha256_of_json(settings)
        return Job(name, tuple(files), tuple(read), told_hash, made_by(module), frozenset(embedded))

    def table(self, dataset: str) -> Job:
        read, told = self.read_by_tables(dataset), self.selection(dataset)
        return self._output(f"table/{dataset}", self.dataset_tables(dataset), read, told, "benchmark.output.tables")

    def tables(self) -> Job:
        read = [f"results/tables/{dataset}.csv" for dataset in self.config.datasets] + self.read_by_tables()
        return self._output("tables", self.table_files(), read, self.selection(), "benchmark.output.tables")

    def plots(self, dataset: str) -> Job:
        read, told = self.read_by_tables(dataset), self.selection(dataset)
        return self._output(f"plots/{dataset}", self.plot_files(dataset), read, told, "benchmark.output.plots")

    def against(self) -> Job:
        told = [self.selection(), self.config.reference]
        return self._output("against", self.against_files(), self.read_by_tables(), told, "benchmark.output.against")

    def page(self) -> Job:
        factors = list(self.ablations.factors)
        plots = (file for dataset in self.config.datasets for file in self.plot_files(dataset))
        tables = (f"results/tables/{dataset}.csv" for dataset in self.config.datasets)
        shown = ["results/tables/main.csv", *tables, *(file for file in plots if file.endswith(".png"))]
        shown += self.against_files() + self.ablation_files()
        read = list(dict.fromkeys([*shown, *self.read_by_tables(), *self.read_by_factors(*factors)]))
        told = [self.selection(), self.factors_json(*factors), self.config.ablations_folder, self.config.reference]
        code = [*files_of("benchmark.output.page"), *page_files()]
        return _job("page", ["results/report/index.html"], read, told, code)

    def ablation(self, factor: str) -> Job:
        return self._factor("ablation", factor, self.factor_tables(factor), "benchmark.output.ablations")

    def ablation_plot(self, factor: str) -> Job:
        return self._factor("ablation_plot", factor, self.factor_plots(factor), "benchmark.output.ablation_plots")

    def claims(self) -> Job:
        factors = list(self.ablations.factors)
        name = f"claims/{self.config.ablations_folder}"
        told = self.factors_json(*factors)
        return self._output(name, self.claims_files(), self.read_by_factors(*factors), told, "benchmark.output.claims")

    def _factor(self, rule: str, factor: str, files: list[str], module: str) -> Job:
        name = f"{rule}/{self.config.ablations_folder}/{factor}"
        return self._output(name, files, self.read_by_factors(factor), self.factors_json(factor), module)

    def _output(self, name: str, outputs: list[str], inputs: list[str], settings: Any, module: str) -> Job:
        return _job(name, outputs, inputs, settings, files_of(module))


def _job(
    name: str,
    outputs: list[str],
    inputs: list[str],
    settings: Any,
    code: Iterable[str],
    spent: Iterable[str] = (),
) -> Job:
    told, files = sha256_of_json(settings), code_hash(tuple(code))
    return Job(name, tuple(outputs), tuple(inputs), told, files, frozenset(spent))
