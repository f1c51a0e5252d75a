#!/usr/bin/env bash
# torch-rechub 0.9.0: a user with more than max_len interactions, 50 by default, has no test case, and the newest interactions of such users
# are never used.
#
# generate_seq_feature makes the cases of DIN, DIEN and BST, as in the tutorial of DIN. max_len is documented as the largest length of a
# history. One would guess that a longer history is cut to its newest items. But the loop over a user's interactions ends at max_len. The test
# case is the last interaction, the validation case the one before, and where the loop doesn't get there, there is none. No error and no
# warning says so, and nothing counts who was left out.
#
# On ml-100k, where a user has 65 interactions in the median, 380 of 943 users are tested, and 38,986 of 100,000 interactions are used.
# The tutorial says to try lengths such as 20, 50 and 100. Each has other test users: 32, 380 and 582. They are the users with few
# interactions, who take what is popular. So a model that ignores the history, the count of an item in the training cases, has an AUC of
# .87, .85 and .81 for the three lengths, with the one negative that a test case has. On the last interaction of all users with 20
# negatives each, which is the same test for each length, it has .79, .80 and .80. Whoever tunes max_len compares tests, not models.
#
# A max_len above the longest history keeps all users, in vectors of that length. The library's function for matching models,
# generate_seq_feature_match, has no max_len and leaves nobody out (read, not run). An issue about it wasn't found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 \
    scikit-learn==1.9.1 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps torch-rechub==0.9.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > check.py <<'P'
import contextlib, io, random, sys
from importlib.metadata import version

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from torch_rechub.utils.data import generate_seq_feature

COLUMNS = ["user_id", "item_id", "rating", "time"]


def interactions():
    data = pd.read_csv("data/recbole/dataset_example/ml-100k/ml-100k.inter", sep="\t")
    data.columns = COLUMNS
    return data[["user_id", "item_id", "time"]]


def popularity(cases, counts):
    """AUC of an item's count among the training cases."""
    return roc_auc_score(cases["label"], cases["target_item_id"].map(counts).fillna(0))


number, results = interactions().groupby("user_id").size(), {}
print(f"{len(number)} users, {number.sum():,} interactions, {number.median():.0f} in the median, {number.max()} at most")
for max_len in (20, 50, 100):
    random.seed(1)
    data, draw, last = interactions(), np.random.default_rng(1), []
    with contextlib.redirect_stderr(io.StringIO()):
        train, valid, test = generate_seq_feature(data, "user_id", "item_id", "time", max_len=max_len)
    # the function writes its own numbers into `data`, so the cases by hand have them, too
    for user, own in data.sort_values("time", kind="stable").groupby("user_id"):
        others = np.setdiff1d(np.arange(1, data["item_id"].max() + 1), own["item_id"])
        last += [(user, own["item_id"].iloc[-1], 1), *((user, item, 0) for item in draw.choice(others, 20, replace=False))]
    last, lengths = pd.DataFrame(last, columns=["user_id", "target_item_id", "label"]), data.groupby("user_id").size()
    counts = train.loc[train["label"] == 1, "target_item_id"].value_counts()
    reported, right = popularity(test, counts), popularity(last, counts)
    few = popularity(last[last["user_id"].isin(test["user_id"])], counts)
    short = {*test["user_id"]} == {*lengths.index[lengths <= max_len]}
    used = sum(int(part["label"].sum()) for part in (train, valid, test))
    results[max_len] = test["user_id"].nunique(), used, reported, right, few, short
    print(f"max_len {max_len}: {results[max_len][0]} users tested, {valid['user_id'].nunique()} validated, {used:,} interactions used; AUC of "
          f"popularity {reported:.4f} in its test; by hand, on last interactions, {right:.4f} of all {last['user_id'].nunique()} users and "
          f"{few:.4f} of those tested, who are exactly the users with {max_len} interactions or less: {short}")
print(*(f"{name} {version(name)}" for name in ("torch-rechub", "pandas")))
lost = all(tested == (number <= max_len).sum() and short for max_len, (tested, *_, short) in results.items())
little = results[20][0] < 50 and results[50][0] < 400 and results[50][1] < 40_000
other = all(results[max_len][2] > results[max_len][3] + 0.02 and results[max_len][4] > results[max_len][3] + 0.02 for max_len in (20, 50))
same = np.ptp([right for _, _, _, right, _, _ in results.values()]) < 0.02
sys.exit(not (lost and little and other and same))
P
"$folder/venv/bin/python" check.py
