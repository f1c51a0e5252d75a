#!/usr/bin/env bash
# trl 1.16.0: DPO, KTO, GRPO and RLOO measure a tuned LM against the LM on disk from which it was once loaded, and not against itself.
#
# Preference tuning and RL come after SFT: recommenders learn the items first. DPO's and KTO's documentation says that without a
# ref_model the reference is the LM as it was before the training. trl makes it anew from config._name_or_path, the folder or hub name
# that the LM was loaded from. What was trained since, or put in by load_state_dict, isn't there. So an LM that goes from SFTTrainer
# straight to the next trainer has the untuned LM as its reference. No error and no warning says so. GRPOTrainer and RLOOTrainer take no
# ref_model.
#
# Before the first update the LM is its own reference, so that DPO's loss is log 2 = .6931, KTO's .5 and GRPO's and RLOO's KL 0, as they
# are for the LM on disk, and for the tuned LM if it is saved and loaded. Given as it is, or by load_state_dict, it has a DPO loss of
# .0198, a KTO loss of .2344, and KLs of 2.30 and 3.26. DPO's precompute_ref_log_probs, which is to save memory, takes the tuned LM: .6931.
# So does trl 0.28.0 without it, which copies the LM. After 10 steps DPO logs that it won a margin of 8.65, and has won 1.24: the rest is
# SFT's. A KL term pulls the LM back to where it hadn't learned the items.
#
# One would guess that the reference of an LM that is handed over is that LM. By its source trl makes DPO's reference so since 0.29.0 and
# KTO's since pull request 5534. An issue about it wasn't found. Save the LM after SFT, and give the trainer the new folder.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM with random weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
python3.11 -m venv "$folder/before"
# the older trl takes torch and what else fits from the other environment
echo "$folder"/venv/lib/python3.11/site-packages > "$folder/before/lib/python3.11/site-packages/other.pth"
"$folder/before/bin/pip" install --quiet --disable-pip-version-check trl==0.28.0 transformers==4.57.6 accelerate==1.12.0 \
    datasets==4.5.0 huggingface-hub==0.36.2 2> "$folder/pip.log" ||
    { cat "$folder/pip.log"; exit 1; }
cd "$folder"
cat > common.py <<'P'
import logging, os, warnings

os.environ["TQDM_DISABLE"] = "1"
warnings.filterwarnings("ignore")
import datasets
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer

datasets.disable_progress_bars()
disable_progress_bar()
torch.set_num_threads(1)
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w31", pad_token="w30", unk_token="w0")
cases = [(i, 16 + i % 8, 16 + (i + 1) % 8) for i in range(16)]  # the last item read, the next one, and one that wasn't taken
pairs = datasets.Dataset.from_list([{"prompt": f"w{i} ", "chosen": f"w{a}", "rejected": f"w{b}"} for i, a, b in cases])
usual = {"logging_steps": 1, "report_to": [], "use_cpu": True, "bf16": False, "seed": 1, "disable_tqdm": True, "save_strategy": "no",
         "gradient_checkpointing": False, "lr_scheduler_type": "constant"}
said = []


