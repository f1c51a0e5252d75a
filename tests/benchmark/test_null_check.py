"""The check on trainings that differ by luck alone, on trainings of known luck."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmark.analysis import null_check
from benchmark.analysis.null_check import as_markdown, check, shares
from benchmark.errors import InputError


def trainings(luck: float, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Ranks int [count, n] of trainings whose log ranks have a spread `luck` of their own, and users."""
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(60), 5)
    own = luck * rng.normal(size=(count, 1))
    logs = 4 + 0.5 * rng.normal(size=60)[users] + 0.5 * rng.normal(size=(count, 300)) + own
    return np.exp(np.clip(logs, 0, 7)).astype(np.int32) + 1, users


def test_luck_passes_the_test_over_users_and_not_that_over_both() -> None:
    ranks, users = trainings(0.3)
    both, paired, users_alone = shares(ranks, users, "log rank", 5, seed=1, draws=200)
    assert both < 0.08
    assert paired < 0.09
    assert users_alone > 0.3
    single = shares(ranks, users, "log rank", 1, seed=1, draws=200)
    assert np.isnan(single[0])
    assert single[2] > 0.3


def test_without_luck_both_hold() -> None:
    ranks, users = trainings(0.0)
    both, paired, users_alone = shares(ranks, users, "log rank", 5, seed=1, draws=200)
    assert both < 0.08
    assert paired < 0.09
    assert users_alone < 0.12


def test_too_few_trainings_are_refused() -> None:
    ranks, users = trainings(0.0, count=5)
    with pytest.raises(InputError, match="5 trainings for two groups of 3"):
        shares(ranks, users, "log rank", 3, seed=1)


def test_the_folder_is_read_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(null_check, "DRAWS", 20)
    ranks, users = trainings(0.3, count=6)
    for seed, of_seed in enumerate(ranks, 1):
        folder = tmp_path / "toy" / "net" / f"seed{seed}"
        folder.mkdir(parents=True)
        columns = {"case": np.arange(len(users)), "user": users, "rank": of_seed}
        pq.write_table(pa.table(columns), folder / "rankings.parquet")
    frame = check(tmp_path)
    assert frame.side.unique().tolist() == [1, 3]  # six trainings make no two groups of five
    assert len(frame) == 2 * len(null_check.STATISTICS)
    assert "toy: net" in as_markdown(frame)
    with pytest.raises(InputError, match="no two trainings"):
        check(tmp_path / "nothing")
