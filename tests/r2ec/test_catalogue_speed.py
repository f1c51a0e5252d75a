"""The measurement of large catalogues on a small one: every step, what it writes, and what it refuses."""

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmark.errors import InputError
from r2ec.catalogue import speed
from r2ec.catalogue.large_table import LargeTable
from r2ec.catalogue.speed_report import Measured, Point, markdown

SIZES = (700, 900)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of 24 numbers, a few users; steps in threads of this process, which takes seconds less."""
    changes = {"WIDTH": 24, "HIDDEN": 8, "CLUSTERS": 20, "VECTORS_AT_ONCE": 64, "USERS": 8, "ALONE": 2, "TOGETHER": 1}
    for name, value in (changes | {"DRAWN": 50, "CERTAIN": 30, "CHANGED": 100}).items():
        monkeypatch.setattr(speed, name, value)
    monkeypatch.setattr(speed, "ProcessPoolExecutor", lambda max_workers, **_: ThreadPoolExecutor(max_workers))


def test_every_step_is_measured_and_written(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--sizes", *map(str, SIZES), "--folder", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["catalogue", *arguments])
    speed.main()
    assert list((tmp_path / "work").iterdir()) == []
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"catalogue.{e}" for e in ("csv", "md", "png", "pdf")
    }
    with open(tmp_path / "out" / "catalogue.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for size in SIZES:
        by_method = {(row["method"], row["setting"]): row for row in rows if row["items"] == str(size)}
        assert float(by_method["exact", ""]["recall"]) == 1
        for kind, effort in (("hnsw", 512), ("ivf", 32), ("ivf_pq", 32)):  # all 32 lists
            assert float(by_method[kind, f"effort {effort}"]["recall"]) > 0.95
        assert by_method["table", "nothing changed"]["encoded"] == "0"
        assert by_method["table", "1 in 100 changed"]["encoded"] == str(size // 100)
        assert by_method["ivf_pq", "updated"]["seconds"]
        uniform, better = (
            float(by_method["sampled", f"50 {s}, tau 0.02"]["log_error"]) for s in ("uniform", "and 30 best")
        )
        assert 0 < better < uniform


def test_an_index_over_the_limit_is_named(small: None, tmp_path: Path) -> None:
    measured = list(speed.measure([700], ["hnsw", "ivf_pq"], 5e-5, tmp_path))
    assert [len(so_far.points) for so_far in measured] == sorted(len(so_far.points) for so_far in measured)
    text = markdown(measured[-1])
    assert "| 700 | hnsw, not built: hnsw of 700 x 24 takes up to" in text
    assert not [point for point in measured[-1].points if point.effort]
    assert "updated" not in text


def test_vectors_do_not_depend_on_the_size(small: None, tmp_path: Path) -> None:
    for size in SIZES:
        speed.write_table(tmp_path / str(size), size)
    tables = [LargeTable(tmp_path / str(size)) for size in SIZES]
    rows = torch.arange(700)
    assert torch.equal(tables[0].rows(rows), tables[1].rows(rows))
    states = tables[1].rows(torch.arange(900)).float()
    assert len(states.unique(dim=0)) == 900
    refreshed = speed.write_table(tmp_path / "900", 900, 100)
    assert refreshed.changed.tolist() == list(range(0, 900, 100))
    kept = np.setdiff1d(np.arange(900), refreshed.changed)
    after = LargeTable(tmp_path / "900").rows(torch.arange(900)).float()
    assert torch.equal(after[kept], states[kept]) and not bool(
        (after[refreshed.changed] == states[refreshed.changed]).any()
    )


def test_sizes_that_cannot_be_measured_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--sizes 100: give at least 640"):
        speed.check([100, 10_000], tmp_path)
    monkeypatch.setattr(speed.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 2**30))
    with pytest.raises(InputError, match="10,000,000 items need 25 GiB of disk, 5 are free"):
        speed.check([10_000_000], tmp_path)
    speed.check([1_000_000], tmp_path)


def test_the_tables_say_what_was_measured() -> None:
    points = [
        Point(items=10_000_000, method="table", setting="written", seconds=123.4, disk_mib=11_000, peak_mib=900),
        Point(
            items=10_000_000, method="exact", setting="", alone_ms=5_000, together_ms=9_000, recall=1, peak_mib=2_048
        ),
        Point(
            items=10_000_000,
            method="ivf_pq",
            setting="effort 32",
            effort=32,
            alone_ms=12.34,
            together_ms=200,
            recall=0.9123,
            recall_bare=0.7,
            peak_mib=1_500,
        ),
        Point(items=10_000_000, method="reward", setting="", together_ms=9_900, peak_mib=1_000),
        Point(items=10_000_000, method="sampled", setting="9 draws", together_ms=99, log_error=0.25, peak_mib=1_000),
    ]
    text = markdown(
        Measured(
            commit="abc",
            hardware={"processor": "P"},
            threads=1,
            width=576,
            users=64,
            top=20,
            memory_gib=4,
            points=points,
        )
    )
    for line in (
        "1 thread of P, commit abc",
        "no process held more than 2.0 GiB",
        "| 10,000,000 | table, written | 123 |  | 11,000 | 900 |",
        "| 10,000,000 | exact | 5,000.0 | 9,000 | 1.000 |  | 2,048 |",
        "| 10,000,000 | ivf_pq, effort 32 | 12.3 | 200.0 | 0.912 | 0.700 | 1,500 |",
        "| 10,000,000 | exact, rank and softmax | 9,900 | 0 | 1,000 |",
        "| 10,000,000 | softmax from 9 draws | 99 | 0.250 | 1,000 |",
    ):
        assert line in text
