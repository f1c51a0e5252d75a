#!/usr/bin/env bash
# RecBole 1.2.1: HRM's average pooling reads the whole history, whatever `high_order` says, and isn't an average.
#
# HRM pools the newest `high_order` items of a history (2 by default: "The last N items") and then pools that with the user. With
# `pooling_type_layer_1: max` RecBole does so. With `average`, the other value that its settings name, it sums all items of the
# history and divides by their number, but by `high_order` at most: with 20 items and 2 it is ten times their mean. So other items at
# all places but the newest two change the scores, which they don't with max, and `high_order` is a factor and no window. On the way it
# writes the cut lengths into the batch that it was given.
#
# One would guess that the two kinds of pooling differ in how they pool, and not in what.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check recbole==1.2.1 torch==2.13.0 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 setuptools==81.0.0
cd "$folder"
cat > check.py <<'P'
import sys, warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch

for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)  # names that numpy 2 dropped and RecBole uses
import recbole
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

sys.argv = sys.argv[:1]
torch.set_num_threads(1)


def network(pooling, order):
    """HRM after one epoch, and the test cases as one batch."""
    config = Config(model="HRM", dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "use_gpu": False, "state": "CRITICAL", "show_progress": False, "epochs": 1,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "checkpoint_dir": "saved", "MAX_ITEM_LIST_LENGTH": 20,
        "pooling_type_layer_1": pooling, "high_order": order, "train_neg_sample_args": None,
    })
    init_seed(1, True)
    train, _, test = data_preparation(config, create_dataset(config))
    torch.autograd.set_detect_anomaly(False)
    init_seed(2, True)
    net = get_model("HRM")(config, train.dataset)
    get_trainer(config["MODEL_TYPE"], "HRM")(config, net).fit(train, verbose=False, saved=False)
    return net.eval(), test.dataset.inter_feat


def best(net, batch):
    with torch.no_grad():
        return net.full_sort_predict(batch)[:, 1:].topk(10).indices


changed = {}
for pooling in ("max", "average"):
    net, cases = network(pooling, 2)
    full = cases["item_length"] == 20
    given = {name: cases[name][full] for name in ("item_id_list", "item_length", "user_id")}
    sequences = given["item_id_list"].clone()
    sequences[:, :18] = sequences[:, :18].roll(1, dims=0)  # the older 18 items of another user
    # A copy of the lengths, as they are overwritten.
    first = best(net, given | {"item_length": given["item_length"].clone()})
    second = best(net, given | {"item_id_list": sequences, "item_length": given["item_length"].clone()})
    changed[pooling] = (first != second).any(dim=1).float().mean().item()
    print(f"{pooling}, high_order 2: other items before the newest two change the top 10 of {changed[pooling]:.0%} of {len(first)} test cases")

lengths = given["item_length"].clone()
with torch.no_grad():
    vectors = net.item_embedding(given["item_id_list"])
    by_hand = (net.user_embedding(given["user_id"]), vectors.sum(1) / 2)
    by_hand = torch.stack(by_hand, 1).max(1).values  # layer 2
    computed = net(given["item_id_list"], given["user_id"], lengths)
sum_by_two = torch.allclose(computed, by_hand, atol=1e-5)
print(f"its history is the sum of 20 vectors, divided by 2: {sum_by_two}; lengths in the batch before: 20, after: {lengths.unique().tolist()}")
print("recbole", recbole.__version__, "torch", torch.__version__)
sys.exit(not (changed["max"] == 0 and changed["average"] > 0.5 and sum_by_two and lengths.unique().tolist() == [2]))
P
"$folder/venv/bin/python" check.py
