#!/usr/bin/env bash
# RecBole 1.2.1: with settings of its own tuning grid, NextItNet gives all users of short histories one and the same ranking.
#
# NextItNet recommends from its state at the last place of a history. RecBole has the empty places behind the items, where the
# paper has them in front, and doesn't go to the newest item (gather_indexes), as its other networks do. So the convolutions look
# back from the end over empty places. How far they see depends on block_num and dilations, of which RecBole's documentation says
# to try [2, 3, 4, 5] and [1, 2] or [1, 4]. With 2 and [1, 2] they see 37 places of the 50 that a history has by default: one of 13
# items or less isn't read at all. On ml-100k's ratings of 5 these are 415 of 859 test cases, and all have the same scores to the
# bit, whatever the weights. With the same histories moved to the end there are some 400 different top-10 lists, and GRU4Rec, by the
# same code, has 415. With the default, 5 and [1, 4], all places are seen, a short history through up to 49 empty ones.
#
# One would guess that a sequential model of the library reads the newest item. Such a user gets what an empty history would get.
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
blocks, dilations, kernel = 2, [1, 2], 3
lists = {}
for name in ("NextItNet", "GRU4Rec"):
    config = Config(model=name, dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "train_neg_sample_args": None, "loss_type": "CE", "use_gpu": False,
        "state": "CRITICAL", "show_progress": False, "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "val_interval": {"rating": "[5,5]"}, "normalize_all": False, "checkpoint_dir": "saved",
        **({"block_num": blocks, "dilations": dilations, "kernel_size": kernel} if name == "NextItNet" else {}),
    })
    init_seed(1, True)
    torch.autograd.set_detect_anomaly(False)
    train, _, test = data_preparation(config, create_dataset(config))
    net = get_model(name)(config, train.dataset).eval()  # not trained, as it holds for any weights
    length = config["MAX_ITEM_LIST_LENGTH"]
    seen = 1 + (kernel - 1) * blocks * sum(first + 2 * first for first in dilations)  # two convolutions each, d and 2d apart
    cases = next(iter(test))[0]
    short = cases[cases["item_length"] <= length - seen]

    @torch.no_grad()
    def rankings(case):
        """How many different top-10 lists there are, and the most by which two cases' scores of an item differ."""
        scores = net.full_sort_predict(case)[:, 1:]
        return len({tuple(row) for row in scores.topk(10).indices.tolist()}), (scores.amax(0) - scores.amin(0)).max().item()

    histories = len({tuple(row) for row in short["item_id_list"].tolist()})
    lists[name] = rankings(short)
    print(f"{name}: {len(short)} of {len(cases)} test cases have {length - seen} items or less: {histories} different histories, "
          f"{lists[name][0]} different top-10 lists; scores of one item differ by {lists[name][1]:.2g} at most")
    if name == "NextItNet":
        at_end = torch.stack([row.roll(length - n) for row, n in zip(short["item_id_list"], short["item_length"].tolist(), strict=True)])
        moved, _ = rankings(type(short)({**short.interaction, "item_id_list": at_end}))
        print(f"the same histories with the empty places in front: {moved} different top-10 lists")
print("recbole", recbole.__version__, "torch", torch.__version__)
sys.exit(not (lists["NextItNet"] == (1, 0.0) and min(moved, lists["GRU4Rec"][0]) > 0.9 * histories and histories > 100))
P
"$folder/venv/bin/python" check.py
