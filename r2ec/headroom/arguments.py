"""The arguments that the commands of the headroom share: whose model, which data, where to write."""

import argparse
from pathlib import Path

from benchmark.data.store import read_about
from benchmark.errors import InputError, command_line
from benchmark.jobs.records import read_run
from benchmark.output.page.headroom import MeasuredRun
from benchmark.storage.io import sha256_of
from r2ec.recommend import model_of


def arguments(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The parser of a command with --run or --model, --data and --out."""
    parser = command_line(name, doc)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", type=Path, help="a finished run, such as results/runs/ml-100k/r2ec/seed1")
    model.add_argument("--model", type=Path, help="a model folder, as a fit writes it")
    parser.add_argument("--data", type=Path, required=True, help="its dataset, such as results/data/ml-100k")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, such as results/headroom/ml-100k")
    return parser


def chosen(args: argparse.Namespace) -> tuple[Path, str]:
    """The model's folder and the hash of the data. Raises InputError where there is no model."""
    split_hash = read_about(args.data, "split_hash")["split_hash"]
    folder: Path = args.model or model_of(args.run, split_hash)
    if not (folder / "settings.json").is_file():
        raise InputError(f"{folder}: holds no model; fit again, or give the folder by --model if it was moved")
    return folder, split_hash


def measured_run(args: argparse.Namespace) -> MeasuredRun | None:
    """The run of --run, by which a page tells whether it shows it; None with --model."""
    if args.run is None:
        return None
    record = read_run(args.run / "run.json")
    return MeasuredRun(
        dataset=record.dataset,
        method=record.method,
        seed=record.seed,
        commit=record.commit,
        sha256=sha256_of(args.run / "run.json"),
    )
