"""`python -m r2ec.speed`: each part of R2ec against the plain way to do the same work, in turns, on this machine.

rollouts     G completions per user against `generate(num_return_sequences=G)`
update       loss and gradients against prompts repeated per rollout with logits of every position
items        the item table against whole prompts in catalogue order
again        the same once more, with adapters in the upper half of the layers, against all layers
step         a whole RecPO step against a subclass of trl's GRPOTrainer
evaluation   one user alone and 64 together, SASRec beside it
growth       time and memory against G, prompt length, catalogue size

With nothing else running: a second job on the same cores changes every figure.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmark import provenance
from benchmark.config.methods import BACKBONE
from benchmark.contract import Split
from benchmark.data.store import read_split
from benchmark.errors import InputError, command
from r2ec.speed import evaluation, growth, limits, parts, report
from r2ec.speed.work import Pair, Size, Work

PARTS = ("rollouts", "update", "items", "again", "step", "evaluation", "growth")


def measure(split: Split, backbone: str, size: Size, part_names: list[str], folder: Path) -> Iterator[report.Measured]:
    """Run the wanted parts, one after the other; yields all that has been measured so far after each."""
    work = Work(split, backbone, size)
    measured = report.Measured(
        commit=provenance.commit(),
        hardware=provenance.hardware(),
        dataset=split.name,
        size=size,
        limits=limits.measure(),
        pairs=[],
        latency=[],
        growth=[],
    )

    def with_pair(pair: Pair) -> report.Measured:
        return measured.model_copy(update={"pairs": [*measured.pairs, pair]})

    compared = {
        "rollouts": parts.rollouts,
        "update": parts.update,
        "items": parts.item_table,
        "again": parts.items_again,
    }
    for name, compare in compared.items():
        if name in part_names:
            measured = with_pair(compare(work, measured.limits, parts.check_work(split, backbone)))
            yield measured
    if "step" in part_names:
        from r2ec.speed import peer

        measured = with_pair(peer.step(work, Work(split, backbone, size), folder))
        yield measured
    if "evaluation" in part_names:
        measured = measured.model_copy(update={"latency": evaluation.measure(Work(split, backbone, size), folder)})
        yield measured
    if "growth" in part_names:
        measured = measured.model_copy(update={"growth": growth.measure(split, backbone)})
        yield measured


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m r2ec.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("results/data/ml-100k"), help="a prepared dataset")
    parser.add_argument("--backbone", default=BACKBONE)
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="folder of the table and the plot")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    defaults = Size()
    for name in ("users", "group", "items-in-prompt", "new-tokens", "repeats"):
        default = getattr(defaults, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{default} unless told")
    args = parser.parse_args()
    if args.repeats < 1:
        raise InputError(f"--repeats is {args.repeats}; give at least 1")
    size = Size(args.users, args.group, args.items_in_prompt, args.new_tokens, args.repeats)
    with tempfile.TemporaryDirectory() as folder:
        for measured in measure(read_split(args.data), args.backbone, size, args.parts, Path(folder)):
            report.write(measured, args.out)  # after each part: a run that is stopped leaves what it has measured
    print(report.markdown(measured))
    print(f"Table: {args.out / 'speed.md'}")


if __name__ == "__main__":
    main()
