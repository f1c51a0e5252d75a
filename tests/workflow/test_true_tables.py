"""Whatever happens between two calls of the workflow, a call that ends well leaves the table that config and data give.

A search over sequences of what users and machines do: other data with older dates, other settings, settings that
`prepare` refuses, kills, deleted folders, touched files, files copied from another run. The judge is the table of a run
in a new folder.
"""

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmark.provenance import ROOT
from tests.support.planted import planted, write_files

TABLE = "results/tables/main.csv"
COUNTS = (
    1,
    12,
    1000,
)  # values of min_user_count; no user has a thousand interactions, so that prepare refuses the last
REFUSED = 2
LOGS = (40, 60)  # users of the two data files
FOLDERS = ("data", "runs", "fetched", "made_from", "tables", "work", "logs")
FILES = (
    TABLE,
    "results/data/shop/dataset.json",
    "results/data/shop/train.parquet",
    "results/runs/shop/popularity/seed1/rankings.parquet",
    "results/runs/shop/popularity/seed1/run.json",
)


@functools.cache
def log_of(which: int) -> Path:
    """A folder with one of the two data files."""
    folder = Path(tempfile.mkdtemp())
    write_files(folder, planted(n_users=LOGS[which], length=6 + 6 * which, seed=which))
    return folder


class Place:
    """A folder in which somebody runs the workflow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = self.count = 0
        self.replace(0, old=False)

    def replace(self, which: int, old: bool) -> None:
        """Put other data in place, with files older or newer than the results made from the last ones."""
        self.data = which
        shutil.copytree(log_of(which), self.folder / "shop", dirs_exist_ok=True)
        for file in (self.folder / "shop").iterdir():
            os.utime(file, (10**9, 10**9) if old else None)

    def command(self) -> list[str]:
        entry = {"source": "files", "category": "thing", "min_user_count": COUNTS[self.count], "min_item_count": 1}
        config = {
            "seeds": 1,
            "datasets": {"shop": entry | {"options": {"folder": "shop"}}},
            "methods": {"popularity": None},
        }
        (self.folder / "c.yaml").write_text(yaml.safe_dump(config))
        snakefile = ["--snakefile", str(ROOT / "workflow/Snakefile"), "--configfile", "c.yaml", "--cores", "1"]
        return [sys.executable, "-m", "snakemake", TABLE, *snakefile]

    def run(self) -> tuple[int, str, bytes | None]:
        """Run the workflow; return exit code, output, and the table that is there then."""
        shutil.rmtree(self.folder / ".snakemake/locks", ignore_errors=True)
        done = subprocess.run(
            self.command(), cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
        )
        table = self.folder / TABLE
        return done.returncode, done.stdout, table.read_bytes() if table.exists() else None

    def killed(self, seconds: float) -> None:
        """A run that is killed, with its jobs, after so many seconds."""
        shutil.rmtree(self.folder / ".snakemake/locks", ignore_errors=True)
        started = subprocess.Popen(
            self.command(),
            cwd=self.folder,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            started.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()

    def judge(self) -> str:
        """Run the workflow, and compare its table with that of config and data."""
        code, output, table = self.run()
        if self.count == REFUSED:
            assert code != 0 and "no interaction is left" in output and table is None, output[-3000:]
        else:
            assert code == 0 and table == reference(self.data, self.count)[1], output[-3000:]
        return output


@functools.cache
def reference(data: int, count: int) -> tuple[Path, bytes]:
    """A new folder in which the workflow has run on this data with this setting, and its table."""
    place = Place(Path(tempfile.mkdtemp()))
    place.replace(data, old=False)
    place.count = count
    code, output, table = place.run()
    assert code == 0 and table is not None, output[-3000:]
    return place.folder, table


def finished(folder: Path) -> Place:
    """A copy of a finished run: other inodes and times of change, the same contents."""
    shutil.copytree(reference(0, 0)[0], folder, dirs_exist_ok=True)
    return Place(folder)


def do(place: Place, action: tuple) -> None:
    """Do one of the things that may happen between two runs."""
    match action:
        case ("data", which, old):
            place.replace(which, old)
        case ("setting", count):
            place.count = count
        case ("kill", tenths):
            place.killed(tenths / 10)
        case ("delete", name):
            shutil.rmtree(place.folder / name, ignore_errors=True)
        case ("touch", name, old):
            if (place.folder / name).exists():
                os.utime(place.folder / name, (10**9, 10**9) if old else None)
        case ("copy", name, data):  # of another run's, dates and all
            if (place.folder / name).parent.exists():
                shutil.copy2(reference(data, 1)[0] / name, place.folder / name)


ACTIONS = st.one_of(
    st.tuples(st.just("data"), st.sampled_from([0, 1]), st.booleans()),
    st.tuples(st.just("setting"), st.sampled_from([0, 1, REFUSED])),
    st.tuples(st.just("kill"), st.integers(10, 90)),
    st.tuples(st.just("delete"), st.sampled_from([".snakemake", *(f"results/{name}" for name in FOLDERS)])),
    st.tuples(st.just("touch"), st.sampled_from(FILES), st.booleans()),
    st.tuples(st.just("copy"), st.sampled_from(FILES), st.sampled_from([0, 1])),
)


def search(sequence: list[tuple]) -> None:
    """Let these things happen to a finished run, then run twice: the second run has nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        place = finished(Path(folder))
        for action in sequence:
            do(place, action)
        place.judge()
        again = place.judge()
        assert place.count == REFUSED or "Nothing to be done" in again


