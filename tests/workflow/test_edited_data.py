"""Edited code that prepares data: what was made from them stays if they come out as they were, and only then."""

from pathlib import Path

import pytest

from benchmark.storage.io import sha256_of
from tests.support.project import changed_config, copy_of_project, edited, planned, snakemake

PROTOCOL = "benchmark/data/protocol.py"
OTHER_TITLES = """
_before = prepare


def prepare(*arguments, **options):
    prepared = _before(*arguments, **options)
    prepared.items["title"] = prepared.items["title"] + "!"
    return prepared
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which a method has run on the planted data."""
    project = copy_of_project(tmp_path_factory.mktemp("project"))
    done = snakemake(project, config=changed_config(project, "one.yaml", only=True, popularity={"seeds": 1}))
    assert done.returncode == 0, done.stdout[-4000:]
    return project


def test_runs_stay_where_edited_code_gives_equal_data(project: Path) -> None:
    run = project / "results/runs/planted/popularity/seed1/run.json"
    before = run.stat().st_mtime_ns
    with edited(project / PROTOCOL, "\nEDITED = 1\n"):
        output = snakemake(project, "--dry-run", config="config/one.yaml").stdout
        assert planned(output) == {"prepare": 1}
        why = "prepare planted: its code has changed; what was made from these data stays if they come out as they were"
        assert why in output.splitlines()
        assert snakemake(project, config="config/one.yaml").returncode == 0
        assert "Nothing to be done" in snakemake(project, config="config/one.yaml").stdout
    assert run.stat().st_mtime_ns == before


def test_what_is_missing_is_made_by_the_same_call(project: Path) -> None:
    """As where the code was updated amid a long run: Snakemake by itself would prepare the data, say that all is done,
    and make nothing behind them."""
    run = project / "results/runs/planted/popularity/seed1/run.json"
    before = run.stat().st_mtime_ns
    table = project / "results/tables/main.md"
    with edited(project / PROTOCOL, "\nEDITED = 2\n"):
        for path in (table, project / "results/statistics/planted.methods.csv"):
            path.unlink()
        jobs = planned(snakemake(project, "--dry-run", config="config/one.yaml").stdout)
        assert jobs["prepare"] == jobs["statistics"] == jobs["tables"] == 1 and "run" not in jobs
        assert snakemake(project, config="config/one.yaml").returncode == 0
        assert table.exists() and run.stat().st_mtime_ns == before
        assert "Nothing to be done" in snakemake(project, config="config/one.yaml").stdout


FAILS = """

def prepare(*arguments, **options):
    raise RuntimeError("an edit that fails")
"""


def test_runs_stay_where_an_edit_that_failed_is_undone(project: Path) -> None:
    """Snakemake removes the data of before as it begins to make them anew; they are put back."""
    run = project / "results/runs/planted/popularity/seed1/run.json"
    before = run.stat().st_mtime_ns
    data = project / "results/data/planted"
    with edited(project / PROTOCOL, FAILS):
        assert snakemake(project, config="config/one.yaml").returncode == 1
        assert len(list(data.glob("*.parquet"))) == 5
    assert planned(snakemake(project, "--dry-run", config="config/one.yaml").stdout) == {"prepare": 1}
    assert snakemake(project, config="config/one.yaml").returncode == 0
    with edited(project / PROTOCOL, FAILS):
        assert snakemake(project, config="config/one.yaml").returncode == 1
    assert "Nothing to be done" in snakemake(project, config="config/one.yaml").stdout
    assert planned(snakemake(project, "--dry-run", "--forcerun", "prepare", config="config/one.yaml").stdout) == {
        "prepare": 1
    }
    assert run.stat().st_mtime_ns == before and not (project / "results/work/.aside/prepare/planted").exists()


def test_the_workflow_stops_where_edited_code_gives_other_data(project: Path) -> None:
    run = project / "results/runs/planted/popularity/seed1/run.json"
    before = sha256_of(run)
    with edited(project / PROTOCOL, OTHER_TITLES):
        assert planned(snakemake(project, "--dry-run", config="config/one.yaml").stdout) == {"prepare": 1}
        done = snakemake(project, "--retries", "1", config="config/one.yaml")  # as on Slurm
        assert done.returncode == 1 and sha256_of(run) == before
        last = done.stdout.splitlines()[-1]
        assert "comes out otherwise since the code that makes it has changed; give the same command again" in last
        jobs = planned(snakemake(project, "--dry-run", config="config/one.yaml").stdout)
        assert jobs["prepare"] == jobs["run"] == jobs["statistics"] == 1
        done = snakemake(project, config="config/one.yaml")
        assert done.returncode == 0, done.stdout[-4000:]
    assert sha256_of(run) != before
