#!/usr/bin/env bash
# trl 1.16.0: SFT and DPO leave out the prediction head of a ModernBERT decoder (Ettin), so that what they train isn't the LM that writes.
#
# transformers' ModernBertDecoderForCausalLM has a head between its last state and its output matrix: a linear map, an activation and a
# norm. The Ettin decoders, of 17M parameters and up, are such LMs. To save memory, trl computes its log-probabilities from the last
# state and get_output_embeddings().weight. That is the output matrix, and the head isn't in it. generate still goes through the head.
# No error and no warning says so. trl does allow for LMs that scale or cap their logits, and refuses LoRA of the output matrix.
#
# Here a tiny LM is to learn which of 16 items follows which. SFTTrainer logs a loss of .0138 and a token accuracy of 1, and its
# evaluate agrees. The LM's own loss is 3.82 (log 32 = 3.47 is a guess), and it writes none of the 16. No bit of the head has changed.
# An LM that writes all 16 and has a loss of .0079 begins SFT on the same rows with one of 6.82, and writes none after it. DPO logs
# that it won a margin of 11.6; the LM has lost .67 of it. With transformers' Trainer, and with trl 1.4.0, losses and margins are the
# LM's own, and SFT learns all 16. So it is for a Llama in each. trl 1.8.0 already left the head out.
#
# One would guess that the loss of an LM is that of its forward, or that trl refuses an LM for which it isn't.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM with random weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
# the older trl takes what it needs from the same environment
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$folder/before" trl==1.4.0
cd "$folder"
cat > train.py <<'P'
import json, sys, warnings

warnings.filterwarnings("ignore")
import datasets
import torch
import trl
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (LlamaConfig, LlamaForCausalLM, ModernBertDecoderConfig, ModernBertDecoderForCausalLM, PreTrainedTokenizerFast,
                          PrinterCallback, Trainer, TrainingArguments)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

datasets.disable_progress_bars()
disable_progress_bar()
set_verbosity_error()
torch.set_num_threads(1)
n = 16
after = [(5 * item + 3) % n for item in range(n)]
other = [(item + 1) % n for item in after]
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w31", pad_token="w30", unk_token="w0")
rows = datasets.Dataset.from_dict({"input_ids": [[i, j] for i, j in enumerate(after)], "labels": [[-100, j] for j in after]})
pairs = datasets.Dataset.from_dict({"prompt": [f"w{i}" for i in range(n)], "chosen": [f" w{j}" for j in after],
                                    "rejected": [f" w{j}" for j in other]})
common = {"per_device_train_batch_size": n, "learning_rate": 0.005, "max_steps": 100, "lr_scheduler_type": "constant", "logging_steps": 1,
          "report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "gradient_checkpointing": False, "save_strategy": "no",
          "seed": 1}


def lm(kind, state=None):
    torch.manual_seed(0)
    size = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "pad_token_id": 30, "eos_token_id": 31}
    if kind == "Llama":
        net = LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, bos_token_id=None, tie_word_embeddings=True, **size))
    else:
        net = ModernBertDecoderForCausalLM(ModernBertDecoderConfig(bos_token_id=29, cls_token_id=29, sep_token_id=31, **size))
    if state is not None:
        net.load_state_dict(state)
    return net


def own(kind, state):
    """Of an LM as it would be loaded: the mean loss, the mean margin to the other item, and how many items it writes right."""
    net = lm(kind, state).eval()
    items = torch.arange(n)[:, None]

    def chance(next_items):
        """The log-probabilities of these items, and of the end behind each, which DPO adds."""
        texts = torch.cat([items, torch.tensor(next_items)[:, None], torch.full_like(items, 31)], 1)
        return net(input_ids=texts).logits[:, :-1].log_softmax(-1).gather(-1, texts[:, 1:, None])[..., 0]

    with torch.no_grad():
        wanted, unwanted = chance(after), chance(other)
        written = net.generate(items, attention_mask=torch.ones_like(items), max_new_tokens=1, do_sample=False)[:, 1]
    return {"loss": -wanted[:, 0].mean().item(), "margin": (wanted - unwanted).sum(1).mean().item(),
            "right": (written == torch.tensor(after)).sum().item()}


