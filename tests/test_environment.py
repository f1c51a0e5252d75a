"""pip, conda and Docker users get the same packages, all of them locked, and RecBole runs without ray."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmark.config.methods import ROOT
from tests.support.terminal import without_make

LOCKS = ("requirements.txt", "install/torch-cpu.txt", "install/torch-cuda.txt", "install/gpu.txt")
RAY = {"ray", "msgpack", "aiosignal", "frozenlist"}  # it, and what it alone needs


def locked(file: str) -> dict[str, Requirement]:
    """The pins of a lock by name, each with a hash."""
    entries = re.split(r"\n(?=\S)", (ROOT / file).read_text().strip())
    pins = [entry.split(" \\\n") for entry in entries if not entry.startswith("#")]
    for pin, *hashes in pins:
        assert hashes and all(
            re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", requirement.rstrip(" \\")) for requirement in hashes
        ), pin
    requirements = [Requirement(pin) for pin, *_ in pins]
    assert requirements and all(str(requirement.specifier).startswith("==") for requirement in requirements)
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_the_lock_holds_what_the_project_names_and_names_no_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = locked("requirements.txt")
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert lock[requirement.name].specifier == requirement.specifier, text
    for text in project["optional-dependencies"]["gpu"]:
        assert locked("install/gpu.txt")[Requirement(text).name].specifier == Requirement(text).specifier
    assert str(locked("install/torch-cpu.txt")["torch"].specifier) == f"{lock['torch'].specifier}+cpu"
    assert not any("://" in (ROOT / file).read_text() for file in LOCKS)
    assert "ray" not in lock


def test_every_package_finds_what_it_needs_in_the_lock() -> None:
    """Needs are those of each package's metadata on this Python, without ray.

    The environment has the lock's versions.
    """
    lock = locked("requirements.txt")
    others = locked("install/torch-cuda.txt")
    for name, pin in lock.items():
        if pin.marker and not pin.marker.evaluate():
            continue
        assert pin.specifier.contains(importlib.metadata.version(name).split("+")[0]), f"{name}: make setup"
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            needed_name = canonicalize_name(needed.name)
            assert needed_name in lock or needed_name in others or (name, needed_name) == ("recbole", "ray"), (
                f"{name} needs {text}"
            )


def test_environment_yml_has_the_pins_of_the_lock_and_names_no_other_file() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert (python, pip) == ("python=3.11", "pip")
    # Snakemake gives conda a copy of this file: a "-r requirements.txt" would be looked for beside the copy.
    pins = [str(Requirement(line)) for line in packages["pip"]]
    ours = [str(pin) for pin in locked("requirements.txt").values()]
    assert pins[: len(ours)] == ours
    # conda's pip follows RecBole's metadata, so that ray comes along.
    assert {Requirement(pin).name for pin in pins[len(ours) :]} == RAY


def test_recboles_models_are_imported_without_ray() -> None:
    """Also in an environment where ray is installed, as conda's."""
    models = "'GRU4Rec', 'Caser', 'SASRec', 'BERT4Rec'"
    program = (
        "import sys; sys.modules['ray'] = None; import baselines._recbole.training as training; "
        f"[training.get_model(name) for name in ({models})]; print('recbole.quick_start' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "False"), run.stderr


def test_vllm_is_added_to_the_lock_but_for_setuptools_and_in_one_version_everywhere() -> None:
    """What the packages ask for, no test can ask: here is that one target installs it, and all speak of that."""
    recipe = (ROOT / "Makefile").read_text().partition("\nVLLM := ")[2].partition("\n\n")[0]
    version = Requirement(recipe.splitlines()[0])
    (taken,) = [
        requirement
        for requirement in map(Requirement, importlib.metadata.requires("trl") or [])
        if requirement.name == "vllm" and requirement.marker and requirement.marker.evaluate({"extra": "vllm"})
    ]
    (pinned,) = version.specifier
    assert pinned.operator == "==" and pinned.version in taken.specifier
    (command,) = [line for line in recipe.splitlines() if line.startswith("\tgrep ")]
    shell = command.strip().replace("$$", "$").partition(" > ")[0]
    lines = subprocess.run(shell, shell=True, cwd=ROOT, text=True, capture_output=True, check=True).stdout.splitlines()
    constraints = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    lock = locked("requirements.txt")
    assert constraints == {name: pin for name, pin in lock.items() if name != "setuptools"}
    assert f"vLLM {pinned.version}" in (ROOT / "docs/install.md").read_text()
    for file in ("docs/install.md", "docs/scale-out.md", "config/paper.yaml", "workflow/profiles/kubernetes/job.yaml"):
        text = (ROOT / file).read_text()
        assert "make vllm PYTHON=python3.13" in text and "trl[vllm]" not in text, file


@pytest.mark.skipif(not shutil.which("make"), reason="make is missing")
def test_an_environment_behind_a_link_is_not_emptied(tmp_path: Path) -> None:
    """`venv --clear` empties what a link leads to, and only then refuses the link."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "kept").touch()
    (tmp_path / ".venv").symlink_to("shared")
    for file in ("Makefile", *LOCKS):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    command = ["make", "setup", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=without_make(), check=False)
    assert (tmp_path / "shared" / "kept").exists()
    assert done.returncode == 2
    assert "error: .venv is a link to shared, whose packages would all be removed" in done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="make is missing")
@pytest.mark.parametrize(
    ("target", "program"), [("peers", "r2ec.speed.engines"), ("latency", "benchmark.speed.latency")]
)
def test_a_waiting_thread_spins_where_a_target_has_the_machine_to_itself(target: str, program: str) -> None:
    """A thread that sleeps while it waits doubles one user's time with AMX. Who sets the variable is obeyed."""
    command = ["make", "-n", "--no-print-directory", "-o", ".venv/.ready", target]
    environment = {name: value for name, value in without_make().items() if name != "OMP_WAIT_POLICY"}

    def shown(variables: dict[str, str]) -> str:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, env=environment | variables, check=True
        )
        return next(line for line in done.stdout.splitlines() if program in line)

    assert shown({}).startswith(f"env -u OMP_WAIT_POLICY .venv/bin/python -m {program}")
    assert shown({"OMP_WAIT_POLICY": "PASSIVE"}).startswith(f".venv/bin/python -m {program}")


@pytest.mark.skipif(not shutil.which("make"), reason="make is missing")
@pytest.mark.parametrize("link", ["resources", "results/states", "results/quick"])
def test_a_link_that_leads_nowhere_is_said_before_a_folder_is_made_for_a_run(tmp_path: Path, link: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / link).symlink_to("nowhere")
    command = ["make", "--no-print-directory", "-o", ".venv/.ready", "quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=without_make(), check=False)
    said = f"error: {link} is a link to nowhere, which isn't there; make that folder, or remove the link"
    assert done.returncode == 2 and said in done.stdout + done.stderr
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted({link.partition("/")[2]} - {""})
