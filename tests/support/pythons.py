"""Whether RecBole's four models rank alike on each Python: what `make test-pythons` runs after the tests.

`python -m tests.support.pythons fit FOLDER` fits them on the planted log and on a sliver of ml-100k, on the processor,
and keeps what `benchmark.jobs.run` writes; `python -m tests.support.pythons compare FOLDER FOLDER ...` says whether the
folders hold the same data, rankings (all columns of all cases: rank, candidates, 20 best) and validation curves, and
exits 1 where they don't.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from benchmark.config.methods import ROOT
from benchmark.data.settings import DatasetConfig
from benchmark.jobs.records import read_run
from tests.support.planted import planted, write_prepared

MODELS = ("gru4rec", "caser", "sasrec", "bert4rec")
PARAMS = {"epochs": 3, "train_batch_size": 128}
SLIVER = {
    "source": "ml_100k",
    "category": "movie",
    "start": "1998-03-01",
    "train_cases": 1500,
    "valid_cases": 300,
    "test_cases": 500,
}


def fit(folder: Path) -> None:
    """Prepare both datasets in `folder` and fit each model there, with this Python."""
    folder.mkdir(parents=True, exist_ok=True)
    write_prepared(folder / "data" / "planted", planted())
    settings = DatasetConfig.model_validate(SLIVER).model_dump_json()
    manifest, prepared = str(folder / "fetched.json"), str(folder / "data" / "ml-100k")
    module("benchmark.data.fetch", "--settings", settings, "--resources", str(folder / "resources"), "--out", manifest)
    module(
        "benchmark.data.prepare",
        "--dataset",
        "ml-100k",
        "--settings",
        settings,
        "--manifest",
        manifest,
        "--out",
        prepared,
    )
    for dataset in ("planted", "ml-100k"):
        for model in MODELS:
            out = folder / "runs" / dataset / model
            options = {"--data": folder / "data" / dataset, "--method": model, "--params": json.dumps(PARAMS)}
            options |= {"--work": folder / "work" / dataset / model, "--out": out}
            module("benchmark.jobs.run", *(str(word) for option in options.items() for word in option))


def module(name: str, *arguments: str) -> None:
    """Run one of our modules without a GPU; its error stays on stderr."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    if subprocess.run([sys.executable, "-m", name, *arguments], env=environment, check=False).returncode:
        sys.exit(f"error: {name} failed (above)")


def compare(folders: list[Path]) -> None:
    """Print a line per dataset and model, and leave with 1 where two Pythons differ, or where there is one alone."""
    if len(folders) < 2:
        sys.exit("error: one Python alone, so that nothing is compared; install another of 3.11, 3.12 and 3.13")
    differ = 0
    for dataset in ("planted", "ml-100k"):
        for model in MODELS:
            runs = [folder / "runs" / dataset / model for folder in folders]
            records = [read_run(run / "run.json") for run in runs]
            rankings = [pd.read_parquet(run / "rankings.parquet") for run in runs]
            same = all(
                ranking.equals(rankings[0])
                and (record.data_hash, record.report) == (records[0].data_hash, records[0].report)
                for ranking, record in zip(rankings, records, strict=True)
            )
            differ += not same
            pythons = ", ".join(f"{record.versions['python']} (torch {record.versions['torch']})" for record in records)
            verdict = "identical" if same else "DIFFERS"
            print(f"{dataset:8}{model:9}{verdict}, {len(rankings[0])} test cases, Python {pythons}")
    if differ:
        sys.exit(f"error: {differ} of {2 * len(MODELS)} fits differ between these Pythons")


if __name__ == "__main__":
    verb, *names = sys.argv[1:]
    if verb == "fit":
        fit(Path(names[0]))
    else:
        compare([Path(name) for name in names])
