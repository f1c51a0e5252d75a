"""BERT4Rec: a bidirectional transformer trained on masked items. Sun et al., CIKM 2019.

RecBole's `BERT4Rec` with full cross-entropy. It learns from whole lines cut into pieces, as its paper trains;
`baselines/_recbole/masked_items.py` names the faults of RecBole's class that are mended.
"""

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from baselines._recbole.settings import Dropout, Size, check_heads
from baselines._recbole.settings import Params as Shared
from benchmark.contract import Recommender, Split
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, trained

FIT = Stage("bert4rec", 1, packages=("torch", "recbole"))


class Params(Shared):
    """RecBole's names; sizes as its default. ft_ratio: share of the pieces of which the last item alone is masked, as
    in scoring; mask_ratio: share of the items that are masked in the others."""

    n_layers: Size = 2
    n_heads: Size = 2
    hidden_size: Size = 64
    inner_size: Size = 256
    hidden_dropout_prob: Dropout = 0.2
    attn_dropout_prob: Dropout = 0.2
    mask_ratio: float = Field(default=0.2, ge=0, le=1)
    ft_ratio: float = Field(default=0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_have_equal_parts(self) -> "Params":
        check_heads(self.hidden_size, self.n_heads)
        return self


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> Recommender:
    """Train on masked items of pieces of the training lines; `workdir` stays empty."""
    # The first brings back what numpy 2 dropped, without which RecBole can't be imported.
    from baselines._recbole.training import train  # isort: skip
    from baselines._recbole.masked_items import MaskedItems, MaskedPlaces  # isort: skip

    settings = Params.model_validate(params)
    learner = partial(
        MaskedPlaces,
        split,
        targets=settings.train_batch_size,
        mask_ratio=settings.mask_ratio,
        last_alone=settings.ft_ratio,
    )
    return train("BERT4Rec", split, seed, settings.model_dump(), learner, make=MaskedItems)


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    # Half of the rows have one target, the others one in five of their places: a target takes several times what it
    # takes a network that learns at every place.
    return trained(s, [p], 1.2e-4)
