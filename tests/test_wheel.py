"""What a wheel of the project holds, and that the workflow runs from one."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from packaging.requirements import Requirement

from benchmark.provenance import OWN, ROOT

PROJECT = "benchmark/_project"


@cache
def wheel() -> zipfile.ZipFile:
    """The wheel, built offline with what the environment has."""
    folder = Path(mkdtemp(prefix="wheel-"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run = subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (built,) = folder.glob("r2ec_bench-*.whl")
    return zipfile.ZipFile(built)


def shown(*folders: str) -> set[str]:
    """The files of the checkout below these folders, without those that running leaves there."""
    files = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}


def test_a_wheel_holds_the_packages_their_templates_and_the_workflow() -> None:
    names = {name for name in wheel().namelist() if ".dist-info/" not in name}
    ours = shown(*OWN) | {f"{PROJECT}/{name}" for name in shown("workflow", "config") | {"environment.yml"}}
    assert names == ours
    assert {
        "r2ec/catalogue/speed.py",
        "benchmark/output/page/assets/page.html.jinja",
        "benchmark/output/page/vendor/plot.umd.min.js",
        f"{PROJECT}/workflow/Snakefile",
    } <= names


def test_a_wheels_metadata_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (folder,) = {name.partition("/")[0] for name in wheel().namelist() if ".dist-info/" in name}
    metadata = Parser().parsestr(wheel().read(f"{folder}/METADATA").decode())
    plain = {str(Requirement(line)) for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert plain == {str(Requirement(line)) for line in project["dependencies"]}
    assert set(metadata.get_all("Provides-Extra", [])) == {"gpu", "dev"}
    assert set(metadata["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    assert "r2ec-bench = benchmark.cli:main" in wheel().read(f"{folder}/entry_points.txt").decode()


def test_an_installed_wheel_plans_the_default_run_in_any_folder(tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    wheel().extractall(site)
    elsewhere.mkdir()
    environment = os.environ | {"PYTHONPATH": str(site)}  # before the checkout, which an editable installation names
    where = "from benchmark.shipped import shipped; print(shipped('workflow/Snakefile'), shipped('config/config.yaml'))"
    done = subprocess.run(
        [sys.executable, "-c", where], cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
    )
    snakefile, config = done.stdout.split()
    assert (snakefile, config) == (
        str(site / PROJECT / "workflow/Snakefile"),
        str(site / PROJECT / "config/config.yaml"),
    )
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--configfile", config, "--cores", "1"]
    run = subprocess.run(
        [*command, "--dry-run"], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    planned = re.search(r"^total +(\d+)", run.stdout + run.stderr, re.MULTILINE)
    assert planned and int(planned[1]) > 50
    assert str(ROOT) + os.sep not in run.stdout + run.stderr  # all of its files are the wheel's
