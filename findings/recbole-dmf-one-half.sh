#!/usr/bin/env bash
# RecBole 1.2.1: DMF can't score an item below one half, and stays one popularity list for all users for longer than it need.
#
# DMF's two towers end in a ReLU. So no number of a user's or an item's vector is negative, and neither is their product, which is the score.
# BCEWithLogitsLoss reads the score as a logit, of which 0 stands for a probability of one half. So a sampled negative costs .693 at least.
# Vectors become 0 to get there: 65% of all scores are one half. In the paper the score is a cosine, and the loss takes it for the
# probability, from 0 on. RecBole's documentation says that the product replaces the cosine. It doesn't say what then becomes of the ReLU.
#
# On ml-100k's users of 60 interactions or less, NDCG@10 is .1216 after 25 epochs, and after 45. Items ranked by their number of users have
# .1221, and 100 users have one and the same list of 10. Without the last ReLU it is .1707 with 42 lists. These are the best of 5, 10, ...
# epochs. RecBole's default stop, ten epochs without a better MRR, comes too early for either here: .1216 and .1204. With all users DMF
# gets away from popularity after 8 epochs (the same loss by matrix products, test set): .137 against .223 then, .214 against .233 after 12.
#
# One would guess that a loss "with logits" is given scores of both signs, as NeuMF's is. DMF is a baseline of many tables. No error or
# warning says so. Issue 1209 asks why item vectors are zero. The answer names the ReLU and items without training data, not the scores.
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
import functools, sys, warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch

for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)  # names that numpy 2 dropped and RecBole uses
torch.load = functools.partial(torch.load, weights_only=False)  # RecBole reads back its own best epoch, as torch did by default
import recbole
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

sys.argv = sys.argv[:1]
torch.set_num_threads(1)
config = Config(model="DMF", dataset="ml-100k", config_dict={
    "data_path": recbole.__path__[0] + "/dataset_example", "use_gpu": False, "state": "ERROR", "show_progress": False, "seed": 1,
    "checkpoint_dir": "saved", "load_col": {"inter": ["user_id", "item_id"]}, "user_inter_num_interval": "[0,60]", "metrics": ["MRR", "NDCG"],
    "eval_batch_size": 2000000, "stopping_step": 300, "eval_step": 5,
})
init_seed(1, True)
train, valid, test = data_preparation(config, create_dataset(config))
DMF = get_model("DMF")


class Signed(DMF):
    """DMF without the ReLU at the end of its towers."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        for tower in (self.user_fc_layers, self.item_fc_layers):
            tower.mlp_layers = tower.mlp_layers[:-1]


class ByCount(DMF):
    def full_sort_predict(self, interaction):
        return counts.repeat(len(interaction["user_id"]))


def measured(name, kind, epochs):
    """NDCG@10 of the test set, different lists of 10 among 100 users, and the share of all scores that is one half."""
    init_seed(1, True)
    train.generator.manual_seed(1)  # the order of the cases
    net = kind(config, train.dataset)
    config["epochs"] = epochs
    trainer = get_trainer(config["MODEL_TYPE"], "DMF")(config, net)
    if epochs:
        trainer.fit(train, valid, verbose=False, show_progress=False)
    ndcg = float(trainer.evaluate(test, load_best_model=epochs > 0)["ndcg@10"])
    net.eval()
    with torch.no_grad():
        scores = net.full_sort_predict({"user_id": torch.arange(1, net.n_users)}).view(net.n_users - 1, -1)
    lists = len({tuple(one.topk(10)[1].tolist()) for one in scores[:100]})
    half = float((scores == 0.5).float().mean())
    print(f"{name}, {epochs} epochs: NDCG@10 {ndcg:.4f}, {lists} different lists of 10 among 100 "
          f"users; scores from {scores.min():.3f}, {half:.1%} of them one half", flush=True)
    return ndcg, lists, float(scores.min()), half


counts = torch.bincount(train.dataset.inter_feat["item_id"], minlength=train.dataset.item_num).float()
print("recbole", recbole.__version__, "torch", torch.__version__, f"on the {train.dataset.user_num - 1} users of ml-100k with 60 items or less")
count = measured("items by their number of users", ByCount, 0)
own, signed = measured("RecBole", DMF, 25), measured("without the last ReLU", Signed, 25)
popularity = abs(own[0] - count[0]) < 0.01 and own[1] == 1
cut = own[2] == 0.5 and own[3] > 0.3 and signed[2] < 0.1
better = signed[0] > own[0] + 0.03 and signed[1] > 20
print(f"popularity alone: {popularity}; cut at one half: {cut}; better without the last ReLU: {better}")
sys.exit(not (popularity and cut and better))
P
"$folder/venv/bin/python" check.py
