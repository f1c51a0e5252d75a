"""The section `ablations` of the config: factors of a method, their values, and the runs that these add.

A value is a set of settings laid over its base's params. It runs like any method, with the random streams of its base,
so that a difference is the factor's and not the seed's. Its folder is results/runs/{dataset}/{base}--{changes}, such as
r2ec--recpo.beta=0.25. So equal values of several factors are one run, a value that changes nothing is the base's run,
and factors and labels can be renamed, added and moved without a run. Values that differ only in settings that scoring
reads (a method's SCORING) score one fit. Nothing is trained twice.

A factor of `rows` adds no values: it holds rows of `methods` against each other, by their own runs.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from benchmark.config.methods import all_params, check_params, for_fitting, load_method, stream_of
from benchmark.config.overlay import Changes, flatten, overlaid, run_name, unflatten
from benchmark.config.schema import AblationConfig, ClaimConfig, Config
from benchmark.config.sections import Name, Strict
from benchmark.config.wording import among
from benchmark.errors import InputError, checked


class Factor(Strict):
    """One factor with its runs, as the jobs get it. The base is among them, whether it is listed or not."""

    name: Name
    title: str
    datasets: list[Name]
    seeds: int
    base: str  # label of the base
    runs: dict[str, str]  # label -> folder in results/runs/{dataset}, in the order of the table
    scored: list[str] = Field(default=[])  # those of these runs that only score another one's fit
    settings: dict[str, list[dict[str, Any]]] = Field(default={})  # by run: the settings it may have been made with
    claims: list[ClaimConfig]
    less_information: dict[str, str] = Field(default={})  # by run that may learn from less than the others: the reason
    streams: dict[str, str] = Field(
        default={}
    )  # of rows: the name of each one's random streams; values share the base's

    @property
    def seeds_of_runs(self) -> dict[str, int]:
        """The number of seeds by run, as `benchmark.analysis.collect.collect` takes it."""
        return dict.fromkeys(self.runs.values(), self.seeds)

    def share_random_numbers(self, label: str, other: str) -> bool:
        """Whether training s of both has the same random numbers, so that their trainings are paired."""
        return self.streams.get(self.runs[label]) == self.streams.get(self.runs[other])

    @property
    def exploratory(self) -> list[ClaimConfig]:
        """The claims that aren't registered, whose verdicts are those of each dataset (`benchmark.analysis.registered`
        has the others)."""
        return [claim for claim in self.claims if claim.smallest_effect is None]

    def without(self, labels: set[str]) -> "Factor":
        """The factor without these values, and the claims that speak of them."""
        runs = {label: run for label, run in self.runs.items() if label not in labels}
        claims = [claim for claim in self.claims if not labels & {claim.value, claim.against}]
        return self.model_copy(update={"runs": runs, "claims": claims})

    @property
    def labels(self) -> dict[str, str]:
        """Label by run."""
        return {run: label for label, run in self.runs.items()}


class _FactorList(Strict):
    factors: list[Factor]


def read_factors(text: str) -> list[Factor]:
    """The factors of a command line, as JSON. Raises InputError."""
    try:
        return checked(_FactorList, {"factors": json.loads(text)}, "--factors").factors
    except json.JSONDecodeError as error:
        raise InputError(f"--factors: not JSON ({error}); give what the workflow gives") from None


def arguments(parser: argparse.ArgumentParser, out: str, argv: list[str] | None = None) -> argparse.Namespace:
    """Read a command line with the arguments that the ablations' tables, plots and claims share."""
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder with data/ and runs/ (default: results)"
    )
    parser.add_argument(
        "--factors",
        type=read_factors,
        required=True,
        help="factors and their runs as JSON, as the workflow writes them",
    )
    parser.add_argument("--out", type=Path, help=f"folder to write to (default: {out} in --results)")
    args = parser.parse_args(argv)
    args.out = args.out or args.results / out
    return args


@dataclass(frozen=True)
class Variant:
    """A run that an ablation adds."""

    base: str  # the row of `methods` that it varies
    overlay: dict[str, Any]  # the settings that differ, laid over that row's params
    fit: str  # name of the run whose fit this one scores: the two differ only in settings that scoring reads
    after: str | None  # the run that makes this fit; None: this one itself


@dataclass(frozen=True)
class Ablations:
    """All factors of a config, and the runs that they add to those of the methods."""

    factors: dict[str, Factor]
    variants: dict[str, Variant]  # by the folder's name


