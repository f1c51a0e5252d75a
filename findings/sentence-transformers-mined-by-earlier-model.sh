#!/usr/bin/env bash
# sentence-transformers 6.2.0: mine_hard_negatives with a cache_folder mines by the first model that used the folder, whatever model it's given.
#
# cache_folder keeps the vectors of queries and items for later calls. The page says that the files are found again by the model's name, the prompts
# and the texts. One would guess that another folder of weights is another name. But the name is the one that the model card holds as its base
# model, and that is set only if it can be looked up on the Hub. A model that was trained and saved to a folder has none.
# So all of them share one name, which is empty. By its source, a model of the Hub that is trained further in the process keeps its name, too.
#
# Mining in rounds meets this: train, mine by what was trained, train on that, mine again, with the same folder for all rounds. From the
# second round on the negatives are those of the untrained model. So does a comparison of models by what they mine, or of checkpoints, or of seeds.
# Margins and max_score are compared with the first model's scores, too. Another size of vectors doesn't tell models apart either.
#
# On ml-100k, five negatives for each of 2,000 histories. A trained model, one that was trained further, and one of another seed and half
# the size get 100% of the untrained model's negatives. Of these 35%, 25% and 10% are what the three models find without the folder. All
# models find items that are in the history, so that some of the untrained model's negatives are right, too.
#
# No error and no warning says so; with verbose it prints that vectors were loaded. Give each model a folder of its own. That prompts were
# missing from the name is known and mended (issue 3870 of sentence-transformers). That weights are missing wasn't found.
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
import collections, contextlib, csv, io, os, sys, warnings

warnings.filterwarnings("ignore")
os.environ["HF_HUB_OFFLINE"] = "1"  # spares the look-up of the folders' names, which are none of the Hub's
import torch
import transformers
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments, __version__
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.util import mine_hard_negatives
from tokenizers import Tokenizer, models, pre_tokenizers

torch.set_num_threads(1)
NEGATIVES, HISTORIES = 5, 2000
rows = sorted((row["user_id:token"], float(row["timestamp:float"]), "i" + row["item_id:token"])
              for row in csv.DictReader(open("data/recbole/dataset_example/ml-100k/ml-100k.inter"), delimiter="\t"))
taken = collections.defaultdict(list)
for user, _, item in rows:
    taken[user].append(item)
items = sorted({item for history in taken.values() for item in history})
cases = [(" ".join(history[max(0, n - 10):n]), history[n]) for history in taken.values() for n in range(1, len(history))]
pairs = Dataset.from_dict({"history": [history for history, _ in cases], "item": [item for _, item in cases]}).shuffle(seed=0)


def new(seed, size):
    transformers.set_seed(seed)
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["[UNK]", *items])}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=size)], device="cpu")


def trained(model, data):
    arguments = SentenceTransformerTrainingArguments(
        output_dir="out", per_device_train_batch_size=256, learning_rate=0.1, report_to="none", save_strategy="no", logging_strategy="no",
        disable_tqdm=True)
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=MultipleNegativesRankingLoss(model))
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return model


def mined(name, cache_folder=None):
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        found = mine_hard_negatives(pairs.select(range(HISTORIES)), SentenceTransformer(name, device="cpu"), corpus=items,
                                    num_negatives=NEGATIVES, output_format="n-tuple", cache_folder=cache_folder, verbose=False)
    return {(row["history"], row["item"]): {row[f"negative_{n}"] for n in range(1, NEGATIVES + 1)} for row in found}


def share(some, others):
    both = some.keys() & others.keys()
    return sum(len(some[case] & others[case]) for case in both) / NEGATIVES / len(both)


new(0, 64).save("untrained")
trained(SentenceTransformer("untrained", device="cpu"), pairs.select(range(20_000))).save("trained")
trained(SentenceTransformer("trained", device="cpu"), pairs.select(range(20_000, 60_000))).save("trained-further")
new(1, 32).save("other")
kept, results = {}, {}
for name in ("untrained", "trained", "trained-further", "other"):
    kept[name] = mined(name, "vectors")
    results[name] = share(kept[name], mined(name)), share(kept[name], kept["untrained"]), len(os.listdir("vectors"))
    print(f"{name}: of its {NEGATIVES} negatives for {len(kept[name])} histories {results[name][0]:.0%} are those it finds without the folder, "
          f"{results[name][1]:.0%} are those of the untrained model; {results[name][2]} files in the folder", flush=True)
print("sentence-transformers", __version__, "transformers", transformers.__version__, "torch", torch.__version__)
first, *later = results.values()
sys.exit(not (first[0] == 1 and all(own < 0.6 and of_first == 1 and files == 2 for own, of_first, files in later)))
P
OMP_NUM_THREADS=1 TQDM_DISABLE=1 "$folder/venv/bin/python" check.py
