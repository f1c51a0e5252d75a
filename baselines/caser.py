"""Caser: convolutions over the last items. Tang and Wang, WSDM 2018; RecBole's `Caser`, full cross-entropy."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from baselines._recbole.settings import Dropout, Size
from baselines._recbole.settings import Params as Shared
from benchmark.contract import Recommender, Split
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, trained

if TYPE_CHECKING:
    from torch import Tensor

FIT = Stage("caser", 1, packages=("torch", "recbole"))


class Params(Shared):
    """RecBole's names; sizes as its default, the last five items as in the Caser paper."""

    max_history: Size | None = 5

    embedding_size: Size = 64
    nv: Size = 4
    nh: Size = 8
    reg_weight: float = Field(default=1e-4, ge=0)
    dropout_prob: Dropout = 0.4


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> Recommender:
    """Train on the newest items before each training target; `workdir` stays empty."""
    # The first brings back what numpy 2 dropped, without which RecBole can't be imported.
    from baselines._recbole.training import train  # isort: skip
    from baselines._recbole.learners import EveryCase  # isort: skip

    settings = Params.model_validate(params)
    return train("Caser", split, seed, settings.model_dump(), partial(EveryCase, split, settings, loss))


def loss(net: Any, inputs: dict[str, "Tensor"], state_of: "Tensor", target: "Tensor") -> "Tensor":
    """RecBole's `Caser.calculate_loss` with a cross-entropy that keeps no logits: the same value and gradient.

    state_of, target: int64 [n], see `EveryCase`.
    """
    from baselines._recbole.cross_entropy import cross_entropy

    states = net.forward(inputs["user_id"], inputs["item_id_list"])
    parts = [net.user_embedding, net.item_embedding, net.conv_v, net.fc1, net.fc2]
    penalty = net.reg_weight * net.reg_loss([part.weight for part in parts]) + net.reg_loss_conv_h()
    return cross_entropy(states, net.item_embedding.weight, state_of, target) + penalty


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, [p], 2.5e-5)
