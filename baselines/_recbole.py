"""Adapter to RecBole's sequential models (Zhao et al., RecBole, CIKM 2021): their model, trainer and early stopping, our splits.

A method is then a file that names the model class and its settings; see gru4rec.py. RecBole reads the program's arguments,
writes into the current folder and pickles its checkpoints, so every fit runs inside `workdir`, and the only checkpoint that
is loaded is the one this very fit has written.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from benchmark.contract import Cases, Recommender, Split

# RecBole 1.2.1 names types that numpy 2 dropped; they have to be back before it is imported.
for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)


class Params(BaseModel):
    """Settings that all RecBole models share. Methods add their model's own, under RecBole's names."""

    model_config = ConfigDict(extra="forbid")
    learning_rate: float = 1e-3
    train_batch_size: int = 2048
    epochs: int = 200  # at most; early stopping ends most fits long before
    patience: int = 5  # evaluations without a better validation NDCG@10 before stopping
    weight_decay: float = 0.0


def fit_model(
    name: str, model: type[Params], split: Split, *, seed: int, params: dict[str, Any], workdir: Path
) -> "RecBoleRecommender":
    """Train RecBole's model `name` with full cross-entropy, early stopping on validation NDCG@10.

    Raises pydantic's ValidationError for unknown params (benchmark.run reports it before training).
    """
    settings = model.model_validate(params).model_dump()
    with _inside(workdir):
        return _fit(name, split, seed, settings)


def _fit(name: str, split: Split, seed: int, settings: dict[str, Any]) -> "RecBoleRecommender":
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    _write_atomic_files(split, Path("data") / "cases")
    config = Config(model=name, dataset="cases", config_dict=_config(split, seed, settings))
    # RecBole's own copy of the seed drives its shuffling; init_seed also fixes torch, numpy and random.
    init_seed(seed, reproducibility=True)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    init_seed(seed, reproducibility=True)
    net = get_model(name)(config, train.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, net)
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
    os.remove(trainer.saved_model_file)
    best = int(np.argmax(curve))
    found = {"epochs": len(curve), "best_epoch": best + 1, "valid_ndcg@10_by_epoch": [round(value, 4) for value in curve]}
    return RecBoleRecommender(net, dataset, split, found)


class RecBoleRecommender(Recommender):
    """Scores by a trained RecBole model."""

    def __init__(self, net: Any, dataset: Any, split: Split, found: dict[str, Any]) -> None:
        tokens = dataset.field2id_token["item_id"]
        # RecBole numbers items in its own order and keeps 0 for padding.
        self.inner = np.zeros(split.n_items, dtype=np.int64)
        for inner, token in enumerate(tokens):
            if inner > 0:
                self.inner[int(token)] = inner
        self.net, self.length, self.width, self.found = net, split.history_length, len(tokens), found

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        from recbole.data.interaction import Interaction

        self.net.eval()
        for batch in cases.batches(512):
            items = batch.padded(pad=-1, length=self.length)
            lengths = (items >= 0).sum(axis=1)
            # RecBole wants histories left-aligned, padded by 0.
            sequence = np.zeros_like(items)
            for row, length in enumerate(lengths):
                sequence[row, :length] = self.inner[items[row, self.length - length :]]
            interaction = Interaction(
                {
                    "item_id_list": torch.from_numpy(sequence),
                    "item_length": torch.from_numpy(lengths.astype(np.int64)),
                    "user_id": torch.ones(len(batch), dtype=torch.int64),
                }
            ).to(self.net.device)
            with torch.no_grad():
                scores = self.net.full_sort_predict(interaction).view(-1, self.width)
            yield scores[:, torch.from_numpy(self.inner)].float().cpu().numpy()

    def report(self) -> dict[str, Any]:
        return self.found


def _config(split: Split, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """RecBole's configuration for our fixed splits."""
    patience = settings.pop("patience")
    return settings | {
        "data_path": "data",
        "benchmark_filename": ["train", "valid", "test"],
        "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id", "timestamp"], "item": ["item_id"]},
        "filter_inter_by_user_or_item": False,
        "repeatable": True,
        "MAX_ITEM_LIST_LENGTH": split.history_length,
        "ITEM_LIST_LENGTH_FIELD": "item_length",
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "eval_args": {"order": "TO", "group_by": None, "mode": "full", "split": {"LS": "valid_and_test"}},
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "eval_step": 1,
        "stopping_step": patience - 1,  # RecBole stops after one more than it is told
        "eval_batch_size": 512 * split.n_items,
        "seed": seed,
        "reproducibility": True,
        "use_gpu": torch.cuda.is_available(),
        "checkpoint_dir": "saved",
        "state": "WARNING",
        "show_progress": sys.stderr.isatty(),
        "log_wandb": False,
    }


def _write_atomic_files(split: Split, folder: Path) -> None:
    """RecBole's input: one .inter per part, histories as lists of item numbers, and every item of the catalogue."""
    folder.mkdir(parents=True, exist_ok=True)
    # RecBole insists on a test part; it gets the validation cases, since a method never sees a test case while training.
    for part, cases in (("train", split.train), ("valid", split.valid), ("test", split.valid)):
        assert cases.target is not None
        words = np.char.mod("%d", cases.items)
        lines = ["user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float"]
        for i in range(len(cases)):
            history = " ".join(words[cases.offsets[i] : cases.offsets[i + 1]])
            lines.append(f"{cases.user[i]}\t{history}\t{cases.target[i]}\t{cases.time[i]}")
        (folder / f"cases.{part}.inter").write_text("\n".join(lines) + "\n")
    (folder / "cases.item").write_text("\n".join(["item_id:token", *map(str, range(split.n_items))]) + "\n")


@contextlib.contextmanager
def _inside(workdir: Path) -> Iterator[None]:
    """Run with `workdir` as the current folder and no program arguments; both are put back afterwards."""
    workdir.mkdir(parents=True, exist_ok=True)
    folder, arguments = os.getcwd(), sys.argv
    os.chdir(workdir)
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        os.chdir(folder)
        sys.argv = arguments
