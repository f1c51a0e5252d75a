#!/usr/bin/env bash
# trl 1.16.0: a GRPO training that is resumed in a later epoch goes on in the first epoch's order, so that in the broken epoch
# some prompts are trained twice and others not at all.
#
# GRPOTrainer draws a new order of the prompts for each epoch, from a generator that its sampler seeds when it is made. A resumed
# training makes the sampler anew and skips as many batches as the epoch had behind it, but in the first epoch's order. The
# skipping is that of transformers' Trainer, which tells its own sampler the epoch and goes on as an unbroken training would; trl's
# sampler can't be told. No warning says so, and `ignore_data_skip` is False, which promises the same place in the data. Here: 12
# prompts, two epochs, resumed in the middle of the second. With shuffle_dataset=False all epochs have one order, and it is right.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM with random weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 datasets==5.2.0 \
    torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import sys, warnings

warnings.filterwarnings("ignore")
import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, Trainer, TrainingArguments
from transformers.utils.logging import disable_progress_bar, set_verbosity_error
from trl import GRPOConfig, GRPOTrainer

disable_progress_bar()
set_verbosity_error()
torch.set_num_threads(1)
n, saved = 12, 18  # prompts; the step of the checkpoint, which is the middle of the second epoch
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w31", pad_token="w30", unk_token="w0")
common = {"num_train_epochs": 2, "save_steps": saved, "logging_steps": 1000, "report_to": [], "use_cpu": True, "bf16": False, "seed": 1,
          "disable_tqdm": True, "gradient_checkpointing": False}


def lm():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                                        num_key_value_heads=2, bos_token_id=None, eos_token_id=31, pad_token_id=30))


def grpo(folder, resume=None):
    """The prompt of each step."""
    seen = []

    def reward(prompts, **_):
        seen.append(int(prompts[0][1:]))
        return [0.0, 1.0]

    trainer = GRPOTrainer(
        model=lm(), reward_funcs=reward, processing_class=tokenizer, train_dataset=Dataset.from_dict({"prompt": [f"w{i}" for i in range(n)]}),
        args=GRPOConfig(folder, per_device_train_batch_size=2, num_generations=2, gradient_accumulation_steps=1, max_completion_length=2, **common),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume)
    return seen


def plain(folder, resume=None):
    """The row of each step, by transformers' own Trainer."""
    seen = []

    class Noted(Trainer):
        def training_step(self, model, inputs, *rest, **named):
            seen.append(int(inputs["input_ids"][0, 0]))
            return super().training_step(model, inputs, *rest, **named)

    rows = Dataset.from_dict({"input_ids": [[i, 1] for i in range(n)], "labels": [[i, 1] for i in range(n)]})
    trainer = Noted(model=lm(), args=TrainingArguments(folder, per_device_train_batch_size=1, **common), train_dataset=rows)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume)
    return seen


orders = {}
for name, trained in (("transformers' Trainer", plain), ("trl's GRPOTrainer", grpo)):
    whole = trained(f"{trained.__name__}-whole")
    rest = trained(f"{trained.__name__}-again", f"{trained.__name__}-whole/checkpoint-{saved}")
    before = whole[n:saved]
    twice, never = sorted(set(before) & set(rest)), sorted(set(range(n)) - set(before) - set(rest))
    orders[name] = whole, rest, twice, never
    print(f"{name}: second epoch unbroken {whole[n:]}; broken {before} + {rest}: twice {twice}, never {never}")
print("trl", trl.__version__, "transformers", transformers.__version__)
whole, rest, twice, never = orders["trl's GRPOTrainer"]
as_described = rest == whole[saved - n : n] and rest != whole[saved:] and len(twice) == len(never) > 0
whole, rest, *_ = orders["transformers' Trainer"]
sys.exit(not (as_described and rest == whole[saved:]))
P
"$folder/venv/bin/python" check.py
