"""SASRec's settings and fit, for sasrec.py and for the methods that build on its candidates or scores."""

from functools import partial

from baselines._recbole import Params as Shared
from baselines._recbole import fit_model


class Params(Shared):
    """RecBole's names; the feed-forward block as in the SASRec paper (ReLU, as wide as the model)."""

    n_layers: int = 2
    n_heads: int = 2
    hidden_size: int = 64
    inner_size: int = 64
    hidden_act: str = "relu"
    hidden_dropout_prob: float = 0.5
    attn_dropout_prob: float = 0.5


fit = partial(fit_model, "SASRec", Params)
