"""Counts of a dataset for the estimates: from its dataset.json, or of the user's own files, or usual for its source."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow
import pyarrow.parquet

from benchmark.data.protocol import prepare
from benchmark.data.settings import DatasetConfig, read_dataset_settings, source_of
from benchmark.data.store import read_about
from benchmark.errors import InputError
from benchmark.workload import Sizes

# Items and cases of the sources with their usual settings; of the Amazon categories arXiv 2505.16994 gives them.
AMAZON = {"line": 40, "item": 150}
USUAL = {
    "ml_100k": Sizes(1_349, 77_725, 9_715, 9_717),
    "movielens_2016": Sizes(3_496, 71_021, 8_877, 8_878),
    "complete_journey": Sizes(1_568, 104_000, 13_000, 13_000),
    "Video_Games": Sizes(10_144, 50_801, 6_350, 6_351, **AMAZON),
    "CDs_and_Vinyl": Sizes(12_024, 10_748, 1_343, 1_344, **AMAZON),
    "Musical_Instruments": Sizes(10_320, 27_498, 3_437, 3_438, **AMAZON),
}
UNKNOWN = Sizes(10_000, 80_000, 10_000, 10_000, **AMAZON)
MOST_ROWS = 1_000_000  # of the user's own files, up to which they are prepared for their counts, in some seconds
OwnFile = tuple[Path, int, int]  # where it is, bytes, and when it was written


def sizes_of(name: str, dataset: DatasetConfig, results: Path) -> Sizes:
    """Counts of a dataset: from its dataset.json, if it is prepared; else from its source or the user's own files."""
    category = str(dataset.options.get("category", ""))
    usual = USUAL.get(category) or USUAL.get(dataset.source) or UNKNOWN
    path = results / "data" / name / "dataset.json"
    try:
        counts = read_about(path.parent, "counts")["counts"] if path.exists() else None
    except InputError:  # a damaged one is about to be made anew, which the plan says
        counts = None
    own = [] if counts else _own_files(dataset)
    if own and all(_rows(path, size) <= MOST_ROWS for path, size, _ in own):
        counts = _counts_of(dataset.model_dump_json(), tuple(own))
    if counts is not None:
        sizes = replace(usual, **{part: counts[part] for part in ("items", "train", "valid", "test")})
        return replace(sizes, llm=counts.get("train_llm"))  # absent where it has to be prepared again
    if own:
        usual = _sizes_by_rows(own)
    limits = {"valid": dataset.valid_cases, "test": dataset.test_cases}
    sizes = replace(usual, **{part: min(n, getattr(usual, part)) for part, n in limits.items() if n is not None})
    return replace(sizes, llm=None if dataset.train_cases is None else min(dataset.train_cases, sizes.train))


def _own_files(dataset: DatasetConfig) -> list[OwnFile]:
    """The user's own two files, interactions first; empty for another source, and where one of them is missing."""
    folder = dataset.options.get("folder")
    if dataset.source != "files" or folder is None:
        return []
    found = []
    for name in ("interactions", "items"):
        for path in (Path(folder) / f"{name}.csv", Path(folder) / f"{name}.parquet"):
            if path.is_file():
                about = path.stat()
                found.append((path, about.st_size, about.st_mtime_ns))
    return found if len(found) == 2 else []


@cache
def _counts_of(settings: str, files: tuple[OwnFile, ...]) -> dict[str, int] | None:
    """What preparing the user's own files will count, by the very code that prepares them; None where it refuses them.

    settings: the dataset's entry as JSON. files: they are read again once one of them has changed.
    """
    dataset = read_dataset_settings(settings)
    try:
        source, options = source_of(dataset, "datasets")
        raw = source.load(options, [path for path, _, _ in files], dataset.limits)
        return prepare(raw, dataset, "estimate").counts  # the name decides which cases are drawn, and not how many
    except InputError:
        return None  # the job that prepares it says what is wrong


def _sizes_by_rows(files: list[OwnFile]) -> Sizes:
    """Counts from the rows of the user's own files, of which four of five interactions become cases."""
    interactions, items = (_rows(path, size) for path, size, _ in files)
    if not interactions or not items:
        return UNKNOWN
    cases = max(10, int(0.8 * interactions))
    return replace(UNKNOWN, items=items, train=cases * 8 // 10, valid=cases // 10, test=cases // 10)


@cache
def _rows(path: Path, size: int) -> int:
    """About how many rows a table has, for a csv by the length of its first lines; 0 where it can't be read."""
    try:
        if path.suffix == ".parquet":
            return int(pyarrow.parquet.read_metadata(path).num_rows)
        with path.open("rb") as file:
            start = file.read(2**20)
    except (OSError, pyarrow.ArrowException):
        return 0  # the job that prepares it says what is wrong
    lines = start.count(b"\n")
    return max(1, round(lines * size / max(1, len(start))) - 1) if lines else 0
