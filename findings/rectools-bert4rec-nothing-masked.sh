#!/usr/bin/env bash
# RecTools 0.19.0: with loss="gBCE" or "BCE" one batch without a masked item turns all weights of BERT4Rec into NaN, and it recommends nothing.
#
# BERT4Rec masks each item with probability .15 and learns the masked ones. The losses divide by how many those are. In a batch in which none was
# drawn that is 0 / 0. With loss="softmax", the default, its gradients are zero, and the batch does nothing. With gBCE and BCE they are NaN, and so
# are all weights after the step. Training goes on to its end. Neither fit nor recommend gives an error or a warning of it, and recommend returns a
# table without a row. RecTools' metrics then say 0.
#
# It takes a batch of few items. The last batch of an epoch has what is left of the users. Below, 256 users in batches of 32 are learned, NDCG@10
# .74 to .86. With one user more it is 0, for gBCE and BCE and both seeds. Short histories meet it within an epoch, too: of batches of 16 users of
# three items, one in 2,400 has nothing masked. So ten epochs on 5,000 such users meet one. A table has a 0 for some seeds or some sizes of the
# data, and gBCE or BERT4Rec gets the blame. SASRec isn't concerned, as each of its users has a target.
#
# One would guess that a batch with nothing to learn changes nothing. To be safe, look whether the weights are finite, choose a batch size that
# leaves no small rest, or use "softmax". With verbose=1 (0 by default) the progress bar has a loss of nan, but so it has where the weights are
# fine. An issue about RecTools wasn't found. The loss of another BERT4Rec is NaN for the same reason (BERT4Rec-VAE-Pytorch, issue 22).
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. Made-up histories.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile "rectools[torch]==0.19.0" torch==2.13.0 numpy==1.26.4 pandas==2.3.3 \
    scipy==1.17.1 pm-implicit==0.7.3 pytorch-lightning==2.5.2
cd "$folder"
cat > check.py <<'P'
import logging, sys, warnings
from importlib.metadata import version

warnings.filterwarnings("ignore", message=".*(dataloader|logger|OpenBLAS|GPU).*")
import numpy as np
import pandas as pd
import torch
from pytorch_lightning import seed_everything
from rectools.dataset import Dataset
from rectools.metrics import NDCG
from rectools.models import BERT4RecModel, SASRecModel

torch.set_num_threads(1)
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)  # says which devices there are
BATCH = 32


def histories(users, items=60, seed=0):
    """Each user takes 4 to 9 items in a row, from a place of one's own."""
    draw = np.random.default_rng(seed)
    rows = [(user, (start + step) % items, pd.Timestamp("2026-01-01") + pd.Timedelta(days=step))
            for user in range(users) for start in [draw.integers(items)] for step in range(draw.integers(4, 10))]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "datetime"]).assign(weight=1.0)


def trained(kind, loss, users, seed):
    """How many tensors of weights have a NaN, how many rows are recommended, and NDCG@10 as a sum over the users by their number."""
    data = histories(users)
    test = data.groupby("user_id").tail(1)
    dataset = Dataset.construct(data.drop(test.index))
    seed_everything(seed, verbose=False)
    model = kind(epochs=30, n_factors=32, n_heads=2, n_blocks=1, session_max_len=20, batch_size=BATCH, lr=0.005, deterministic=True, verbose=0,
                 loss=loss, **({} if loss == "softmax" else {"n_negatives": 20}))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        model.fit(dataset)
        lists = model.recommend(dataset.user_id_map.external_ids, dataset, k=10, filter_viewed=True)
    about = [str(one.message) for one in warned if "nan" in str(one.message).lower().split() or "finite" in str(one.message)]
    weights = list(model.torch_model.parameters())
    bad = sum(bool(torch.isnan(one).any()) for one in weights)
    ndcg = NDCG(k=10, divide_by_achievable=True).calc_per_user(lists, test).reindex(range(users)).fillna(0).mean() if len(lists) else 0.0
    print(f"{kind.__name__}, {loss}, {users} users in batches of {BATCH}, seed {seed}: {bad} of {len(weights)} tensors of weights have NaN, "
          f"{len(lists)} rows recommended, NDCG@10 {ndcg:.3f}, warnings of it {len(about)}", flush=True)
    return bad, len(weights), len(lists), ndcg, len(about)


whole = [trained(BERT4RecModel, loss, 256, seed) for loss in ("gBCE", "BCE") for seed in (1, 2)]
rest = [trained(BERT4RecModel, loss, 257, seed) for loss in ("gBCE", "BCE") for seed in (1, 2)]
safe = [trained(BERT4RecModel, "softmax", 257, 1), trained(SASRecModel, "gBCE", 257, 1)]
print(*(f"{name} {version(name)}" for name in ("RecTools", "torch", "pytorch-lightning")))
learned = all(bad == 0 and rows == 2560 and ndcg > 0.5 for bad, _, rows, ndcg, _ in whole)
lost = sum(bad == tensors and rows == 0 and silent == 0 for bad, tensors, rows, _, silent in rest) >= 3  # a seed may be lucky
fine = all(bad == 0 and rows == 2570 for bad, _, rows, _, _ in safe)
print(f"learned with 256: {learned}; lost with 257: {lost}; other loss and SASRec fine: {fine}")
sys.exit(not (learned and lost and fine))
P
OMP_NUM_THREADS=1 "$folder/venv/bin/python" check.py
