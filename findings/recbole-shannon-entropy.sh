#!/usr/bin/env bash
# RecBole 1.2.1: ShannonEntropy is lower, the more varied the recommendations are.
#
# Its documentation gives the formula: minus the sum of p log p over the items, p being an item's share of all places in the lists. The
# code divides that sum by the number of different items in the lists. The entropy grows as the logarithm of that number at most, so
# that the quotient falls. Five lists of two: if all are the same two items, the entropy is log 2 = .6931, and RecBole has .3466. If no
# item comes twice it is log 10 = 2.3026, and RecBole has .2303. GiniIndex and ItemCoverage are right for both, by hand.
#
# On ml-100k the order of Pop, BPR, ItemKNN and Random is 3.21, 3.90, 5.29 and 7.24 by the formula, and the reverse by RecBole: .0458,
# .0285, .0123, .0045. RecBole takes a higher value as a better one. So a table of it prefers Pop, and an early stop by it
# (`valid_metric: ShannonEntropy@10`) keeps the epoch of the narrowest lists. An open pull request, 2165, has the formula's sum.
#
# One would guess that a metric named an entropy, with the entropy's formula in its documentation, orders as the entropy does.
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
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.metrics import GiniIndex, ItemCoverage, ShannonEntropy
from recbole.utils import get_model, get_trainer, init_seed

sys.argv = sys.argv[:1]
torch.set_num_threads(1)


def entropy(lists):
    """By the formula that RecBole documents: minus the sum of p log p over the items."""
    shares = np.unique(lists, return_counts=True)[1] / lists.size
    return float(-(shares * np.log(shares)).sum())


def by_recbole(metric, lists, items):
    found = DataStruct()
    found.set("rec.items", torch.tensor(lists))
    found.set("data.num_items", items + 1)  # as a dataset has it: item 0 is the empty place
    return next(iter(metric({"topk": [lists.shape[1]], "metric_decimal_place": 6}).calculate_metric(found).values()))


print("recbole", recbole.__version__)
print("five lists of two among ten items   entropy by the formula   RecBole's   ItemCoverage   GiniIndex")
hand = {  # with the entropy, the coverage and the Gini index by hand; RecBole counts the empty place as an eleventh item
    "all users get the same two": ([[1, 2]] * 5, np.log(2), 2 / 11, (8 * 5 + 10 * 5) / (11 * 10)),
    "all users get two of their own": ([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]], np.log(10), 10 / 11, 10 / (11 * 10)),
}
as_described = True
values = []
for name, (lists, expected, covered, gini) in hand.items():
    lists = np.array(lists)
    values.append(by_recbole(ShannonEntropy, lists, 10))
    others = by_recbole(ItemCoverage, lists, 10), by_recbole(GiniIndex, lists, 10)
    print(f"{name:36}{entropy(lists):22.4f}{values[-1]:12.4f}{others[0]:15.4f}{others[1]:12.4f}")
    as_described &= abs(entropy(lists) - expected) < 1e-9 and np.allclose(others, (covered, gini), atol=1e-5)
    as_described &= abs(values[-1] - expected / len(np.unique(lists))) < 1e-5
as_described &= values[0] > values[1]

print("ml-100k, top 10        different items   entropy by the formula   RecBole's")
formula, reported = {}, {}
for name in ("Pop", "BPR", "ItemKNN", "Random"):
    config = Config(model=name, dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "use_gpu": False, "state": "ERROR", "show_progress": False,
        "epochs": 10 if name == "BPR" else 1, "checkpoint_dir": "saved", "load_col": {"inter": ["user_id", "item_id"]},
        "topk": [10], "metrics": ["ShannonEntropy"], "valid_metric": "ShannonEntropy@10", "metric_decimal_place": 6,
    })
    init_seed(1, True)
    train, _, test = data_preparation(config, create_dataset(config))
    net = get_model(name)(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, net)
    trainer.fit(train, saved=False)
    handed, kept = trainer.eval_collector.get_data_struct, []
    trainer.eval_collector.get_data_struct = lambda: kept.append(handed()) or kept[-1]
    reported[name] = trainer.evaluate(test, load_best_model=False)["shannonentropy@10"]
    lists = kept[-1].get("rec.items").numpy()
    formula[name] = entropy(lists)
    print(f"{name:16}{len(np.unique(lists)):22}{formula[name]:25.4f}{reported[name]:12.4f}")
    as_described &= abs(reported[name] - formula[name] / len(np.unique(lists))) < 1e-5
order = sorted(formula, key=formula.get)
print("from the narrowest to the widest:", order, "by the formula;", sorted(reported, key=reported.get), "by RecBole")
as_described &= sorted(reported, key=reported.get) == order[::-1]
sys.exit(not as_described)
P
"$folder/venv/bin/python" check.py
