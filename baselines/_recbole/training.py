"""Trains RecBole's networks on our batches and by our losses, and scores by them. Needs torch and RecBole.

RecBole's own trainer learns from one target of each history, and so reads a history as often as it has items. A file
of its own, since torch and RecBole take seconds to import.
"""

import contextlib
import copy
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from baselines._recbole.dropout import use_byte_dropout
from baselines._recbole.settings import CausalParams
from baselines._recbole.windows import left_aligned
from benchmark.contract import Cases, Learned, Recommender, Split
from benchmark.errors import InputError
from benchmark.evaluate import validation_ndcg
from benchmark.provenance import derive_seed

GPUS = "CUDA_VISIBLE_DEVICES"

# RecBole 1.2.1 names types that numpy 2 dropped; they have to be back before it is imported.
for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)


from recbole.config import Config  # noqa: E402
from recbole.model.layers import FeedForward  # noqa: E402
from recbole.utils import get_model, init_seed  # noqa: E402

SCORED_AT_ONCE = 512  # cases
HISTORY, LENGTH, USER = "item_id_list", "item_length", "user_id"  # what RecBole's networks call their inputs


class Catalogue:
    """Stands for RecBole's dataset: its networks ask it how many users and items there are, padding included.

    Item v has number v + 1.
    """

    def __init__(self, n_items: int, n_users: int) -> None:
        self.user_num, self._sizes = n_users + 1, {"item_id": n_items + 1, USER: n_users + 1}

    def num(self, field: str) -> int:
        return self._sizes[field]


class Learner(Protocol):
    """Gives the steps of an epoch, each as a function that computes the mean loss of its targets, a scalar."""

    def losses(self, net: Any, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]: ...


# Makes the network from RecBole's Config and the catalogue.
Maker = Callable[[Config, Catalogue], Any]


def train(
    name: str,
    split: Split,
    seed: int,
    settings: dict[str, Any],
    learner: Callable[[int], Learner],
    *,
    make: Maker | None = None,
    validate: Callable[["RecBoleRecommender"], float] | None = None,
) -> "RecBoleRecommender":
    """Train RecBole's network `name`, or one derived from it, on all training cases while validation NDCG@10 rises.

    learner: takes the number of history items that the network reads, and gives the steps of each epoch. make: makes a
    derived network. validate: the value that ends the training, in the place of NDCG@10 on all validation cases. Raises
    InputError for a setting that the network doesn't have, and where the loss isn't finite.
    """
    longest = max(int(np.diff(cases.offsets).max()) for cases in (split.train, split.valid))
    length = min(settings["max_history"] or split.history_length, split.history_length, longest)
    users = np.unique(split.train.user)
    with without_arguments():
        config = _config(name, length, seed, settings)
        init_seed(seed, reproducibility=True)
        net = (make or get_model(name))(config, Catalogue(split.n_items, len(users))).to(config["device"])
    _read_padding_as_nothing(net)
    _faster_on_cpu(net)
    fitted = RecBoleRecommender(net, users, length, Learned.of(split.train))
    value = validate or (lambda recommender: validation_ndcg(recommender, split.valid, split.n_items, name))
    rng = np.random.default_rng(derive_seed(seed, "batches"))
    fitted.curve_report = _fit(name, fitted, learner(length), settings, rng, value)
    return fitted


def _fit(
    name: str,
    fitted: "RecBoleRecommender",
    learner: Learner,
    settings: dict[str, Any],
    rng: np.random.Generator,
    value: Callable[["RecBoleRecommender"], float],
) -> dict[str, Any]:
    """Adam until `patience` epochs in a row were not better; the best epoch's weights stay. Returns the report."""
    net, curve, best = fitted.net, list[float](), -1
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay, fused=True)
    weights: dict[str, Tensor] = {}
    bar = tqdm(total=settings["epochs"], desc=f"training {name}", unit="epoch", delay=5, disable=None)
    for _ in range(settings["epochs"]):
        net.train()
        for loss_of in learner.losses(net, rng):
            optimizer.zero_grad()
            loss = loss_of()
            if not torch.isfinite(loss):
                raise InputError(f"{name}: the loss is {float(loss)} at learning_rate {rate:g}; lower it")
            loss.backward()
            optimizer.step()
        curve.append(value(fitted))
        bar.update()
        if best < 0 or curve[-1] > curve[best]:
            best, weights = len(curve) - 1, copy.deepcopy(net.state_dict())
        if len(curve) - 1 - best >= settings["patience"]:
            break
    bar.close()
    net.load_state_dict(weights)
    net.eval()
    rounded = [round(ndcg, 4) for ndcg in curve]
    return {"epochs": len(curve), "best_epoch": best + 1, "valid_ndcg@10_by_epoch": rounded}


