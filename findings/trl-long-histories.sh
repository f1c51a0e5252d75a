#!/usr/bin/env bash
# trl 1.16.0: SFT and DPO evaluate only users whose history fits max_length, 1,024 tokens by default, so that eval_loss prefers a max_length
# that leaves users out.
#
# A recommender's prompt is a user's history, and its completion is the next item. If the prompt alone has max_length tokens, SFTTrainer and
# DPOTrainer drop the case when they prepare the data: from the training set and from the validation set. The configs' text says that such
# sequences are truncated. Progress bars name the step, "Dropping fully masked examples from eval dataset". No log says how many are gone.
#
# Here 96 users have made-up histories about as long as those of MovieLens, five tokens for each film. Who has seen more takes less popular
# films. By default SFT and DPO train on 68 of 96 users, and evaluate on 73 of 96. SFT's eval_loss of the same LM after the same 40 steps is
# 1.516 with a max_length of 512, on 52 users, 1.647 by default, and 1.947 without a limit. Over all 96 users, by hand, the three LMs have
# 2.026, 1.875 and 1.947. So the max_length that is best by eval_loss is the worst one. An LM whose tokenizer needs more tokens for a film is
# compared over other users, too, and results for "all users" hold for light ones.
#
# One would guess that the history is cut and the target kept, or at least that an evaluation has as many cases as its data. Pull requests
# 6320 (SFT) and 6321 (DPO, KTO) made it so, since such cases teach nothing, as issue 3927 had reported. Of evaluations nothing was found.
# So cut histories yourself, with max_length=None, or compare len(trainer.eval_dataset) with the data's length.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM and made-up users.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import json, warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

torch.set_num_threads(1)
ITEMS = 40
drawn = np.random.default_rng(0)
words = {f"film{i}": i for i in range(ITEMS)} | {word: ITEMS + i for i, word in enumerate(("has", "5", "stars", ",", "<end>", "<pad>"))}
words = Tokenizer(models.WordLevel(words, unk_token="film0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<pad>", unk_token="film0")


def user():
    """A user with as many films as in MovieLens, about; who has seen more takes less popular ones. Five words for each film."""
    seen = int(np.clip(np.exp(drawn.normal(np.log(96), 1.0)), 20, 400))
    chances = np.arange(1, ITEMS + 1) ** -(1.5 if seen < 100 else 0.8 if seen < 200 else 0.0)
    *history, target, other = drawn.choice(ITEMS, seen + 2, p=chances / chances.sum())
    return {"prompt": " ".join(f"film{one} has 5 stars ," for one in history), "completion": f" film{target}", "rejected": f" film{other}"}


rows = {"train": [user() for _ in range(96)], "eval": [user() for _ in range(96)]}
sft = {name: Dataset.from_list([{key: one[key] for key in ("prompt", "completion")} for one in users]) for name, users in rows.items()}
dpo = {name: Dataset.from_list([{"prompt": one["prompt"], "chosen": one["completion"], "rejected": one["rejected"]} for one in users])
       for name, users in rows.items()}


def lm():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=4096))


def settings(**more):
    return dict(output_dir="out", report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, save_strategy="no", seed=1,
                gradient_checkpointing=False, per_device_train_batch_size=4, per_device_eval_batch_size=1, logging_steps=1000, **more)


@torch.no_grad()
def by_hand(net):
    """The mean loss of the completions of all users: a film and the end."""
    losses = []
    for one in rows["eval"]:
        ids = torch.tensor([tokenizer(one["prompt"] + one["completion"])["input_ids"] + [tokenizer.eos_token_id]])
        losses.append(float(torch.nn.functional.cross_entropy(net(ids).logits[0, -3:-1], ids[0, -2:])))
    return sum(losses) / len(losses)


found = {"trl": trl.__version__, "lengths": [len(one["prompt"].split()) for one in rows["eval"]]}
for length in ("default", 512, None):
    net = lm()
    args = SFTConfig(**settings(max_steps=40, learning_rate=0.01), **({} if length == "default" else {"max_length": length}))
    trainer = SFTTrainer(model=net, args=args, processing_class=tokenizer, train_dataset=sft["train"], eval_dataset=sft["eval"])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    found[str(length)] = {
        "max_length": args.max_length, "train": len(trainer.train_dataset), "eval": len(trainer.eval_dataset),
        "eval_loss": trainer.evaluate()["eval_loss"], "by hand": by_hand(net.eval())}
pairs = DPOTrainer(model=lm(), ref_model=lm(), args=DPOConfig(**settings()), processing_class=tokenizer,
                   train_dataset=dpo["train"], eval_dataset=dpo["eval"])
found["dpo"] = {"train": len(pairs.train_dataset), "eval": len(pairs.eval_dataset)}
with open("found.json", "w") as file:
    json.dump(found, file)
P
cat > compare.py <<'P'
import json, re, sys

with open("found.json") as file:
    found = json.load(file)
with open("log") as file:
    said = [line.strip() for line in re.split("[\r\n]", file.read()) if re.search("dropp|truncat|fully masked|left out", line, re.I)]
kinds = ("512", "default", "None")
users = len(found["lengths"])
print(f"trl {found['trl']}: {users} users to train on and {users} to evaluate on; SFT of the same LM:")
for kind in kinds:
    one = found[kind]
    fit = sum(length < (one["max_length"] or 10**9) for length in found["lengths"])
    print(f"max_length {one['max_length']!s:5} trained on {one['train']}, evaluated on {one['eval']} ({fit} histories are shorter): eval_loss "
          f"{one['eval_loss']:.4f}; over all users, by hand {one['by hand']:.4f}")
    one["as described"] = one["eval"] == fit
print(f"DPO, max_length of the default: {found['dpo']['train']} pairs to train on, {found['dpo']['eval']} to evaluate on")
print("all that is said of it:", *sorted({re.split(r"\s*\|", re.sub(r":\s+\d+%", " |", line))[0] for line in said}), sep="\n    ")
warned = any("%" not in line for line in said)
short, default, whole = (found[kind] for kind in kinds)
dropped = all(found[kind]["as described"] for kind in kinds) and short["eval"] < default["eval"] == found["dpo"]["eval"] < whole["eval"] == users
chosen = short["eval_loss"] < default["eval_loss"] < whole["eval_loss"] and short["by hand"] > max(default["by hand"], whole["by hand"])
right = abs(whole["eval_loss"] - whole["by hand"]) < 1e-3
print(f"left out: {dropped}; the shortest is the best by eval_loss and the worst over all users: {chosen}; right without a limit: {right}; "
      f"a warning: {warned}")
sys.exit(not (dropped and chosen and right and not warned))
P
"$folder/venv/bin/python" check.py > log 2>&1 || { cat log; exit 1; }
"$folder/venv/bin/python" compare.py
