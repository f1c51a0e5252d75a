"""RecBole's sequential models as RecBole itself trains them (Zhao et al., CIKM 2021), with its batches and validation.

A peer with which our own training of the same networks is compared (config/recbole.yaml), not a baseline of the tables:
it reads each history once per target. All settings are RecBole's defaults but the splits, which are ours, and
`train_neg_sample_args`, without which `loss_type: CE` can't run.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Cases, Recommender, Split
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes

FIT = Stage("stock_recbole", 1, packages=("torch", "recbole"))
EPOCHS = "epochs"  # folder of the kept ones


class Params(BaseModel):
    """model: RecBole's class. The others are RecBole's own names and defaults."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    model: Literal["SASRec", "GRU4Rec", "BERT4Rec", "Caser"] = "SASRec"
    epochs: int = Field(default=300, ge=1)
    train_batch_size: int = Field(default=2048, ge=1)
    learning_rate: float = Field(default=0.001, gt=0)
    stopping_step: int = Field(default=10, ge=0)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "StockRecBole":
    """Train until RecBole stops; each epoch is kept in `workdir` until the end, so that a killed fit goes on."""
    settings = Params.model_validate(params)
    # It brings back what numpy 2 dropped, without which RecBole can't be imported.
    from baselines._recbole.training import Config, get_model, init_seed  # isort: skip
    import torch
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer

    from baselines._recbole.kept_epochs import KeptEpochs

    with _inside(workdir):
        _write_atomic_files(split, Path("data") / "cases")
        own = settings.model_dump(exclude={"model"})
        config = Config(model=settings.model, dataset="cases", config_dict=own | _of_our_splits(split, seed))
        init_seed(seed, reproducibility=True)
        dataset = create_dataset(config)
        train, valid, _ = data_preparation(config, dataset)
        init_seed(seed, reproducibility=True)
        net = get_model(settings.model)(config, train.dataset).to(config["device"])
        torch.autograd.set_detect_anomaly(False)  # importing RecBole's models switches it on for the whole process
        trainer = get_trainer(config["MODEL_TYPE"], settings.model)(config, net)
        kept = KeptEpochs(Path(EPOCHS), trainer, train)
        kept.go_on()

        def after(epoch: int, value: float) -> None:
            kept.keep(epoch, value)
            print(f"epoch {epoch + 1}: MRR@10 {value:.4f} on validation cases", flush=True)

        # It would write to its folder once more when this one has gone.
        with contextlib.closing(trainer.tensorboard):
            if not kept.ended:
                trainer.fit(train, valid, saved=False, show_progress=sys.stderr.isatty(), callback_fn=after)
        net.load_state_dict(kept.best)
    return StockRecBole(net.eval(), dataset.field2id_token, split, kept.curve)


class StockRecBole(Recommender):
    """Scores by a trained RecBole model. names: RecBole's `field2id_token`, its own numbering of items and users."""

    def __init__(self, net: Any, names: dict[str, Any], split: Split, curve: list[float]) -> None:
        self.net, self.length, self.curve = net, split.history_length, curve
        self.inner = np.zeros(split.n_items, dtype=np.int64)
        self.inner[names["item_id"][1:].astype(np.int64)] = np.arange(1, len(names["item_id"]))
        self.users = {int(name): place for place, name in enumerate(names["user_id"]) if place}

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        """Scores of all items, float32 [b, n_items]; user 0, who is nobody, for users never seen."""
        import torch

        from baselines._recbole.windows import left_aligned

        inner = np.append(0, self.inner)  # of our numbers, of which 0 is padding
        for batch in cases.batches(512):
            items = inner[left_aligned(batch, self.length)]
            user = np.array([self.users.get(int(user_number), 0) for user_number in batch.user])
            fields = {"item_id_list": items, "item_length": (items > 0).sum(axis=1), "user_id": user}
            inputs = {name: torch.from_numpy(values).to(self.net.device) for name, values in fields.items()}
            with torch.no_grad():
                scores = self.net.full_sort_predict(inputs).view(len(batch), -1)
            yield scores[:, torch.from_numpy(self.inner)].float().numpy(force=True)

    def report(self) -> dict[str, Any]:
        """epochs, and the value of RecBole's own validation, MRR@10 of candidates that hold the history, after each."""
        return {"epochs": len(self.curve), "valid_mrr@10_by_epoch": [round(value, 4) for value in self.curve]}


def _of_our_splits(split: Split, seed: int) -> dict[str, Any]:
    """Settings by which RecBole reads our cases as they are, one row each, and splits no log itself."""
    import torch

    return {
        "data_path": "data",
        "benchmark_filename": ["train", "valid", "test"],
        "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id", "timestamp"], "item": ["item_id"]},
        "MAX_ITEM_LIST_LENGTH": split.history_length,
        "ITEM_LIST_LENGTH_FIELD": "item_length",
        "eval_args": {"order": "TO", "group_by": None, "mode": "full", "split": {"LS": "valid_and_test"}},
        "filter_inter_by_user_or_item": False,
        "repeatable": True,
        "train_neg_sample_args": None,
        "seed": seed,
        "reproducibility": True,
        "use_gpu": torch.cuda.is_available(),
        "checkpoint_dir": "saved",
        "state": "WARNING",
        "show_progress": sys.stderr.isatty(),
    }


def _write_atomic_files(split: Split, folder: Path) -> None:
    """RecBole's input: one .inter per part, histories as lists of item numbers, and every item of the catalogue."""
    folder.mkdir(parents=True)
    # RecBole insists on a test part; it gets the validation cases, since a method never sees a test case while
    # training.
    for part, cases in (("train", split.train), ("valid", split.valid), ("test", split.valid)):
        assert cases.target is not None
        lines = ["user_id:token\titem_id_list:token_seq\titem_id:token\ttimestamp:float"]
        for i in range(len(cases)):
            history = " ".join(map(str, cases.history(i).tolist()))
            lines.append(f"{cases.user[i]}\t{history}\t{cases.target[i]}\t{cases.time[i]}")
        (folder / f"cases.{part}.inter").write_text("\n".join(lines) + "\n")
    (folder / "cases.item").write_text("\n".join(["item_id:token", *map(str, range(split.n_items))]) + "\n")


@contextlib.contextmanager
def _inside(workdir: Path) -> Iterator[None]:
    """Run with `workdir` as the current folder, as RecBole writes there; it is gone after a fit that comes to its end.

    Of what a killed fit has left there only the kept epochs stay.
    """
    from baselines._recbole.training import without_arguments

    workdir.mkdir(parents=True, exist_ok=True)
    for left in workdir.iterdir():
        if left.is_dir() and left.name != EPOCHS:
            shutil.rmtree(left)
        elif not left.is_dir():
            left.unlink()
    whole = workdir.absolute()
    with without_arguments(), contextlib.chdir(workdir):
        yield
    shutil.rmtree(whole)


# Seconds of one training case in an epoch on slow cores with other work beside them; Caser's is a guess between these.
PER_CASE = {"SASRec": 1.1e-3, "GRU4Rec": 5.5e-4, "BERT4Rec": 1.2e-3, "Caser": 1e-3}
# RecBole waits for `stopping_step` epochs without a gain. On ml-100k GRU4Rec was still gaining at its 20th.
GAINING = 25


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`: the logits of a batch of 2,048 and their gradients are all in memory."""
    epochs = min(p["epochs"], GAINING + p["stopping_step"])
    return FitCost(epochs * s.train * PER_CASE[p["model"]], 4 * s.items * 6 * p["train_batch_size"])
