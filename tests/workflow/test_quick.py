"""`make quick`: what it runs, that it says how small it is, and that a clone stays clean. The real run is marked
slow."""

import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from benchmark.config.factors import ablations_of
from benchmark.config.methods import ROOT
from benchmark.config.read import read_config_file
from benchmark.config.schema import Config
from benchmark.jobs.outputs import Outputs
from benchmark.jobs.plan import Plan
from tests.support.page import document_of
from tests.support.project import copy_of_project, planned, snakemake
from tests.support.terminal import without_make

CONFIG = "config/quick.yaml"
ROWS = ["popularity", "item_knn", "sasrec", "r2ec_no_reasoning", "r2ec"]
MINUTES = 4  # on two cores, after installation

pytestmark = pytest.mark.skipif(not (shutil.which("git") and shutil.which("make")), reason="git or make is missing")


@pytest.fixture(scope="module")
def config() -> Config:
    return read_config_file(ROOT / CONFIG)


def git(folder: Path, *arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, text=True, capture_output=True, input=stdin)
    assert done.returncode in (0, 1) and not done.stderr, done.stderr  # 1: check-ignore found nothing
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the code, the Makefile and what git ignores, as a user has after cloning and `make quick`'s
    first lines."""
    project = copy_of_project(tmp_path_factory.mktemp("clone"))
    for file in (".gitignore", "Makefile", "README.md"):
        shutil.copy(ROOT / file, project / file)
    git(project, "init", "--quiet")
    git(project, "add", ".")
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    git(project, *who, "commit", "--quiet", "-m", "as cloned")
    *folder, _ = recipe(project)  # all but Snakemake
    for line in folder:
        subprocess.run(line, shell=True, cwd=project, check=True)
    return project


def recipe(project: Path) -> list[str]:
    """The commands of `make quick` behind the installation."""
    command = ["make", "-n", "--no-print-directory", "-o", ".venv/.ready", "quick"]
    done = subprocess.run(command, cwd=project, text=True, capture_output=True, env=without_make())
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_has_the_five_rows_on_real_data_with_the_real_lm(config: Config) -> None:
    assert list(config.methods) == ROWS and config.reference == "r2ec" and config.seeds == 1
    assert [entry.source for entry in config.datasets.values()] == ["ml_100k"]
    silent, written = (config.method(name).params for name in ROWS[3:])
    assert written["backbone"] == {"name": "resources/smollm2-135m-instruct"}
    assert written["training"]["max_steps"] > 0 and written["warm_start"]["cases"] > 0
    # The two differ in the reasoning alone.
    assert silent == written | {"recpo": written["recpo"] | {"reasoning": False}}


def test_it_says_how_small_it_is(config: Config) -> None:
    (entry,) = config.datasets.values()
    assert config.note.startswith("Small run") and "not a result" in config.note
    assert f"{entry.test_cases} test cases" in config.note and "one seed" in config.note


def test_help_begins_with_it_and_the_target_runs_it() -> None:
    text = (ROOT / "Makefile").read_text()
    assert text.partition("\nhelp:\n")[2].startswith('\t@echo "make quick ')
    assert recipe(ROOT)[-1].endswith(f"snakemake --cores all --configfile {CONFIG} --directory results/quick")


def test_a_clone_plans_every_job_and_stays_clean(clone: Path, config: Config) -> None:
    done = snakemake(clone, "--directory", "results/quick", "--dry-run", config=CONFIG)
    assert done.returncode == 0, done.stdout[-4000:]
    jobs = {"fetch": 1, "fetch_backbone": 1, "prepare": 1, "run": 5}
    jobs |= {
        "statistics": 1,
        "against_statistics": 1,
        "table": 1,
        "tables": 1,
        "plots": 1,
        "against": 1,
        "page": 1,
        "all": 1,
    }
    assert planned(done.stdout) == jobs
    assert git(clone, "status", "--porcelain") == ""


def test_git_ignores_all_that_it_would_write(clone: Path, config: Config) -> None:
    plan = Plan(config, ablations_of(config), {name: [] for name in config.datasets})
    outputs = Outputs(plan)
    jobs = [outputs.tables(), outputs.against(), outputs.page(), *(plan.run(*run) for run in plan.runs)]
    jobs += [outputs.against_statistics(), outputs.overall_statistics()]
    for name in config.datasets:
        jobs += [plan.fetch(name), plan.prepare(name)]
        jobs += [outputs.statistics(name), outputs.table(name), outputs.plots(name)]
    written = [f"results/quick/{file}" for job in jobs for file in job.outputs]
    others = ["logs/plots.log", "usage/runs/x.tsv", "work/x/model", "states", "texts", "made_from/tables.json"]
    written += [f"results/quick/results/{file}" for file in others]
    written += [
        "results/quick/.snakemake/log/x",
        "results/quick/resources",
        "results/states/x.safetensors",
        "resources/smollm2-135m-instruct/manifest.json",
    ]
    ignored = git(clone, "check-ignore", "--stdin", stdin="\n".join(written)).splitlines()
    assert len(written) > 40 and ignored == written
    # What is committed is not: the test could tell.
    assert git(clone, "check-ignore", "results/published/default/tables/main.md", "config/quick.yaml") == ""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_runs_to_a_table_in_minutes(clone: Path, config: Config) -> None:
    began = time.monotonic()
    done = snakemake(clone, "--directory", "results/quick", config=CONFIG)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout[-4000:]
    results = clone / "results/quick/results"
    assert (results / "tables/main.txt").read_text().startswith(config.note[:60])
    table = pd.read_csv(results / "tables/main.csv").set_index("method")
    assert list(table.index) == ROWS and (table["NDCG@10_low"] < table["NDCG@10_high"]).all()
    assert (table["n_cases"] == config.datasets["ml-100k"].test_cases).all()
    assert table["NDCG@10"]["sasrec"] > table["NDCG@10"]["popularity"]
    page = (results / "report/index.html").read_text()
    assert config.note in page and any(
        entry["wrote"] for entry in document_of(results / "report/index.html")["held"][0]["texts"]
    )
    assert (results / "plots/ml-100k.metrics.png").stat().st_size > 1000
    assert git(clone, "status", "--porcelain") == ""
    assert took <= 60 * MINUTES, f"{took:.0f} s"
