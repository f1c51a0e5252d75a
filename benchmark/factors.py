"""The section `ablations` of the config: factors of a method, their values, and the runs that these add.

A value is settings laid over its base's params. It runs like any method, in results/runs/{dataset}/{base}--{factor}-{value},
with the random streams of its base, so that a difference is the factor's and not the seed's. A value whose params are the
base's own is the base's run, and equal values of several factors are one run, the first one's: nothing is trained twice.
"""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from benchmark.errors import InputError, checked
from benchmark.io import sha256_of_json
from benchmark.methods import all_params, check_params, for_fitting, laid_over, load_method
from benchmark.sections import Name, Strict

if TYPE_CHECKING:
    from benchmark.config import Config


def as_label(value: Any) -> Any:
    """A value's label: text, or a number that YAML reads where the quotes are missing.

    >>> [as_label(value) for value in ("0.05", 0.05, 8)]
    ['0.05', '0.05', '8']
    """
    if value is None or isinstance(value, bool):
        raise ValueError(f"YAML reads this label as {value!r}; put it in quotes")
    return str(value) if isinstance(value, int | float) else value


Label = Annotated[str, BeforeValidator(as_label), Field(min_length=1)]


class ClaimConfig(Strict):
    """A statement that two values of the factor are held against."""

    says: str = Field(min_length=1, description="the statement, in one sentence")
    value: Label = Field(description="the value that it speaks of")
    against: Label = Field(description="the value that it is compared with")
    expect: Literal["higher", "lower", "equal"] = Field(
        default="higher", description="what the statement expects of the metric of `value` against that of `against`"
    )
    metric: Literal["Hit@5", "NDCG@5", "Hit@10", "NDCG@10", "Hit@20", "NDCG@20"] = "NDCG@10"
    margin: float | None = Field(
        default=None, gt=0, description="for equal: the difference that still counts as none, as a share of `against`"
    )

    @model_validator(mode="after")
    def _two_values_and_a_margin_where_it_counts(self) -> "ClaimConfig":
        if self.value == self.against:
            raise ValueError(f"a claim compares two values, but both are {self.value!r}")
        if (self.expect == "equal") != (self.margin is not None):
            what = "needs a margin, such as 0.1" if self.expect == "equal" else "takes no margin"
            raise ValueError(f"expect: {self.expect} {what}")
        return self


class AblationConfig(Strict):
    """One factor of a method, and what it is set to."""

    title: str | None = Field(default=None, description="the factor in words, for tables and plots; null: its name")
    base: Name = Field(description="the row of `methods` that is varied")
    datasets: list[Name] | None = Field(default=None, min_length=1, description="of `datasets`; null: all of them")
    seeds: int | None = Field(default=None, ge=1, description="runs of every value per dataset; null: the base's")
    values: dict[str, dict[str, Any]] = Field(
        min_length=1, description="label -> settings laid over the base's params; {} is the base itself"
    )
    claims: list[ClaimConfig] = Field(default=[], description="statements that this factor tests")

    @model_validator(mode="before")
    @classmethod
    def _labels(cls, section: Any) -> Any:
        values = section.get("values") if isinstance(section, dict) else None
        if not isinstance(values, dict):
            return section
        labels = [as_label(label) for label in values]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise ValueError(f"values: the label {twice[0]!r} is given twice; keep one")
        return section | {"values": dict(zip(labels, values.values(), strict=True))}


class Factor(Strict):
    """One factor with its runs, as the jobs get it. The base is among them, whether it is listed or not."""

    name: Name
    title: str
    datasets: list[Name]
    seeds: int
    base: str  # label of the base
    runs: dict[str, Name]  # label -> folder in results/runs/{dataset}, in the order of the table
    claims: list[ClaimConfig]

    @property
    def seeds_of_runs(self) -> dict[str, int]:
        """The number of seeds by run, as `benchmark.collect.collect` takes it."""
        return dict.fromkeys(self.runs.values(), self.seeds)

    @property
    def labels(self) -> dict[str, str]:
        """Label by run."""
        return {run: label for label, run in self.runs.items()}


class _Given(Strict):
    factors: list[Factor]


def read_factors(text: str) -> list[Factor]:
    """The factors of a command line, as JSON. Raises InputError."""
    try:
        return checked(_Given, {"factors": json.loads(text)}, "--factors").factors
    except json.JSONDecodeError as error:
        raise InputError(f"--factors: not JSON ({error}); give what the workflow gives") from None


