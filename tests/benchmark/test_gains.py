"""Gains in per cent: by hand from the paper's numbers, and from rankings whose answer is known."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.analysis.gains import GAINS, PAPER, as_markdown, of_ours, of_the_paper
from benchmark.errors import InputError
from benchmark.statistics.check_table import read_table


def test_the_papers_gains_by_hand() -> None:
    frame = of_the_paper(read_table(PAPER)).set_index(["says", "source", "metric"])
    hit = frame.loc[("reasoning", "paper, Musical Instruments", "Hit@5")]
    assert hit.gain == pytest.approx(0.0264 / 0.0176 - 1)  # + 50 %
    assert not hit.possible  # w/o Reasoning on Instruments can't be
    assert frame.loc[("softmax part of the reward, R_c", "paper, Musical Instruments", "Hit@5")].possible
    rank_against_softmax = frame.loc[("R_d alone against R_c alone", "paper, Video Games", "NDCG@10")]
    assert rank_against_softmax.gain == pytest.approx(0.0264 / 0.0254 - 1)


def test_ours_by_hand_and_with_intervals(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for run in {name for gain in GAINS for name in (gain.run, gain.run_against)}:
        folder = tmp_path / "toy" / run / "seed1"
        folder.mkdir(parents=True)
        # The base has 2 of 3 targets first, each other run 1 of 3; the remaining ones are far down.
        first = np.arange(90) % 3 < (2 if run == "r2ec" else 1)
        ranks = np.where(first, 1, rng.integers(30, 60, 90)).astype(np.int32)
        columns = {"case": np.arange(90), "user": np.arange(90) // 3, "rank": ranks}
        pq.write_table(pa.table(columns), folder / "rankings.parquet")
    frame = of_ours(tmp_path, "toy").set_index(["says", "metric"])
    assert frame.loc[("reasoning", "Hit@10")].gain == pytest.approx(1.0)  # twice as many
    assert frame.loc[("R_d alone against R_c alone", "NDCG@10")].gain == pytest.approx(0.0)
    # Each user has the same numbers, so that no resample differs.
    assert frame.loc[("reasoning", "Hit@10")].low == pytest.approx(1.0)
    assert "+100 %" in as_markdown(of_ours(tmp_path, "toy"))
    with pytest.raises(InputError, match="can't be read"):
        of_ours(tmp_path, "other")
