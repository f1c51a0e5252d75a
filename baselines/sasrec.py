"""SASRec: causal self-attention over the history. Kang and McAuley, ICDM 2018; RecBole's `SASRec`, full cross-entropy.

With cross-entropy over the whole catalogue it is a strong baseline (Klenitskiy and Vasilev, arXiv 2309.07602).
"""

from baselines._recbole.sasrec import Params, fit, fit_cost
from benchmark.storage.stages import Stage

FIT = Stage("sasrec", 1, packages=("torch", "recbole"))

__all__ = ["FIT", "Params", "fit", "fit_cost"]
