#!/usr/bin/env bash
# LensKit 2025.8.1: LastFrac moves the whole history of a user with few interactions to the test set, where it should move nothing.
#
# LastFrac(0.1) holds out the newest tenth of a user's interactions, rounded. For a user with up to five interactions that's none, and with
# LastFrac(0.2) for a user with up to two. One would expect that such a user is trained on and isn't tested, as with SampleFrac. But none is
# taken as the last -0 items of the history, and in Python that slice is everything. So these users have all their items in the test set and
# nothing in the training set. They are many where histories are short: a 5-core is full of users with exactly five interactions.
# A user with six has one test item, one with five has five, and no model knows anything of the latter.
#
# On ml-100k, of each user the oldest interactions, as many as drawn from a geometric distribution over 5 and more (7 in the median, as in a
# 5-core), 245 of 943 users have five. With LastFrac(0.1) these give 1,225 of 1,976 test interactions. A method that needs a history is tested on
# nothing there, one that needs none does well. So popularity is ahead with an NDCG@10 of .146, and item KNN has .093. On the 698 users whom the
# split should test, it's the other way round: popularity has .076 and item KNN .127.
#
# Nothing of it is in the documentation, and no error and no warning says so. SampleFrac holds out nothing of such a user. To have the newest
# interactions, use LastN, or a holdout function of one's own. An issue about it wasn't found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile lenskit==2025.8.1 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 \
    pyarrow==26.0.1 torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > check.py <<'P'
import sys, warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import numpy as np
import pandas as pd
from lenskit.basic import PopScorer
from lenskit.batch import recommend
from lenskit.data import ItemList, from_interactions_df
from lenskit.knn import ItemKNNScorer
from lenskit.metrics import NDCG, RunAnalysis
from lenskit.pipeline import topn_pipeline
from lenskit.splitting import LastFrac, SampleFrac, crossfold_users


def history(length):
    return ItemList(item_ids=np.arange(length), timestamp=np.arange(length))


held_out = {}
for fraction in (0.1, 0.2):
    methods = LastFrac(fraction), SampleFrac(fraction, rng=1)
    held_out[fraction] = [(length, *(len(method(history(length))) for method in methods)) for length in range(1, 9)]
    print(f"a fraction of {fraction}, held out of histories of 1 to 8: by LastFrac", *(last for _, last, _ in held_out[fraction]),
          "and by SampleFrac", *(sample for _, _, sample in held_out[fraction]))


class Newest(LastFrac):
    """LastFrac as one would expect it: nothing is held out where the fraction rounds to nothing."""

    def __call__(self, items):
        return super().__call__(items) if round(len(items) * self.fraction) else items[np.zeros(0, dtype=int)]


data = pd.read_csv("data/recbole/dataset_example/ml-100k/ml-100k.inter", sep="\t")
data.columns = ["user_id", "item_id", "rating", "timestamp"]
lengths = pd.Series(4 + np.random.default_rng(1).geometric(0.25, 943), index=range(1, 944))
data = data.sort_values(["user_id", "timestamp"], kind="stable")
data = data[data.groupby("user_id").cumcount() < data["user_id"].map(lengths)]
number, results = data.groupby("user_id").size(), {}
print(f"{len(number)} users, {len(data):,} interactions, {number.median():.0f} in the median; {(number == 5).sum()} users have five")
dataset = from_interactions_df(data)
for name, method in (("LastFrac(0.1)", LastFrac(0.1)), ("the newest tenth by hand", Newest(0.1))):
    [split] = crossfold_users(dataset, 1, method, rng=1)
    test = {key.user_id: len(items) for key, items in split.test if len(items)}
    trained = split.train.user_stats()["count"]
    without = {user for user in test if trained.get(user, 0) == 0}
    figures = {}
    for label, scorer in (("popularity", PopScorer(score="count")), ("item KNN", ItemKNNScorer(max_nbrs=20, feedback="implicit"))):
        pipeline = topn_pipeline(scorer, n=10)
        pipeline.train(split.train)
        lists = recommend(pipeline, list(test), n=10, n_jobs=1)
        figures[label] = RunAnalysis(NDCG(10)).measure(lists, split.test).list_summary().loc["NDCG@10", "mean"]
    results[name] = test, without, figures
    unknown = sum(test[user] for user in without)
    print(f"{name}: {len(test)} users tested on {sum(test.values()):,} interactions, {unknown:,} of them of {len(without)} users without any "
          "training interaction; NDCG@10", ", ".join(f"{label} {value:.4f}" for label, value in figures.items()))
print(*(f"{name} {version(name)}" for name in ("lenskit", "numpy", "pandas")))
five = set(number.index[number == 5])
test, without, figures = results["LastFrac(0.1)"]
by_hand, none, right = results["the newest tenth by hand"]
whole = all(last == (length if length <= bound else max(round(length * fraction), 1)) and sample == round(length * fraction)
            for fraction, bound in ((0.1, 5), (0.2, 2)) for length, last, sample in held_out[fraction])
lost = without == five and all(test[user] == 5 for user in five) and not none and set(by_hand) == set(test) - five
other = figures["popularity"] > figures["item KNN"] + 0.03 and right["item KNN"] > right["popularity"] + 0.03
sys.exit(not (whole and lost and other))
P
"$folder/venv/bin/python" check.py