def arguments(description: str, out: str, argv: list[str] | None = None) -> argparse.Namespace:
    """The command line that the ablations' tables, plots and claims share; `factors` of it are read."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with data/ and runs/")
    parser.add_argument("--factors", required=True, help="factors and their runs as JSON, as the workflow writes them")
    parser.add_argument("--out", type=Path, help=f"folder to write to (default: {{results}}/{out})")
    given = parser.parse_args(argv)
    given.out, given.factors = given.out or given.results / out, read_factors(given.factors)
    return given


@dataclass(frozen=True)
class Variant:
    """A run that an ablation adds."""

    base: str  # the row of `methods` that it varies
    overlay: dict[str, Any]  # the settings laid over that row's params
    fit: str  # the run whose fit it scores: its own, or an earlier one's that differs in nothing that fitting reads


@dataclass(frozen=True)
class Ablations:
    """All factors of a config, and the runs that they add to those of the methods."""

    factors: dict[str, Factor]
    variants: dict[str, Variant]  # by the folder's name


def expand(config: "Config", where: str = "config") -> Ablations:
    """The factors of a checked config with their runs. Raises InputError in one sentence for whatever can't be run."""
    found, known = Ablations({}, {}), _Known({}, {})
    for name, entry in config.ablations.items():
        if entry.base not in config.methods:
            rows = ", ".join(config.methods)
            raise InputError(f"{where}: ablations.{name}: no base {entry.base!r} in methods. Known: {rows}")
        known.run_of(config, entry.base, {}, entry.base)
        found.factors[name] = _factor(config, name, entry, known, found.variants, f"{where}: ablations.{name}")
    if taken := [run for run in found.variants if run in config.methods]:
        raise InputError(f"{where}: methods.{taken[0]}: is the name of a run of ablations; rename the method")
    return found


@dataclass(frozen=True)
class _Known:
    """The runs so far, by base and the hash of all their params, and by base and the hash of those that fitting reads."""

    runs: dict[tuple[str, str], str]
    fits: dict[tuple[str, str], str]

    def run_of(self, config: "Config", base: str, overlay: dict[str, Any], name: str) -> tuple[str, str]:
        """The run with these settings, which is `name` if there was none, and the run whose fit it takes."""
        method = load_method(config.module_of(base))
        # For every setting that the base's tuning may choose.
        settings = [all_params(method, laid_over(params, overlay)) for params in config.method(base).settings()]
        fitted = [for_fitting(method, params) for params in settings]
        run = self.runs.setdefault((base, sha256_of_json(settings)), name)
        return run, self.fits.setdefault((base, sha256_of_json(fitted)), run)


def _factor(
    config: "Config",
    name: str,
    entry: AblationConfig,
    known: _Known,
    variants: dict[str, Variant],
    where: str,
) -> Factor:
    """One factor; its new runs are added to `known` and `variants`."""
    datasets = entry.datasets or list(config.datasets)
    if unknown := [dataset for dataset in datasets if dataset not in config.datasets]:
        raise InputError(f"{where}: no dataset {unknown[0]!r} in datasets. Known: {', '.join(config.datasets)}")
    if twice := [dataset for dataset in datasets if datasets.count(dataset) > 1]:
        raise InputError(f"{where}: dataset {twice[0]!r} is given twice; keep one")
    method = load_method(config.module_of(entry.base), where)
    runs: dict[str, str] = {}
    for label, overlay in entry.values.items():
        for params in config.method(entry.base).settings():
            check_params(method, laid_over(params, overlay), f"{where}.values.{label}")
        name_of_run = f"{entry.base}--{name}-{slug(label)}"
        before = len(known.runs)
        run, fit = known.run_of(config, entry.base, overlay, name_of_run)
        if len(known.runs) > before:  # a new run
            if run in variants:
                raise InputError(f"{where}: the folder of value {label!r}, {run}, is another value's too; rename one")
            variants[run] = Variant(entry.base, overlay, fit)
        elif same := [other for other, earlier in runs.items() if earlier == run]:
            raise InputError(f"{where}: the values {same[0]!r} and {label!r} have equal params; leave one out")
        runs[label] = run
    runs = _with_base(entry.base, runs, where)
    for claim in entry.claims:
        if unknown := [label for label in (claim.value, claim.against) if label not in runs]:
            raise InputError(f"{where}.claims: no value {unknown[0]!r}. Known: {', '.join(runs)}")
    return Factor(
        name=name,
        title=entry.title or name,
        datasets=datasets,
        seeds=entry.seeds or config.seeds_of(entry.base),
        base=next(label for label, run in runs.items() if run == entry.base),
        runs=runs,
        claims=entry.claims,
    )


def _with_base(base: str, runs: dict[str, str], where: str) -> dict[str, str]:
    """A factor's runs by label with the base's, which comes first under its own name where no value is it."""
    if base in runs.values():
        if len(runs) == 1:
            raise InputError(f"{where}: every value is the base itself; add one that differs from it")
        return runs
    if base in runs:
        raise InputError(f"{where}: the value {base!r} has the base's name and other params; rename the label")
    return {base: base} | runs


def slug(label: str) -> str:
    """A label as part of a folder's name.

    >>> slug("w/o R_c"), slug("0.05"), slug("mean of h_T, 8 samples")
    ('w_o_R_c', '0.05', 'mean_of_h_T_8_samples')
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", label).strip("_") or "_"
