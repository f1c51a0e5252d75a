"""Sizes of a dataset for the estimates: of the prepared one, or of the user's own files, or usual for its source.

Of the first two the texts are measured, too: an LM's time goes by the length of titles and of histories.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet

from benchmark.data.protocol import prepare
from benchmark.data.settings import DatasetConfig, read_dataset_settings, source_of
from benchmark.data.store import checked_part, read_about
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
# Fitted to the prompts of six datasets under SmolLM2's tokenizer, within a quarter: characters of a token, tokens of a
# line or an item's prompt beside its texts, and tokens of an attribute's name.
CHARACTERS, FRAME, KEY = 3.2, 8, 3
BEYOND_ASCII = 0.6  # further tokens of each byte of UTF-8 beyond a character's first: Russian has one, Chinese two
MOST_CHARACTERS = 600  # that an item's prompt keeps of an attribute: 100 words
MEASURED = ("items.parquet", "train.parquet")
MEASURED_ITEMS = 100_000  # whose texts stand for all
OwnFile = tuple[Path, int, int]  # where it is, bytes, and when it was written


def sizes_of(name: str, dataset: DatasetConfig, results: Path) -> Sizes:
    """Counts of a dataset: from its dataset.json, if it is prepared; else from its source or the user's own files."""
    category = str(dataset.options.get("category", ""))
    usual = USUAL.get(category) or USUAL.get(dataset.source) or UNKNOWN
    if (prepared := _prepared(results / "data" / name)) is not None:
        return replace(usual, **prepared)
    own = _own_files(dataset)
    if own and all(_rows(path, size) <= MOST_ROWS for path, size, _ in own):
        counted = _counted(dataset.model_dump_json(), tuple(own))
        if counted is not None:
            return replace(usual, **counted)
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


def _prepared(folder: Path) -> dict[str, Any] | None:
    """Sizes of a prepared dataset; None where there is none, or a damaged one, which is about to be made anew."""
    try:
        about = read_about(folder, "counts")
    except InputError:
        return None
    files = tuple((folder / name, (folder / name).stat()) for name in MEASURED if (folder / name).is_file())
    written = tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in files)
    return _of_counts(about["counts"]) | _measured(written, json.dumps(about.get("files", {})))


@cache
def _measured(files: tuple[OwnFile, ...], checksums: str) -> dict[str, float]:
    """What the texts and histories of a prepared dataset say; nothing where a file is missing or not what was written.

    files: those of `MEASURED`; they are read again once one of them has changed.
    """
    if len(files) < len(MEASURED):
        return {}
    folder, about = files[0][0].parent, {"files": json.loads(checksums)}
    try:
        items, train = (checked_part(folder, name, about) for name in MEASURED)
        first = next(pyarrow.parquet.ParquetFile(items).iter_batches(MEASURED_ITEMS), None)
        counted = pyarrow.parquet.read_metadata(train)
    except (InputError, OSError, pyarrow.ArrowException):
        return {}
    # The file's end says how many values a list has in all, so that no history is read.
    columns = [n for n in range(counted.num_columns) if counted.schema.column(n).path.startswith("history.")]
    if first is None or not columns or not counted.num_rows:
        return {}
    values = sum(counted.row_group(n).column(columns[0]).num_values for n in range(counted.num_row_groups))
    return _of_texts(first.to_pandas(), values / counted.num_rows)


def _of_counts(counts: Mapping[str, int]) -> dict[str, Any]:
    """The counts of `Sizes`. llm is absent where the dataset has to be prepared again."""
    return {part: counts[part] for part in ("items", "train", "valid", "test")} | {"llm": counts.get("train_llm")}


def _of_texts(items: pd.DataFrame, history: float) -> dict[str, float]:
    """The texts of `Sizes`, from the table of items and the mean length of the training cases' histories."""
    tokens, named = {}, 0.0
    for name in items.columns.drop("item_id"):
        texts = items[name].dropna()
        if len(texts) and pd.api.types.is_string_dtype(texts):
            kept = texts.str.slice(stop=MOST_CHARACTERS)
            beyond_ascii = kept.map(lambda text: len(text.encode()) - len(text))
            tokens[name] = float(kept.str.len().sum() / CHARACTERS + BEYOND_ASCII * beyond_ascii.sum()) / len(items)
            named += KEY * float((kept != "").sum()) / len(items)
    return {
        "line": round(FRAME + tokens.get("title", 0.0)),
        "item": round(FRAME + named + sum(tokens.values())),
        "history": history,
    }


@cache
def _counted(settings: str, files: tuple[OwnFile, ...]) -> dict[str, Any] | None:
    """What preparing the user's own files will count, by the very code that prepares them; None where it refuses them.

    settings: the dataset's entry as JSON. files: they are read again once one of them has changed.
    """
    dataset = read_dataset_settings(settings)
    try:
        source, options = source_of(dataset, "datasets")
        raw = source.load(options, [path for path, _, _ in files], dataset.limits)
        found = prepare(raw, dataset, "estimate")  # the name decides which cases are drawn, and not how many
    except InputError:
        return None  # the job that prepares it says what is wrong
    return _of_counts(found.counts) | _of_texts(found.items, len(found.train.items) / max(1, len(found.train)))


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
