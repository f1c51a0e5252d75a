"""SASRec: causal self-attention over the history. Kang and McAuley, ICDM 2018; RecBole's `SASRec`, full cross-entropy.

With cross-entropy over the whole catalogue it is a strong baseline (Klenitskiy and Vasilev, arXiv 2309.07602).
"""

from baselines._recbole.sasrec import Params, fit, fit_cost

__all__ = ["Params", "fit", "fit_cost"]
