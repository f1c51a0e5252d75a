"""Runs of one machine taken over by another: what is taken, what runs anew, what is refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.provenance import ROOT
from benchmark.storage.checksums import seal
from benchmark.storage.io import read_json, sha256_of, write_json
from tests.support.project import copy_of_project, planned, runs_started, snakemake, with_ablations

CONFIG = "config/ablations.yaml"
DECAY = {"base": "item_knn", "seeds": 2, "values": {"tuned": {}, "0.5": {"decay": 0.5}}}
RUNS = [f"item_knn{change}/seed{seed}" for change in ("--decay=0.5", "") for seed in (1, 2)]


def bench(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of r2ec-bench in a copy of the project and return both streams together."""
    line = [sys.executable, "-m", "benchmark.cli", *arguments]
    return subprocess.run(line, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def project_in(folder: Path) -> Path:
    project = copy_of_project(folder)
    with_ablations(project, "ablations.yaml", decay=DECAY)
    return project


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Four runs of one machine: item_knn with a grid, and an ablation of it, two seeds each."""
    project = project_in(tmp_path_factory.mktemp("there"))
    assert snakemake(project, "ablations", config=CONFIG).returncode == 0
    done = bench(project, "export", CONFIG, "exported", "--dirty")
    assert done.returncode == 0 and done.stdout == "exported: 4 runs of 4 exported\n", done.stdout
    yield project / "exported"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, exported: Path) -> Path:
    """Another machine, with the exported runs and nothing else."""
    project = project_in(tmp_path_factory.mktemp("clone"))
    shutil.copytree(exported, project / "exported")
    return project


@pytest.fixture
def here(tmp_path: Path, exported: Path, clone: Path) -> Path:
    """The same, with the data prepared, without any run."""
    if not (clone / "results/data/planted/dataset.json").exists():
        assert snakemake(clone, "results/data/planted/dataset.json", config=CONFIG).returncode == 0
    project = tmp_path / "here"
    shutil.copytree(clone, project, ignore=shutil.ignore_patterns("runs", "run", "ablations"))
    shutil.copytree(exported / "runs", project / "exported/runs")
    shutil.copytree(exported / "made_from/run", project / "exported/made_from/run")
    return project


def test_a_fresh_clone_that_takes_the_runs_only_makes_tables(clone: Path, exported: Path) -> None:
    here = clone
    done = bench(here, "import", CONFIG, "exported")
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("exported: 4 runs of 4 imported\n") and "preparing planted first" in done.stdout
    for run in RUNS:
        for file in ("rankings.parquet", "run.json"):
            path = f"runs/planted/{run}/{file}"
            assert sha256_of(here / "results" / path) == sha256_of(exported / path)
    for file in [*(here / "results/data").rglob("*.*"), *(here / "planted").iterdir()]:
        file.touch()  # as a copy of the folder may date them; of what was imported Snakemake has no notes
    fetched = (here / "results/fetched").rename(here / "results/elsewhere")  # may be gone, as the data are there
    jobs = planned(snakemake(here, "--dry-run", "ablations", config=CONFIG).stdout)
    assert jobs and not {"fetch", "prepare", "run"} & jobs.keys()
    fetched.rename(here / "results/fetched")
    done = snakemake(here, "ablations", config=CONFIG)
    assert done.returncode == 0 and runs_started(done.stdout) == []
    claims = (here / "results/ablations/decay.csv").read_bytes()
    assert claims == (exported.parent / "results/ablations/decay.csv").read_bytes()
    assert bench(here, "import", CONFIG, "exported").stdout == "exported: 0 runs of 4 imported, 4 were here\n"


def test_only_what_is_missing_runs(here: Path) -> None:
    shutil.rmtree(here / "exported" / "runs/planted/item_knn/seed2")
    assert "3 runs of 4 imported" in bench(here, "import", CONFIG, "exported").stdout
    for file in (here / "results/data").rglob("*.*"):
        file.touch()
    # What Snakemake starts for one job, on Slurm or for a group, runs that job alone.
    missing = "dataset=planted,method=item_knn,seed=2"
    alone = ["--target-jobs", f"run:{missing}", "--allowed-rules", "run", "--force", "--ignore-incomplete", "--nolock"]
    run = "results/runs/planted/item_knn/seed2/run.json"
    done = snakemake(here, "--dry-run", run, *alone, "--no-hooks", "--mode", "remote", config=CONFIG)
    assert planned(done.stdout) == {"run": 1}, done.stdout
    assert runs_started(snakemake(here, "ablations", config=CONFIG).stdout) == ["item_knn/seed2"]


def test_runs_that_do_not_follow_from_what_is_here_are_left_out_with_the_reason(here: Path) -> None:
    # Another grid is another setting of the row, on whose choice the ablation's runs rest.
    path = here / CONFIG
    path.write_text(path.read_text().replace("decay: 0.9", "decay: 0.8"))
    done = bench(here, "import", CONFIG, "exported")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-2:] == [
        "left out: it has other settings here (4 runs: item_knn on planted, seed 1, item_knn on planted, seed 2 and 2 "
        "more)",
        "exported: 0 runs of 4 imported",
    ]
    assert not (here / "results/runs").exists()


def test_other_data_take_no_run(here: Path) -> None:
    """They are prepared again, as the user's own files have changed."""
    items = here / "planted" / "items.csv"
    items.write_text(items.read_text().replace("Thing, number 7", "Thing, number seven"))
    done = bench(here, "import", CONFIG, "exported")
    assert "left out: results/data/planted/items.parquet has changed (4 runs" in done.stdout
    assert not list((here / "results").rglob("rankings.parquet"))
    assert not list((here / "results/made_from").rglob("run/**/*.json"))


def test_a_run_whose_choice_another_one_took_goes_with_it(here: Path) -> None:
    record = here / "exported/made_from/run/planted/item_knn/seed1.json"
    write_json(record, read_json(record) | {"code": "of another version"})
    done = bench(here, "import", CONFIG, "exported")
    assert "left out: it has other versions of its code or packages here (1 run: item_knn on planted, seed 1)" in (
        done.stdout
    )
    # Repetition 2 and the ablation read what repetition 1 has chosen, in its run.json.
    assert "left out: results/runs/planted/item_knn/seed1/run.json is missing (3 runs" in done.stdout
    assert done.stdout.endswith("exported: 0 runs of 4 imported\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("import", CONFIG, "nowhere"),
            "error: {here}/nowhere: no such folder; give one that r2ec-bench export has written",
        ),
        (("import", CONFIG, "planted"), "error: {here}/planted: has no run of this config; give the config whose runs"),
        (("import", "config/none.yaml", "exported"), "config/none.yaml"),
        (("export", CONFIG, "out", "--directory", "none"), "error: none: no such folder; give the one in which"),
        (("import", "planted/items.csv", "exported", "--directory", "new/folder"), "error: {here}/planted/items.csv: "),
        (
            ("import", CONFIG, "exported", "--directory", "new/folder"),
            "neither exists, nor does the folder in {here}/new",
        ),
        (("import", CONFIG, "exported", "--directory", "planted/items.csv"), "items.csv: is a file, or lies below one"),
        (("export", CONFIG, "planted/items.csv/x"), "error: planted/items.csv/x: is a file, or lies below one"),
    ],
)
def test_what_is_not_there_is_one_sentence(arguments: tuple[str, ...], sentence: str, here: Path) -> None:
    done = bench(here, *arguments)
    assert done.returncode == 2 and sentence.format(here=here) in done.stdout and "Traceback" not in done.stdout
    assert not (here / "new").exists()


