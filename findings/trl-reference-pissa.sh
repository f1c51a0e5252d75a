#!/usr/bin/env bash
# trl 1.16.0 with peft 0.21.2: if an adapter starts as PiSSA or OLoRA, the reference of DPO and GRPO is an LM that has lost the largest
# part of its weights.
#
# With a peft_config and no ref_model, trl takes the LM with the adapter switched off as the reference. That is the LM itself for
# adapters that start at zero. PiSSA and OLoRA (init_lora_weights) put a weight's largest part into the adapter, and peft takes it out of
# the weight. With the adapter on, the LM is what it was; with it off, it is what is left. No error and no warning says so.
#
# Before the first update the LM is its own reference, so that DPO's loss is log 2 = .6931 and GRPO's KL 0, as they are with the usual
# start. Here, with r = 4 of 16, DPO's loss is .8170 with PiSSA and .7016 with OLoRA, GRPO's KL 3.11 and 1.85. So the training begins
# with preferences that nobody learned, and is held to a damaged LM. If get_peft_model wraps the LM before the trainer gets it, trl
# copies the adapter, and all is well.
#
# One would guess that how an adapter starts doesn't change what a training is compared with, as it doesn't change the LM.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM with random weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 peft==0.21.2 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import math, sys, warnings

warnings.filterwarnings("ignore")
import datasets
import peft
import torch
import trl
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

datasets.disable_progress_bars()
disable_progress_bar()
torch.set_num_threads(1)
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w31", pad_token="w30", unk_token="w0")
once = {"max_steps": 1, "learning_rate": 0.0, "logging_steps": 1, "report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True,
        "gradient_checkpointing": False, "save_strategy": "no", "per_device_train_batch_size": 4, "seed": 1}
tokens = torch.tensor([[1, 20, 2, 21, 22]])


def lm():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        bos_token_id=None, eos_token_id=31, pad_token_id=30, initializer_range=0.5))


def adapter(start):
    return LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=4, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=start)


def first_step(trainer):
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.state.log_history[0]


def dpo(net, config):
    rows = {"prompt": ["w1 w20 w2 w21", "w3 w22 w4"] * 2, "chosen": [" w22", " w21"] * 2, "rejected": [" w23", " w20"] * 2}
    return first_step(DPOTrainer(model=net, args=DPOConfig("out", **once), processing_class=tokenizer, peft_config=config,
                                 train_dataset=datasets.Dataset.from_dict(rows)))["loss"]


def grpo(net, config):
    args = GRPOConfig("out", beta=0.1, num_generations=4, max_completion_length=4, **once)
    data = datasets.Dataset.from_dict({"prompt": ["w1 w20 w2 w21", "w3 w22 w4"]})
    return first_step(GRPOTrainer(model=net, args=args, processing_class=tokenizer, peft_config=config, train_dataset=data,
                                  reward_funcs=lambda prompts, **_: [0.0, 1.0] * 2))["kl"]


@torch.no_grad()
def from_the_lm(start):
    """How far the logits of an LM are from its own without an adapter, with a new adapter that is on, and off."""
    plain, net = lm()(tokens).logits, get_peft_model(lm(), adapter(start))
    on = net(tokens).logits
    with net.disable_adapter():
        off = net(tokens).logits
    return (on - plain).abs().max().item(), (off - plain).abs().max().item()


print(f"trl {trl.__version__}, peft {peft.__version__}; log 2 = {math.log(2):.4f}")
print("start     peft_config: DPO's loss, GRPO's KL   wrapped before: DPO's loss, GRPO's KL   logits, adapter on and off: from the LM")
as_described = True
for start, name in ((True, "zero"), ("pissa", "pissa"), ("olora", "olora")):
    given = dpo(lm(), adapter(start)), grpo(lm(), adapter(start))
    wrapped = dpo(get_peft_model(lm(), adapter(start)), None), grpo(get_peft_model(lm(), adapter(start)), None)
    on, off = from_the_lm(start)
    print(f"{name:10}{given[0]:24.4f}, {given[1]:9.4f}   {wrapped[0]:25.4f}, {wrapped[1]:9.4f}   {on:24.4f}, {off:.4f}")
    as_described &= abs(wrapped[0] - math.log(2)) < 1e-4 and abs(wrapped[1]) < 1e-4 and on < 1e-3
    if name == "zero":
        as_described &= abs(given[0] - math.log(2)) < 1e-4 and abs(given[1]) < 1e-4 and off < 1e-5
    else:
        as_described &= abs(given[0] - math.log(2)) > 0.002 and given[1] > 0.01 and off > 0.1
sys.exit(not as_described)
P
"$folder/venv/bin/python" check.py
