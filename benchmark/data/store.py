"""Read and write a prepared dataset, `results/data/{dataset}`: files of cases, and a split without its test cases."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.contract import Cases, Split
from benchmark.errors import InputError
from benchmark.storage.checksums import check_file, check_seal
from benchmark.storage.io import read_json

LLM = "llm"  # of train.parquet: whether the case is one of those that an LLM may read
CASE_COLUMNS = ("case", "user", "time", "history", "ratings", "times", "target")
PREPARE_AGAIN = "delete it and prepare the dataset again"


def read_about(folder: str | Path, *needed: str) -> dict[str, Any]:
    """Read dataset.json of a prepared dataset.

    Raises InputError where it is missing, damaged, or lacks a key of `needed`.
    """
    path = Path(folder) / "dataset.json"
    if not path.exists():
        raise InputError(f"{path}: missing; prepare the dataset first")
    about = read_json(path)
    if not isinstance(about, dict):
        raise InputError(f"{path}: holds no settings by name; {PREPARE_AGAIN}")
    if missing := [key for key in needed if key not in about]:
        raise InputError(f"{path}: has no {missing[0]!r}; prepare the dataset again")
    check_seal(about, path, PREPARE_AGAIN)
    return about


def checked_part(folder: Path, name: str, about: dict[str, Any]) -> Path:
    """The path of one file of a prepared dataset, hashed: nothing parses it before.

    about: the dataset's `read_about`. Raises InputError unless the file is what was written.
    """
    check_file(folder / name, about.get("files", {}).get(name), PREPARE_AGAIN)
    return folder / name


def read_test(folder: Path, about: dict[str, Any]) -> Cases:
    """The test cases of a prepared dataset, without targets."""
    return read_cases(checked_part(folder, "test.parquet", about), targets=False)


def read_cases(path: Path, targets: bool) -> Cases:
    """Read one parquet file of cases. Raises InputError for a missing column or a broken order."""
    table = pq.read_table(path)
    columns = [c for c in CASE_COLUMNS if targets or c != "target"]
    if missing := [c for c in columns if c not in table.column_names]:
        raise InputError(f"{path}: column {missing[0]!r} is missing; prepare the dataset again")
    if not targets and "target" in table.column_names:
        raise InputError(f"{path}: test cases must not hold a column 'target'; prepare the dataset again")
    table = table.combine_chunks()
    history = table.column("history").combine_chunks()

    def flat(column: str, dtype: str) -> np.ndarray:
        values = table.column(column).combine_chunks()
        array: np.ndarray = values.flatten().to_numpy(zero_copy_only=False)
        return array.astype(dtype, copy=False)

    def plain(column: str, dtype: str) -> np.ndarray:
        return table.column(column).to_numpy().astype(dtype, copy=False)

    offsets = np.asarray(history.offsets.to_numpy(), dtype=np.int64)
    cases = Cases(
        case=plain("case", "int64"),
        user=plain("user", "int32"),
        time=plain("time", "int64"),
        offsets=offsets - offsets[0],
        items=flat("history", "int32"),
        ratings=flat("ratings", "float32"),
        times=flat("times", "int64"),
        target=plain("target", "int32") if targets else None,
    )
    if not len(cases.items) == len(cases.ratings) == len(cases.times):
        raise InputError(f"{path}: history, ratings and times differ in length; prepare the dataset again")
    check_cases(cases, str(path))
    return cases


def check_cases(cases: Cases, where: str) -> None:
    """Raise InputError unless case numbers ascend, times ascend, histories precede and never hold their target."""
    if len(cases) == 0:
        raise InputError(f"{where}: no cases; widen the time window or lower the minimum counts of this dataset")
    if (down := np.flatnonzero(np.diff(cases.case) <= 0)).size:
        row = int(down[0]) + 1
        raise InputError(f"{where}: row {row}: case {cases.case[row]} does not ascend; prepare the dataset again")
    if (down := np.flatnonzero(np.diff(cases.time) < 0)).size:
        row = int(down[0]) + 1
        raise InputError(f"{where}: row {row}: time {cases.time[row]} is before its predecessor's; sort by time")
    lengths = np.diff(cases.offsets)
    if (lengths < 1).any():
        raise InputError(f"{where}: row {int(np.argmin(lengths))}: empty history; prepare the dataset again")
    row_of = np.repeat(np.arange(len(cases)), lengths)
    inside = np.diff(row_of) == 0
    if (bad := np.flatnonzero((np.diff(cases.times) < 0) & inside)).size:
        row = int(row_of[bad[0]])
        raise InputError(f"{where}: row {row}: history times {cases.times[bad[0] : bad[0] + 2].tolist()} are unsorted")
    if (bad := np.flatnonzero(cases.times > cases.time[row_of])).size:
        row = int(row_of[bad[0]])
        raise InputError(f"{where}: row {row}: a history item lies after its case's time {cases.time[row]}")
    if cases.target is not None and (bad := np.flatnonzero(cases.items == cases.target[row_of])).size:
        row = int(row_of[bad[0]])
        raise InputError(f"{where}: row {row}: target {cases.target[row]} is in its own history")


def write_cases(path: Path, cases: Cases, with_target: bool, llm_rows: np.ndarray | None = None) -> None:
    """Write cases as parquet; `with_target=False` leaves the targets out. llm_rows: of training cases, see `Split`."""
    offsets = pa.array(cases.offsets.astype(np.int32))
    columns = {
        "case": pa.array(cases.case),
        "user": pa.array(cases.user),
        "time": pa.array(cases.time),
        "history": pa.ListArray.from_arrays(offsets, pa.array(cases.items)),
        "ratings": pa.ListArray.from_arrays(offsets, pa.array(cases.ratings)),
        "times": pa.ListArray.from_arrays(offsets, pa.array(cases.times)),
    }
    if with_target:
        columns["target"] = pa.array(cases.target)
    if llm_rows is not None:
        columns[LLM] = pa.array(np.isin(np.arange(len(cases)), llm_rows))
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_split(folder: str | Path) -> Split:
    """Read `results/data/{dataset}` without its test cases.

    Raises InputError for a file that isn't as it was written.
    """
    folder = Path(folder)
    about = read_about(folder, "rating_scale")
    train, valid, items = (checked_part(folder, f"{name}.parquet", about) for name in ("train", "valid", "items"))
    if LLM not in pq.read_schema(train).names:
        raise InputError(f"{train}: column {LLM!r} is missing; prepare the dataset again")
    of_llm = pq.read_table(train, columns=[LLM]).column(LLM).to_numpy()
    return Split(
        name=about["dataset"],
        category=about["settings"]["category"],
        history_length=about["settings"]["history_length"],
        items=pd.read_parquet(items),
        train=read_cases(train, targets=True),
        llm_rows=None if of_llm.all() else np.flatnonzero(of_llm),
        valid=read_cases(valid, targets=True),
        rating_scale=about["rating_scale"],
        category_plural=about["settings"].get("category_plural"),  # absent in datasets prepared by earlier versions
    )
