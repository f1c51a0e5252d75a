#!/usr/bin/env bash
# RecBole 1.2.1: NPE has a second table of item vectors, for what a history says, and never reads it.
#
# Neural Personalized Embedding tells what an item is worth as the next one from what it says of the items beside it, in a history.
# RecBole makes a table of item vectors for each, the second with a vector of zeros for empty places. The history is then read from
# the first one, so that one table does both. The second gets no gradient, its numbers are those of the start after each epoch, and
# other numbers in it change no score. It still counts: as trainable parameters, in the optimiser, in the size of the checkpoint. On
# ml-100k 39 % of what RecBole reports as trainable has no part in the model. In the first table the vector of empty places learns, so
# that the places behind a short history add to its sum.
#
# One would guess that a network's parameters take part in its scores.
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


config = Config(model="NPE", dataset="ml-100k", config_dict={
    "data_path": recbole.__path__[0] + "/dataset_example", "use_gpu": False, "state": "CRITICAL", "show_progress": False, "epochs": 2,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "checkpoint_dir": "saved", "MAX_ITEM_LIST_LENGTH": 20,
    "train_neg_sample_args": None,
})
init_seed(1, True)
train, _, test = data_preparation(config, create_dataset(config))
torch.autograd.set_detect_anomaly(False)
init_seed(2, True)
net = get_model("NPE")(config, train.dataset)
start = {name: value.clone() for name, value in net.state_dict().items()}
get_trainer(config["MODEL_TYPE"], "NPE")(config, net).fit(train, verbose=False, saved=False)
moved = {name: not torch.equal(value, start[name]) for name, value in net.state_dict().items()}
idle = [name for name, parameter in net.named_parameters() if parameter.grad is None]
trainable = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
share = sum(net.get_parameter(name).numel() for name in idle) / trainable
print(f"moved by two epochs: {moved}; without a gradient: {idle}, {share:.0%} of {trainable:,} trainable parameters")

cases = test.dataset.inter_feat
batch = {name: cases[name] for name in ("item_id_list", "item_length", "user_id")}
short = batch["item_length"] < 20
with torch.no_grad():
    before = net.eval().full_sort_predict(batch)
    net.embedding_seq_item.weight.normal_()
    same = torch.equal(before, net.full_sort_predict(batch))
    net.item_embedding.weight[0] += 1.0
    after = net.full_sort_predict(batch)
    of_short = (after != before)[short][:, 1:].any(dim=1).float().mean().item()
    of_full = (after != before)[~short][:, 1:].any(dim=1).float().mean().item()
print(f"other numbers in it: scores equal to the bit: {same}")
print(f"another vector for empty places changes the scores of {of_short:.0%} of the short histories, {of_full:.0%} of the full ones")
print("recbole", recbole.__version__, "torch", torch.__version__)
expected = {"user_embedding.weight": True, "item_embedding.weight": True, "embedding_seq_item.weight": False}
sys.exit(not (moved == expected and idle == ["embedding_seq_item.weight"] and same and of_short == 1 and of_full == 0))
P
"$folder/venv/bin/python" check.py
