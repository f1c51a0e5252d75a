#!/usr/bin/env bash
# Cornac 3.0.1: with StratifiedSplit(chrono=True) the validation set isn't older than the test set, so that a test asks for items of before
# what the model was chosen by.
#
# The option is to split each user's interactions by time. The oldest are for training, as one would guess. But the rest is shuffled
# before it is cut into validation and test. With val_size=1 and test_size=1, which looks like leave-last-out, 29 % of ml-100k's users are
# tested on an item that is older than the one of their validation, and about as many on a newer one. The others have both from the same
# second. With .1 and .1, 92 % of the users have a test item that is older than one of their validation. By hand, in order, no user has.
#
# The figures follow. EASE has no chance in it. Its NDCG@10 on the test is .137 with Cornac's split by tenths, .136 to .138 over five
# seeds, and .129 in order. For leave-last-out it is .078 in the mean, .071 to .084, and .071 in order. On this data the test in order is
# harder, so that two tables of the "same" split can't be compared. A model that is tuned or stops early has seen newer tastes of a user
# than those it is tested on.
#
# One would guess that the newest interactions are the test. A comment in the source says that the two parts are random; the documentation
# of the class doesn't. By their source, TimestampSplit and NextItemEvaluation.leave_last_out keep the order. Without a validation set all
# held-out interactions are the test, and nothing is lost. An issue about it wasn't found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cornac==3.0.1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > check.py <<'P'
import sys, warnings
from collections import defaultdict
from math import ceil

warnings.filterwarnings("ignore")
import cornac
import numpy as np
from cornac.eval_methods import BaseMethod, StratifiedSplit
from cornac.metrics import NDCG
from cornac.models import EASE

lines = [line.split("\t") for line in open("data/recbole/dataset_example/ml-100k/ml-100k.inter").read().splitlines()[1:]]
data = [(user, item, 1.0, int(float(time))) for user, item, _, time in lines]
when = {(user, item): time for user, item, _, time in data}
SEEDS = range(1, 6)


def times(split, part):
    """The times of each user's interactions in a part of the split."""
    users, items, found = list(split.global_uid_map), list(split.global_iid_map), defaultdict(list)
    for user, item, _ in zip(*part.uir_tuple):
        found[user].append(when[users[user], items[item]])
    return found


def older(split):
    """Share of the users who are tested on something older than what they are validated on."""
    tested, validated = times(split, split.test_set), times(split, split.val_set)
    return np.mean([min(tested[user]) < max(validated[user]) for user in tested if user in validated])


def ndcg(split):
    """NDCG@10 of EASE, which has no chance in it, on the test part and on the validation part."""
    return [float(part.metric_avg_results["NDCG@10"]) for part in split.evaluate(EASE(verbose=False), [NDCG(k=10)], user_based=True)]


def in_order(size):
    """The split by hand: the newest are for the test, those before them for validation."""
    histories, train, validation, test = defaultdict(list), [], [], []
    for row in sorted(data, key=lambda row: row[3]):
        histories[row[0]].append(row)
    for rows in histories.values():
        held = size if size >= 1 else ceil(size * len(rows))
        train += rows[:-2 * held]
        validation += rows[-2 * held:-held]
        test += rows[-held:]
    return BaseMethod.from_splits(train_data=train, val_data=validation, test_data=test, fmt="UIRT", exclude_unknowns=True)


print("cornac", cornac.__version__, "numpy", np.__version__, "on ml-100k;", len(SEEDS), "seeds")
right = []
for size in (1, 0.1):
    splits = [StratifiedSplit(data, chrono=True, fmt="UIRT", val_size=size, test_size=size, seed=seed) for seed in SEEDS]
    by_hand = in_order(size)
    shares, figures, figure = [older(split) for split in splits], np.array([ndcg(split) for split in splits]), ndcg(by_hand)
    print(f"val_size and test_size {size}: tested on something older than a validation item, of all users: {np.mean(shares):.3f}, in order "
          f"{older(by_hand):.3f}; NDCG@10 of EASE, test and validation: {figures.mean(0).round(4)} (seeds: test {figures[:, 0].round(4)}), "
          f"in order {np.round(figure, 4)}", flush=True)
    right.append((np.mean(shares), older(by_hand), figures[:, 0], figure[0]))
last, tenth = right
order = 0.2 < last[0] < 0.4 and tenth[0] > 0.8 and last[1] == tenth[1] == 0
easier = np.mean(last[2]) > 1.03 * last[3] and min(tenth[2]) > 1.03 * tenth[3]
print(f"out of order: {order}; an easier test: {easier}")
sys.exit(not (order and easier))
P
"$folder/venv/bin/python" check.py