class Said(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


for library in ("transformers", "trl"):
    logging.getLogger(library).addHandler(Said(level=logging.WARNING))


def run(make, *key):
    """What is logged under a key at each step. `make` builds the trainer; what is said by it and in training goes to `said`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = make()
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    said.extend(str(one.message) for one in caught)
    return [[entry[one] for entry in trainer.state.log_history if one in entry] for one in key]


def from_state():
    """The LM with the tuned weights put in by load_state_dict."""
    net = LlamaForCausalLM.from_pretrained("lm")
    net.load_state_dict(torch.load("tuned.pt"))
    return net


def dpo(net, steps=1, rate=0.0, **settings):
    settings = DPOConfig("out", max_steps=steps, learning_rate=rate, beta=0.5, per_device_train_batch_size=8, **usual, **settings)
    return DPOTrainer(net, args=settings, train_dataset=pairs, processing_class=tokenizer)
P
cat > tune.py <<'P'
from common import *
from transformers import LlamaConfig
from trl import SFTConfig, SFTTrainer


def tuned():
    """The LM after SFT on the next items, as the trainer leaves it."""
    rows = datasets.Dataset.from_list([{"prompt": f"w{i} ", "completion": f"w{a}"} for i, a, _ in cases])
    trainer = SFTTrainer("lm", args=SFTConfig("out", max_steps=40, learning_rate=0.02, **usual), train_dataset=rows, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.model


if __name__ == "__main__":
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        bos_token_id=None, eos_token_id=31, pad_token_id=30, initializer_range=0.2)).save_pretrained("lm")
    net = tuned()
    torch.save(net.state_dict(), "tuned.pt")
    net.save_pretrained("tuned")
P
cat > check.py <<'P'
import json, math, sys
from common import *
import transformers
import trl
from trl import GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer, RLOOConfig, RLOOTrainer
from tune import tuned


def reward(completion_ids, **_):
    return [float(sum(token < 8 for token in ids)) for ids in completion_ids]


def kto(net):
    rows = [{"prompt": f"w{i} ", "completion": f"w{one}", "label": one == a} for i, a, b in cases for one in (a, b)]
    settings = KTOConfig("out", max_steps=1, learning_rate=0.0, beta=0.5, per_device_train_batch_size=8, **usual)
    return KTOTrainer(net, args=settings, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer)


def online(trainer, config):
    def make(net):
        settings = config("out", max_steps=1, learning_rate=0.0, beta=0.04, per_device_train_batch_size=8, num_generations=4,
                          max_completion_length=4, **usual)
        return trainer(net, reward_funcs=reward, args=settings, train_dataset=pairs.select_columns("prompt"), processing_class=tokenizer)
    return make


def margin(net):
    """The mean log-odds of the next item against the one that wasn't taken, by the LM itself."""
    with torch.no_grad():
        logits = net(torch.tensor([[i] for i, _, _ in cases])).logits[:, -1]
    return sum((logits[k, a] - logits[k, b]).item() for k, (_, a, b) in enumerate(cases)) / len(cases)


policies = {"the LM on disk": lambda: LlamaForCausalLM.from_pretrained("lm"), "tuned, as SFTTrainer leaves it": tuned,
            "tuned, by load_state_dict": from_state, "tuned, saved and loaded": lambda: LlamaForCausalLM.from_pretrained("tuned")}
ways = {"DPO, loss": (dpo, "loss"), "DPO, precomputed": (lambda net: dpo(net, precompute_ref_log_probs=True), "loss"),
        "KTO, loss": (kto, "loss"), "GRPO, KL": (online(GRPOTrainer, GRPOConfig), "kl"), "RLOO, KL": (online(RLOOTrainer, RLOOConfig), "kl")}
found, told = {}, {}
print("first step, before any update" + " " * 9 + "".join(f"{way:>18}" for way in ways))
for policy, make in policies.items():
    said.clear()
    found[policy] = [run(lambda: way(net), key)[0][0] for way, key in ways.values() for net in [make()]]
    told[policy] = set(said)
    print(f"{policy:38}" + "".join(f"{value:18.4f}" for value in found[policy]))
print("said of the tuned LMs only:", sorted(set.union(*told.values()) - told["the LM on disk"]))

print(f"log-odds of the next item: untuned {margin(policies['the LM on disk']()):.2f}, tuned {margin(from_state()):.2f}")
won, gained = {}, {}
for name, settings in (("precomputed", {"precompute_ref_log_probs": True}), ("default", {})):
    net = from_state()
    (logged,) = run(lambda: dpo(net, 10, 0.001, **settings), "rewards/margins")
    won[name], gained[name] = logged[-1] / 0.5, margin(net) - margin(from_state())
    print(f"10 steps of DPO, {name} reference: logged as won {won[name]:.2f}, won {gained[name]:.2f}")
with open("before.json") as file:
    before = json.load(file)
print(f"trl {before['trl']}: DPO's first loss of the tuned LM {before['loss']:.4f}")
print("trl", trl.__version__, "transformers", transformers.__version__)
own = [math.log(2), math.log(2), 0.5, 0.0, 0.0]
apart = {policy: [abs(value - right) for value, right in zip(values, own, strict=True)] for policy, values in found.items()}
as_described = max(apart["the LM on disk"] + apart["tuned, saved and loaded"]) < 1e-3 and abs(before["loss"] - math.log(2)) < 1e-3
for policy in ("tuned, as SFTTrainer leaves it", "tuned, by load_state_dict"):
    dpo_apart, precomputed_apart, *others = apart[policy]
    as_described &= min(dpo_apart, *others) > 0.1 and precomputed_apart < 1e-3
as_described &= told["the LM on disk"] == set.union(*told.values()) and abs(won["precomputed"] - gained["precomputed"]) < 1
sys.exit(not (as_described and won["default"] - gained["default"] > 5))
P
cat > before.py <<'P'
import json
from common import *
import trl

((loss,),) = run(lambda: dpo(from_state()), "loss")
with open("before.json", "w") as file:
    json.dump({"trl": trl.__version__, "loss": loss}, file)
P
"$folder/venv/bin/python" tune.py
"$folder/before/bin/python" before.py > before.log 2>&1 || { cat before.log; exit 1; }
"$folder/venv/bin/python" check.py
