"""Discriminative power on rankings whose answer is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.analysis.discrimination import CANDIDATES, pairs_of, read_rankings, read_ranks, summary
from benchmark.errors import InputError
from tests.support.results_tree import write_results


def write(runs: Path, method: str, ranks: np.ndarray, first_case: int = 0) -> None:
    folder = runs / "toy" / method / "seed1"
    folder.mkdir(parents=True)
    n = len(ranks)
    columns = {"case": first_case + np.arange(n), "user": np.arange(n) // 2, "rank": ranks.astype(np.int32)}
    pq.write_table(pa.table(columns), folder / "rankings.parquet")


def test_a_statistic_sees_what_happens_where_it_looks(tmp_path: Path) -> None:
    """`better` ranks each target at 20 and not at 200: NDCG@10 sees no difference, statistics of more ranks see it."""
    rng = np.random.default_rng(1)
    base = rng.integers(150, 250, 80)
    write(tmp_path, "base", base)
    write(tmp_path, "better", base - 130)
    write(tmp_path, "same", base)
    pairs = pairs_of(read_ranks(tmp_path)[0])
    assert len(pairs) == 3 * len(CANDIDATES)
    p = pairs.set_index(["a", "b", "statistic"]).p
    assert p["base", "better", "NDCG@10"] == 1
    assert p["base", "better", "NDCG@1000"] < 0.001
    assert p["base", "better", "log rank"] < 0.001
    assert p["base", "same", "log rank"] == 1
    worse = pairs.set_index(["a", "b", "statistic"]).difference
    assert (
        worse["base", "better", "log rank"] < 0
    )  # positive where the first ranks better, though a low rank is a good one
    assert worse["base", "better", "log rank"] == pytest.approx(np.log((base - 130) / base).mean())


def test_the_summary_counts_by_hand() -> None:
    rows = [
        ("toy", "a", "b", "NDCG@10", 0.1, 2.0, 0.01),
        ("toy", "a", "c", "NDCG@10", 0.1, 4.0, 0.02),
        ("toy", "b", "c", "NDCG@10", 0.1, 1.0, 0.50),
        ("toy", "a", "b", "log rank", 0.1, 4.0, 0.01),  # the same
        ("toy", "a", "c", "log rank", -0.1, -4.0, 0.01),  # the other way
        ("toy", "b", "c", "log rank", -0.1, -3.0, 0.03),  # opposed, though NDCG@10 can't tell
    ]
    frame = summary(pd.DataFrame(rows, columns=["dataset", "a", "b", "statistic", "difference", "z", "p"]))
    base, log = frame.set_index("statistic").loc[["NDCG@10", "log rank"]].to_dict("records")
    assert (base["toy"], base["agree"], base["contradict"], base["cases"]) == (pytest.approx(2 / 3), 2, 0, 1.0)
    assert (log["all"], log["agree"], log["contradict"]) == (1.0, 1, 1)
    assert log["opposed"] == pytest.approx(2 / 3)
    assert log["cases"] == 4.0  # the median of 4, 1 and 9


def test_other_cases_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "one", np.arange(1, 11))
    with pytest.raises(InputError, match="rankings of 1 methods"):
        read_ranks(tmp_path)
    write(tmp_path, "two", np.arange(1, 11), first_case=5)
    with pytest.raises(InputError, match="two ranked other cases than one"):
        read_ranks(tmp_path)


def test_rankings_that_are_not_those_of_their_record_are_refused(tmp_path: Path) -> None:
    write_results(tmp_path, ["one"], {"sasrec": 0.5}, n_cases=12)
    path = tmp_path / "runs/one/sasrec/seed1/rankings.parquet"
    whole = path.read_bytes()
    assert len(read_rankings(path)["rank"]) == 12
    path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    with pytest.raises(InputError, match=r"rankings.parquet: damaged or replaced .*; delete .*seed1 and run this seed"):
        read_rankings(path)
    path.with_name("run.json").unlink()  # nothing says what it was
    pd.DataFrame({"case": [1, 2], "user": [0, 1], "rank": [1.5, None]}).to_parquet(path)
    with pytest.raises(InputError, match="column 'rank' is not of whole numbers alone; evaluate this run again"):
        read_rankings(path)
    pd.DataFrame({"case": [1, 2]}).to_parquet(path)
    with pytest.raises(InputError, match=r"rankings\.parquet: can't be read "):
        read_rankings(path)
