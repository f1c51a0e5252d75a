#!/usr/bin/env bash
# LibRecommender 1.5.2: its NDCG and MAP compare a list with its own hits alone, so that a list with one hit, in first place, has 1.
#
# NDCG divides what a list has gained by what the ideal list would gain. The ideal list holds the user's test items, as many as fit into k places.
# LibRecommender takes the list itself for it, with its hits moved to the front. What a list has missed doesn't count. MAP, too, divides by the
# number of hits, and not by the number of test items. Of a user with 20 test items, a list of ten with one hit, the first, has 1 in both. By
# definition it has .22 and .10. A list with nine hits, at 2 to 10, has .83 and .79, where it has .78 and .71. So the worse list is ahead.
#
# On ml-100k, a fifth of each user's interactions held out, ItemCF with k_sim=10 has an NDCG@10 of .66 for .39 and a MAP@10 of .54 for .25. The
# figures can't be compared with those of other libraries, and the order of methods changes. k_sim=3 is ahead of 20 in NDCG, .662 to .654. By
# definition it is behind, .370 to .373. MAP prefers 3 among 3, 5, 10 and 20. By definition it is the worst of them. Precision and recall are right.
#
# One would guess the usual definition, as the documentation names the metrics and gives no formula. With one test item for each user, as under
# leave-one-out, both are right. The more test items a user has, the further off they are. Count hits of `recommend_user` yourself, as is done
# below. The same ideal was reported of the code of NGCF's paper (its issue 34). About LibRecommender nothing was found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile LibRecommender==1.5.2 tensorflow-cpu==2.15.1 torch==2.13.0 \
    numpy==1.26.4 pandas==2.3.3 scipy==1.12.0 scikit-learn==1.7.2 gensim==4.4.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > check.py <<'P'
import contextlib, io, os, sys, warnings

warnings.filterwarnings("ignore")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import pandas as pd

with contextlib.redirect_stderr(io.StringIO()):
    import libreco
    from libreco.algorithms import ItemCF
    from libreco.data import DatasetPure, split_by_ratio
    from libreco.evaluation import evaluate
    from libreco.evaluation.metrics import average_precision_at_k, ndcg_at_k

K = 10
DISCOUNTS = 1 / np.log2(np.arange(2, K + 2))


def by_hand(true, listed):
    """NDCG, average precision, precision and recall of one list."""
    hits, possible = np.isin(listed, true), min(K, len(true))
    precision_there = np.cumsum(hits) / np.arange(1, K + 1)
    return (hits * DISCOUNTS).sum() / DISCOUNTS[:possible].sum(), (hits * precision_there).sum() / possible, hits.mean(), hits.sum() / len(true)


true = list(range(100, 120))
lists = {"one hit, at 1": np.array([100, *range(9)]), "nine hits, at 2 to 10": np.array([0, *range(101, 110)])}
toy = {}
for name, listed in lists.items():
    toy[name] = float(ndcg_at_k(true, listed, K)), float(average_precision_at_k(true, listed, K)), *by_hand(true, listed)[:2]
    print("20 test items, {}: NDCG@10 {:.3f} and AP@10 {:.3f} by LibRecommender, {:.3f} and {:.3f} by hand".format(name, *toy[name]))

data = pd.read_csv("data/recbole/dataset_example/ml-100k/ml-100k.inter", sep="\t")
data.columns = ["user", "item", "label", "time"]
train, test = split_by_ratio(data.sample(frac=1, random_state=1), test_size=0.2)
fitted, info = DatasetPure.build_trainset(train)
held_out = DatasetPure.build_testset(test).positive_consumed
print(f"ml-100k: {len(held_out)} users with {np.mean([len(items) for items in held_out.values()]):.1f} test items in the mean")
reported, right = {}, {}
for neighbours in (3, 5, 10, 20):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = ItemCF("ranking", info, k_sim=neighbours, num_threads=1)
        model.fit(fitted, neg_sampling=True, verbose=0)
        figures = evaluate(model, DatasetPure.build_testset(test), neg_sampling=True, k=K, metrics=["ndcg", "map", "precision", "recall"])
        listed = model.recommend_user(user=list(held_out), n_rec=K, inner_id=True)
    reported[neighbours] = np.array([figures[name] for name in ("ndcg", "map", "precision", "recall")])
    right[neighbours] = np.mean([by_hand(items, listed[user]) for user, items in held_out.items()], axis=0)
    print(f"ItemCF, k_sim={neighbours}:", "; ".join(
        f"{name} {figure:.4f} for {hand:.4f}" for name, figure, hand in zip(("NDCG", "MAP", "precision", "recall"), reported[neighbours],
                                                                            right[neighbours], strict=True)), flush=True)
print("LibRecommender", libreco.__version__, "numpy", np.__version__)
one, nine = toy.values()
worse_ahead = one[:2] == (1.0, 1.0) and nine[0] < 0.84 and nine[1] < 0.8 and one[2] < 0.23 and one[3] < 0.11 and nine[2] > 0.77 and nine[3] > 0.7
high = all(reported[n][0] > right[n][0] + 0.25 and reported[n][1] > right[n][1] + 0.25 for n in reported)
others = all(np.allclose(reported[n][2:], right[n][2:]) for n in reported)
turned = reported[3][0] > reported[20][0] + 0.003 and right[3][0] < right[20][0] - 0.001
chosen = max(reported, key=lambda n: reported[n][1]) == 3 and max(right, key=lambda n: right[n][1]) == 10
print(f"the worse list ahead: {worse_ahead}; too high: {high}; precision and recall right: {others}; order turned: {turned}; MAP's choice: {chosen}")
sys.exit(not (worse_ahead and high and others and turned and chosen))
P
OMP_NUM_THREADS=1 "$folder/venv/bin/python" check.py
