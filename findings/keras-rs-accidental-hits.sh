#!/usr/bin/env bash
# keras-rs 0.4.0: RemoveAccidentalHits removes nothing, so that copies of the item to be found stay among its negatives.
#
# A retrieval model takes the other rows' items of a batch for negatives. Among these is the row's own item, as often as others took it in that batch.
# Such copies are accidental hits: they are pushed away while the item is pulled near. The layer is documented to take them out. It adds to
# each of their logits what should be the lowest number of float32. It is the smallest positive one, and a hundredth of that: 1e-40. That
# changes no logit but one of 0. No error and no warning says so.
#
# Trained with the layer, two towers have the same vectors as without it, to the bit. There are 300 items, some of them popular, and a row
# of 1,024 has 41 copies of its own item in the mean. NDCG@10 of the next item is .540 with the layer and without it. It is .624 with the
# copies masked by hand. What is lost is the popular items: where one of the first ten is asked for it is .395 for .585, else .665 for .657.
# With HardNegativeMining behind it, 10 of a row, it is .481 for .599, as a fifth of what is mined are copies.
#
# One would guess that a layer does what it is named after. It is called as in its documentation. An ablation of it finds that it is of no
# use. Mask the logits yourself, as is done below. The layer of the same name in tensorflow-recommenders adds -3e36. Known: an open pull
# request (206 of keras-rs, September 2026) says it of the logits. No release has it.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. Made-up sessions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile keras-rs==0.4.0 keras==3.15.1 torch==2.13.0 numpy==2.4.6 \
    ml-dtypes==0.6.0
cd "$folder"
cat > check.py <<'P'
import os, sys, warnings

warnings.filterwarnings("ignore")
os.environ["KERAS_BACKEND"] = "torch"
import keras
import keras_rs
import numpy as np
import torch
from keras import ops

torch.set_num_threads(1)
ITEMS, BATCH, EPOCHS, HARD, K = 300, 1024, 8, 10, 10


def transitions(number=60_000, seed=0):
    """An item and the one that came next: mostly one of three that follow it, which are popular items more often than not."""
    draw = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, ITEMS + 1)
    popularity /= popularity.sum()
    follow = draw.choice(ITEMS, (ITEMS, 3), p=popularity)
    item = draw.choice(ITEMS, number, p=0.5 * popularity + 0.5 / ITEMS)
    after = np.where(draw.random(number) < 0.8, follow[item, draw.choice(3, number, p=[0.6, 0.3, 0.1])], draw.choice(ITEMS, number, p=popularity))
    return np.stack([item, after], axis=1)


class Masked(keras.layers.Layer):
    """What the layer is documented to do: no weight for a negative that is the item itself."""

    def call(self, logits, labels, ids):
        return ops.where(ops.logical_and(ops.equal(ids[:, None], ids[None]), labels == 0), -1e9, logits)


class Towers(keras.Model):
    def __init__(self, layer, hard):
        super().__init__()
        self.query, self.candidate = keras.layers.Embedding(ITEMS, 32), keras.layers.Embedding(ITEMS, 32)
        self.removal, self.mining = layer, keras_rs.layers.HardNegativeMining(HARD) if hard else None

    def call(self, inputs):
        return ops.matmul(self.query(inputs["item"]), ops.transpose(self.candidate(inputs["after"])))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        labels = ops.eye(ops.shape(y_pred)[0])
        if self.removal is not None:
            y_pred = self.removal(y_pred, labels, x["after"])
        if self.mining is not None:
            y_pred, labels = self.mining(y_pred, labels)
        return ops.mean(keras.losses.categorical_crossentropy(labels, y_pred, from_logits=True))


data = transitions()
train, test = data[:50_000], data[50_000:]


def trained(name, hard):
    keras.utils.set_random_seed(1)
    layer = {"none": None, "keras-rs": keras_rs.layers.RemoveAccidentalHits(), "by hand": Masked()}[name]
    model = Towers(layer, hard)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    steps = len(train) // BATCH * BATCH
    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(len(train))[:steps]
        loss = model.fit({"item": train[order, 0], "after": train[order, 1]}, np.zeros(steps), batch_size=BATCH, epochs=1, shuffle=False,
                         verbose=0).history["loss"][-1]
    queries, candidates = (ops.convert_to_numpy(table.embeddings) for table in (model.query, model.candidate))
    scores = (queries @ candidates.T)[test[:, 0]]
    places = (scores > scores[np.arange(len(test)), test[:, 1]][:, None]).sum(axis=1)
    gains = np.where(places < K, 1 / np.log2(places + 2), 0)
    batch = train[:BATCH]
    logits = queries[batch[:, 0]] @ candidates[batch[:, 1]].T
    np.fill_diagonal(logits, -np.inf)  # what is left is the negatives
    hardest = batch[np.argsort(-logits, axis=1)[:, :HARD], 1]
    copies, popular = (hardest == batch[:, 1:]).mean(), np.isin(test[:, 1], np.argsort(-np.bincount(train[:, 1]))[:10])
    print(f"{'hard negatives' if hard else 'all negatives'}, removal {name}: loss {loss:.4f}, NDCG@{K} {gains.mean():.4f} "
          f"({gains[popular].mean():.4f} where the ten most popular items are asked for, else {gains[~popular].mean():.4f}); of the {HARD} hardest "
          f"negatives {copies:.3f} are copies", flush=True)
    return candidates, gains.mean()


layer = keras_rs.layers.RemoveAccidentalHits()
logits, labels, ids = np.array([[1.0, 2.0, 3.0, 4.0]], "float32"), np.array([[0.0, 0.0, 1.0, 0.0]], "float32"), np.array([7, 5, 7, 8])
print("logits", logits[0], "ids", ids, "of which the third is the positive; behind the layer", ops.convert_to_numpy(layer(logits, labels, ids))[0])
same = np.array_equal(ops.convert_to_numpy(layer(logits, labels, ids)), logits)
results = {(name, hard): trained(name, hard) for hard in (False, True) for name in ("none", "keras-rs", "by hand")}
counts = np.bincount(train[:, 1], minlength=ITEMS) / len(train)
print(f"{(counts ** 2).sum() * (BATCH - 1):.0f} copies of its own item has a row of {BATCH} in the mean")
equal = all(np.array_equal(results["keras-rs", hard][0], results["none", hard][0]) for hard in (False, True))
print("keras-rs", keras_rs.__version__, "keras", keras.__version__, "torch", torch.__version__)
behind = [results["by hand", hard][1] - results["keras-rs", hard][1] for hard in (False, True)]
print(f"logits as they were: {same}; the same vectors as without the layer: {equal}; NDCG@{K} behind by {behind[0]:.3f} and {behind[1]:.3f}")
sys.exit(not (same and equal and behind[0] > 0.05 and behind[1] > 0.07))
P
OMP_NUM_THREADS=1 "$folder/venv/bin/python" check.py
