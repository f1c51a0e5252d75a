#!/usr/bin/env bash
# sentence-transformers 6.2.0: with NO_DUPLICATES the trainer ends an epoch before the pairs of popular items had their turn.
#
# NO_DUPLICATES keeps a text from standing twice in a batch, as is recommended for losses with negatives from the batch. A pair that doesn't fit
# waits for a later batch. Where many pairs hold one item, the last batches are small, and there are more of them than pairs divided by the
# batch size. But that quotient is the length that the sampler gives, and the trainer stops an epoch there. What still waits is dropped. It's always
# the pairs of the most popular items, and of the users with the most interactions if a user's text is the same in all pairs.
#
# One would guess that an epoch is all pairs, as with the default sampler. In a recommender's pairs of history and item, an item can be trained as
# many times in an epoch as there are batches, at most. So the batch size decides how often a popular item is trained.
#
# On ml-100k, 98,114 pairs, the most popular item in 575 of them: with batches of 256 an epoch trains 99% of the pairs, with 512 89%, and with 1,024
# 68%. Of the 29,040 pairs of the 100 most popular items it trains 96%, 65% and 33%. The sampler itself has all pairs: at 1,024 it makes 578
# batches, of which 96 are trained. A second epoch draws others of the same items' pairs, so that after two epochs of 1,024 79,980 pairs have
# been trained. The trainer counts 2.0 epochs. The default sampler trains all pairs in an epoch.
#
# A study of batch sizes meets this, such as one of CachedMultipleNegativesRankingLoss: the larger the batch, the fewer pairs of popular items.
# So does a comparison of NO_DUPLICATES with the default sampler. No warning says so; the one that exists is about too few batches, with drop_last.
# NO_DUPLICATES_HASHED, which is measured here, makes the same batches as NO_DUPLICATES. Several data sets in proportion are cut, too.
#
# A sampler of one's own whose length is the number of its batches trains all pairs, as below. That the length is below the number of batches is
# named in pull request 2877 of sentence-transformers; that the rest isn't trained wasn't found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile sentence-transformers==6.2.0 transformers==5.23.0 torch==2.13.0 \
    accelerate==1.15.0 datasets==5.2.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > check.py <<'P'
import collections, csv, sys, warnings

warnings.filterwarnings("ignore")
import torch
import transformers
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments, __version__
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

disable_progress_bar()
torch.set_num_threads(1)
EPOCHS, POPULAR = 2, 100
rows = sorted((row["user_id:token"], float(row["timestamp:float"]), "i" + row["item_id:token"])
              for row in csv.DictReader(open("data/recbole/dataset_example/ml-100k/ml-100k.inter"), delimiter="\t"))
taken = collections.defaultdict(list)
for user, _, item in rows:
    taken[user].append(item)
cases = [(" ".join(history[max(0, n - 10):n]), history[n]) for history in taken.values() for n in range(1, len(history) - 1)]
times = collections.Counter(item for _, item in cases)
popular = {item for item, _ in times.most_common(POPULAR)}
pairs = Dataset.from_dict({"history": [history for history, _ in cases], "item": [item for _, item in cases], "label": list(range(len(cases)))})


class WholeEpoch(NoDuplicatesBatchSampler):
    """The same batches, but with as many of them for its length as there are in the first epoch."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, precompute_hashes=True, precompute_num_proc=1, **kwargs)
        self.batches = None
        self.batches = list(super().__iter__())

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return super().__len__() if self.batches is None else len(self.batches)


class Counting(MultipleNegativesRankingLoss):
    """The loss as it is, which doesn't read labels; here they are the pairs' numbers."""

    def forward(self, features, labels):
        self.trained = [*getattr(self, "trained", []), labels.tolist()]
        return super().forward(features, labels)


def run(batch_sampler, size, epochs):
    """The batches of each epoch, as the loss got them, and the epochs as the trainer counts them."""
    transformers.set_seed(0)
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["[UNK]", *times])}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model = SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=16)], device="cpu")
    loss = Counting(model)
    arguments = SentenceTransformerTrainingArguments(
        output_dir="out", num_train_epochs=epochs, per_device_train_batch_size=size, batch_sampler=batch_sampler, learning_rate=0.05,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True)
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=pairs, loss=loss)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    steps = len(loss.trained) // epochs
    return [loss.trained[n * steps:(n + 1) * steps] for n in range(epochs)], trainer.state.epoch


of_popular = sum(times[item] for item in popular)
print(f"{len(cases)} pairs, {of_popular} of the {POPULAR} most popular items, {max(times.values())} of the most popular one")
results = {}
for what, sampler, size, epochs in (
        ("default", "batch_sampler", 1024, 1), ("NO_DUPLICATES_HASHED", "no_duplicates_hashed", 256, 1),
        ("NO_DUPLICATES_HASHED", "no_duplicates_hashed", 512, 1), ("NO_DUPLICATES_HASHED", "no_duplicates_hashed", 1024, EPOCHS),
        ("its batches, all", WholeEpoch, 1024, 1)):
    batches, counted = run(sampler, size, epochs)
    first = [case for batch in batches[0] for case in batch]
    ever = {case for epoch in batches for batch in epoch for case in batch}
    held = sum(cases[case][1] in popular for case in first)
    assert len(set(first)) == len(first) and counted == epochs
    results[what, size] = len(first), held
    print(f"{what}, batches of {size}: {len(first)} pairs of the first epoch trained ({len(first) / len(cases):.0%}) in {len(batches[0])} batches, "
          f"{held} of the popular items ({held / of_popular:.0%}); {len(ever)} trained in the {counted:.1f} epochs the trainer counts", flush=True)
print("sentence-transformers", __version__, "transformers", transformers.__version__, "torch", torch.__version__)
whole = len(cases), of_popular
name = "NO_DUPLICATES_HASHED"
sys.exit(not (results["default", 1024] == whole == results["its batches, all", 1024] and results[name, 256][0] < 0.995 * len(cases)
              and results[name, 512][0] < 0.92 * len(cases) and results[name, 1024][0] < 0.75 * len(cases)
              and results[name, 1024][1] < 0.4 * of_popular))
P
OMP_NUM_THREADS=1 TQDM_DISABLE=1 "$folder/venv/bin/python" check.py
