"""BERT4Rec: a bidirectional transformer trained on masked items. Sun et al., CIKM 2019; RecBole's `BERT4Rec`, cross-entropy."""

from functools import partial

from baselines._recbole import Params as Shared
from baselines._recbole import fit_model


class Params(Shared):
    """RecBole's names; sizes as its default."""

    n_layers: int = 2
    n_heads: int = 2
    hidden_size: int = 64
    inner_size: int = 256
    hidden_dropout_prob: float = 0.2
    attn_dropout_prob: float = 0.2
    mask_ratio: float = 0.2
    ft_ratio: float = 0.5


fit = partial(fit_model, "BERT4Rec", Params)
