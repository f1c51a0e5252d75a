"""The smallest detectable difference, and what another one takes: by hand, and where more cases can't help."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from benchmark.analysis.trainings import Part
from benchmark.errors import InputError
from benchmark.statistics.power import (
    Noise,
    Pair,
    as_markdown,
    cases_needed,
    detectable,
    noise_of,
    of_runs,
    of_table,
    read_pairs,
    share_within,
)

MANY = 1e9  # degrees of freedom: Student's t is the normal distribution


def test_the_share_within_users_by_hand() -> None:
    """Three users of two cases: means 1, 2, 6 and each case 1 off its user's mean.

    MSW = 6 / 3 = 2. MSB = 2 (4 + 1 + 9) / 2 = 14. n0 = (6 - 12 / 6) / 2 = 2, between = (14 - 2) / 2 = 6. Variance of
    the mean: 2 / 6 within, 6 x 12 / 36 = 2 between.
    """
    values, users = np.array([0.0, 2.0, 1.0, 3.0, 5.0, 7.0]), np.array([5, 5, 3, 3, 9, 9])
    assert share_within(values, users) == pytest.approx((1 / 3) / (1 / 3 + 2))
    assert share_within(values, np.arange(6)) == 1.0


def test_the_plan_by_hand() -> None:
    """Two datasets, users' variances .0004 and .0012, a training's .0009 and .0007.

    With 4 trainings and as many cases the mean's variance is (.0004 + .0012 + (.0009 + .0007) / 4) / 4 = .0005; the
    smallest difference is (1.959964 + .841621) sqrt(.0005) = .062645. The trainings' part has t's tails, so that what
    is found lies above; without trainings' variance it is (1.959964 + .841621) sqrt(.0016 / 4) = .056032.
    """
    certain = [Noise(Part(0.0004, MANY), 1.0, 0.0), Noise(Part(0.0012, MANY), 1.0, 0.0)]
    assert detectable(certain, 1.0, 4) == pytest.approx(0.056032, abs=2e-6)
    # Half of it takes four times as many cases where all of the variance lies within users.
    assert cases_needed(certain, 4, 0.028016) == pytest.approx(4, rel=2e-3)
    luck = [Noise(Part(0.0004, MANY), 1.0, 0.0009), Noise(Part(0.0012, MANY), 1.0, 0.0007)]
    assert 0.062645 < detectable(luck, 1.0, 4) < 0.07
    assert detectable(luck, 1.0, 10_000) == pytest.approx(0.056032, rel=1e-3)  # trainings average out


def test_more_cases_of_the_same_users_leave_what_lies_between_users() -> None:
    """A quarter of .0004 lies between users: with 4 times as many cases (.0001 + .0003 / 4) = .000175."""
    noise = [Noise(Part(0.0004, MANY), 0.75, 0.0)]
    z = stats.norm.isf(0.025) + stats.norm.ppf(0.8)
    assert detectable(noise, 4.0, 2) == pytest.approx(z * np.sqrt(0.000175), rel=1e-5)
    assert cases_needed(noise, 2, 0.99 * z * np.sqrt(0.0001)) == float("inf")
    assert cases_needed(noise, 2, z * np.sqrt(0.00015)) == pytest.approx(6, rel=2e-3)  # .0001 + .0003 / 6
    luck = [Noise(Part(0.0004, MANY), 1.0, 0.01)]
    assert cases_needed(luck, 2, 0.01) == float("inf") > cases_needed(luck, 1000, 0.01)


def ranks(trainings: int, good: float, rng: np.random.Generator) -> np.ndarray:
    """[trainings, 200]: rank 1 with probability `good`, that moves from training to training, else 500."""
    chance = good + rng.normal(0, 0.05, (trainings, 1))
    return np.where(rng.random((trainings, 200)) < chance, 1, 500)


def pair(trainings: tuple[int, int] = (4, 4)) -> Pair:
    rng = np.random.default_rng(1)
    both = ranks(trainings[0], 0.5, rng), ranks(trainings[1], 0.3, rng)
    return Pair("toy", np.arange(200) // 4, both, fit=(45.0, 15.0), score=(20.0, 10.0))


def test_a_single_training_is_taken_to_vary_as_the_others_do() -> None:
    both, single = noise_of(pair(), "NDCG@10", False)[1], noise_of(pair((4, 1)), "NDCG@10", False)
    assert single[0].covered is False and single[0].n_trainings == (4, 1)
    means = pair((4, 1)).ranks[0] == 1
    spread = float(means.mean(axis=1).var(ddof=1))
    assert single[1].training is not None and both.training is not None
    assert 0 < single[1].training / 2 < spread  # of each of two methods; the cases' part of it is taken out
    assert noise_of(pair((1, 1)), "NDCG@10", False)[1].training is None


def test_the_table_says_what_it_took_and_what_is_needed() -> None:
    frame = of_runs([pair()], 0.1, paired=True)
    as_run = frame[(frame.planned == 0) & (frame.statistic == "NDCG@10")].iloc[0]
    assert as_run.seconds == pytest.approx(4 * 90)
    assert as_run.covers == "users and trainings" and as_run.cases == 200
    planned = frame[(frame.planned > 0) & (frame.statistic == "NDCG@10")]
    assert list(planned.detectable) == sorted(planned.detectable, reverse=True)
    enough = planned[np.isfinite(planned.times_cases)].iloc[-1]
    assert enough.seconds == pytest.approx(enough.planned * (60 + 30 * enough.times_cases))
    # The same share of the mean in the other statistic; here each hit is at rank 1, so that they are equal.
    assert frame.smallest.to_numpy() == pytest.approx(0.1)
    text = as_markdown(frame, "Toy", "toy")
    assert "| NDCG@10 | 4 and 4, as run |" in text and "no number of them" not in text
    single = of_runs([pair((1, 1))], 0.1, paired=False)
    assert list(single.planned) == [0, 0]
    assert "How far other trainings would move the difference is not known" in as_markdown(single, "Toy", "toy")


def test_a_table_of_one_training_each_by_hand(tmp_path: Path) -> None:
    """.0072 at Holm's first step of 8: z of 1 - .05 / 16 is 2.734, so that the error is .0072 / 3.576 = .002014; for a
    single test .002014 x 2.8016 = .005641. .0025 takes (.005641 / .0025)^2 = 5.09 times as many cases."""
    rows = [("a", 100.0, 10.0), ("b", 200.0, 20.0), ("all datasets", 150.0, 15.0)]
    columns = {"dataset": [name for name, _, _ in rows], "method": "none", "mean": 0.03, "mean_reference": 0.031}
    columns |= {"difference": 0.001, "detectable": 0.0072, "family_size": 8, "n_cases": [1000, 1000, 2000]}
    columns |= {"fit_s": [fit for _, fit, _ in rows], "score_s": [score for _, _, score in rows]}
    frame = pd.DataFrame(columns).assign(fit_s_reference=50.0, score_s_reference=5.0)
    frame.to_csv(tmp_path / "against.csv", index=False)
    as_run, more = of_table(tmp_path / "against.csv", "none", 0.0025).to_dict("records")
    assert as_run["detectable"] == pytest.approx(0.005641, abs=2e-6)
    assert as_run["seconds"] == 2 * (200 + 20)
    assert more["times_cases"] == pytest.approx(5.09, abs=0.01) and more["cases"] == pytest.approx(10183, abs=10)
    assert more["seconds"] == pytest.approx(2 * (200 + 20 * more["times_cases"]))
    with pytest.raises(InputError, match="no row of some under"):
        of_table(tmp_path / "against.csv", "some", 0.0025)


def write(folder: Path, ranks_of: np.ndarray, first_case: int = 0) -> None:
    for seed, row in enumerate(ranks_of, 1):
        (folder / f"seed{seed}").mkdir(parents=True)
        cases = {"case": first_case + np.arange(len(row)), "user": np.arange(len(row)) // 4, "rank": row}
        pq.write_table(pa.table(cases), folder / f"seed{seed}/rankings.parquet")
        (folder / f"seed{seed}/run.json").write_text(json.dumps({"seconds": {"fit": 10.0 * seed, "score": 2.0}}))


def test_runs_are_read_with_their_seconds(tmp_path: Path) -> None:
    written = pair((2, 1))
    write(tmp_path / "toy/r2ec", written.ranks[0])
    write(tmp_path / "toy/none", written.ranks[1])
    (read_again,) = read_pairs(tmp_path, ["toy"], "r2ec", "none")
    assert read_again.trainings == (2, 1) and (read_again.fit, read_again.score) == ((15, 10), (2, 2))
    assert read_again.took == (10 + 2) + (20 + 2) + (10 + 2)  # two trainings of one and one of the other
    write(tmp_path / "toy/other", written.ranks[1], first_case=7)
    with pytest.raises(InputError, match="ranked other cases"):
        read_pairs(tmp_path, ["toy"], "r2ec", "other")
    (tmp_path / "toy/none/seed1/run.json").write_text("{}")
    with pytest.raises(InputError, match="says no seconds"):
        read_pairs(tmp_path, ["toy"], "r2ec", "none")
    with pytest.raises(InputError, match="no seed"):
        read_pairs(tmp_path, ["toy"], "r2ec", "missing")
