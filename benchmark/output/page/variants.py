"""The ablations' runs whose texts stand among the page's reasonings, beside those of the methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.analysis.collect import Collected, collect
from benchmark.config.factors import Factor
from benchmark.statistics.ablations import without_failed


@dataclass(frozen=True)
class Variant:
    """A run of an ablation on one dataset. number: on the page, behind those of the methods; base: of its base's row,
    None where the base has no row."""

    number: int
    run: str
    base: int | None
    results: Collected


def named(factors: Sequence[Factor], methods: Mapping[str, int]) -> dict[str, str]:
    """The ablations' runs that are no rows, in the order of their numbers, each with its factor and value in words."""
    names: dict[str, str] = {}
    for factor in factors:
        for label, run in factor.runs.items():
            if run not in methods:
                names.setdefault(run, f"{factor.title}: {label}")
    return names


def variants_of(factors: Sequence[Factor], methods: Mapping[str, int], results: Path, dataset: str) -> list[Variant]:
    """Those that have texts of training 1 on a dataset, each once. Raises InputError as `collect` does."""
    numbers = {run: len(methods) + i for i, run in enumerate(named(factors, methods))}
    variants: dict[str, Variant] = {}
    for factor in (without_failed(factor, results)[0] for factor in factors if dataset in factor.datasets):
        texts = {run: results / "runs" / dataset / run / "seed1" / "texts.parquet" for run in factor.runs.values()}
        runs = [run for run, path in texts.items() if run in numbers and run not in variants and path.exists()]
        if not runs:
            continue
        settings = {run: factor.settings[run] for run in runs if run in factor.settings}
        less = {run: why for run, why in factor.less_information.items() if run in runs}
        collected = collect(results, dataset, dict.fromkeys(runs, 1), settings, less)
        base = methods.get(factor.runs.get(factor.base, ""))
        variants |= {run: Variant(numbers[run], run, base, collected) for run in runs}
    return sorted(variants.values(), key=lambda variant: variant.number)
