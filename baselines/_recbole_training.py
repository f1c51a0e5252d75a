"""The training behind _recbole.py, apart from it because torch and RecBole take seconds to import. RecBole reads
the program's arguments, writes into the current folder and pickles its checkpoints, so every fit runs inside `workdir`, and
the only checkpoint that is loaded is the one that this very fit has written.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines._dropout import use_byte_dropout
from benchmark.contract import Cases, Recommender, Split
from benchmark.errors import InputError

GPUS = "CUDA_VISIBLE_DEVICES"

# RecBole 1.2.1 names types that numpy 2 dropped; they have to be back before it is imported.
for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)


from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.data.interaction import Interaction  # noqa: E402
from recbole.model.layers import FeedForward  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402

# What makes the network of RecBole's Config and Dataset.
Maker = Callable[[Any, Any], Any]
# A whole number below 2**24 for each training and each validation case, which the network finds under ROW in its batches.
Rows = tuple[np.ndarray, np.ndarray]
ROW = "row"


def train(
    name: str,
    split: Split,
    seed: int,
    settings: dict[str, Any],
    workdir: Path,
    make: Maker | None = None,
    rows: Rows | None = None,
) -> "RecBoleRecommender":
    """Train RecBole's model `name`, see `baselines._recbole.fit_model`, or a network derived from it."""
    with _inside(workdir):
        return _train(name, split, seed, settings, make, rows)


def _train(
    name: str, split: Split, seed: int, settings: dict[str, Any], make: Maker | None, rows: Rows | None
) -> "RecBoleRecommender":
    # RecBole's columns are as wide as the longest history that it is given; a network for longer ones would not fit them.
    longest = max(int(np.diff(cases.offsets).max()) for cases in (split.train, split.valid))
    length = min(settings.pop("max_history") or split.history_length, split.history_length, longest)
    _write_atomic_files(split, length, Path("data") / "cases", rows)
    own = _config(split.n_items, length, seed, settings)
    if rows is not None:
        own["load_col"]["inter"].append(ROW)
    config = Config(model=name, dataset="cases", config_dict=own)
    _check_names(name, settings, config)
    # RecBole's own copy of the seed drives its shuffling; init_seed also fixes torch, numpy and random.
    init_seed(seed, reproducibility=True)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    init_seed(seed, reproducibility=True)
    net = (make or get_model(name))(config, train.dataset).to(config["device"])
    _read_padding_as_nothing(net)
    _faster_on_cpu(net)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, net)
    _mask_history(trainer)
    curve: list[float] = []
    trainer.fit(
        train,
        valid,
        saved=True,
        show_progress=sys.stderr.isatty(),
        callback_fn=lambda epoch, value: curve.append(float(value)),
    )
    # Written by this fit a moment ago; RecBole pickles whole objects, which weights_only refuses.
    checkpoint = torch.load(trainer.saved_model_file, weights_only=False, map_location=config["device"])
    net.load_state_dict(checkpoint["state_dict"])
    net.load_other_parameter(checkpoint.get("other_parameter"))
    best = len(curve) - 1 - int(np.argmax(curve[::-1]))  # of equal values RecBole keeps the last
    found = {
        "epochs": len(curve),
        "best_epoch": best + 1,
        "valid_ndcg@10_by_epoch": [round(value, 4) for value in curve],
    }
    return RecBoleRecommender(net, dataset, split, length, found)


def _check_names(name: str, settings: dict[str, Any], config: Config) -> None:
    """RecBole takes a setting that its model never reads without a word. Raises InputError for one that isn't in its defaults."""
    known = config.internal_config_dict
    for setting in settings:
        if setting not in known:
            raise InputError(
                f"{name}: RecBole's model has no setting {setting!r}; name it in the method's Params as RecBole's "
                f"properties/model/{name}.yaml does"
            )


def _mask_history(trainer: Any) -> None:
    """Validate by the benchmark's rule, which has no history item among the candidates: RecBole masks none of sequential data.

    Of a model with a shorter `max_history` these are the items that it reads.
    """
    plain = trainer._full_sort_batch_eval

    def masked(batched_data: Any) -> Any:
        interaction, scores, *positive = plain(batched_data)
        return interaction, scores.scatter(1, interaction["item_id_list"].to(scores.device), -torch.inf), *positive

    trainer._full_sort_batch_eval = masked


