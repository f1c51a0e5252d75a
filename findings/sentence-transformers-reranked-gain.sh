#!/usr/bin/env bash
# sentence-transformers 6.2.0: with always_rerank_positives=False CrossEncoderRerankingEvaluator lets a reranker gain that changes nothing.
#
# The evaluator takes a user's positives and the ranked list of a first stage, and tells NDCG, MRR and MAP of that list and of the reranked one. By
# default it adds the positives that the first stage missed to what is reranked. always_rerank_positives=False is for the real case, in which they
# are lost. Then, says the page of the evaluator for NanoBEIR, the maximum is bound by the number of positives that the first stage has found.
#
# It isn't. The list of the first stage is compared with a list of all positives, and the reranked one with a list of those alone that were found. Of
# five positives one was found, in first place: that is an NDCG of .34 before reranking and of 1 behind it, in the same order. So the gain that is
# printed, and written into the model's card, is mostly what the first stage lost. MRR, which needs no ideal list, stays the same.
#
# On ml-100k the last five items of each user are held out, and a first stage of item neighbours gives 10 items. A reranker that changes nothing
# goes from .087 to .200 in NDCG@10. One that shuffles the list goes from .087 to .191, where by hand it falls to .084. A perfect one has .372, for
# .157 by hand. The fewer items the first stage gives, the higher is the score of the same order: .200 with 10, .172 with 20, .143 with 50. So a
# search over the length of the candidate list, or over first stages, prefers those that lose more. MAP is affected in the same way.
#
# No error and no warning says so. Take the NDCG by hand against all positives, as below. The default isn't a way out for a list of candidates. It
# reranks items that the first stage never gave, as is documented, and shuffling 10 items reached .550 (measured apart). Pull request 4054 knows it.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile sentence-transformers==6.2.0 transformers==5.23.0 torch==2.13.0 \
    numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > check.py <<'P'
import sys, warnings
from importlib.metadata import version
from types import SimpleNamespace

warnings.filterwarnings("ignore")
import numpy as np
from scipy.sparse import csr_matrix
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

K, HELD_OUT, LENGTHS = 10, 5, (10, 20, 50)
rows = np.loadtxt("data/recbole/dataset_example/ml-100k/ml-100k.inter", skiprows=1)
rows = rows[np.lexsort((rows[:, 1], rows[:, 3], rows[:, 0]))]
histories = {int(user): rows[rows[:, 0] == user][:, 1].astype(int).tolist() for user in np.unique(rows[:, 0])}
pairs = np.array([(user, item) for user, history in histories.items() for item in history[:-HELD_OUT]])
taken = csr_matrix((np.ones(len(pairs)), pairs.T), shape=(944, 1683))
together = (taken.T @ taken).toarray()
np.fill_diagonal(together, 0)
times = np.maximum(np.diag((taken.T @ taken).toarray()), 1)
scores = taken @ (together / np.sqrt(times[:, None] * times[None, :]))  # the first stage: cosines of items
scores[taken.nonzero()] = -1
ranked = np.argsort(-scores, axis=1, kind="stable")
held_out = {user: set(history[-HELD_OUT:]) for user, history in histories.items()}
draw, gains = np.random.default_rng(0), 1 / np.log2(np.arange(2, K + 2))


class Reranker:
    """What the evaluator asks of a CrossEncoder: predict."""

    def __init__(self, score):
        self.score, self.model_card_data = score, SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def predict(self, pairs, **_):
        return np.array([self.score[pair[0], pair[1]] for pair in pairs])


def by_hand(lists):
    """NDCG@10, where the best list has all items that were held out."""
    sums = [sum(gain for gain, item in zip(gains, items) if item in held_out[user]) for user, items in lists.items()]
    return np.mean(sums) / gains[:HELD_OUT].sum()


results = {}
for length in LENGTHS:
    first = {user: ranked[user, :length].tolist() for user in histories}
    samples = [{"query": f"u{user}", "positive": [f"i{item}" for item in sorted(held_out[user])], "documents": [f"i{item}" for item in items]}
               for user, items in first.items()]
    for name, rule in (("one that changes nothing", lambda user, place, item: -place), ("one that shuffles", lambda *_: draw.random()),
                       ("a perfect one", lambda user, place, item: item in held_out[user])):
        score = {(f"u{user}", f"i{item}"): float(rule(user, place, item)) for user, items in first.items() for place, item in enumerate(items)}
        lists = {user: sorted(items, key=lambda item: -score[f"u{user}", f"i{item}"]) for user, items in first.items()}
        found = CrossEncoderRerankingEvaluator(samples, always_rerank_positives=False)(Reranker(score))
        results[name, length] = found["base_ndcg@10"], found["ndcg@10"], by_hand(first), by_hand(lists)
        print("first {}, {}: NDCG@10 {:.3f} -> {:.3f}, by hand {:.3f} -> {:.3f}; MRR@10 {:.3f} -> {:.3f}".format(
            length, name, *results[name, length], found["base_mrr@10"], found["mrr@10"]), flush=True)
print("sentence-transformers", version("sentence-transformers"))
base = all(abs(reported - right) < 1e-6 for reported, _, right, _ in results.values())
same = all(abs(results["one that changes nothing", length][3] - results["one that changes nothing", length][2]) < 1e-9 for length in LENGTHS)
gained = all(results["one that changes nothing", length][1] > 1.5 * results["one that changes nothing", length][0] for length in LENGTHS)
before, after, *right = results["one that shuffles", 10]
shuffled = after > 1.5 * before and right[1] < right[0]
sys.exit(not (base and same and gained and shuffled))
P
OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "$folder/venv/bin/python" check.py
