#!/usr/bin/env bash
# RecBole 1.2.1: Pop doesn't count how often an item was taken, but in how many batches it was seen, sampled negatives included.
#
# Pop is the popularity row of many tables. It adds one to an item's count for each batch that holds it, however often: the indices of a
# batch stand in one assignment, in which an item that comes twice counts once. The batches also hold the items that are sampled as
# negatives, by default one per interaction, and Pop doesn't look at the label. So its order is that of the counts only while batches
# are small. On ml-100k under leave-one-out, with everything at its default, there are 96 batches of 2,048. Eight items are in all of
# them and tie at 96, where the most popular one was taken 575 times, and of the ten most popular items six are among Pop's. NDCG@10 is
# .0313; by the counts of the same training interactions it is .0444. In batches of 65,536 all items have the same count.
#
# One would guess that the counts of a popularity model don't depend on the batch size. Batches of 1 and `train_neg_sample_args: null`
# give the counts. RecBole's tracker has the batches (issue 2198, open), and says nothing of the negatives.
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


def network(batch, negatives):
    """Pop after its one epoch; its counts, the true ones, and NDCG@10 by each."""
    config = Config(model="Pop", dataset="ml-100k", config_dict={
        "data_path": recbole.__path__[0] + "/dataset_example", "use_gpu": False, "state": "CRITICAL", "show_progress": False,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "checkpoint_dir": "saved", "metrics": ["NDCG"], "topk": [10],
        "valid_metric": "NDCG@10", "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        **({} if batch is None else {"train_batch_size": batch}), **({} if negatives else {"train_neg_sample_args": None}),
    })
    init_seed(1, True)
    train, _, test = data_preparation(config, create_dataset(config))
    torch.autograd.set_detect_anomaly(False)
    net = get_model("Pop")(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], "Pop")(config, net)
    trainer.fit(train, verbose=False, saved=False)
    counted = net.item_cnt[:, 0].clone()
    taken = torch.bincount(train.dataset.inter_feat["item_id"], minlength=net.n_items)
    values = []
    for counts in (counted, taken):
        net.item_cnt[:, 0], net.max_cnt = counts, counts.max()
        values.append(float(trainer.evaluate(test, load_best_model=False, show_progress=False)["ndcg@10"]))
    first, most = counted.topk(10).indices.tolist(), taken.topk(10).indices.tolist()
    print(f"batches of {config['train_batch_size']:,} ({len(train)}), negatives: {negatives}; largest count {counted.max()} (taken "
          f"{taken.max()} times), tied there: {(counted == counted.max()).sum()}, of the ten most popular: {len({*first} & {*most})}; "
          f"NDCG@10 {values[0]:.4f}, by the true counts {values[1]:.4f}")
    return counted, taken, values, len(train)


counted, taken, (by_pop, by_counts), batches = network(None, True)
large, *_ = network(65_536, True)
*_, (nearly, _), _ = network(1, False)
print("recbole", recbole.__version__, "torch", torch.__version__)
capped = counted.max() == batches < taken.max() and (counted == batches).sum() > 1
sys.exit(not (capped and by_pop < 0.8 * by_counts and len(large[1:].unique()) == 1 and nearly == by_counts))
P
"$folder/venv/bin/python" check.py
