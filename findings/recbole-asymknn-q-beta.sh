#!/usr/bin/env bash
# RecBole 1.2.1: AsymKNN's q changes no list, and with its beta an item's score is divided by the length of another vector than the one it
# was summed from.
#
# AsymKNN's paper (Aiolli, RecSys 2013) raises each similarity to the power of q before they are summed, so that near neighbours count more.
# RecBole raises the finished score. A power keeps the order of scores that aren't negative, so that all six values of q that RecBole's
# documentation proposes for tuning give the same lists. With q on the similarities Recall@10 of the user method on ml-100k goes from .243
# (q = 1) to .257 (q = 4), that of the item method from .245 to .216. RecBole has .243 and .245 for each q.
#
# beta divides the score by two lengths, one of the user and one of the item. In the item method an item's score is the sum of its own
# similarities, a column of the matrix. RecBole divides it by the length of the row, which says how near the item is to others that have it
# among their k. Items that few others have there have short rows, and win. The documentation proposes 0, .2, .5, .8 and 1 for beta. At 1,
# the default, no item is divided. At .8 Recall@10 is .182, where it is .229 with the column. At .5 it is .071, where it is .185. At .5 the
# score should be a cosine, 1 at most, and the highest is 2.4. The user method divides by the right lengths.
#
# One would guess that an exponent named "locality" changes how much near neighbours count, and that an item is divided by what is its own.
# The documented grid has 1,800 settings for each method and 300 results. Whoever tunes the item method by it finds that beta has to be 1 and
# that q is of no use. The documentation gives no formula. An issue about either wasn't found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check recbole==1.2.1 torch==2.13.0 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 \
    setuptools==81.0.0
cd "$folder"
cat > check.py <<'P'
import sys, warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
from scipy.sparse import csr_matrix

for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)  # names that numpy 2 dropped and RecBole uses
import recbole
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

sys.argv = sys.argv[:1]
torch.set_num_threads(1)
QS, BETAS = (1, 2, 4, 6), (1.0, 0.8, 0.5)


def length(matrix, axis):
    """Euclidean lengths of the columns (axis 0) or rows (axis 1)."""
    return np.sqrt(np.asarray(matrix.power(2).sum(axis=axis)))


def by_hand(net, method, beta, q):
    """All scores by the paper: similarities to the power of q, then the sum, then its length and the user's or item's."""
    near, taken = csr_matrix(net.w).power(q), csr_matrix(net.interaction_matrix)
    if method == "user":  # a row of `near` has the neighbours of a user
        return (near @ taken).toarray() / (length(near, 1) ** (2 * beta) * length(taken, 0) ** (2 - 2 * beta) + 1e-6)
    return (taken @ near).toarray() / (length(taken, 1) ** (2 * beta) * length(near, 0) ** (2 - 2 * beta) + 1e-6)  # a column, of an item


def measured(method, beta=1.0, q=1):
    """Recall@10 and the highest score, as RecBole has them and by hand."""
    config = Config(model="AsymKNN", dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "use_gpu": False, "state": "ERROR", "show_progress": False,
        "epochs": 1, "checkpoint_dir": "saved", "load_col": {"inter": ["user_id", "item_id"]}, "topk": [10], "metrics": ["Recall"],
        "valid_metric": "Recall@10", "metric_decimal_place": 6, "eval_batch_size": 400_000, "knn_method": method, "beta": beta, "q": q,
    })
    init_seed(1, True)
    train, _, test = data_preparation(config, create_dataset(config))
    net = get_model("AsymKNN")(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], "AsymKNN")(config, net)
    found = []
    for scores in (net.pred_mat, csr_matrix(by_hand(net, method, beta, q))):
        net.pred_mat = scores
        found += [float(trainer.evaluate(test, load_best_model=False)["recall@10"]), float(scores.max())]
    print(f"{method} method, beta {beta}, q {q}: Recall@10 {found[0]:.4f}, by hand {found[2]:.4f}; "
          f"highest score {found[1]:.3g}, by hand {found[3]:.3g}", flush=True)
    return found


print("recbole", recbole.__version__, "scipy", sys.modules["scipy"].__version__, "on ml-100k")
exponent = {method: [measured(method, q=q) for q in QS] for method in ("user", "item")}
balance = {method: [measured(method, beta=beta) for beta in BETAS] for method in ("user", "item")}
ignored = all(len({one[0] for one in tried}) == 1 and tried[0][0] == tried[0][2] for tried in exponent.values())
matters = all(max(one[2] for one in tried) > min(one[2] for one in tried) + 0.01 for tried in exponent.values())
user_right = all(abs(one[0] - one[2]) < 1e-3 and abs(one[1] - one[3]) < 1e-3 * one[3] for one in balance["user"])
item_wrong = all(one[0] < 0.8 * one[2] for one in balance["item"][1:]) and balance["item"][0][0] == balance["item"][0][2]
no_cosine = balance["item"][2][1] > 1.1 and balance["item"][2][3] <= 1 and balance["user"][2][1] <= 1
sys.exit(not (ignored and matters and user_right and item_wrong and no_cosine))
P
"$folder/venv/bin/python" check.py
