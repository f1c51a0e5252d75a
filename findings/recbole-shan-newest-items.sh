#!/usr/bin/env bash
# RecBole 1.2.1: SHAN ranks the whole catalogue without a look at the newest items, unless the history is full.
#
# SHAN joins a long-term part, a weighted sum of the history in no order, with the newest `short_item_length` items. It takes
# these from the end of the history, so it learns from histories with the empty places in front (`transform: inverse_itemseq`).
# In full-ranking evaluation it is given RecBole's usual form, with the empty places behind. Its newest items are then empty
# places, which are masked, for every history of MAX_ITEM_LIST_LENGTH - short_item_length items or less. Let the oldest and the
# newest item change places: no score changes, where in the form of the training they do. So the model that RecBole reports, and
# by which it stops early, has no short-term part for these users: at RecBole's own settings 375 of ml-100k's 943 test cases.
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
config = Config(model="SHAN", dataset="ml-100k", config_dict={
    "data_path": recbole.__path__[0] + "/dataset_example", "train_neg_sample_args": None, "use_gpu": False, "state": "ERROR",
    "show_progress": False, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "checkpoint_dir": "saved",
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
})
init_seed(1, True)
torch.autograd.set_detect_anomaly(False)
dataset = create_dataset(config)
train, _, test = data_preparation(config, dataset)
net = get_model("SHAN")(config, train.dataset).eval()
with torch.no_grad():  # far from 0, so that a change of a score is more than rounding; no training is needed
    net.item_embedding.weight.normal_()
    net.user_embedding.weight.normal_()
seen = config["MAX_ITEM_LIST_LENGTH"] - config["short_item_length"]
cases = next(iter(test))[0]
short = cases[cases["item_length"] <= seen]
size, length = len(short), short["item_length"]
at = torch.arange(size)


def swapped(history, oldest, newest):
    """The same histories with these two places exchanged."""
    other = history.clone()
    other[at, oldest], other[at, newest] = history[at, newest], history[at, oldest]
    return other


@torch.no_grad()
def changed(form, oldest, newest):
    """Cases of which a score changes, relative to the scores' spread; `form` is the field that full_sort_predict is given."""
    scores = []
    for history in (short[form], swapped(short[form], oldest, newest)):
        scores.append(net.full_sort_predict(type(short)({**short.interaction, "item_id_list": history})))
    return int(((scores[0] - scores[1]).abs().amax(1) > 1e-3 * scores[0].std()).sum())


ranked = changed("item_id_list", torch.zeros_like(length), length - 1)
learned = changed("Inverse_item_id_list", config["MAX_ITEM_LIST_LENGTH"] - length, torch.full_like(length, -1))
print(f"{size} of {len(cases)} test cases have {seen} items or less. Oldest and newest item exchanged, scores change in {ranked} of them "
      f"in the form that RecBole ranks by, in {learned} in the form that SHAN learns from")
print("recbole", recbole.__version__, "torch", torch.__version__)
sys.exit(not (size > 0 and ranked == 0 and learned > 0.9 * size))
P
"$folder/venv/bin/python" check.py
