"""`python -m baselines._recbole.speed`: targets per second of SASRec and GRU4Rec, in our training and in RecBole's.

Both trainings use RecBole's network with full cross-entropy on the same training cases, at their own batch sizes, on
one thread. Each runs in a process of its own, for its peak memory. RecBole gets a random `--cases` of the cases, since
its seconds grow with their number.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmark.contract import Split
from benchmark.data.store import read_split
from benchmark.errors import InputError, command, command_line
from benchmark.output.markdown import table
from benchmark.provenance import peak_memory_mib
from benchmark.storage.io import write_text

MODELS = {"SASRec": "sasrec", "GRU4Rec": "gru4rec"}
SIZES = {"SASRec": {"inner_size": 256, "hidden_act": "gelu"}, "GRU4Rec": {}}  # RecBole's own


def measure(split: Split, model: str, own: bool, cases: int, epochs: int) -> dict[str, float]:
    """Targets per second of `epochs` epochs, validation left out, and the peak memory of this process in MiB."""
    few = replace(split, valid=split.valid.take(np.arange(1)))
    if own:
        import baselines._recbole.training as training
        from baselines._recbole.learners import EveryPosition
        from benchmark.config.methods import load_method

        settings = load_method(MODELS[model]).Params(epochs=epochs, patience=epochs, **SIZES[model])
        learner = EveryPosition.of(few, settings)
        training.train(model, few, 1, settings.model_dump() | {"epochs": 1}, learner)  # imports and warms up
        began = time.monotonic()
        training.train(model, few, 1, settings.model_dump(), learner)
        seconds, targets = time.monotonic() - began, epochs * len(few.train)
    else:
        from recbole.trainer import Trainer

        from baselines import stock_recbole

        rows = np.sort(np.random.default_rng(0).permutation(len(split.train))[:cases])
        few, epoch_seconds = replace(few, train=split.train.take(rows)), list[float]()
        epoch = Trainer._train_epoch

        def timed(*arguments: object, **named: object) -> object:
            began = time.monotonic()
            result = epoch(*arguments, **named)
            epoch_seconds.append(time.monotonic() - began)
            return result

        Trainer._train_epoch = timed
        try:
            params = {"model": model, "epochs": 1 + epochs, "stopping_step": epochs}
            stock_recbole.fit(few, seed=1, params=params, workdir=Path("build/speed").absolute())
        finally:
            Trainer._train_epoch = epoch
        seconds, targets = sum(epoch_seconds[1:]), epochs * len(few.train)
    return {"targets_per_second": targets / seconds, "peak_mib": peak_memory_mib()}


@command
def main() -> None:
    parser = command_line("baselines._recbole.speed", __doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("results/data/ml-100k"), help="a prepared dataset (default: ml-100k's)"
    )
    parser.add_argument("--cases", type=int, default=20_000, help="training cases that RecBole gets (default: 20000)")
    parser.add_argument("--epochs", type=int, default=2, help="epochs measured, after one that isn't (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="folder for baselines.md and .json")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not (args.data / "dataset.json").exists():
        raise InputError(f"{args.data}: no prepared dataset; run `make reproduce`, or prepare it alone")
    if args.only:
        model, whose = args.only
        print(json.dumps(measure(read_split(args.data), model, whose == "ours", args.cases, args.epochs)))
        return
    lines = []
    measured: dict[str, dict[str, dict[str, float]]] = {}
    for model in MODELS:
        for whose in ("ours", "RecBole's"):
            process = subprocess.run(
                [sys.executable, "-m", "baselines._recbole.speed", *sys.argv[1:], "--only", model, whose],
                check=True,
                capture_output=True,
                text=True,
            )
            measurement = json.loads(process.stdout.splitlines()[-1])
            measured.setdefault(model, {})[whose] = measurement
            lines.append([model, whose, f"{measurement['targets_per_second']:,.0f}", f"{measurement['peak_mib']:,}"])
        ours, theirs = measured[model]["ours"], measured[model]["RecBole's"]
        ratio, memory = (ours[key] / theirs[key] for key in ("targets_per_second", "peak_mib"))
        lines.append([model, "ratio", f"{ratio:.1f}", f"{memory:.2f}"])
    text = table(["network", "training", "targets/s", "peak memory, MiB"], lines, left=2) + "\n"
    write_text(args.out / "baselines.md", text)
    write_text(args.out / "baselines.json", json.dumps(measured, indent=2) + "\n")
    print(f"{text}\n{args.out / 'baselines.md'}")


if __name__ == "__main__":
    main()
