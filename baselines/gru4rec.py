"""GRU4Rec: a recurrent network over the history. Hidasi et al., ICLR 2016; RecBole's `GRU4Rec`, full cross-entropy.

It learns at every position, as its paper trains.
"""

from pathlib import Path
from typing import Any

from baselines._recbole.settings import CausalParams, Dropout, Size
from benchmark.contract import Recommender, Split
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, trained

FIT = Stage("gru4rec", 1, packages=("torch", "recbole"))


class Params(CausalParams):
    """RecBole's names; sizes as its default."""

    embedding_size: Size = 64
    hidden_size: Size = 128
    num_layers: Size = 1
    dropout_prob: Dropout = 0.3


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> Recommender:
    """Train at every position of the training lines; `workdir` stays empty."""
    # Imported late: torch and RecBole take five seconds, and the config is checked without them.
    from baselines._recbole.learners import fit_causal

    return fit_causal("GRU4Rec", split, seed, Params.model_validate(params))


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, [p], 1.6e-5)
