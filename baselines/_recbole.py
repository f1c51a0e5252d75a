"""Adapter to RecBole's sequential models (Zhao et al., RecBole, CIKM 2021): their model, trainer and early stopping, our splits.

A method is then a file of a few lines that names the model class and its settings; see gru4rec.py.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Recommender, Split


class Params(BaseModel):
    """Settings that all RecBole models share. Methods add their model's own, under RecBole's names."""

    model_config = ConfigDict(extra="forbid")
    learning_rate: float = Field(default=1e-3, gt=0)
    train_batch_size: int = Field(default=256, ge=1)
    epochs: int = Field(default=100, ge=1)  # at most; early stopping ends most fits long before
    patience: int = Field(default=5, ge=1)  # epochs without a better validation NDCG@10 before stopping
    weight_decay: float = Field(default=0.0, ge=0)
    max_history: int | None = Field(
        default=None, ge=1
    )  # newest history items that the model reads; null: all of the dataset's


def fit_model(
    name: str, model: type[Params], split: Split, *, seed: int, params: dict[str, Any], workdir: Path
) -> Recommender:
    """Train RecBole's model `name` with full cross-entropy, early stopping on validation NDCG@10.

    model: the method's own `Params`. Raises pydantic.ValidationError for params that it doesn't know.
    """
    # Imported late: torch and RecBole take five seconds, and the config is checked without them.
    from baselines._recbole_training import train

    return train(name, split, seed, model.model_validate(params).model_dump(), workdir)
