"""What fails leaves a row or a sentence, and takes nothing else with it; a tree that isn't clean runs nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from benchmark.jobs.records import read_run
from tests.support.project import changed_config, copy_of_project, edited, planned, snakemake


def test_a_failing_method_is_a_row_and_all_others_are_tested(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    (project / "baselines" / "broken.py").write_text(
        "def fit(split, *, seed, params, workdir):\n    raise ValueError('broken on purpose')\n"
    )
    config = changed_config(project, "broken.yaml", only=True, broken=None, popularity=None, item_knn=None)
    done = snakemake(project, config=config)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    log = "results/logs/runs/planted.broken.seed1.log"
    why = "ValueError: broken on purpose (baselines/broken.py:2)"
    assert f"failed: broken on planted, seed 1: {why} (log: {log})" in done.stdout
    assert done.stdout.rstrip().splitlines()[-3].startswith("2 runs failed, as the tables say")
    frame = pd.read_csv(project / "results/tables/main.csv", keep_default_na=False, dtype=str)
    assert frame.method.tolist() == ["item_knn", "popularity", "broken"]  # as in the config, what failed last
    assert frame.failed.tolist() == ["", "", f"{why} (log: {log})"]
    tests = pd.read_csv(project / "results/tables/planted.tests.csv")
    assert set(tests.method_a) | set(tests.method_b) == {"popularity", "item_knn"}
    assert "failed: ValueError: broken on purpose" in (project / "results/report/index.html").read_text()
    # What failed is tried again, and no other run.
    dry = snakemake(project, "--dry-run", config=config)
    assert "broken on planted, seed 1: it failed: ValueError: broken on purpose" in dry.stdout
    assert planned(dry.stdout)["run"] == 2
    (project / "baselines" / "broken.py").write_text("from baselines.popularity import fit\n")
    done = snakemake(project, config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "failed" not in pd.read_csv(project / "results/tables/main.csv").columns


def test_one_datasets_trouble_takes_no_other_ones_row(tmp_path: Path) -> None:
    """A method that fails on one of two datasets: it has its row on the other, and the table of both says where it
    failed."""
    project = copy_of_project(tmp_path)
    (project / "baselines" / "picky.py").write_text(PICKY)
    shutil.copytree(project / "planted", project / "good")
    path = project / changed_config(project, "two.yaml", only=True, picky={"seeds": 1}, popularity={"seeds": 1})
    value = yaml.safe_load(path.read_text())
    value["datasets"]["good"] = value["datasets"]["planted"] | {"options": {"folder": "good"}}
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    done = snakemake(project, config="config/two.yaml")
    assert done.returncode == 1 and "planted is not to its taste" in done.stdout
    frame = pd.read_csv(project / "results/tables/main.csv", keep_default_na=False, dtype=str)
    rows = dict(zip(zip(frame.dataset, frame.method, strict=True), frame.failed, strict=True))
    assert rows.pop(("planted", "picky")).startswith("ValueError: planted is not to its taste")
    assert set(rows) == {("planted", "popularity"), ("good", "picky"), ("good", "popularity")} and not any(
        rows.values()
    )
    assert (project / "results/plots/good.metrics.png").exists() and (project / "results/report/index.html").exists()


PICKY = '''
"""Fails on one dataset."""
from baselines.popularity import fit as popular

def fit(split, *, seed, params, workdir):
    if split.name == "planted":
        raise ValueError("planted is not to its taste")
    return popular(split, seed=seed, params=params, workdir=workdir)
'''


def test_a_config_may_ask_for_a_clean_tree(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    config = changed_config(project, "clean.yaml", only=True, popularity=None)
    value = yaml.safe_load((project / config).read_text()) | {"require_clean": True}
    (project / config).write_text(yaml.safe_dump(value))
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=project, check=True)
    target = "results/runs/planted/popularity/seed1/run.json"
    with edited(project / "baselines" / "popularity.py", "\n# edited\n"):
        (project / "baselines" / "mine.py").write_text("")
        done = snakemake(project, target, config=config)
        assert done.returncode != 0 and "Traceback" not in done.stdout and not (project / "results").exists()
        sentence = "require_clean: not as in the last commit: baselines/mine.py, baselines/popularity.py; commit what"
        assert sentence in done.stdout
        dry = snakemake(project, target, "--dry-run", config=config)
        assert dry.returncode == 0 and f"It would not run now. {sentence}" in dry.stdout
        (project / "baselines" / "mine.py").unlink()
    done = snakemake(project, target, config=config)
    assert done.returncode == 0, done.stdout[-3000:]
    assert not read_run(project / target).commit.endswith("-dirty")
    # What is edited while Snakemake runs ends the next job.
    command = [
        sys.executable,
        "-m",
        "benchmark.jobs.run",
        "--data",
        "x",
        "--method",
        "popularity",
        "--work",
        "w",
        "--out",
        "o",
    ]
    with edited(project / "baselines" / "popularity.py", "\n# edited\n"):
        job = subprocess.run(
            command, cwd=project, env=os.environ | {"R2EC_REQUIRE_CLEAN": "1"}, capture_output=True, text=True
        )
    assert job.returncode == 2 and job.stderr.startswith(
        "error: require_clean: not as in the last commit: baselines/pop"
    )


def test_a_dry_run_says_that_gpus_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    project = copy_of_project(tmp_path)
    config = changed_config(project, "gpus.yaml", only=True, popularity={"gpus": 1}, item_knn=None)
    output = snakemake(project, "--dry-run", config=config).stdout
    assert "\nJobs ask for up to 1 GPU each, and this machine shows none: run here, they fail; lower" in output