def ablations_of(config: Config, where: str = "config") -> Ablations:
    """The factors of a checked config with their runs. Raises InputError in one sentence for whatever can't be run."""
    ablations = Ablations({}, {})
    for name, entry in config.ablations.items():
        if entry.base is None:
            ablations.factors[name] = _of_rows(config, name, entry, f"{where}: ablations.{name}")
            continue
        if entry.base not in config.methods:
            known = among(entry.base, config.methods)
            raise InputError(f"{where}: ablations.{name}: no base {entry.base!r} in methods{known}")
        runs: dict[str, str] = {}
        for label, overlay in entry.values.items():
            changes = _changes(config, entry.base, overlay, f"{where}: ablations.{name}.values.{label}")
            run = run_name(entry.base, changes)
            if same := [other for other, earlier in runs.items() if earlier == run]:
                both = f"{same[0]!r} and {label!r}"
                raise InputError(f"{where}: ablations.{name}: the values {both} have equal params; leave one out")
            runs[label] = run
            if run != entry.base and run not in ablations.variants:
                fitted = for_fitting(load_method(config.module_of(entry.base)), unflatten(changes))
                fit = run_name(entry.base, flatten(fitted))
                ablations.variants[run] = Variant(entry.base, unflatten(changes), fit, None)
        runs = _with_base(entry.base, runs, f"{where}: ablations.{name}")
        ablations.factors[name] = _factor(config, name, entry, entry.base, runs, f"{where}: ablations.{name}")
    # By name of a fit, the run that makes it: the run of that name, where there is one, or else the first.
    makers: dict[str, str] = {}
    for run, variant in ablations.variants.items():
        plain = variant.fit == variant.base or variant.fit in ablations.variants
        makers.setdefault(variant.fit, variant.fit if plain else run)
    for run, variant in ablations.variants.items():
        maker = makers[variant.fit]
        ablations.variants[run] = replace(variant, after=None if maker == run else maker)
    for name, factor in ablations.factors.items():
        runs_of_it = factor.runs.values()
        scored = [run for run in runs_of_it if run in ablations.variants and ablations.variants[run].after]
        settings = {run: settings_of(run, config, ablations) for run in runs_of_it}
        ablations.factors[name] = factor.model_copy(update={"scored": scored, "settings": settings})
    return ablations


def settings_of(run: str, config: Config, ablations: Ablations) -> list[dict[str, Any]]:
    """The settings that a run of a method, or of an ablation's variant, may be made with: those of its grid, or one."""
    variant = ablations.variants.get(run)
    base, overlay = (run, {}) if variant is None else (variant.base, variant.overlay)
    return [overlaid(params, overlay) for params in config.method(base).settings()]


def _changes(config: Config, base: str, overlay: dict[str, Any], where: str) -> Changes:
    """The params, defaults filled in, that an overlay changes in at least one of the base's settings."""
    method = load_method(config.module_of(base))
    changes: Changes = {}
    for params in config.method(base).settings():
        changed = overlaid(params, overlay)
        check_params(method, changed, where)
        before = flatten(all_params(method, params))
        after = flatten(all_params(method, changed))
        changes |= {path: value for path, value in after.items() if path not in before or before[path] != value}
    return changes


def _of_rows(config: Config, name: str, entry: AblationConfig, where: str) -> Factor:
    """A factor whose runs are those of rows."""
    if unknown := [row for row in entry.rows.values() if row not in config.methods]:
        raise InputError(f"{where}.rows: no row {unknown[0]!r} in methods{among(unknown[0], config.methods)}")
    reasons = {row: config.method(row).less_information for row in entry.rows.values()}
    factor = _factor(config, name, entry, next(iter(entry.rows.values())), dict(entry.rows), where)
    return factor.model_copy(
        update={
            "streams": {row: stream_of(load_method(config.module_of(row)), row) for row in entry.rows.values()},
            "less_information": {row: reason for row, reason in reasons.items() if reason is not None}
            | {entry.rows[label]: reason for label, reason in entry.less_information.items()},
        }
    )


def _factor(config: Config, name: str, entry: AblationConfig, base: str, runs: dict[str, str], where: str) -> Factor:
    """One factor, whose values have these runs, that of the base among them."""
    datasets = entry.datasets or list(config.datasets)
    if unknown := [dataset for dataset in datasets if dataset not in config.datasets]:
        raise InputError(f"{where}: no dataset {unknown[0]!r} in datasets{among(unknown[0], config.datasets)}")
    if twice := [dataset for dataset in datasets if datasets.count(dataset) > 1]:
        raise InputError(f"{where}: dataset {twice[0]!r} is given twice; keep one")
    for claim in entry.claims:
        if absent := [label for label in (claim.value, claim.against) if label not in runs]:
            raise InputError(f"{where}.claims: no value {absent[0]!r}{among(absent[0], runs)}")
    for label in entry.less_information:
        if label not in runs:
            raise InputError(f"{where}.less_information: no value {label!r}{among(label, runs)}")
    of_base = config.method(base).less_information
    return Factor(
        name=name,
        title=entry.title or name,
        datasets=datasets,
        seeds=entry.seeds or config.seeds_of(base),
        base=next(label for label, run in runs.items() if run == base),
        runs=runs,
        claims=entry.claims,
        less_information=({} if of_base is None else dict.fromkeys(runs.values(), of_base))
        | {runs[label]: reason for label, reason in entry.less_information.items()},
    )


def _with_base(base: str, runs: dict[str, str], where: str) -> dict[str, str]:
    """A factor's runs by label with the base's run, which is added first, under its own name, where no value is it."""
    if base in runs.values():
        if len(runs) == 1:
            raise InputError(f"{where}: every value is the base itself; add one that differs from it")
        return runs
    if base in runs:
        raise InputError(f"{where}: the value {base!r} has the base's name and other params; rename the label")
    return {base: base} | runs
