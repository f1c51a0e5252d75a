#!/usr/bin/env bash
# RecBole 1.2.1: an interaction that `threshold` labels 0 is a hit like any other, so that lists without disliked items get a lower score.
#
# `threshold: {rating: 4}` labels each interaction: 1 from four stars on, else 0. The documentation calls 0 the negative label. It gives
# this setting as the way to label data that has ratings. Yet Recall, NDCG and the other ranking metrics never read a label. All
# interactions of the test set are hits. EASE doesn't read it in the training either, nor do ItemKNN, BPR and LightGCN by their code, so that
# the setting changes nothing at all. A pointwise model, such as NeuMF, has a negative drawn for each interaction by default. It overwrites the
# labels with it: all interactions become 1. (With train_neg_sample_args None, NeuMF learns from the labels. The metrics stay the same.)
#
# On ml-100k, split as by default, 4,199 of 9,596 test interactions have the label 0. EASE's NDCG@10 is .3301 with the threshold and without,
# by the same weights. 637 of its 2,084 hits are films that the user disliked. If only label 1 is a hit, it is .2975. Without the disliked
# films of the test set the lists are better: .3149 by label 1. RecBole calls them worse: .2450. A method that uses the labels meets this, too.
# If a disliked film of a user's history counts a third of a liked one, EASE has .3084 by label 1, and .3197 by RecBole.
#
# One would guess that a ranking metric asks for what is labelled positive. `val_interval: {rating: "[4,inf)"}` drops the other interactions
# from the data, so that they are neither hits nor known as the user's. No warning says so, nor does the documentation. Issues 1086, 1862,
# 2019 and 2026 are by users who expected something else of the threshold, and 2035 reports that "mode: labeled" fails with ranking metrics.
# None was found that says this.
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

for old, new in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    setattr(np, old, new)  # names that numpy 2 dropped and RecBole uses
import recbole
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

sys.argv = sys.argv[:1]
torch.set_num_threads(1)


def prepared(model, **settings):
    config = Config(model=model, dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "use_gpu": False, "state": "ERROR", "show_progress": False, "seed": 1,
        "checkpoint_dir": "saved", "load_col": {"inter": ["user_id", "item_id", "rating"]}, "topk": [10], "metrics": ["NDCG"],
        "valid_metric": "NDCG@10", "metric_decimal_place": 6, "eval_batch_size": 2000000, **settings,
    })
    init_seed(1, True)
    train, valid, test = data_preparation(config, create_dataset(config))
    return config, train, valid, test


def by_recbole(net, config, test):
    return float(get_trainer(config["MODEL_TYPE"], "EASE")(config, net).evaluate(test, load_best_model=False)["ndcg@10"])


def by_hand(scores, relevant):
    """NDCG@10 if only `relevant` test interactions are hits, and how many of all, and of label 0, are in the lists."""
    hit = torch.zeros(scores.shape, dtype=torch.bool)
    hit[users[relevant], items[relevant]] = True
    top = scores.topk(10)[1]
    gain = 1 / torch.log2(torch.arange(2, 12))
    ideal = torch.cat([torch.zeros(1), gain.cumsum(0)])[hit.sum(1).clamp(max=10)]
    asked = hit.any(1)
    shown = (top[users] == items.unsqueeze(1)).any(1)
    ndcg = float(((hit.gather(1, top) * gain).sum(1)[asked] / ideal[asked]).mean())
    return ndcg, int(shown.sum()), int((shown & ~liked).sum())


class Ranked(torch.nn.Module):
    """Given scores, as a model that RecBole evaluates."""

    def __init__(self, scores):
        super().__init__()
        self.scores, self.dummy = scores, torch.nn.Parameter(torch.zeros(1))  # a trainer wants a parameter

    def full_sort_predict(self, interaction):
        return self.scores[interaction["user_id"]].view(-1)


print("recbole", recbole.__version__, "torch", torch.__version__)
plain, labelled, dropped = prepared("EASE"), prepared("EASE", threshold={"rating": 4}), prepared("EASE", val_interval={"rating": "[4,inf)"})
nets = [get_model("EASE")(config, train.dataset) for config, train, _, _ in (plain, labelled, dropped)]
same = bool((nets[0].item_similarity == nets[1].item_similarity).all())
ndcg = [by_recbole(net, data[0], data[3]) for net, data in zip(nets, (plain, labelled, dropped))]
print(f"EASE's NDCG@10: {ndcg[0]:.4f}, with the threshold {ndcg[1]:.4f} (the same weights: {same}), with val_interval {ndcg[2]:.4f}")

config, train, valid, test = labelled
feat, known = test.dataset.inter_feat, train.dataset.inter_feat
users, items, liked = feat["user_id"], feat["item_id"], feat["label"] == 1
scores = nets[1].full_sort_predict({"user_id": torch.arange(nets[1].n_users)}).view(nets[1].n_users, -1).clone()
scores[:, 0] = -torch.inf
for part in (train, valid):
    scores[part.dataset.inter_feat["user_id"], part.dataset.inter_feat["item_id"]] = -torch.inf
clean = scores.clone()
clean[users[~liked], items[~liked]] = -torch.inf
history = torch.zeros(scores.shape)
history[known["user_id"], known["item_id"]] = torch.where(known["label"] == 1, 1.0, 1 / 3)
weighed = (history @ torch.as_tensor(np.asarray(nets[1].item_similarity)).float()).masked_fill(scores == -torch.inf, -torch.inf)
everything = torch.ones_like(liked)
print(f"test interactions: {len(liked)}, of label 0: {int((~liked).sum())}")
result = {}
ways = {"EASE": scores, "EASE without the test set's disliked items": clean, "EASE, disliked items of a history count a third": weighed}
for name, these in ways.items():
    result[name] = by_recbole(Ranked(these), config, test), by_hand(these, everything)[0], by_hand(these, liked)[0]
    ndcgs, shown, bad = result[name], *by_hand(these, everything)[1:]
    print(f"{name}: {shown} hits, {bad} of them disliked; NDCG@10 by RecBole {ndcgs[0]:.4f} (by hand {ndcgs[1]:.4f}), if only label 1 is a hit "
          f"{ndcgs[2]:.4f}")

means = {}
for negatives in ({"distribution": "uniform", "sample_num": 1}, None):
    train = prepared("NeuMF", threshold={"rating": 4}, train_neg_sample_args=negatives)[1]
    half = 2 if negatives else 1  # the first half of a batch are interactions, the rest negatives
    labels = torch.cat([batch["label"][: len(batch) // half] for batch in train])
    means[negatives is None] = float(labels.mean())
    data = float(train.dataset.inter_feat["label"].mean())
    print(f"NeuMF, train_neg_sample_args {negatives}: {len(labels)} interactions, mean label {means[negatives is None]:.4f} in the batches, "
          f"{data:.4f} in the data")
ease, cleaned, aware = result.values()
ignored = same and ndcg[0] == ndcg[1] and abs(ease[0] - ease[1]) < 1e-5 and abs(ease[0] - ndcg[1]) < 1e-5
turned = cleaned[0] < ease[0] - 0.05 and cleaned[2] > ease[2] + 0.01
method = aware[0] < ease[0] - 0.005 and aware[2] > ease[2] + 0.005
print(f"ignored: {ignored}; better lists, worse score: {turned}; the same for a method: {method}; overwritten: {means[False] == 1 > means[True]}")
sys.exit(not (ignored and turned and method and means[False] == 1 > means[True]))
P
"$folder/venv/bin/python" check.py
