#!/usr/bin/env bash
# transformers 5.23.0: with train_sampling_strategy="group_by_length" Trainer.predict gives its predictions in an order that isn't the
# data's, and gives no order with them.
#
# The option is described as the sampler of the training, to pad less. _get_eval_sampler reads it, too: predict and evaluate then go
# through the cases in a random order that is sorted by length in parts. predictions and label_ids share that order, so that each case's
# metric and their mean are right and nothing looks wrong. But nothing tells which row is whose. Written beside the users, as results of
# each case are, nearly every user gets another one's: slices by user and paired tests against another method are of shuffled pairs.
# Seq2SeqTrainer, which generates items, takes the same sampler. "random", the default, and "sequential" keep the data's order.
#
# Here a scorer of known values has 64 cases, and each score is counted by hand. It hits where a history has 10 items or less and
# nowhere else: 1.000 and .000 of the cases. By position that comes out as some .5 of each, with the same mean.
#
# One would guess that a setting of the training leaves predict's rows where they were, as they are without it.
# The sampler came with pull request 33514 of transformers, for the speed of evaluate. Pull request 48025 made it repeatable.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import logging, sys, warnings

import numpy as np
import torch
import transformers
from transformers import Seq2SeqTrainer, Trainer, TrainingArguments

said = []


class Said(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


logging.getLogger("transformers").addHandler(Said(level=logging.WARNING))
torch.set_num_threads(1)
lengths = [1 + 13 * user % 20 for user in range(64)]  # 1 to 20 items
histories = [[1 + user % 11] * n for user, n in enumerate(lengths)]
by_hand = np.array([(1 + user % 11) * n for user, n in enumerate(lengths)])  # what the scorer below says of each user
short = np.array(lengths) <= 10
# The label is what the scorer says where the history is short, and something else where it is long.
cases = [{"input_ids": row, "labels": float(score if few else -1)} for row, score, few in zip(histories, by_hand, short)]


class Scorer(torch.nn.Module):
    """A history's score is the sum of its items, times a weight of 1."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, input_ids, labels=None):
        scores = input_ids.sum(dim=1) * self.weight
        return {"loss": ((scores - labels) ** 2).mean(), "logits": scores}


def batch(rows):
    width = max(len(row["input_ids"]) for row in rows)
    return {"input_ids": torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]),
            "labels": torch.tensor([row["labels"] for row in rows])}


def hit(found):
    return {"hit": float((found.predictions == found.label_ids).mean())}


kept, same, difference = {}, True, {}
for strategy in ("random", "sequential", "group_by_length"):
    settings = TrainingArguments("out", train_sampling_strategy=strategy, per_device_eval_batch_size=8, report_to=[],
                                 disable_tqdm=True, use_cpu=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = Trainer(Scorer(), settings, data_collator=batch, compute_metrics=hit).predict(cases)
    said += [str(one.message) for one in caught]
    kept[strategy] = int((found.predictions == by_hand).sum())
    same &= sorted(found.predictions) == sorted(by_hand) and found.metrics["test_hit"] == short.mean()
    hits = found.predictions == found.label_ids  # of each case, both in one order
    difference[strategy] = hits[short].mean(), hits[~short].mean()
    print(f"{strategy}: {kept[strategy]} of 64 scores stand at their user; hits of all {found.metrics['test_hit']:.3f}; "
          f"by position of short histories {difference[strategy][0]:.3f}, of long ones {difference[strategy][1]:.3f}")
inherited = Seq2SeqTrainer._get_eval_sampler is Trainer._get_eval_sampler
print(f"Seq2SeqTrainer has the same sampler: {inherited}; warnings: {sorted(set(said))}")
print("transformers", transformers.__version__, "torch", torch.__version__)
in_order = all(kept[name] == 64 and difference[name] == (1, 0) for name in ("random", "sequential"))
mixed = max(abs(share - 0.5) for share in difference["group_by_length"]) < 0.25
sys.exit(not (in_order and same and inherited and not said and kept["group_by_length"] < 8 and mixed))
P
"$folder/venv/bin/python" check.py