@pytest.mark.parametrize(
    "sequence",
    [
        [("setting", REFUSED)],
        [("data", 1, True), ("delete", ".snakemake")],
        [("delete", "results/data"), ("copy", "results/runs/shop/popularity/seed1/rankings.parquet", 1)],
        [("setting", 1), ("kill", 45), ("setting", 0), ("touch", TABLE, False), ("copy", TABLE, 1)],
    ],
)
def test_no_table_stands_that_config_and_data_do_not_give(sequence: list[tuple]) -> None:
    search(sequence)


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck)
)
@given(st.lists(ACTIONS, min_size=1, max_size=5))
def test_whatever_happens_the_table_is_that_of_config_and_data(sequence: list[tuple]) -> None:
    search(sequence)


def test_a_copy_of_a_finished_run_has_nothing_to_do(tmp_path: Path) -> None:
    assert "Nothing to be done" in finished(tmp_path).judge()


def test_deleted_data_makes_what_depends_on_it_run_again(tmp_path: Path) -> None:
    place = finished(tmp_path)
    shutil.rmtree(tmp_path / "results/data")
    output = subprocess.run(
        [*place.command(), "--dry-run", "--quiet", "rules"], cwd=tmp_path, capture_output=True, text=True
    )
    assert all(f"\n{rule} " in output.stdout + output.stderr for rule in ("prepare", "run", "tables"))
    assert (tmp_path / TABLE).exists()  # a dry run removes nothing


def test_a_fresh_start_plans_everything_again_and_a_dry_run_removes_nothing(tmp_path: Path) -> None:
    place = finished(tmp_path)
    (tmp_path / "results/states").mkdir(exist_ok=True)
    (tmp_path / "results/states/kept").touch()

    def planned(*config: str) -> str:
        command = [*place.command(), "--dry-run", "--config", *config]
        return subprocess.run(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    said = planned("fresh=true")
    for job in (
        "fetch shop",
        "prepare shop",
        "popularity on shop, seed 1",
        "statistics of shop",
        "table of all datasets",
    ):
        assert f"{job}: everything is made anew (fresh=true)" in said, said[-3000:]
    assert "fresh=true: what is there already is made anew" in said
    assert (tmp_path / TABLE).exists() and (tmp_path / "results/states/kept").exists()
    assert "Nothing to be done" in planned("fresh=false")
    assert "--config fresh is 'soon'; say fresh=true, or leave it out" in planned("fresh=soon")