def trained(kind, by, start=None):
    net = lm(kind, start)
    begin = {name: one.clone() for name, one in net.state_dict().items()}
    if by == "Trainer":
        trainer = Trainer(model=net, args=TrainingArguments("out", **common), train_dataset=rows, eval_dataset=rows)
    elif by == "SFT":
        trainer = trl.SFTTrainer(model=net, args=trl.SFTConfig("out", **common), processing_class=tokenizer, train_dataset=rows,
                                 eval_dataset=rows)
    else:
        trainer = trl.DPOTrainer(model=net, ref_model=lm(kind, start), args=trl.DPOConfig("out", beta=1.0, **common),
                                 processing_class=tokenizer, train_dataset=pairs)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    steps = [one for one in trainer.state.log_history if "loss" in one]
    state = {name: one.clone() for name, one in net.state_dict().items()}
    found = {"first": steps[0]["loss"], "last": steps[-1]["loss"], "accuracy": steps[-1].get("mean_token_accuracy"),
             "margin": steps[-1].get("rewards/margins"), "before": own(kind, begin), "own": own(kind, state),
             "head": "" if kind == "Llama" else "as it was" if all(torch.equal(begin[name], state[name]) for name in state if "lm_head" in name)
             else "moved"}
    if by != "DPO":
        found["evaluated"] = trainer.evaluate()["eval_loss"]
    return found, state


found = {"trl": trl.__version__}
for kind in ("Llama", "ModernBERT decoder"):
    for by in ("Trainer", "SFT", "DPO"):
        found[f"{kind}, {by}"], state = trained(kind, by)
        if by == "Trainer":
            knows = state
    found[f"{kind}, Trainer then SFT"], _ = trained(kind, "SFT", knows)
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
P
cat > compare.py <<'P'
import json, math, sys

found = {}
for name in ("before", "now"):
    with open(f"{name}.json") as file:
        found[name] = json.load(file)


def line(one):
    logged = f"logged {one['first']:.4f} to {one['last']:.4f}, by the LM itself {one['before']['loss']:.4f} to {one['own']['loss']:.4f}"
    if one["margin"] is not None:
        logged += f"; margin won: logged {one['margin']:.2f}, own {one['own']['margin'] - one['before']['margin']:.2f}"
    return f"{logged}; writes {one['own']['right']} of 16, before {one['before']['right']}; head {one['head'] or '-'}"


for one in found.values():
    for kind in one:
        if kind != "trl":
            print(f"trl {one['trl']}: {kind:34} {line(one[kind])}")


def near(a, b):
    return abs(a - b) < 0.002 + 0.02 * abs(b)


def margin(one):
    return one["own"]["margin"] - one["before"]["margin"]


as_described = True
for name, one in found.items():
    for kind in ("Llama", "ModernBERT decoder"):
        plain, sft, again, dpo = (one[f"{kind}, {by}"] for by in ("Trainer", "SFT", "Trainer then SFT", "DPO"))
        as_described &= plain["own"]["right"] == 16 and near(plain["first"], plain["before"]["loss"]) and plain["head"] != "as it was"
        if name == "now" and kind != "Llama":
            as_described &= sft["last"] < 0.1 and sft["accuracy"] == 1 and sft["evaluated"] < 0.1  # so trl says
            as_described &= sft["own"]["loss"] > math.log(32) and sft["own"]["right"] < 3 and sft["head"] == "as it was"
            as_described &= again["before"]["right"] == 16 and again["first"] > 10 * again["before"]["loss"] and again["head"] == "as it was"
            as_described &= dpo["margin"] > 2 * abs(margin(dpo)) and dpo["head"] == "as it was"
        else:
            as_described &= sft["own"]["right"] == again["own"]["right"] == 16 and near(sft["first"], sft["before"]["loss"])
            as_described &= near(sft["evaluated"], sft["own"]["loss"]) and near(again["first"], again["before"]["loss"])
            as_described &= abs(dpo["margin"] - margin(dpo)) < 0.05 * dpo["margin"] and dpo["head"] != "as it was"
sys.exit(not as_described)
P
PYTHONPATH="$folder/before" "$folder/venv/bin/python" train.py before.json > log 2>&1 || { cat log; exit 1; }
"$folder/venv/bin/python" train.py now.json > log 2>&1 || { cat log; exit 1; }
"$folder/venv/bin/python" compare.py
