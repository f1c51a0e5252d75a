#!/usr/bin/env bash
# RecBole 1.2.1: Random gives all users of an evaluation batch one and the same list, so that eval_batch_size decides how much it covers.
#
# Random is documented to recommend random items, a baseline for accuracy and, above all, for coverage. In full-ranking evaluation
# it draws one score per item and repeats these for each user of the batch; only what a user has had already differs. A batch has
# eval_batch_size // items users. By default, 4096, that is two users of ml-100k, and one where there are more items. Whoever raises
# it, as one does for speed, gets fewer lists. With 500,000 the top 10 of all 943 users hold 64 of 1,682 items, with 2,000,000 they
# hold 20. With scores of their own they hold 1,674. Among sampled candidates (uni100) each pair has a score of its own.
#
# The mean of Recall@10 stays that of chance, .006. But all users now win or lose together: over 20 evaluations its standard
# deviation is .0040, where it is .0012 with scores of their own.
#
# One would guess that users have lists of their own, and that a batch size changes the speed alone.
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
again = 20


def evaluated(mode, batch, own_scores=False):
    """How many lists and items there are in an evaluation, and mean and deviation of Recall@10 over several."""
    config = Config(model="Random", dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "use_gpu": False, "state": "ERROR", "show_progress": False,
        "epochs": 1, "checkpoint_dir": "saved", "load_col": {"inter": ["user_id", "item_id"]}, "topk": [10],
        "metrics": ["Recall", "ShannonEntropy"], "valid_metric": "Recall@10", "metric_decimal_place": 6,
        "eval_batch_size": batch, "eval_args": {"mode": mode},
    })
    init_seed(1, True)
    train, _, test = data_preparation(config, create_dataset(config))
    net = get_model("Random")(config, train.dataset)
    if own_scores:
        net.full_sort_predict = lambda rows: torch.rand(len(rows) * net.n_items, dtype=torch.float64)
    trainer = get_trainer(config["MODEL_TYPE"], "Random")(config, net)
    handed, kept = trainer.eval_collector.get_data_struct, []
    trainer.eval_collector.get_data_struct = lambda: kept.append(handed()) or kept[-1]
    recalls = [trainer.evaluate(test, load_best_model=False)["recall@10"] for _ in range(again)]
    lists = kept[0].get("rec.items").numpy()
    counts = np.unique(lists, return_counts=True)[1]
    most, mean, sd = counts.max() / len(lists), np.mean(recalls), np.std(recalls, ddof=1)
    name = mode + (", own scores" if own_scores else "")
    print(f"{name:20}{batch:12,}{len(test):10}{len(lists):8}{len(counts):8}{most:16.2f}{mean:14.4f}{sd:9.4f}")
    return len(counts), most, mean, sd


print("recbole", recbole.__version__, "on ml-100k,", again, "evaluations each")
print("mode             eval_batch_size   batches   users   items   commonest item   Recall@10: mean, SD")
few = evaluated("full", 4096)
many = evaluated("full", 500_000)
whole = evaluated("full", 2_000_000)
own = evaluated("full", 2_000_000, own_scores=True)
sampled = evaluated("uni100", 2_000_000)
alike = whole[0] < 40 and whole[1] > 0.9 and whole[0] < many[0] < 200
as_named = all(one[0] > 1500 and one[1] < 0.1 for one in (few, own, sampled))
at_chance = all(abs(one[2] - 10 / 1682) < 0.003 for one in (few, many, whole, own))
sys.exit(not (alike and as_named and at_chance and whole[3] > 2 * own[3]))
P
"$folder/venv/bin/python" check.py
