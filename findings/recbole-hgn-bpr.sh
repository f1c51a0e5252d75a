#!/usr/bin/env bash
# RecBole 1.2.1: with HGN's BPR loss a negative item's score is taken from another table than the one that ranks.
#
# HGN has two vectors of an item: one reads it in a history, one ranks it. The loss for `loss_type: BPR`, the paper's, takes a
# target's score from its ranking vector and a sampled negative's from its reading vector. So an item that wasn't wanted never has
# its ranking score lowered: after one batch the ranking vectors with a gradient are those of the targets, and none is of an item
# that was only a negative. What the loss moves instead is how the negative reads in a history. SASRec, by the same code, gives every
# negative a gradient. RecBole's default for HGN, CE, isn't concerned.
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
from recbole.utils import get_model, init_seed

sys.argv = sys.argv[:1]
torch.set_num_threads(1)
lowered = {}
for name, ranks in (("SASRec", "item_embedding"), ("HGN", "item_embedding_for_prediction")):
    config = Config(model=name, dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "loss_type": "BPR", "MAX_ITEM_LIST_LENGTH": 10, "use_gpu": False,
        "state": "ERROR", "show_progress": False, "train_batch_size": 512, "checkpoint_dir": "saved",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "val_interval": {"timestamp": "(-inf,876500000]"},
    })
    init_seed(1, True)
    torch.autograd.set_detect_anomaly(False)
    dataset = create_dataset(config)
    train, _, _ = data_preparation(config, dataset)
    net = get_model(name)(config, train.dataset)
    batch = next(iter(train))
    net.calculate_loss(batch).backward()
    learns = getattr(net, ranks).weight.grad.abs().sum(1) > 0
    targets, read = set(batch["item_id"].tolist()), set(batch["item_id_list"].flatten().tolist())
    negatives = sorted(set(batch["neg_item_id"].tolist()) - targets - read)
    lowered[name] = int(learns[negatives].sum()), len(negatives), int(learns[sorted(targets)].sum()), len(targets)
    print(f"{name}: ranking vectors with a gradient: {lowered[name][0]} of {lowered[name][1]} items that are negatives alone, "
          f"{lowered[name][2]} of {lowered[name][3]} targets")
print("recbole", recbole.__version__, "torch", torch.__version__)
as_described = lowered["HGN"][0] == 0 < lowered["HGN"][1] and all(one[2] == one[3] for one in lowered.values())
sys.exit(not (as_described and lowered["SASRec"][0] == lowered["SASRec"][1] > 0))
P
"$folder/venv/bin/python" check.py
