"""Settings that our trainings of RecBole's sequential networks (Zhao et al., RecBole, CIKM 2021) share.

A method is then a file of a few lines that names the network's class and its own settings; see gru4rec.py.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Size = Annotated[int, Field(ge=1)]  # of a layer, or how many there are of something
Dropout = Annotated[float, Field(ge=0, lt=1)]


class Params(BaseModel):
    """Settings that all RecBole models share. Methods add their model's own, under RecBole's names.

    train_batch_size: targets per step, about: pieces of users' lines come whole. patience: epochs in a row without a
    better validation NDCG@10, after which training ends. max_history: newest history items that the model reads; null:
    all of the dataset's.
    """

    model_config = ConfigDict(extra="forbid")
    learning_rate: float = Field(default=1e-3, gt=0)
    train_batch_size: int = Field(default=1024, ge=1)
    epochs: int = Field(default=200, ge=1)
    patience: int = Field(default=6, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_history: int | None = Field(default=None, ge=1)


class CausalParams(Params):
    """Settings of a causal network, whose state at a place has read the items up to it, and which learns at all places.

    stride: items by which one piece of a line begins behind the one before it; null: half of what the network reads, so
    that each target is predicted from at least the other half, where its line is that long.
    """

    stride: int | None = Field(default=None, ge=1)


def check_heads(hidden_size: int, n_heads: int) -> None:
    """Raise ValueError where the heads of an attention can't have equal parts of its states."""
    if hidden_size % n_heads:
        raise ValueError(f"hidden_size {hidden_size} is no multiple of n_heads {n_heads}; change one of them")
