#!/usr/bin/env bash
# implicit 0.7.3: among sampled candidates a nearest-neighbour model ranks what it has no score for in the order in which it was given,
# so that a target that comes first in `items` gains places. For one user it also returns all candidates, whatever N is.
#
# recommend(..., items=candidates) is documented to rank these items only, and to return N of them. CosineRecommender, TFIDFRecommender and
# BM25Recommender know the scores of the nearest neighbours of a user's items, K=20 of each. The other candidates are put behind these, in the
# order of `items`. One writes [target] + negatives, as candidates come in files. Then a target without a score is placed before all
# other items without one. No error and no warning says so; the scores are -1.8e308, which one sees only by printing them.
#
# On ml-100k, leave-last-out, with 100 sampled negatives, the target of 30 % of the 943 users has no score from CosineRecommender. Its hit
# rate at 10 is .656 with the target first in `items`, and .554 with it last. With ties broken by chance, from the model's own similarities, it
# is .557. For TFIDFRecommender it is .667, .568 and .573. AlternatingLeastSquares sorts its candidates: .628 both ways. So the neighbours
# are ahead of ALS in the one order and behind it in the other. For a user alone, not in an array, 101 items come for N=10, and the hit rate
# of what was returned is 1; ALS returns 10.
#
# One would guess that the order of candidates doesn't matter, or that the target's place among equals is its worst. Shuffle `items`, and cut
# the list. The tracker has that filter_items, too, lengthens the list (issue 736, open), and nothing of the order.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check implicit==0.7.3 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > check.py <<'P'
import sys, warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender, TFIDFRecommender
from scipy.sparse import csr_matrix

lines = [line.split("\t") for line in open("data/recbole/dataset_example/ml-100k/ml-100k.inter").read().splitlines()[1:]]
taken = {}
for user, item, _, time in sorted(lines, key=lambda line: float(line[3])):
    taken.setdefault(user, []).append(int(item))
histories, targets = [items[:-1] for items in taken.values()], [items[-1] for items in taken.values()]
rows = np.repeat(np.arange(len(taken)), [len(items) for items in histories])
matrix = csr_matrix((np.ones(len(rows), "float32"), (rows, np.concatenate(histories))), shape=(len(taken), 1683))
draw = np.random.default_rng(1)
negatives = [draw.choice(np.setdiff1d(np.arange(1, 1683), items), 100, replace=False) for items in taken.values()]


def figures(model):
    """Hit rates at 10: of a user alone, with the target first, last, and by hand; the targets without a score; lengths of lists."""
    model.fit(matrix, show_progress=False)
    hits, lengths, unscored = np.zeros(4), set(), 0
    for user, (target, others) in enumerate(zip(targets, negatives)):
        first, last, own = np.append(target, others), np.append(others, target), matrix[[user]]
        alone, _ = model.recommend(user, matrix[user], N=10, items=first)
        lengths.add(len(alone))
        lists = [alone, *(model.recommend([user], own, N=10, items=items)[0][0] for items in (first, last))]
        hits[:3] += [target in ids for ids in lists]
        if hasattr(model, "similarity"):
            scores = (own @ model.similarity).toarray()[0][first]
        else:
            scores = model.item_factors[first] @ model.user_factors[user]
        better, equal = (scores > scores[0]).sum(), (scores == scores[0]).sum()
        hits[3] += np.clip((10 - better) / equal, 0, 1)
        unscored += scores[0] == 0
    rates = hits / len(targets)
    print(f"{type(model).__name__}: hit rate {rates[1]:.4f} with the target first, {rates[2]:.4f} with it last, {rates[3]:.4f} with ties by "
          f"chance; {unscored} of {len(targets)} targets without a score. A user alone: {lengths} items for N=10, hit rate {rates[0]:.4f}")
    return rates, lengths


cosine, tfidf, als = (figures(model) for model in (
    CosineRecommender(num_threads=1), TFIDFRecommender(num_threads=1),
    AlternatingLeastSquares(factors=32, iterations=5, num_threads=1, random_state=1, use_gpu=False)))
print(*(f"{name} {version(name)}" for name in ("implicit", "numpy", "scipy")))
order = all(rates[1] > rates[3] + 0.05 > rates[2] + 0.04 for rates, _ in (cosine, tfidf))
whole = all(lengths == {101} and rates[0] == 1 for rates, lengths in (cosine, tfidf))
control = als[1] == {10} and als[0][0] == als[0][1] == als[0][2] and abs(als[0][3] - als[0][1]) < 0.005
sys.exit(not (order and whole and control and cosine[0][1] > als[0][1] > cosine[0][3]))
P
"$folder/venv/bin/python" check.py
