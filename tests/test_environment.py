"""pip, conda and Docker users get the same packages, all of them locked, and RecBole runs without ray."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmark.config.methods import ROOT

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
