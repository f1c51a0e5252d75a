#!/usr/bin/env bash
# torchmetrics 1.9.0: Recall, Precision, MRR and MAP of retrieval don't count a hit whose score is zero or less, so that log-probabilities
# have a Recall of 0 and logits one that depends on where their zero is.
#
# RetrievalRecall and the others take "float predictions from a model output", and rank by them. From 1.7.4 on, a patch release, they
# first call all targets irrelevant that have a score of zero or less. NDCG, HitRate and the precision-recall curve don't, so figures of one
# set of lists contradict each other. No error and no warning says so, and the documentation of the classes doesn't.
#
# Here 1,000 users have 20 candidates each, one of them the target, and a re-ranker's logits. 646 targets are among the first 5, by hand.
# With the logits' probabilities Recall@5 is .646. With the logits themselves, which rank alike to the last place, it is .583, with their
# logarithms 0. HitRate@5, which is the same number where each user has one target, is .646 with all three. A better re-ranker, whose
# logits lie 2 lower as a whole, has 766 targets among the first 5 and a Recall@5 of .326. So the worse one is ahead of it. torchmetrics
# 1.7.3 has the numbers by hand with all scores.
#
# One would guess that a metric of a ranking reads the order of the scores. LLM recommenders score items by log-probabilities or by
# the logits of a "Yes". The change is that of pull request 3104, made for queries whose scores are all 0. It takes scores to be
# probabilities and says nothing of others. An issue about them wasn't found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. Made-up scores.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torchmetrics==1.9.0 torch==2.13.0 numpy==2.4.6 setuptools==81.0.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$folder/before" torchmetrics==1.7.3
cd "$folder"
cat > check.py <<'P'
import json, sys

import torch
import torchmetrics
from torchmetrics.functional.retrieval import retrieval_precision_recall_curve
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalMRR, RetrievalNormalizedDCG, RetrievalPrecision, RetrievalRecall

users, candidates, k = 1000, 20, 5
generator = torch.Generator().manual_seed(1)
target = torch.zeros(users, candidates, dtype=torch.bool)
target[:, 0] = True
index = torch.arange(users)[:, None].expand(-1, candidates)
of_user, of_item = torch.randn(users, 1, generator=generator), torch.randn(users, candidates, generator=generator)
logits = of_item + of_user + 1.0 * target
better = of_item + of_user + 1.4 * target - 2
kinds = {
    "probabilities": logits.sigmoid(), "logits": logits, "logarithms": torch.nn.functional.logsigmoid(logits),
    "better": better, "its probabilities": better.sigmoid(),
}
metrics = {
    "Recall": RetrievalRecall, "Precision": RetrievalPrecision, "MRR": RetrievalMRR, "MAP": RetrievalMAP,
    "HitRate": RetrievalHitRate, "NDCG": RetrievalNormalizedDCG,
}
found = {}
for kind, scores in kinds.items():
    rank = 1 + (scores[:, 1:] > scores[:, :1]).sum(1)
    assert (scores[:, 1:] != scores[:, :1]).all()  # no ties, so that there is one answer
    hit = (rank <= k).double()
    reciprocal, gain = (hit / rank).mean(), (hit / torch.log2(rank + 1.0)).mean()
    by_hand = {"Recall": hit.mean(), "Precision": hit.mean() / k, "MRR": reciprocal, "MAP": reciprocal, "HitRate": hit.mean(), "NDCG": gain}
    curve = [retrieval_precision_recall_curve(one, its, max_k=k)[1][-1] for one, its in zip(scores, target)]
    found[kind] = {
        "by hand": {name: float(value) for name, value in by_hand.items()},
        "torchmetrics": {name: float(metric(top_k=k)(scores, target, indexes=index)) for name, metric in metrics.items()},
        "curve": float(torch.stack(curve).mean()),
    }
    shown = ", ".join(f"{name} {value:.4f} ({by_hand[name]:.4f})" for name, value in found[kind]["torchmetrics"].items())
    print(f"torchmetrics {torchmetrics.__version__}, at {k} (by hand), {kind}: {shown}; Recall of the curve {found[kind]['curve']:.4f}")
json.dump(found, open(f"{torchmetrics.__version__}.json", "w"))
P
cat > compare.py <<'P'
import json, sys

before, now = (json.load(open(f"{version}.json")) for version in ("1.7.3", "1.9.0"))
FILTERED, FREE = ("Recall", "Precision", "MRR", "MAP"), ("HitRate", "NDCG")


def right(one, names):
    """The metrics `names` have the values by hand."""
    return all(abs(one["torchmetrics"][name] - one["by hand"][name]) < 1e-5 for name in names)


was_right = all(right(one, FILTERED + FREE) for one in before.values())
free = all(right(one, FREE) and abs(one["curve"] - one["by hand"]["Recall"]) < 1e-5 for one in now.values())
probabilities = all(right(now[kind], FILTERED) for kind in ("probabilities", "its probabilities"))
same_lists = now["logits"]["by hand"] == now["probabilities"]["by hand"] == now["logarithms"]["by hand"]
lost = all(now["logarithms"]["torchmetrics"][name] == 0 for name in FILTERED)
lower = all(now[kind]["torchmetrics"][name] < 0.96 * now[kind]["by hand"][name] for kind in ("logits", "better") for name in FILTERED)
better = now["better"]["by hand"]["Recall"] > now["logits"]["by hand"]["Recall"] + 0.05
turned = now["better"]["torchmetrics"]["Recall"] < now["logits"]["torchmetrics"]["Recall"] - 0.05
print(f"1.7.3 right with all scores: {was_right}. 1.9.0: HitRate, NDCG and the curve right: {free}; all right with probabilities: "
      f"{probabilities}; the four 0 with logarithms of the same lists: {same_lists and lost}, too low with logits: {lower}; "
      f"the better re-ranker behind the worse one: {better and turned}")
sys.exit(not (was_right and free and probabilities and same_lists and lost and lower and better and turned))
P
PYTHONPATH="$folder/before" "$folder/venv/bin/python" check.py
"$folder/venv/bin/python" check.py
"$folder/venv/bin/python" compare.py
