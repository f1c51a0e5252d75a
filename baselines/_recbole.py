"""Adapter to RecBole's sequential models (Zhao et al., RecBole, CIKM 2021): their model, trainer and early stopping, our splits.

A method is then a file of a few lines that names the model class and its settings; see gru4rec.py.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from benchmark.contract import Recommender, Split


class Params(BaseModel):
    """Settings that all RecBole models share. Methods add their model's own, under RecBole's names."""

    model_config = ConfigDict(extra="forbid")
    learning_rate: float = 1e-3
    train_batch_size: int = 256
    epochs: int = 100  # at most; early stopping ends most fits long before
    patience: int = 3  # epochs without a better validation NDCG@10 before stopping
    weight_decay: float = 0.0
    max_history: int | None = None  # newest history items that the model reads; null: all of the dataset's


def fit_model(
    name: str, model: type[Params], split: Split, *, seed: int, params: dict[str, Any], workdir: Path
) -> Recommender:
    """Train RecBole's model `name` with full cross-entropy, early stopping on validation NDCG@10.

    model: the method's own `Params`. Raises pydantic.ValidationError for params that it doesn't know.
    """
    # Imported late: torch and RecBole take five seconds, and the config is checked without them.
    from baselines._recbole_training import train

    return train(name, split, seed, model.model_validate(params).model_dump(), workdir)