def _read_padding_as_nothing(net: torch.nn.Module) -> None:
    """Let padding be a vector of zeros, also for a user never seen. RecBole draws its vector at random, and the
    cross-entropy over all rows moves it as a wrong answer; behind a short history Caser's convolutions read it.
    """

    def blank(_: torch.nn.Module, given: tuple[torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
        return vectors.masked_fill((given[0] == 0).unsqueeze(-1), 0)

    for module in net.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx == 0:
            module.register_forward_hook(blank)


def _faster_on_cpu(net: torch.nn.Module) -> None:
    """Undo what makes RecBole's models slow on a CPU, without changing what they compute."""
    # Importing RecBole's models switches anomaly detection on for the whole process (sine.py): 38 % of the training time.
    torch.autograd.set_detect_anomaly(False)
    if torch.cuda.is_available():
        return
    for module in net.modules():
        if isinstance(module, FeedForward) and module.intermediate_act_fn == module.gelu:
            module.intermediate_act_fn = torch.nn.functional.gelu  # the same function in one pass instead of five
    use_byte_dropout(net)


class RecBoleRecommender(Recommender):
    """Scores by a trained RecBole model."""

    def __init__(self, net: Any, dataset: Any, split: Split, length: int, found: dict[str, Any]) -> None:
        tokens = dataset.field2id_token["item_id"]
        # RecBole numbers items in its own order and keeps 0 for padding.
        self.inner = np.zeros(split.n_items, dtype=np.int64)
        for inner, token in enumerate(tokens):
            if inner > 0:
                self.inner[int(token)] = inner
        # Caser and others learn a vector per user; padding, a vector of zeros, stands for users they have never seen.
        users = dataset.field2id_token["user_id"]
        self.user = np.zeros(max(map(int, users[1:])) + 1, dtype=np.int64)
        self.user[users[1:].astype(np.int64)] = np.arange(1, len(users))
        self.net, self.length, self.width, self.found = net, length, len(tokens), found

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        for batch in cases.batches(512):
            yield self.scores_of(batch)

    @torch.no_grad()
    def scores_of(self, batch: Cases, rows: np.ndarray | None = None) -> np.ndarray:
        """Scores of one batch, float32 [b, n_items]. rows: int [b], for a network that was trained with rows."""
        self.net.eval()
        items = batch.padded(pad=-1, length=self.length)
        lengths = (items >= 0).sum(axis=1)
        # RecBole wants histories left-aligned, padded by 0.
        sequence = np.zeros_like(items)
        for row, length in enumerate(lengths):
            sequence[row, :length] = self.inner[items[row, self.length - length :]]
        known = batch.user < len(self.user)
        user = np.where(known, self.user[np.where(known, batch.user, 0)], 0)
        fields = {"item_id_list": sequence, "item_length": lengths.astype(np.int64), "user_id": user}
        if rows is not None:
            fields[ROW] = rows
        interaction = Interaction({field: torch.from_numpy(values) for field, values in fields.items()})
        scores = self.net.full_sort_predict(interaction.to(self.net.device)).view(-1, self.width)
        found: np.ndarray = scores[:, torch.from_numpy(self.inner)].float().cpu().numpy()
        return found

    def report(self) -> dict[str, Any]:
        return self.found


def _config(n_items: int, length: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """RecBole's configuration for our fixed splits."""
    patience, best = settings.pop("patience"), min(10, n_items)  # of fewer items NDCG@10 is NDCG of all of them
    return settings | {
        "data_path": "data",
        "benchmark_filename": ["train", "valid", "test"],
        "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id", "timestamp"], "item": ["item_id"]},
        "filter_inter_by_user_or_item": False,
        "repeatable": True,
        "MAX_ITEM_LIST_LENGTH": length,
        "ITEM_LIST_LENGTH_FIELD": "item_length",
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "eval_args": {"order": "TO", "group_by": None, "mode": "full", "split": {"LS": "valid_and_test"}},
        "metrics": ["NDCG"],
        "topk": [best],
        "valid_metric": f"NDCG@{best}",
        "eval_step": 1,
        "stopping_step": patience - 1,  # RecBole stops after one more than it is told
        "eval_batch_size": 512 * n_items,
        "seed": seed,
        "reproducibility": True,
        "use_gpu": torch.cuda.is_available(),
        # RecBole writes it into CUDA_VISIBLE_DEVICES, "0" unless told: the GPU of another job, maybe.
        "gpu_id": os.environ.get(GPUS, "0"),
        "checkpoint_dir": "saved",
        "state": "WARNING",
        "show_progress": sys.stderr.isatty(),
        "log_wandb": False,
    }


def _write_atomic_files(split: Split, length: int, folder: Path, rows: Rows | None) -> None:
    """RecBole's input: one .inter per part, histories as lists of item numbers, and every item of the catalogue."""
    folder.mkdir(parents=True, exist_ok=True)
    # RecBole insists on a test part; it gets the validation cases, since a method never sees a test case while training.
    numbers = (None, None) if rows is None else rows
    parts = (("train", split.train, numbers[0]), ("valid", split.valid, numbers[1]), ("test", split.valid, numbers[1]))
    for part, cases, own in parts:
        assert cases.target is not None
        words = np.char.mod("%d", cases.items)
        header = "user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float"
        lines = [header if own is None else f"{header}\t{ROW}:float"]
        for i in range(len(cases)):
            history = " ".join(words[max(cases.offsets[i], cases.offsets[i + 1] - length) : cases.offsets[i + 1]])
            line = f"{cases.user[i]}\t{history}\t{cases.target[i]}\t{cases.time[i]}"
            lines.append(line if own is None else f"{line}\t{own[i]}")
        (folder / f"cases.{part}.inter").write_text("\n".join(lines) + "\n")
    (folder / "cases.item").write_text("\n".join(["item_id:token", *map(str, range(split.n_items))]) + "\n")


@contextlib.contextmanager
def _inside(workdir: Path) -> Iterator[None]:
    """Run with an empty `workdir` as the current folder and no program arguments; afterwards all is as before, the GPUs
    that later work in this process sees too."""
    shutil.rmtree(workdir, ignore_errors=True)  # RecBole can't resume: what a killed fit left is of no use
    workdir.mkdir(parents=True)
    folder, arguments, gpus = os.getcwd(), sys.argv, os.environ.get(GPUS)
    os.chdir(workdir)
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        os.chdir(folder)
        sys.argv = arguments
        if gpus is None:
            os.environ.pop(GPUS, None)
        else:
            os.environ[GPUS] = gpus
        shutil.rmtree(workdir)
