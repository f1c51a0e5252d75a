#!/usr/bin/env bash
# RecBole 1.2.1: `eval_batch_size` counts scores for general models and users for sequential ones, so that the same setting takes
# as many times the memory as there are items.
#
# In full-ranking evaluation a general model (here BPR) gets eval_batch_size // items users at a time, one at least. A sequential
# model (here SASRec) gets eval_batch_size users, and so scores eval_batch_size x items at once. The default, 4096, is 2 users of
# BPR on ml-100k and all 943 of SASRec; with a million items it is one user of the one and 16 GB of scores of the other. A value
# that suits general models, such as 512 x items, makes a sequential model score all its validation cases in one piece.
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
import numpy as np

warnings.filterwarnings("ignore")
for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)  # names that numpy 2 dropped and RecBole uses
import recbole
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed

sys.argv = sys.argv[:1]
found = {}
for name, own in (("BPR", {}), ("SASRec", {"train_neg_sample_args": None, "loss_type": "CE", "eval_args": {"order": "TO", "mode": "full", "split": {"LS": "valid_and_test"}}})):
    config = Config(model=name, dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "use_gpu": False, "state": "ERROR", "eval_batch_size": 4096,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    } | own)
    init_seed(1, True)
    dataset = create_dataset(config)
    _, valid, _ = data_preparation(config, dataset)
    users = len(next(iter(valid))[0])
    found[name] = users
    print(f"recbole {recbole.__version__}, {name}, eval_batch_size 4096, {dataset.item_num} items: "
          f"{users} users a batch, {users * dataset.item_num:,} scores at once")
sys.exit(0 if found == {"BPR": 2, "SASRec": 943} else 1)
P
"$folder/venv/bin/python" check.py
