"""The statistics of a made-up results tree, as the workflow's jobs leave them."""

from pathlib import Path

from benchmark.analysis.arguments import STATISTICS
from benchmark.analysis.collect import collect
from benchmark.statistics.against import against
from benchmark.statistics.datasets import statistics
from benchmark.statistics.files import AGAINST, OVERALL_METHODS, OVERALL_TESTS, write_csv
from benchmark.statistics.overall import overall


def write_statistics(results: Path, datasets: list[str], seeds: dict[str, int], reference: str | None = None) -> None:
    """Write results/statistics of these datasets: each one's, those over all where there are several, and the
    reference's."""
    folder = results / STATISTICS
    collected = [collect(results, dataset, seeds) for dataset in datasets]
    for results_of_dataset in collected:
        statistics(results_of_dataset).write(folder, results_of_dataset.dataset)
    if len(datasets) > 1 and len(seeds) > 1:
        methods, tests = overall(collected)
        write_csv(folder / OVERALL_METHODS, methods)
        write_csv(folder / OVERALL_TESTS, tests)
    if reference is not None:
        write_csv(folder / AGAINST, against(collected, reference))