class RecBoleRecommender(Recommender):
    """Scores by a trained RecBole network.

    Args: users: int32 [m], ascending, those of the training cases: number 1 + their place for a network that has a
    vector per user. Others are number 0, whose vector is zeros.
    """

    def __init__(self, net: Any, users: np.ndarray, length: int, learned: Learned) -> None:
        self.net, self.users, self.length, self._learned = net, users, length, learned
        self.curve_report: dict[str, Any] = {}

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        """Scores of all items, float32 [b, n_items]."""
        for batch in cases.batches(SCORED_AT_ONCE):
            yield self.scores_of(batch)

    @torch.no_grad()
    def scores_of(self, batch: Cases, **more: Tensor) -> np.ndarray:
        """Scores of one batch, float32 [b, n_items]. more: further inputs of a derived network, by name."""
        self.net.eval()
        inputs = self.inputs(batch) | {name: values.to(self.net.device) for name, values in more.items()}
        scores: np.ndarray = self.net.full_sort_predict(inputs).view(len(batch), -1)[:, 1:].float().numpy(force=True)
        return scores

    def inputs(self, cases: Cases) -> dict[str, Tensor]:
        """The inputs of RecBole's networks for these cases, by name, on their device."""
        items = left_aligned(cases, self.length)
        fields = {HISTORY: items, LENGTH: (items > 0).sum(axis=1), USER: numbers_of(self.users, cases.user)}
        return {field: torch.from_numpy(values).to(self.net.device) for field, values in fields.items()}

    def learned(self) -> Learned:
        """All training cases."""
        return self._learned

    def report(self) -> dict[str, Any]:
        """epochs, best_epoch (from 1), valid_ndcg@10_by_epoch."""
        return self.curve_report


def numbers_of(users: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """1 + the place of each user among `users` (ascending), 0 for others, int64 [n]."""
    place = np.searchsorted(users, wanted).clip(max=len(users) - 1)
    return np.where(users[place] == wanted, 1 + place, 0).astype(np.int64)


def _config(name: str, length: int, seed: int, settings: dict[str, Any]) -> Config:
    """RecBole's configuration of a network.

    Raises InputError for a setting that isn't in the network's own defaults: RecBole would take it and ignore it.
    """
    # The other settings are those of our training.
    own = {key: value for key, value in settings.items() if key not in CausalParams.model_fields}
    config = Config(
        model=name,
        dataset="cases",
        config_dict=own
        | {
            "MAX_ITEM_LIST_LENGTH": length,
            "ITEM_LIST_LENGTH_FIELD": LENGTH,
            "train_neg_sample_args": None,
            "loss_type": "CE",
            "seed": seed,
            "reproducibility": True,
            "use_gpu": torch.cuda.is_available(),
            # RecBole writes it into CUDA_VISIBLE_DEVICES, "0" unless told: the GPU of another job, maybe.
            "gpu_id": os.environ.get(GPUS, "0"),
            "state": "WARNING",
        },
    )
    for setting in own:
        if setting not in config.internal_config_dict:
            raise InputError(
                f"{name}: RecBole's model has no setting {setting!r}; name it in the method's Params as RecBole's "
                f"properties/model/{name}.yaml does"
            )
    return config


def _read_padding_as_nothing(net: torch.nn.Module) -> None:
    """Make padding a vector of zeros, also for a user that was never seen.

    RecBole draws its vector at random, and the cross-entropy over all rows moves it as a wrong answer. Caser's
    convolutions read it behind a short history.
    """

    def blank(_: torch.nn.Module, inputs: tuple[torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
        return vectors.masked_fill((inputs[0] == 0).unsqueeze(-1), 0)

    for module in net.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx == 0:
            module.register_forward_hook(blank)


def _faster_on_cpu(net: torch.nn.Module) -> None:
    """Undo what makes RecBole's models slow on a CPU, without changing what they compute."""
    # Importing RecBole's models switches anomaly detection on for the whole process (sine.py): 38 % of the training
    # time.
    torch.autograd.set_detect_anomaly(False)
    if torch.cuda.is_available():
        return
    for module in net.modules():
        if isinstance(module, FeedForward) and module.intermediate_act_fn == module.gelu:
            module.intermediate_act_fn = torch.nn.functional.gelu  # the same function in one pass instead of five
    use_byte_dropout(net)


@contextlib.contextmanager
def without_arguments() -> Iterator[None]:
    """Hide the program's arguments, which RecBole would read, and restore the visible GPUs, which it changes."""
    arguments, gpus = sys.argv, os.environ.get(GPUS)
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments
        if gpus is None:
            os.environ.pop(GPUS, None)
        else:
            os.environ[GPUS] = gpus
