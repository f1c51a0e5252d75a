#!/usr/bin/env bash
# RecBole 1.2.1: CORE ranks by one score in full evaluation and by another one among sampled candidates.
#
# CORE learns cosines: items are divided by their length, and the loss and full_sort_predict use that. predict, which RecBole calls
# when a target is ranked among sampled items (modes uni100, pop100), multiplies with the items as they are, so that an item's
# length counts, which the loss never sees. After two epochs on ml-100k the target has another place among the same 101 items in
# 495 of 943 cases (NDCG@10 .2954 by predict, .2981 by full_sort_predict). So the sampled metric, and an early stop by it, is that of a
# model that wasn't trained. SASRec, by the same code, has one order.
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
differ = {}
for name in ("SASRec", "CORE"):
    config = Config(model=name, dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "train_neg_sample_args": None, "loss_type": "CE",
        "MAX_ITEM_LIST_LENGTH": 10, "use_gpu": False, "state": "ERROR", "show_progress": False, "train_batch_size": 1024,
        "epochs": 2, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "checkpoint_dir": "saved",
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": {"valid": "uni100", "test": "uni100"}},
        "metrics": ["NDCG"], "topk": [10], "valid_metric": "NDCG@10", "metric_decimal_place": 4,
    })
    init_seed(1, True)
    torch.autograd.set_detect_anomaly(False)
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    net = get_model(name)(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, net)
    trainer.fit(train, show_progress=False, saved=False)
    net.eval()
    other, cases, at_all = 0, 0, 0
    gains = {"predict": [], "full_sort_predict": []}
    with torch.no_grad():
        for rows, index, _, _ in test:  # a target and 100 sampled items for each case, as RecBole's evaluation reads them
            by_predict = net.predict(rows).view(-1)
            whole = net.full_sort_predict(rows).view(len(rows), -1)
            by_full = whole[torch.arange(len(rows)), rows["item_id"]]
            index = torch.as_tensor(index)
            for case in index.unique():
                at = (index == case).nonzero().view(-1)  # the target is the first
                first = [int((scores[at][1:] >= scores[at][0]).sum()) for scores in (by_predict, by_full)]
                other += first[0] != first[1]
                cases += 1
                for kind, place in zip(gains, first):
                    gains[kind].append(1 / np.log2(place + 2) if place < 10 else 0.0)
    reported = trainer.evaluate(test, load_best_model=False, show_progress=False)["ndcg@10"]
    means = {kind: float(np.mean(values)) for kind, values in gains.items()}
    print(f"{name}: target's place differs in {other} of {cases} cases; NDCG@10 among the same 101 items: predict {means['predict']:.4f}, "
          f"full_sort_predict {means['full_sort_predict']:.4f}; RecBole reports {reported}")
    differ[name] = other / cases
print("recbole", recbole.__version__, "torch", torch.__version__)
sys.exit(not (differ["SASRec"] == 0 and differ["CORE"] > 0.25))
P
"$folder/venv/bin/python" check.py
