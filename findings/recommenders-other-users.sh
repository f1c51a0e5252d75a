#!/usr/bin/env bash
# recommenders 1.2.1: its ranking metrics are means over different users, so that R-precision is 1 for lists drawn by chance, and Recall
# counts no user who got no list, where NDCG counts them all.
#
# recall_at_k, precision_at_k and the two MAPs are means over the users who have a list. ndcg_at_k is one over all users of the truth.
# r_precision_at_k is one over the users with a hit among their first R items, R being how many are relevant to them: the others have
# no value and are left out by the mean. No error and no warning says so. The text of each metric names the same two tables.
#
# Here 1,000 users have one target and a list of 10 out of 50 items, drawn by chance. R-precision is 1, as a hit of these users can't
# be anything else; by hand it is .020, the share of targets at the first place. With three targets each it is .348 in the place of .056.
# Where each has 12 targets, the documentation has it equal to precision_at_k, .248: it is .216. With all lists the others are right.
#
# Now every other user's list is missing, as where an LLM's answer couldn't be read. Recall@10 is .184, where .092 of the targets are found.
# So the method looks nearly as good as with all lists, .198. NDCG@10 is .043, as by hand, half of the .091 with all lists. A method that
# answers the easy half of its users wins by Recall, and Recall and NDCG of one table don't fit each other.
#
# One would guess that metrics of one module, given the same two tables, are means over the same users. The request for R-precision
# (issue 2067) has "the mean as in other metrics". Neither was found in the tracker.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. Made-up lists.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
# the metrics need no more than this of what the package asks for
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==2.3.3 scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps recommenders==1.2.1 2> "$folder/pip.log" || { cat "$folder/pip.log"; exit 1; }
cd "$folder"
cat > check.py <<'P'
import sys

import numpy as np
import pandas as pd
import recommenders
from recommenders.evaluation import python_evaluation as metrics

users, items, k = 1000, 50, 10
NAMES = ("recall_at_k", "precision_at_k", "map_at_k", "ndcg_at_k", "r_precision_at_k")


def by_hand(targets, lists):
    """The means over all users of the truth; a user without a list has 0 in each."""
    values = {name: 0.0 for name in NAMES}
    for user, wanted in targets.items():
        hits = np.isin(lists.get(user, np.full(k, -1)), list(wanted))
        ranks, relevant = 1 + np.flatnonzero(hits), min(len(wanted), k)
        values["recall_at_k"] += hits.sum() / len(wanted)
        values["precision_at_k"] += hits.sum() / k
        values["map_at_k"] += (np.arange(1, len(ranks) + 1) / ranks).sum() / relevant
        values["ndcg_at_k"] += (1 / np.log2(1 + ranks)).sum() / (1 / np.log2(np.arange(2, relevant + 2))).sum()
        values["r_precision_at_k"] += hits[:relevant].sum() / relevant
    return {name: value / len(targets) for name, value in values.items()}


def case(name, each, answered):
    """Chance lists for the users for whom `answered` is true: the library's figures and those by hand."""
    rng = np.random.default_rng(1)
    targets = {user: {int(item) for item in rng.choice(items, each, replace=False)} for user in range(users)}
    lists = {user: rng.choice(items, k, replace=False) for user in range(users)}
    lists = {user: chosen for user, chosen in lists.items() if answered(user)}
    true = [(user, item, 1.0) for user, wanted in targets.items() for item in wanted]
    pred = [(user, int(item), float(k - place)) for user, chosen in lists.items() for place, item in enumerate(chosen)]
    true = pd.DataFrame(true, columns=["userID", "itemID", "rating"])
    pred = pd.DataFrame(pred, columns=["userID", "itemID", "prediction"])
    found, hand = {metric: float(getattr(metrics, metric)(true, pred, k=k)) for metric in NAMES}, by_hand(targets, lists)
    print(f"{name}: " + ", ".join(f"{metric} {found[metric]:.4f} (by hand {hand[metric]:.4f})" for metric in NAMES))
    return found, hand


def right(found, hand, names=NAMES):
    return all(abs(found[name] - hand[name]) < 1e-9 for name in names)


MEANS = NAMES[:-1]
one, hand_one = case("one target each, all lists", 1, lambda user: True)
three, hand_three = case("three targets each, all lists", 3, lambda user: True)
twelve, hand_twelve = case("12 targets each, all lists", 12, lambda user: True)
half, hand_half = case("one target each, half of the lists", 1, lambda user: user % 2 == 0)
control = right(one, hand_one, MEANS) and right(three, hand_three, MEANS) and right(twelve, hand_twelve, MEANS)
r_precision = one["r_precision_at_k"] == 1 and hand_one["r_precision_at_k"] < 0.1
r_precision &= three["r_precision_at_k"] > 3 * hand_three["r_precision_at_k"]
documented = abs(hand_twelve["r_precision_at_k"] - twelve["precision_at_k"]) < 1e-9
documented &= twelve["r_precision_at_k"] < twelve["precision_at_k"] - 0.01
listed = all(abs(half[name] - 2 * hand_half[name]) < 1e-9 for name in ("recall_at_k", "precision_at_k", "map_at_k"))
all_users = right(half, hand_half, ["ndcg_at_k"])
print(f"all lists, all but R-precision right: {control}; R-precision of hits alone: {r_precision}, not precision where documented: "
      f"{documented}; half of the lists: Recall, Precision and MAP twice what they are: {listed}, NDCG right: {all_users}")
print("recommenders", recommenders.__version__, "pandas", pd.__version__)
sys.exit(not (control and r_precision and documented and listed and all_users))
P
"$folder/venv/bin/python" check.py
