"""A copy of the project with the planted dataset, in which a test runs Snakemake and changes what it likes."""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmark.provenance import CODE, ROOT
from tests.support.planted import planted, write_files

SNAKEMAKE = [sys.executable, "-m", "snakemake"]
TEST_CASES = 16  # of each dataset of the smoke config


def copy_of_project(folder: Path) -> Path:
    """A copy of the code, which a test may change, with the planted dataset beside it."""
    for part in CODE:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("environment.yml", "requirements.txt"):
        shutil.copy(ROOT / file, folder / file)
    write_files(folder / "planted", planted())
    shrink(folder / "config" / "smoke.yaml")
    return folder


def shrink(config: Path) -> None:
    """Fewer cases and items in the copy's smoke config: its LM encodes every item and reads every case, and no test
    here is about how many there are."""
    value = yaml.safe_load(config.read_text())
    for dataset in value["datasets"].values():
        dataset["test_cases"] = TEST_CASES
    value["datasets"]["ml-100k"]["min_item_count"] = 60
    start = value["methods"]["r2ec"]["params"]["warm_start"]
    start |= {"cases": 16, "valid_cases": 8}
    start["adapters"] |= {"steps": 1}
    config.write_text(yaml.safe_dump(value, sort_keys=False))


def snakemake(project: Path, *arguments: str, config: str = "config/smoke.yaml") -> subprocess.CompletedProcess[str]:
    """Run Snakemake on two cores and return what it printed, both streams together."""
    command = [*SNAKEMAKE, *arguments, "--cores", "2", "--configfile", config]
    return subprocess.run(
        command, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1500
    )


def planned(output: str) -> dict[str, int]:
    """Jobs by rule, from a dry run's statistics."""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", output, flags=re.M) if rule != "total"}


def changed_config(project: Path, name: str, **methods: Any) -> str:
    """The smoke config with these methods besides its own, or instead of them where `only` is among them."""
    value = yaml.safe_load((project / "config" / "smoke.yaml").read_text())
    if methods.pop("only", False):
        value["methods"] = {}
        del value["reference"]
        value["datasets"] = {"planted": value["datasets"]["planted"]}
    value["methods"] |= methods
    (project / "config" / name).write_text(yaml.safe_dump(value))
    return f"config/{name}"


@contextlib.contextmanager
def edited(file: Path, addition: str) -> Iterator[None]:
    """A file with something appended, within the block; after it the file is as before."""
    before = file.read_text()
    file.write_text(before + addition)
    try:
        yield
    finally:
        file.write_text(before)


SEEING = '''
"""Popularity that says which GPUs it has seen. With one, it goes on when TOGETHER repetitions have theirs."""
import os
import time
import numpy as np
from benchmark.contract import Recommender

def fit(split, *, seed, params, workdir):
    (workdir / "here").touch()
    wanted = int(os.environ.get("TOGETHER", "1")) if os.environ["CUDA_VISIBLE_DEVICES"] else 1
    while len(list(workdir.parents[1].glob("seed*/*/here"))) < wanted:
        time.sleep(0.05)
    return Made(np.bincount(split.train.target, minlength=split.n_items).astype(np.float32))

class Made(Recommender):
    def __init__(self, scores):
        self.scores = scores

    def score(self, cases):
        yield np.tile(self.scores, (len(cases), 1))

    def report(self):
        return {"gpus": os.environ["CUDA_VISIBLE_DEVICES"]}
'''


def with_ablations(project: Path, name: str, **factors: Any) -> str:
    """item_knn alone, tuned, with these factors, on the planted data."""
    rows = {"item_knn": {"grid": [{"decay": 0.9}, {"decay": 0.6}], "seeds": 1}}
    path = project / changed_config(project, name, only=True, **rows)
    value = yaml.safe_load(path.read_text()) | {"ablations": factors}
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return f"config/{name}"


def runs_started(output: str) -> list[str]:
    """The runs that Snakemake started."""
    lines = re.findall(r"^\[.* done.*\] (\S+) on planted, seed (\d+)$", output, flags=re.M)
    return sorted(f"{run}/seed{seed}" for run, seed in lines)


def yaml_entry(method: str) -> Any:
    """A method's entry in the smoke config."""
    return yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())["methods"][method]
