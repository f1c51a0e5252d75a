"""Caser: convolutions over the last items. Tang and Wang, WSDM 2018; RecBole's `Caser`, full cross-entropy."""

from functools import partial

from baselines._recbole import Params as Shared
from baselines._recbole import fit_model


class Params(Shared):
    """RecBole's names; sizes as its default, the last five items as in the Caser paper."""

    max_history: int | None = 5

    embedding_size: int = 64
    nv: int = 4
    nh: int = 8
    reg_weight: float = 1e-4
    dropout_prob: float = 0.4


fit = partial(fit_model, "Caser", Params)
