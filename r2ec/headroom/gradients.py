"""Measure how noisy RecPO's gradient is, and so how many steps of how many cases a gradient without noise is worth.

    python -m r2ec.headroom.gradients --run results/runs/ml-100k/r2ec/seed1 --data results/data/ml-100k \\
        --out results/headroom/ml-100k

Computes the gradients of RecPO's two terms on batches of training cases, each with reasonings of its own, all by the
same weights. What all batches have in common is the signal. The noise scale is the variance of one case's part over the
squared norm of the signal (McCandlish et al., "An Empirical Model of Large-Batch Training", arXiv 1812.06162, section
2.2): of so many cases signal and noise of a step are equal. A smaller batch asks for 1 + scale / cases steps
for each step that a gradient without noise would take. It is of plain gradients; AdamW scales each weight's. The signal
is that of all training cases, from which the batches are drawn without replacement. Two batches may hold cases of one
user, whose likeness counts as signal. The item term's candidates are the batch's, so that a larger batch has others.

--out gets a file per batch, from which a stopped run goes on; gradients.csv, gradients.md, and gradients.json for the
page, as `python -m r2ec.headroom` writes headroom.json.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.contract import Cases, Split
from benchmark.data.store import read_split
from benchmark.errors import InputError, command
from benchmark.output.markdown import table
from benchmark.output.page.headroom import Gradients, Term
from benchmark.output.page.headroom import rows_of as rows_of_page
from benchmark.provenance import derive_seed
from benchmark.storage.io import write_json, write_text
from r2ec.fit import trainer_of
from r2ec.headroom.arguments import arguments, chosen, measured_run
from r2ec.headroom.sampled import NOTHING_TO_CHOOSE, kept_parts, parts_folder
from r2ec.recpo.trainer import RecPOTrainer
from r2ec.scoring.reader import Reader

TERMS = ("tokens", "items")
Z = 1.96


@dataclass(frozen=True)
class Noise:
    """Signal and noise of n gradients of equal distribution, by their dot products."""

    size: float  # root mean square norm of one gradient
    signal: float  # share of the signal in that mean square; below 0 by chance alone
    low: float  # 95 % interval of `signal`, by the jackknife over the gradients
    high: float

    def scale(self, signal: float, size: int) -> float | None:
        """The noise scale in cases where the share is `signal` and a gradient is of so many; None without a signal."""
        return size * (1 / signal - 1) if signal > 0 else None


def noise_of(gradients: np.ndarray, drawn: float = 0.0) -> Noise:
    """Signal and noise of gradients [n, p], n at least 3.

    The mean product of two different gradients is the squared norm of the signal where their noises are independent.
    drawn: how many cases a gradient is of, over the number of all cases minus one, where they are drawn without
    replacement. Their noises' mean product is then not 0 but minus that share of the variance of one gradient. The
    jackknife's interval is too wide rather than too narrow where noise prevails.

    >>> noise = noise_of(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
    >>> noise.size, noise.signal, noise.low, noise.high
    (1.0, 1.0, 1.0, 1.0)
    >>> noise_of(np.eye(4)).signal
    0.0
    """
    products = gradients.astype(np.float64) @ gradients.astype(np.float64).T
    n = len(products)
    left_out = [np.delete(np.delete(products, i, 0), i, 1) for i in range(n)]
    share, without = _share(products, drawn), np.array([_share(part, drawn) for part in left_out])
    error = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    return Noise(float(np.sqrt(np.trace(products) / n)), share, share - Z * error, share + Z * error)


def _share(products: np.ndarray, drawn: float) -> float:
    n, squares = len(products), float(np.trace(products))
    between = (float(products.sum()) - squares) / (n - 1) / squares if squares else 0.0
    return (between + drawn) / (1 + drawn)


def gradients(trainer: RecPOTrainer, cases: Cases, size: int, folder: Path) -> dict[str, np.ndarray]:
    """The gradient of each of TERMS on every `size` of these cases: float32 [n, p] by term.

    cases: with targets. trainer: as it is before its first step, with a table of its present weights and
    `split_grad_norms` on. folder: gets a file per batch; a file that it holds already is read.
    """
    table_states = trainer.table.states.clone()  # the loss writes a batch's items into the table
    trainer.net.train()

    def make(start: int) -> dict[str, np.ndarray]:
        trainer.place = (0, 0)  # of a first step, before which the table isn't encoded again
        trainer.state.global_step = start // size  # each batch has negatives of its own
        trainer.table.states.copy_(table_states)
        batch = trainer.prepared(cases.take(np.arange(start, start + size)))
        with trainer.compute_loss_context_manager():
            trainer.compute_loss(trainer.model, batch)
        assert trainer.split_gradients is not None
        return dict(zip(TERMS, (gradient.numpy(force=True) for gradient in trainer.split_gradients), strict=True))

    parts = list(kept_parts(folder, "", range(0, len(cases), size), make, "gradients"))
    return {term: np.stack([part[term] for part in parts]) for term in TERMS}


def rows_of(found: dict[str, np.ndarray], size: int, drawn: float = 0.0) -> pd.DataFrame:
    """A row per term: norm, share of the signal with its interval, noise scale and steps with the same interval.

    An infinite end says that the interval of the signal reaches 0.
    """
    rows = []
    for term, values in found.items():
        noise = noise_of(values, drawn)
        ends = [noise.scale(share, size) for share in (noise.signal, noise.high, noise.low)]
        scale, least, most = (np.inf if end is None else max(end, 0.0) for end in ends)
        row = {"term": term, "norm": noise.size, "signal": noise.signal, "low": noise.low, "high": noise.high}
        rows.append(
            row
            | {
                "scale": scale,
                "scale_low": least,
                "scale_high": most,
                "steps": 1 + scale / size,
                "steps_low": 1 + least / size,
                "steps_high": 1 + most / size,
            }
        )
    return pd.DataFrame(rows)


def as_markdown(frame: pd.DataFrame, about: str, size: int) -> str:
    """The report as markdown."""

    def number(value: float) -> str:
        return "no end" if np.isinf(value) else f"{value:,.0f}"

    cells = [
        [
            row["term"],
            f"{row['norm']:.3g}",
            f"{100 * row['signal']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
            f"{number(row['scale'])} [{number(row['scale_low'])}, {number(row['scale_high'])}]",
            f"{number(row['steps'])} [{number(row['steps_low'])}, {number(row['steps_high'])}]",
        ]
        for row in frame.to_dict("records")
    ]
    head = [
        "term",
        "norm",
        "share of the signal",
        "noise scale, cases",
        f"steps of {size} cases for one without noise",
    ]
    return "\n\n".join(
        [
            "# RecPO's gradient: signal and noise",
            about,
            table(head, cells, left=1),
            "Intervals of 95 % by the jackknife over batches, of one trained model. No end: a signal can't be told "
            "from none.",
        ]
    )


def trainer_at(model: Path, data: Path, folder: Path) -> tuple[RecPOTrainer, Split]:
    """RecPO of a finished model as before a step, and its data. folder: for what a Trainer wants to write.

    Raises InputError for a model that was trained without a reasoning.
    """
    split = read_split(data)
    reader = Reader.load(model, split)
    if not reader.params.recpo.reasoning:
        raise InputError(NOTHING_TO_CHOOSE)
    changes = {"split_grad_norms": 1, "objective": "recpo"}
    reader.params = reader.params.model_copy(update={"training": reader.params.training.model_copy(update=changes)})
    trainer = trainer_of(reader, split, split.valid, 0, folder)
    assert isinstance(trainer, RecPOTrainer)
    return trainer, split


@command
def main() -> None:
    parser = arguments("r2ec.headroom.gradients", __doc__)
    parser.add_argument("--batches", type=int, default=16, help="how many gradients (default: 16)")
    args = parser.parse_args()
    if args.batches < 3:
        raise InputError(f"--batches {args.batches}; give at least 3")
    model, split_hash = chosen(args)
    run = measured_run(args)
    with tempfile.TemporaryDirectory() as place:
        trainer, split = trainer_at(model, args.data, Path(place))
        cases = split.llm_train
        size = trainer.training.per_device_train_batch_size
        count = min(args.batches, len(cases) // size)
        if count < 3:
            raise InputError(f"{args.data}: {len(cases)} training cases are fewer than three batches of {size}")
        rows = np.random.default_rng(derive_seed(split.name, "gradients")).permutation(len(cases))[: count * size]
        # More batches go on from fewer: they begin with the same ones.
        folder = parts_folder(args.out, "gradients", model, split_hash, size)
        found = gradients(trainer, cases.take(rows), size, folder)
    frame = rows_of(found, size, size / (len(cases) - 1))
    batches = f"{count} batches of {size} training cases with {trainer.group} reasonings each, of {len(cases):,}"
    text = as_markdown(frame, f"{split.name}: {batches}.", size) + "\n"
    write_text(args.out / "gradients.csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    write_text(args.out / "gradients.md", text)
    measure = Gradients(
        run=run,
        batches=count,
        size=size,
        samples=trainer.group,
        cases=len(cases),
        terms=rows_of_page(frame, Term),
    )
    write_json(args.out / "gradients.json", measure.model_dump())
    print(text)


if __name__ == "__main__":
    main()
