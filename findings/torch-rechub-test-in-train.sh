#!/usr/bin/env bash
# torch-rechub 0.9.0: create_seq_features puts every test case into the training set, too, with its label.
#
# The function makes cases of a user's first 50 interactions and splits them: the last is for the test, the one before for validation, the
# others for training. It asks for the last one, and then, by itself, whether a case is the one before it. The branch for all others also
# takes the last one. So its two rows, the item that was taken and the one that was drawn as a negative, stand in the test and in the
# training set. No error and no warning says so. The function is in the API reference and in an older tutorial of DIN. A comment in the
# source says that it was kept for tests. Its successor, generate_seq_feature, asks in one chain, and has no case twice.
#
# On the first 300 users of ml-100k all 600 rows of the test are among the 24,006 rows of the training, and none of the validation. DIN, trained
# for three epochs as in the tutorial, has a test AUC of .79. Without the 600 rows that it shouldn't have it has .65. So half of what it
# has above chance is learned by heart. One would guess that a split has no row on both sides. An issue about it wasn't found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. On ml-100k, which the package recbole brings; each
# movie is a category of its own, as the function wants one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1 \
    scikit-learn==1.9.1 tqdm==4.70.1
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps torch-rechub==0.9.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps --target "$folder/data" recbole==1.2.1  # for its ml-100k
cd "$folder"
cat > check.py <<'P'
import contextlib, io, os, random, sys
from importlib.metadata import version

import pandas as pd
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.ranking import DIN
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator, create_seq_features, df_to_dict, generate_seq_feature

torch.set_num_threads(1)
os.mkdir("saved")
columns = ["user_id", "target_item", "history_item"]


def interactions():
    data = pd.read_csv("data/recbole/dataset_example/ml-100k/ml-100k.inter", sep="\t")
    data.columns = ["user_id", "item_id", "rating", "time"]
    data = data.loc[data["user_id"] <= 300, ["user_id", "item_id", "time"]].reset_index(drop=True)
    return data.assign(cate_id=data["item_id"])


def rows(cases, names=(*columns, "label")):
    """Each case in writing: the user, the item, the history and the label."""
    return [str(row) for row in cases[list(names)].itertuples(index=False, name=None)]


def din(train, valid, test):
    """AUC of DIN on the test, after three epochs."""
    torch.manual_seed(1)
    item = SparseFeature("target_item", vocab_size=1683, embed_dim=16)
    history = SequenceFeature("history_item", vocab_size=1683, embed_dim=16, pooling="concat", shared_with="target_item")
    model = DIN(features=[SparseFeature("user_id", vocab_size=944, embed_dim=16)], history_features=[history], target_features=[item],
                mlp_params={"dims": [256, 128], "dropout": 0.2}, attention_mlp_params={"dims": [32, 16], "activation": "dice"})
    parts = [(df_to_dict(part[columns]), part["label"].values) for part in (train, valid, test)]
    (x, y), (x_valid, y_valid), (x_test, y_test) = parts
    loaders = DataGenerator(x, y).generate_dataloader(x_val=x_valid, y_val=y_valid, x_test=x_test, y_test=y_test, batch_size=2048)
    trainer = CTRTrainer(model, optimizer_params={"lr": 1e-3, "weight_decay": 1e-5}, n_epoch=3, earlystop_patience=3, device="cpu",
                         model_path="saved")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainer.fit(*loaders[:2])
        return trainer.evaluate(trainer.model, loaders[2])


random.seed(1)
with contextlib.redirect_stderr(io.StringIO()):
    sound = generate_seq_feature(interactions(), "user_id", "item_id", "time")
names = ["user_id", "target_item_id", "hist_item_id", "label"]
control = len({*rows(sound[0], names)} & {*rows(sound[2], names)})
print(f"generate_seq_feature: {len(sound[0])} rows of training, {len(sound[2])} of test, {control} of them in both")
random.seed(1)
train, valid, test = create_seq_features(interactions())
learned, asked = {*rows(train)}, {*rows(test)}
twice, others = len(asked & learned), len({*rows(valid)} & learned)
clean = train[[row not in asked for row in rows(train)]]
print(f"create_seq_features: {len(train)} rows of training, {len(valid)} of validation, {len(test)} of test. Among those of training are "
      f"{twice} of the test and {others} of the validation")
leak, right = din(train, valid, test), din(clean, valid, test)
print(f"DIN's AUC on the test: {leak:.4f}, and {right:.4f} if trained without the {len(train) - len(clean)} rows of the test")
print(*(f"{name} {version(name)}" for name in ("torch-rechub", "torch", "pandas")))
found = twice == len(test) == len(train) - len(clean) == 600 and others == control == 0 and len(sound[2]) > 0
sys.exit(not (found and leak > right + 0.05))
P
"$folder/venv/bin/python" check.py
