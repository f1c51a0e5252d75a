"""A clone of what is committed, as a stranger gets it: every job is planned, and a run changes nothing for git."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmark.config.factors import ablations_of
from benchmark.config.read import read_config_file
from benchmark.jobs.plan import Plan
from benchmark.jobs.records import read_run
from benchmark.provenance import ROOT
from tests.support.planted import planted, write_files

SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2"]


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, as they are now, in a repository of their own."""
    folder = tmp_path_factory.mktemp("clone")
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    for name in run("git", "ls-files", cwd=ROOT).splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run("git", "init", "-q", cwd=folder)
    commit(folder, ".")
    return folder


def commit(folder: Path, names: str) -> None:
    run("git", "add", names, cwd=folder)
    run("git", "-c", "user.name=n", "-c", "user.email=e@e", "commit", "-qm", "all", cwd=folder)


def write_own(folder: Path, clone: Path, methods: list[str]) -> None:
    """A small dataset of one's own in a folder of the clone, and config.yaml beside it."""
    write_files(clone / folder, planted(n_users=40, length=8))
    entry = {"source": "files", "category": "thing", "min_user_count": 1, "min_item_count": 1}
    datasets = {folder.name: entry | {"options": {"folder": str(folder)}}}
    value = {"seeds": 1, "datasets": datasets, "methods": dict.fromkeys(methods)}
    (clone / folder / "config.yaml").write_text(yaml.safe_dump(value))


def status(folder: Path) -> str:
    return run("git", "status", "--porcelain", cwd=folder)


@pytest.mark.parametrize("name", ["config", "decoupled", "ablations"])
def test_a_fresh_clone_plans_every_job(clone: Path, name: str) -> None:
    config = read_config_file(clone / f"config/{name}.yaml")
    plan = Plan(config, ablations_of(config), {dataset: [] for dataset in config.datasets})
    factors = list(plan.ablations.factors)
    runs = {*plan.runs, *plan.runs_of(*factors)}
    several = len(config.datasets) > 1 and len(config.methods) > 1
    # Of each dataset statistics, table, plots; of all statistics; tables, page; against with its statistics.
    outputs = 3 * len(config.datasets) + several + 2 + 2 * (config.reference is not None)
    # Statistics, table and plot of a factor; statistics and text of claims.
    outputs += 3 * len(factors) + 2 * bool(factors)
    # Fetch and prepare; the backbone; all. `decoupled` has a sentence encoder and rows that think without text.
    jobs = 2 * len(config.datasets) + 1 + len(runs) + outputs + 1 + 2 * (name == "decoupled")
    output = run(*SNAKEMAKE, "--dry-run", "--quiet", "rules", "--configfile", f"config/{name}.yaml", cwd=clone)
    totals = [line.split() for line in output.splitlines() if line.startswith("total ")]
    assert totals and {int(words[1]) for words in totals if len(words) == 2} == {jobs}
    assert status(clone) == ""


def test_a_run_of_ones_own_leaves_git_clean(clone: Path) -> None:
    write_own(Path("results/mine"), clone, ["popularity", "item_knn"])
    run(*SNAKEMAKE, "--configfile", str(clone / "results/mine/config.yaml"), cwd=clone)
    assert (clone / "results/tables/main.md").exists() and (clone / "results/report/index.html").exists()
    assert status(clone) == ""
    # The whole tree of tables lies apart from what is published; cleaning up leaves both that and what is one's own.
    run("make", "clean-results", cwd=clone)
    left = sorted(path.name for path in (clone / "results").iterdir())
    assert left == ["README.md", "mine", "published"] and status(clone) == ""


def test_data_in_the_commit_of_a_copied_checkout_do_not_make_it_dirty(clone: Path) -> None:
    """git compares a copied file by content, which a sealed run can't read of the source's files."""
    write_own(Path("own"), clone, ["popularity"])
    commit(clone, "own")
    for file in (clone / "own").iterdir():  # as cp -r does
        os.utime(file, (1_000_000_000, 1_000_000_000))
    folder = "results/runs/own/popularity/seed1"
    run(*SNAKEMAKE, f"{folder}/rankings.parquet", "--configfile", "own/config.yaml", cwd=clone)
    assert read_run(clone / folder / "run.json").commit == run("git", "rev-parse", "HEAD", cwd=clone).strip()


def test_everything_that_a_run_may_write_is_ignored() -> None:
    files = ["tables/main.md", "plots/x.png", "report/index.html", "ablations/x.md", "quick/results/tables/main.md"]
    files += ["decoupled/results/report/index.html", "made_from/page.json", "speed/speed.md", "published.md"]
    ignored = run("git", "check-ignore", *(f"results/{file}" for file in files), cwd=ROOT).splitlines()
    assert len(ignored) == len(files)
    published = subprocess.run(["git", "check-ignore", "-q", "results/published/default/tables/main.md"], cwd=ROOT)
    assert published.returncode == 1
    assert os.path.exists(ROOT / "results/published/default/tables/main.md")
