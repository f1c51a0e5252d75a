#!/usr/bin/env bash
# RecBole 1.2.1: BERT4Rec's loss never reads the item that a training case asks for.
#
# A sequential training case is a history (item_id_list) and the item that came next (item_id). The transform of BERT4Rec masks
# items of the history alone, also the "last item" of its fine-tuning (ft_ratio), and calculate_loss reads nothing else: other
# targets, the same loss to the bit, where SASRec's loss changes. RecBole's augmentation puts a target into the histories of the
# same user's later cases, so that on ml-100k 943 training interactions, the newest of each user, are never learned. With
# one case per user, as in files that are split beforehand, no target is ever learned. Place 0 of a history can't be learned
# either, since 0 means "no mask": the loss of a batch of histories of one item is NaN, the mean of nothing.
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
from recbole.utils import get_model, init_seed

sys.argv = sys.argv[:1]
same = {}
for name in ("SASRec", "BERT4Rec"):
    config = Config(model=name, dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "train_neg_sample_args": None, "loss_type": "CE",
        "MAX_ITEM_LIST_LENGTH": 10, "use_gpu": False, "state": "ERROR", "show_progress": False, "train_batch_size": 512,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "checkpoint_dir": "saved",
    })
    init_seed(1, True)
    dataset = create_dataset(config)
    train, _, _ = data_preparation(config, dataset)
    net = get_model(name)(config, train.dataset).eval()  # no dropout
    batch = next(iter(train))
    with torch.no_grad():
        before = net.calculate_loss(batch)
        batch.update(type(batch)({"item_id": batch["item_id"].flip(0)}))
        after = net.calculate_loss(batch)
    same[name] = bool(before == after)
    print(f"{name}: loss {before.item():.6f}, with the targets in another order {after.item():.6f}")

cases = train.dataset.inter_feat
users, lengths = cases["user_id"].tolist(), cases["item_length"].tolist()
read = {(user, item) for user, row, n in zip(users, cases["item_id_list"].tolist(), lengths) for item in row[:n]}
never = {pair for pair in zip(users, cases["item_id"].tolist()) if pair not in read}
short = train._dataset.inter_feat[np.flatnonzero(np.array(lengths) == 1)]
short = train.transform(train._dataset, short)
with torch.no_grad():
    alone = net.calculate_loss(short).item()
print(f"{len(never)} training targets of {len(set(users))} users stand in no history; loss of {len(short)} histories of one item: {alone}")
print("recbole", recbole.__version__, "torch", torch.__version__)
sys.exit(not (same == {"SASRec": False, "BERT4Rec": True} and len(never) == len(set(users)) == 943 and alone != alone))
P
"$folder/venv/bin/python" check.py