def test_what_is_no_file_and_what_is_damaged_is_named_and_the_rest_taken(here: Path) -> None:
    runs, records = here / "exported/runs/planted", here / "exported/made_from/run/planted"
    bad = [runs / "item_knn/seed2/rankings.parquet", records / "item_knn--decay=0.5/seed1.json"]
    bad.append(runs / "item_knn--decay=0.5/seed2/rankings.parquet")
    bad[0].unlink()
    os.mkfifo(bad[0])  # nobody will ever write to it
    bad[1].unlink()
    bad[1].symlink_to(bad[1].name)  # to itself
    flipped = bytearray(bad[2].read_bytes())
    flipped[100] ^= 1
    bad[2].write_bytes(flipped)
    done = bench(here, "import", CONFIG, "exported")
    assert done.returncode == 2 and "exported: 1 run of 4 imported\n" in done.stdout
    for path, why in zip(bad, ["is no plain file", "is no plain file", "damaged or replaced"], strict=True):
        assert f"error: {path}: {why}" in done.stdout
    assert [path.parent.name for path in (here / "results/runs").rglob("run.json")] == ["seed1"]


def test_what_the_workflow_knows_of_an_earlier_run_does_not_run_an_imported_one_again(here: Path) -> None:
    """Snakemake keeps the settings of the runs that it has made, and compares them with the present ones."""
    config = (here / CONFIG).read_text()
    (here / CONFIG).write_text(config.replace("decay: 0.9", "decay: 0.8"))
    earlier = "results/runs/planted/item_knn/seed1/run.json"
    assert snakemake(here, earlier, config=CONFIG).returncode == 0
    log = here / "results/logs/runs/planted.item_knn.seed1.log"
    assert log.exists()
    (here / CONFIG).write_text(config)
    assert "exported: 4 runs of 4 imported" in bench(here, "import", CONFIG, "exported").stdout
    assert sha256_of(here / earlier) == sha256_of(here / "exported" / Path(earlier).relative_to("results"))
    assert not log.exists()  # of another run
    plan = planned(snakemake(here, "--dry-run", "ablations", config=CONFIG).stdout)
    assert plan and "run" not in plan


