"""BERT4Rec: a bidirectional transformer trained on masked items. Sun et al., CIKM 2019; RecBole's `BERT4Rec`, cross-entropy.

Different from RecBole's class, which wastes short histories (`baselines/_masked_items.py`): the target is trained on with its
history, every position has a loss, and nothing is dropped to make room for the mask.
"""

from pathlib import Path
from typing import Any

from baselines._recbole import Params as Shared
from benchmark.contract import Recommender, Split


class Params(Shared):
    """RecBole's names; sizes as its default. ft_ratio: share of the cases of which the target alone is masked."""

    n_layers: int = 2
    n_heads: int = 2
    hidden_size: int = 64
    inner_size: int = 256
    hidden_dropout_prob: float = 0.2
    attn_dropout_prob: float = 0.2
    mask_ratio: float = 0.2
    ft_ratio: float = 0.5


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> Recommender:
    """Train as `baselines._recbole.fit_model` does."""
    # The first brings back what numpy 2 dropped, without which RecBole can't be imported.
    from baselines._recbole_training import train  # isort: skip
    from baselines._masked_items import MaskedItems  # isort: skip

    # It chooses its masks itself: RecBole's own, made case by case for every batch, would go unused.
    settings = Params.model_validate(params).model_dump() | {"transform": None}
    return train("BERT4Rec", split, seed, settings, workdir, make=MaskedItems)
