#!/usr/bin/env bash
# sentence-transformers 6.2.0: MatryoshkaLoss scales all vectors to length 1, so that a loss of dot products trains another model.
#
# MatryoshkaLoss wraps any loss, says its page, and applies it to the whole vectors and to shorter ones. One would guess that it cuts the vectors,
# and that with the full size alone it changes nothing. It also divides each vector by its length before the loss sees it, at the full size, too. A
# loss of cosines, such as MultipleNegativesRankingLoss by default, doesn't notice. A loss of dot products gets cosines in their place.
#
# MarginMSELoss, which learns the margins of a teacher, takes dot products by default. Cosines differ by 2 at most, and margins of a
# cross-encoder or of matrix factorization are larger. So no model can fit them, and the length of an item's vector, which tells a popular
# item from a rare one, gets no gradient. The model that is used afterwards isn't scaled: it ranks by dot products with lengths that nobody trained.
#
# A teacher of 200 users and 300 items, margins with a standard deviation of 6.6, a student of the teacher's size, five epochs, three seeds. By
# MarginMSELoss alone a user's first 10 items hold .99 of the teacher's first 10. By MatryoshkaLoss with the full size alone they hold .29, and with
# half the size besides .28. By hand, cut in the same way and not scaled, they hold .87. For one and the same untrained model and batch
# MarginMSELoss is 74.1, and MatryoshkaLoss of it with the full size is 50.2. The loss that is logged stays near the margins' variance.
#
# With MultipleNegativesRankingLoss and dot_score, with the scale of 1 that its page names, the same holds: logits lie between -1 and 1.
# MSELoss isn't the same after it either: the teacher's vectors are cut, but not scaled. No warning says so. To train dot products at several
# sizes, add up the loss of cut vectors by hand, as below, or train cosines and rank by cosines. An issue about it wasn't found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile sentence-transformers==6.2.0 transformers==5.23.0 torch==2.13.0 \
    accelerate==1.15.0 datasets==5.2.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import sys, warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
import transformers
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments, __version__
from sentence_transformers.sentence_transformer.losses import MarginMSELoss, MatryoshkaLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

torch.set_num_threads(1)
USERS, ITEMS, SIZE, K, SEEDS = 200, 300, 16, 10, 3
draw = np.random.default_rng(0)
lengths = draw.uniform(0.2, 1.8, size=(ITEMS, 1))
teacher = draw.normal(size=(USERS, SIZE)) @ (draw.normal(size=(ITEMS, SIZE)) * lengths).T
user, better, worse = draw.integers(USERS, size=40_000), draw.integers(ITEMS, size=40_000), draw.integers(ITEMS, size=40_000)
margins = teacher[user, better] - teacher[user, worse]
triples = Dataset.from_dict({"query": [f"u{n}" for n in user], "passage1": [f"i{n}" for n in better], "passage2": [f"i{n}" for n in worse],
                             "label": margins.tolist()})
best = np.argsort(-teacher, axis=1)[:, :K]
names = ["[UNK]", *(f"u{n}" for n in range(USERS)), *(f"i{n}" for n in range(ITEMS))]


def new(seed):
    transformers.set_seed(seed)
    words = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=SIZE)], device="cpu", similarity_fn_name="dot")


class CutByHand(torch.nn.Module):
    """The sum of MarginMSE over vectors of several sizes, cut and not scaled."""

    def __init__(self, model, sizes):
        super().__init__()
        self.model, self.sizes = model, sizes

    def forward(self, features, labels):
        query, one, other = (self.model(column)["sentence_embedding"] for column in features)
        return sum((((query * (one - other))[:, :size].sum(dim=1) - labels) ** 2).mean() for size in self.sizes)


def found(make, seed):
    """The part of the teacher's first items that the student has among its own first ones."""
    model = new(seed)
    arguments = SentenceTransformerTrainingArguments(
        output_dir="out", seed=seed, num_train_epochs=5, per_device_train_batch_size=128, learning_rate=0.05, report_to="none",
        save_strategy="no", logging_strategy="no", disable_tqdm=True)
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=triples, loss=make(model))
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    scores = model.similarity(model.encode(names[1:USERS + 1]), model.encode(names[USERS + 1:])).numpy()
    return np.mean([len(set(some) & set(others)) for some, others in zip(best, np.argsort(-scores, axis=1)[:, :K])]) / K


print(f"standard deviation of the teacher's margins: {margins.std():.2f}")
model = new(0)
batch = triples[:256]
features = [model.preprocess(batch[column]) for column in ("query", "passage1", "passage2")]
labels = torch.tensor(batch["label"])
with torch.no_grad():
    values = [loss([dict(column) for column in features], labels).item() for loss in (
        MarginMSELoss(model), CutByHand(model, [SIZE]), MatryoshkaLoss(model, MarginMSELoss(model), [SIZE]))]
print(f"of one new model and one batch: MarginMSELoss {values[0]:.2f}, by hand {values[1]:.2f}, MatryoshkaLoss with the full size {values[2]:.2f}")
results = {}
for what, make in {"MarginMSELoss": MarginMSELoss,
                   "MatryoshkaLoss, full size": lambda model: MatryoshkaLoss(model, MarginMSELoss(model), [SIZE]),
                   "MatryoshkaLoss, full and half size": lambda model: MatryoshkaLoss(model, MarginMSELoss(model), [SIZE, SIZE // 2]),
                   "by hand, full and half size": lambda model: CutByHand(model, [SIZE, SIZE // 2])}.items():
    results[what] = [found(make, seed) for seed in range(SEEDS)]
    print(f"{what}: of the teacher's first {K} items {np.mean(results[what]):.2f} are among the student's (by seed",
          *(f"{part:.2f}" for part in results[what]), end=")\n", flush=True)
print("sentence-transformers", __version__, "transformers", transformers.__version__, "torch", torch.__version__)
alone, full, both, by_hand = results.values()
same = abs(values[0] - values[1]) < 1e-3 * values[0] and abs(values[2] - values[0]) > 0.2 * values[0]
sys.exit(not (same and min(alone) > 0.9 and min(by_hand) > 0.7 and max(full + both) < 0.4))
P
OMP_NUM_THREADS=1 TQDM_DISABLE=1 "$folder/venv/bin/python" check.py