def test_a_folder_in_which_a_workflow_runs_is_said_to_be_so(here: Path) -> None:
    shutil.rmtree(here / "results/data")
    (here / ".snakemake/locks").mkdir(exist_ok=True)
    (here / ".snakemake/locks/0.output.lock").write_text("results/data/planted/dataset.json\n")
    done = bench(here, "import", CONFIG, "exported")
    assert done.returncode == 2 and f"error: {here}: a workflow runs there, or was killed there" in done.stdout
    assert f"--directory {here} -- --unlock` if none runs, and import again" in done.stdout


@pytest.mark.parametrize("what", ["export", "import"])
def test_whenever_it_is_killed_the_same_command_ends_the_same(what: str, exported: Path, here: Path) -> None:
    if what == "export":
        shutil.rmtree(here / "exported")
        shutil.copytree(exported.parent / "results", here / "results", dirs_exist_ok=True)
    command = [sys.executable, "-m", "tests.support.killing_transfer", what, CONFIG, "6"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=here, env=environment, text=True, capture_output=True)
    assert done.returncode == 0 and int(done.stdout.split()[2]) >= 10, done.stdout + done.stderr


def test_a_damaged_run_is_named_and_not_taken(here: Path) -> None:
    rankings = here / "exported/runs/planted/item_knn/seed2/rankings.parquet"
    rankings.write_bytes(rankings.read_bytes()[:-1] + b"x")
    done = bench(here, "import", CONFIG, "exported")
    assert done.returncode == 2 and f"error: {rankings}: damaged or replaced" in done.stdout
    assert not (here / "results/runs/planted/item_knn/seed2").exists()


def test_an_export_says_what_it_leaves_out(here: Path) -> None:
    assert bench(here, "import", CONFIG, "exported").returncode == 0
    (here / "results/runs/planted/item_knn/seed2/run.json").write_text("{}")
    shutil.rmtree(here / "results/runs/planted/item_knn--decay=0.5/seed2")
    done = bench(here, "export", CONFIG, "again", "--dirty")
    assert done.returncode == 0 and done.stdout.splitlines() == [
        "left out: not run so far (1 run: item_knn--decay=0.5 on planted, seed 2)",
        "left out: results/runs/planted/item_knn/seed2/run.json has changed (1 run: item_knn on planted, seed 2)",
        "again: 2 runs of 4 exported",
    ]
    for seed in (1, 2):
        for run in ("item_knn", "item_knn--decay=0.5"):
            shutil.rmtree(here / f"results/runs/planted/{run}/seed{seed}", ignore_errors=True)
    done = bench(here, "export", CONFIG, "none", "--dirty")
    assert done.returncode == 2 and done.stdout.splitlines()[0].startswith("left out: not run so far (4 runs: ")
    assert done.stdout.splitlines()[1].startswith(f"error: no run of {CONFIG} has finished in /")


def test_runs_of_code_in_no_commit_are_not_exported_without_a_word(here: Path) -> None:
    assert bench(here, "import", CONFIG, "exported").returncode == 0
    commit = json.loads((here / "results/runs/planted/item_knn/seed1/run.json").read_text())["commit"]
    done = bench(here, "export", CONFIG, "again")
    if commit == "unknown" or commit.endswith("-dirty"):  # a copy of the project is no repository
        assert done.returncode == 2 and f"commit is {commit!r}, so that nobody can have its code" in done.stdout
    else:
        assert done.returncode == 0


def test_an_export_that_would_lose_a_run_is_refused(here: Path) -> None:
    assert bench(here, "import", CONFIG, "exported").returncode == 0
    done = bench(here, "export", CONFIG, "results", "--dirty")
    assert done.returncode == 2 and "results: is where the runs themselves lie; give a folder of its own" in done.stdout
    (here / "linked").mkdir()
    (here / "linked/runs").symlink_to("../results/runs")
    done = bench(here, "export", CONFIG, "linked", "--dirty")
    place = here / "linked/runs/planted/item_knn/seed1"
    assert done.returncode == 2 and f"{place}: is where the run itself lies" in done.stdout
    # Another machine's run of the same seed: what others took from the one that is there would no longer follow.
    path = here / "exported/runs/planted/item_knn/seed1/run.json"
    write_json(path, seal(read_json(path) | {"finished_at": "2026-01-01T00:00:00Z"}))
    done = bench(here, "export", CONFIG, "exported", "--dirty")
    assert done.returncode == 2 and f"{path}: another machine's run of this seed, or an earlier one" in done.stdout


def test_a_run_in_the_place_of_another_one_is_refused(here: Path) -> None:
    runs = here / "exported/runs/planted/item_knn"
    shutil.rmtree(runs / "seed2")
    shutil.copytree(runs / "seed1", runs / "seed2")
    done = bench(here, "import", CONFIG, "exported")
    assert (
        done.returncode == 2 and "is of item_knn on planted, seed 1, not of item_knn on planted, seed 2" in done.stdout
    )
