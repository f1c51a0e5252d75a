#!/usr/bin/env bash
# RecBole 1.2.1: Caser reads a vector that stands for nothing behind a short history.
#
# Its item embedding has padding_idx=0, for which torch makes a vector of zeros that never learns. The model's own initialisation
# then draws every row anew, that one too, and the full cross-entropy moves it, as padding is one of the classes that are pushed
# away. The convolutions read it at every empty place, so that scores of short histories depend on it. SASRec and GRU4Rec draw and
# move that row, too, but don't read it: their scores of items stay the same to the bit when it changes.
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
import torch

warnings.filterwarnings("ignore")
for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)  # names that numpy 2 dropped and RecBole uses
import recbole
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

sys.argv = sys.argv[:1]
found = {}
for name in ("Caser", "SASRec", "GRU4Rec"):
    config = Config(model=name, dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "epochs": 1, "train_neg_sample_args": None, "loss_type": "CE",
        "MAX_ITEM_LIST_LENGTH": 5, "use_gpu": False, "state": "ERROR", "show_progress": False, "train_batch_size": 4096,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "checkpoint_dir": "saved",
    })
    init_seed(1, True)
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    net = get_model(name)(config, train.dataset)
    drawn = net.item_embedding.weight[0].clone()
    get_trainer(config["MODEL_TYPE"], name)(config, net).fit(train, saved=False)
    net.eval()
    one = {"item_id_list": torch.tensor([[7, 0, 0, 0, 0]]), "item_length": torch.tensor([1]), "user_id": torch.tensor([1])}
    with torch.no_grad():
        before = net.full_sort_predict(one)
        padding = net.item_embedding.weight[0]
        learned = bool(drawn.abs().max() > 0) and not torch.equal(padding, drawn)
        padding.zero_()
        after = net.full_sort_predict(one)
    # Padding is also the first row of the scores; no item's own vector has changed.
    moved = (after - before).flatten()[1:].abs().max().item()
    found[name] = learned, moved > 0
    print(f"{name}: padding's vector was drawn, not zero, and training moved it: {learned}; with zeros an item's score moves by up to {moved:.4f}")
print("recbole", recbole.__version__, "torch", torch.__version__)
sys.exit(found != {"Caser": (True, True), "SASRec": (True, False), "GRU4Rec": (True, False)})
P
"$folder/venv/bin/python" check.py
