#!/usr/bin/env bash
# RecBole 1.2.1: among sampled candidates a sequential model's test cases of one user are ranked in one list, against each other.
#
# With a split by ratio a user has several test cases, each with a history of its own. In full evaluation each is ranked by itself.
# With `mode: uni100` RecBole puts all candidates of a user's cases into one list by item: scores that were given to different
# histories compete, an item that two cases draw keeps one of their scores, and a case's target may get the score that another
# history gave it as a negative. On a part of ml-100k the 1,181 test cases of 137 users become 137 lists; 59 % of the candidates keep a
# place, and 720 targets share theirs. An untrained network has Hit@10 .107 of single cases, where chance is .099, and RecBole reports
# Hit@10 .146 and Recall@10 .033, which are one number where each list has one target.
#
# So Hit@10, NDCG@10 and Recall@10 are not those of a target among 100 others, and depend on how many test cases a user has. Scores of
# each case times a power of two of its own change Recall and NDCG, though they change no ranking; full evaluation stays the same. Early
# stopping by the sampled metric is concerned, too. With leave-one-out, one case per user, all is well.
#
# One would guess 101 candidates a target, as the documentation says, and the same cases in both modes.
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


def prepared(mode):
    config = Config(model="GRU4Rec", dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "train_neg_sample_args": None, "loss_type": "CE", "use_gpu": False,
        "state": "CRITICAL", "show_progress": False, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "embedding_size": 8,
        "hidden_size": 8, "MAX_ITEM_LIST_LENGTH": 5, "checkpoint_dir": "saved", "metrics": ["Hit", "Recall", "NDCG"],
        "valid_metric": "NDCG@10", "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": mode},
        "val_interval": {"timestamp": "(-inf,877000000]"},
    })
    init_seed(1, True)
    torch.autograd.set_detect_anomaly(False)
    train, _, test = data_preparation(config, create_dataset(config))
    net = get_model("GRU4Rec")(config, train.dataset).eval()  # not trained: a target's place is chance
    return config, net, test


def evaluated(mode, scaled):
    """RecBole's metrics, and how many lists it ranked; scaled: each case's scores times 1, 2, 4 or 8."""
    config, net, test = prepared(mode)
    if scaled:
        of_all, of_one = net.full_sort_predict, net.predict
        factor = lambda case: 2.0 ** (case["item_id_list"][:, 0] % 4)
        net.full_sort_predict = lambda case: of_all(case) * factor(case)[:, None]
        net.predict = lambda case: of_one(case) * factor(case)
    trainer, lists = get_trainer(config["MODEL_TYPE"], "GRU4Rec")(config, net), []
    evaluate = trainer.evaluator.evaluate
    trainer.evaluator.evaluate = lambda kept: lists.append(len(kept.get("rec.topk"))) or evaluate(kept)
    init_seed(3, True)  # the same candidates each time
    return {name: float(value) for name, value in trainer.evaluate(test, load_best_model=False).items()}, lists[0]


@torch.no_grad()
def one_by_one():
    """The same candidates: is a case's target among the best 10 of its own 101; and what becomes of scores in the user's one list."""
    _, net, test = prepared("uni100")
    init_seed(3, True)
    hits, candidates, kept, shared = [], 0, 0, 0
    for case, _, of_user, targets in test:
        sizes = (of_user.bincount() * 101).tolist()
        for scores, items, wanted in zip(net.predict(case).split(sizes), case["item_id"].split(sizes),
                                         targets.split(of_user.bincount().tolist()), strict=True):
            own, drawn = scores.view(101, -1), items.view(101, -1)
            assert torch.equal(drawn[0], wanted)
            hits += ((own[1:] >= own[0]).sum(0) < 10).tolist()
            candidates, kept = candidates + len(items), kept + len(items.unique())
            shared += sum(bool((items == item).sum() > 1) for item in wanted)
    return len(hits), sum(hits) / len(hits), kept / candidates, shared


cases, hit, kept, shared = one_by_one()
print(f"{cases} test cases, each target among its own 100 others: Hit@10 {hit:.4f} (chance: {10 / 101:.4f})")
print(f"of the candidates {kept:.0%} keep a place in their user's list; {shared} targets share theirs with another case's candidate")
results = {}
for mode in ("full", "uni100"):
    results[mode] = [evaluated(mode, scaled) for scaled in (False, True)]
    (plain, lists), (scaled, _) = results[mode]
    print(f"{mode}: {lists} lists; {plain}; with each case's scores times a power of two {scaled}")
print("recbole", recbole.__version__, "torch", torch.__version__)
(full, full_scaled), (sampled, sampled_scaled) = results.values()
one_list = full == full_scaled and full[1] == cases and sampled[1] < cases / 2 and sampled[0] != sampled_scaled[0]
sys.exit(not (one_list and kept < 0.9 and shared > 0 and sampled[0]["recall@10"] < hit / 2))
P
"$folder/venv/bin/python" check.py
