"""NDCG@100, NDCG@1000 and the geometric mean rank in a table, and what its intervals cover."""

from pathlib import Path

import numpy as np
import pytest

from benchmark.analysis.collect import collect
from benchmark.analysis.whole_ranking import as_markdown, note, whole_ranking
from tests.support.results_tree import write_dataset, write_method, write_results


def test_the_numbers_of_a_row_are_those_by_hand(tmp_path: Path) -> None:
    cases = write_dataset(tmp_path, "toy", n_users=8, n_cases=4)
    write_method(tmp_path, "toy", cases, "one", [[1, 3, 7, 4]])
    row = whole_ranking(collect(tmp_path, "toy", {"one": 1})).iloc[0]
    expected = (1 + 1 / 2 + 1 / 3 + 1 / np.log2(5)) / 4
    assert row["NDCG@100"] == pytest.approx(expected)
    assert row["NDCG@1000"] == pytest.approx(expected)
    assert row["geometric mean rank"] == pytest.approx((1 * 3 * 7 * 4) ** 0.25)
    assert row["geometric mean rank_low"] < row["geometric mean rank"] < row["geometric mean rank_high"]
    assert np.isnan(row["NDCG@100_sd"])


def test_rows_say_what_their_interval_covers(tmp_path: Path) -> None:
    write_results(
        tmp_path, ["toy"], {"popularity": 0.2, "sasrec": 0.6, "r2ec": 0.8}, {"popularity": 2, "sasrec": 3, "r2ec": 1}
    )
    frame = whole_ranking(collect(tmp_path, "toy", {"popularity": 2, "sasrec": 3, "r2ec": 1})).set_index("method")
    assert frame.covers.to_dict() == {
        "popularity": "users and trainings",  # its seeds are alike
        "sasrec": "users and trainings",
        "r2ec": "users alone",
    }
    assert frame.loc["sasrec", "NDCG@100_sd"] > 0
    assert frame.loc["popularity", "NDCG@100_sd"] == 0
    text = as_markdown(frame.reset_index())
    assert "| 1, users alone |" in text
    assert "of rows with one training over users alone" in note(frame.reset_index())
    assert "one training" not in note(frame.reset_index().query("method != 'r2ec'"))


def test_trainings_widen_the_interval(tmp_path: Path) -> None:
    """Three trainings differ much on the same users: an interval over users alone would be narrow."""
    cases = write_dataset(tmp_path, "toy", n_users=30, n_cases=120)
    write_method(tmp_path, "toy", cases, "alike", [[2] * 119 + [3]] * 2 + [[2] * 118 + [3, 3]])
    write_method(tmp_path, "toy", cases, "apart", [[1] * 119 + [2], [2] * 119 + [1], [9] * 119 + [8]])
    frame = whole_ranking(collect(tmp_path, "toy", {"alike": 3, "apart": 3})).set_index("method")
    width = frame["NDCG@100_high"] - frame["NDCG@100_low"]
    assert width["apart"] > 20 * width["alike"]
