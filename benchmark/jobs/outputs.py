"""The workflow's jobs after the runs: statistics, and from these tables, plots, claims and the page.

Like `benchmark.jobs.plan`, it names the files that each job reads and writes, without any Snakemake.
"""

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.analysis.arguments import headroom_files, registered_files
from benchmark.config.factors import Ablations
from benchmark.config.methods import load_method, thinking_of
from benchmark.config.schema import Config
from benchmark.jobs.plan import Plan, data_files, files_of, job_of, run_files
from benchmark.jobs.stale import Job
from benchmark.provenance import ROOT
from benchmark.statistics.files import (
    AGAINST,
    CLAIMS,
    OVERALL_METHODS,
    OVERALL_TESTS,
    DatasetStatistics,
    FactorStatistics,
)

STATISTICS = "results/statistics"
PAGE = ROOT / "benchmark" / "output" / "page"


@dataclass(frozen=True)
class Outputs:
    """All jobs that come after the runs of a plan."""

    plan: Plan

    @property
    def config(self) -> Config:
        return self.plan.config

    @property
    def ablations(self) -> Ablations:
        return self.plan.ablations

    # -- arguments of commands ----------------------------------------------------------------------------------------

    def selection(self, *datasets: str) -> str:
        """Arguments of the commands that read runs. datasets: only these; without any, all."""
        methods = " ".join(self.config.methods)
        numbers = [str(self.config.seeds_of(method)) for method in self.config.methods]
        # One number is that of all methods.
        seeds = " ".join(numbers if len(set(numbers)) > 1 else numbers[:1])
        settings = json.dumps({method: self.plan.settings(method) for method in self.config.methods})
        less = {name: self.config.method(name).less_information for name in self.config.methods}
        reasons = {name: reason for name, reason in less.items() if reason is not None}
        more = f" --less-information {shlex.quote(json.dumps(reasons))}" if reasons else ""
        return (
            f"--results results --datasets {' '.join(datasets or self.config.datasets)} --methods {methods} --seeds "
            f"{seeds} --settings {shlex.quote(settings)}{more}"
        )

    def shown(self, *datasets: str) -> str:
        """Arguments of the commands that show statistics of methods. datasets: only these; without any, all."""
        return f"--results results --datasets {' '.join(datasets or self.config.datasets)}{self.note()}"

    def note(self) -> str:
        """The argument with the config's note; "" without one."""
        return f" --note {shlex.quote(self.config.note)}" if self.config.note else ""

    def factors_json(self, *names: str) -> str:
        """These factors as JSON, for the argument --factors."""
        return json.dumps([self.ablations.factors[name].model_dump(mode="json") for name in names])

    # -- files --------------------------------------------------------------------------------------------------------

    def runs_of(self, *datasets: str) -> list[str]:
        """The files that the statistics of all methods are made from. datasets: only these; without any, all."""
        selected = datasets or tuple(self.config.datasets)
        runs = [file for run in self.plan.runs if run[0] in selected for file in run_files(*run)]
        return runs + data_files(*selected)

    def runs_of_factors(self, *names: str) -> list[str]:
        """The files that the statistics of these factors are made from."""
        datasets = sorted({dataset for name in names for dataset in self.ablations.factors[name].datasets})
        return [file for run in self.plan.runs_of(*names) for file in run_files(*run)] + data_files(*datasets)

    def dataset_statistics_files(self, *datasets: str) -> list[str]:
        """The statistics of these datasets; without any, of all."""
        selected = datasets or tuple(self.config.datasets)
        return [str(path) for dataset in selected for path in DatasetStatistics.paths(STATISTICS, dataset)]

    def overall_statistics_files(self) -> list[str]:
        """The statistics over all datasets together; none where there is one dataset or one method."""
        if min(len(self.config.datasets), len(self.config.methods)) == 1:
            return []
        return [f"{STATISTICS}/{OVERALL_METHODS}", f"{STATISTICS}/{OVERALL_TESTS}"]

    def against_statistics_files(self) -> list[str]:
        """The statistics of the config's reference; none without one."""
        return [] if self.config.reference is None else [f"{STATISTICS}/{AGAINST}"]

    def factor_statistics_files(self, factor: str) -> list[str]:
        """The statistics of one factor."""
        return list(map(str, FactorStatistics.paths(f"{STATISTICS}/{self.config.ablations_folder}", factor)))

    def claims_statistics_files(self) -> list[str]:
        """The statistics of the claims."""
        return [f"{STATISTICS}/{self.config.ablations_folder}/{CLAIMS}"]

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

    def against_files(self) -> list[str]:
        """Tables and plot of the config's reference; none without one."""
        if self.config.reference is None:
            return []
        tables = [f"results/tables/against.{ending}" for ending in ("csv", "md")]
        return tables + [f"results/plots/against.{ending}" for ending in ("png", "pdf")]

    def thinking(self) -> dict[str, str]:
        """What each method computes before it recommends; of a method with a grid by its first setting."""
        modules = {name: load_method(self.config.module_of(name)) for name in self.config.methods}
        return {name: thinking_of(module, self.config.method(name).settings()[0]) for name, module in modules.items()}

    def thinking_files(self) -> list[str]:
        """Quality and cost by what is computed before a recommendation, where a method thinks without text; nothing
        otherwise."""
        if not any(word.startswith("latent") for word in self.thinking().values()):
            return []
        stems = ["results/tables/thinking.csv", "results/tables/thinking.md"]
        return stems + [f"results/plots/thinking.{ending}" for ending in ("png", "pdf")]

    def thinking_selection(self, *datasets: str) -> str:
        """What the command that shows it is told."""
        return f"{self.shown(*datasets)}{self._thinking_argument()}"

    def thinking_on_page(self) -> str:
        """The argument of the page that shows it, too; "" where there is nothing to show."""
        return self._thinking_argument() if self.thinking_files() else ""

    def _thinking_argument(self) -> str:
        return f" --thinking {shlex.quote(json.dumps(self.thinking()))}"

    def factor_tables(self, factor: str) -> list[str]:
        """The tables of one factor."""
        folder = f"results/{self.config.ablations_folder}"
        return [f"{folder}/{factor}.{ending}" for ending in ("csv", "md", "tex", "tests.csv")]

    def factor_plots(self, factor: str) -> list[str]:
        """The plot of one factor."""
        return [f"results/plots/{self.config.ablations_folder}/{factor}.{ending}" for ending in ("png", "pdf")]

    def claims_files(self) -> list[str]:
        """The verdicts on the claims."""
        return [f"results/{self.config.ablations_folder}/claims.{ending}" for ending in ("csv", "md")]

    def ablation_files(self) -> list[str]:
        """Tables, plots and verdicts of the config's ablations; none without any."""
        if not self.ablations.factors:
            return []
        of_factors = [
            file for name in self.ablations.factors for file in self.factor_tables(name) + self.factor_plots(name)
        ]
        return of_factors + self.claims_files()

    # -- the jobs -----------------------------------------------------------------------------------------------------

    def statistics(self, dataset: str) -> Job:
        files, read = self.dataset_statistics_files(dataset), self.runs_of(dataset)
        return _output(f"statistics/{dataset}", files, read, self.selection(dataset), "benchmark.statistics.datasets")

    def overall_statistics(self) -> Job:
        files = self.overall_statistics_files()
        return _output("overall_statistics", files, self.runs_of(), self.selection(), "benchmark.statistics.overall")

    def against_statistics(self) -> Job:
        files, arguments = self.against_statistics_files(), [self.selection(), self.config.reference]
        return _output("against_statistics", files, self.runs_of(), arguments, "benchmark.statistics.against")

    def table(self, dataset: str) -> Job:
        read, arguments = self.dataset_statistics_files(dataset), self.shown(dataset)
        return _output(f"table/{dataset}", self.dataset_tables(dataset), read, arguments, "benchmark.output.tables")

    def tables(self) -> Job:
        read = self.dataset_statistics_files()
        return _output("tables", self.table_files(), read, self.shown(), "benchmark.output.tables")

    def plots(self, dataset: str) -> Job:
        read, arguments = self.dataset_statistics_files(dataset), self.shown(dataset)
        return _output(f"plots/{dataset}", self.plot_files(dataset), read, arguments, "benchmark.output.plots")

    def against(self) -> Job:
        read = self.against_statistics_files() + self.dataset_statistics_files()
        return _output("against", self.against_files(), read, self.shown(), "benchmark.output.against")

    def thinking_job(self) -> Job:
        read = self.dataset_statistics_files() + self.overall_statistics_files()
        return _output("thinking", self.thinking_files(), read, self.thinking_selection(), "benchmark.output.thinking")

    def page(self) -> Job:
        factors = list(self.ablations.factors)
        shown = ["results/tables/main.csv", *(f"results/tables/{dataset}.csv" for dataset in self.config.datasets)]
        shown += [
            file for dataset in self.config.datasets for file in self.plot_files(dataset) if file.endswith(".png")
        ]
        shown += self.against_files() + self.ablation_files()
        shown += self.dataset_statistics_files() + self.overall_statistics_files() + self.against_statistics_files()
        shown += [path for factor in factors for path in self.factor_statistics_files(factor)]
        shown += self.claims_statistics_files() if factors else []
        # Made by commands of their own, before or after this run: their coming and going changes the page, too.
        by_hand = [*registered_files(Path("results"), self.config.ablations_folder), *headroom_files(Path("results"))]
        shown += [str(path) for path in by_hand]
        arguments = [self.selection(), self.note(), self.factors_json(*factors), self.config.ablations_folder]
        arguments += [text] if (text := self.thinking_on_page()) else []
        # Templates, styles and scripts are parts of its code.
        assets = [path for path in PAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
        code = [*files_of("benchmark.output.page"), *sorted(str(path.relative_to(ROOT)) for path in assets)]
        read = list(dict.fromkeys([*shown, *self.runs_of(), *self.runs_of_factors(*factors)]))
        return job_of("page", ["results/report/index.html"], read, [*arguments, self.config.reference], code)

    def factor_statistics(self, factor: str) -> Job:
        files, read = self.factor_statistics_files(factor), self.runs_of_factors(factor)
        return self._factor("factor_statistics", factor, files, read, "benchmark.statistics.ablations")

    def ablation(self, factor: str) -> Job:
        files, read = self.factor_tables(factor), self.factor_statistics_files(factor)
        return self._factor("ablation", factor, files, read, "benchmark.output.ablations")

    def ablation_plot(self, factor: str) -> Job:
        files, read = self.factor_plots(factor), self.factor_statistics_files(factor)
        return self._factor("ablation_plot", factor, files, read, "benchmark.output.ablation_plots")

    def claims_statistics(self) -> Job:
        name, factors = f"claims_statistics/{self.config.ablations_folder}", list(self.ablations.factors)
        files, read = self.claims_statistics_files(), self.runs_of_factors(*factors)
        return _output(name, files, read, self.factors_json(*factors), "benchmark.statistics.claims")

    def claims(self) -> Job:
        name, read = f"claims/{self.config.ablations_folder}", self.claims_statistics_files()
        return _output(name, self.claims_files(), read, [], "benchmark.output.claims")

    def _factor(self, rule: str, factor: str, files: list[str], read: list[str], module: str) -> Job:
        name = f"{rule}/{self.config.ablations_folder}/{factor}"
        return _output(name, files, read, self.factors_json(factor), module)


def _output(name: str, outputs: list[str], inputs: Iterable[str], settings: Any, module: str) -> Job:
    return job_of(name, outputs, list(inputs), settings, files_of(module))
