#!/usr/bin/env bash
# LensKit 2025.8.1: LightGCNScorer passes nothing along its graph, so that it's plain matrix factorization, and layer_count only changes a scale.
#
# LightGCN gives a user the mean of its own vector and those that reach it over the edges, once for each layer, and an item likewise. LensKit hands
# torch-geometric the edges from users to items alone, not back. There an edge is divided by the roots of the degrees of both ends, as counted by
# what comes in. Nothing comes into a user, so a user has degree 0, and torch-geometric makes the factor 0 where the degree is. So all edges weigh
# nothing. The vector of a user or an item is its own one divided by layer_count + 1, whatever its neighbours are. No error and no warning says so.
#
# On ml-100k, a fifth of the interactions held out: for 1, 2 and 3 layers the vectors are exactly the own ones over 2, 3 and 4, with a largest
# difference of 0, and all 80,000 edges have weight 0. With the edges in both directions, and nothing else changed, NDCG@10 is .311 instead of .283
# with the 10 epochs that are the default, and .353 instead of .330 with 20 (measured apart). In both trainings the gradients were cleared between
# steps, which LightGCNScorer doesn't do. That's another fault, and as long as it's there the graph does harm.
#
# A table that says what the graph adds compares matrix factorization with matrix factorization, and a tuning of layer_count tunes a scale. With
# layer_blend it's the first coefficient alone that counts. Use FlexMFImplicitScorer(preset="lightgcn"), which goes both ways. The class is marked as
# experimental. Neither the documentation nor an issue about it was found (pull request 822 says that it wasn't tested for effectiveness yet).
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile lenskit==2025.8.1 torch-geometric==2.8.1 torch==2.13.0 \
    numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 pyarrow==26.0.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > check.py <<'P'
import sys, warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import numpy as np
import pandas as pd
import torch
from lenskit.data import ItemList, from_interactions_df
from lenskit.graphs.lightgcn import LightGCNScorer
from lenskit.training import TrainingOptions
from torch_geometric.nn.conv.gcn_conv import gcn_norm

torch.set_num_threads(1)
K = 10
log = pd.read_csv("data/recbole/dataset_example/ml-100k/ml-100k.inter", sep="\t")
log.columns = ["user_id", "item_id", "rating", "timestamp"]
test = log.sample(frac=0.2, random_state=1)
train = from_interactions_df(log.drop(test.index)[["user_id", "item_id"]])
test = test[test["user_id"].isin(train.users.ids()) & test["item_id"].isin(train.items.ids())]
pairs = train.interactions().matrix().coo_structure()
history, held_out = (np.zeros((train.user_count, train.item_count)) for _ in range(2))
history[pairs.row_numbers, pairs.col_numbers] = 1
held_out[train.users.numbers(test["user_id"].to_numpy()), train.items.numbers(test["item_id"].to_numpy())] = 1


def ndcg(scores):
    top = np.argsort(-np.where(history > 0, -np.inf, scores), axis=1, kind="stable")[:, :K]
    discounts, number = 1 / np.log2(np.arange(2, K + 2)), held_out.sum(axis=1)
    tested = number > 0
    gains = (np.take_along_axis(held_out, top, axis=1) * discounts).sum(axis=1)[tested]
    return (gains / np.cumsum(discounts)[np.minimum(number[tested], K).astype(int) - 1]).mean()


def trained(layers, epochs, both=False):
    torch.manual_seed(0)
    scorer = LightGCNScorer(layer_count=layers, epochs=epochs)
    trainer = scorer.create_trainer(train, TrainingOptions(rng=1, device="cpu"))  # what scorer.train does
    trainer.optimizer.register_step_post_hook(lambda optimizer, *_: optimizer.zero_grad())  # or the gradients add up, which is another fault
    edges, forward = trainer.edges, trainer.model.forward
    if both:
        edges = torch.cat([edges, edges.flip(0)], dim=1)
        trainer.model.forward = lambda _, asked=None, weight=None: forward(edges, asked, weight)
    for _ in range(epochs):
        trainer.train_epoch()
    with torch.no_grad():
        out, own = trainer.model.get_embedding(edges), trainer.model.embedding.weight
    _, weights = gcn_norm(edges, num_nodes=len(own), add_self_loops=False, dtype=torch.float32)
    items, users = out[:trainer.user_base], out[trainer.user_base:]
    user, few = train.users.ids()[7], train.items.ids()[:50]
    asked = scorer(user, ItemList(item_ids=few)).scores()
    assert both or np.allclose(asked, (users[7] @ items[:50].T).numpy(), atol=1e-5)  # the vectors are those that it ranks by
    return ndcg((users @ items.T).numpy()), (out - own * trainer.model.alpha[0]).abs().max().item(), weights


apart = []
for layers in (1, 2, 3):
    _, difference, weights = trained(layers, 1)
    apart.append((difference, weights.abs().max().item()))
    print(f"{layers} layers: largest difference of the vectors to the own ones over {layers + 1}: {difference:g}; "
          f"{(weights == 0).sum()} of {len(weights)} edges have weight 0", flush=True)
one_way, _, _ = trained(2, 10)
both_ways, difference, weights = trained(2, 10, both=True)
print(f"2 layers, 10 epochs, gradients cleared between steps: NDCG@{K} {one_way:.4f}; with the edges in both directions {both_ways:.4f}, where "
      f"{(weights == 0).sum()} of {len(weights)} edges have weight 0 and the difference is {difference:.2f}")
print(*(f"{name} {version(name)}" for name in ("lenskit", "torch-geometric", "torch")))
sys.exit(not (all(both == (0, 0) for both in apart) and both_ways - one_way > 0.01 and difference > 0.1 and (weights > 0).all()))
P
OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 "$folder/venv/bin/python" check.py
