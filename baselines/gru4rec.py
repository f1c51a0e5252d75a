"""GRU4Rec: a recurrent network over the history. Hidasi et al., ICLR 2016; RecBole's `GRU4Rec`, full cross-entropy."""

from functools import partial

from baselines._recbole import Params as Shared
from baselines._recbole import fit_model


class Params(Shared):
    """RecBole's names; sizes as its default."""

    embedding_size: int = 64
    hidden_size: int = 128
    num_layers: int = 1
    dropout_prob: float = 0.3


fit = partial(fit_model, "GRU4Rec", Params)
