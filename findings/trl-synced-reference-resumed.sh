#!/usr/bin/env bash
# trl 1.16.0: a training with sync_ref_model that is resumed goes on against the reference of its first step.
#
# With sync_ref_model DPO's and GRPO's reference follows the policy: every ref_model_sync_steps it is mixed with it (TR-DPO). No checkpoint
# holds the reference. A resumed training brings back policy, optimiser, schedule and data, but makes the reference from the LM that the
# trainer was given. No error and no warning says so. Where the unbroken run has been led on step by step, the resumed one is pulled
# back to where it began, up to the next sync. With trl's defaults that takes up to 512 steps, and keeps .4 of the old reference.
#
# With ref_model_mixup_alpha of 1 the reference is the policy after each sync. So in the next step DPO's loss is log 2 = .6931 and GRPO's
# KL 0, by hand. The unbroken run has that in step 5, after the sync of step 4. Resumed from step 4 it has a loss of .60 and a KL of .11,
# and its reference has the weights of the first step to the bit. Without sync_ref_model a resumed run logs what the unbroken one does.
#
# One would guess that a resumed run goes on where it stopped, as it does for all else that changes in training.
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
import logging, math, sys, warnings

warnings.filterwarnings("ignore")
import datasets
import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

disable_progress_bar()
datasets.disable_progress_bars()
torch.set_num_threads(1)
n, saved = 16, 4  # cases, two in a step; the step of the checkpoint, where the reference is synced, too
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w31", pad_token="w30", unk_token="w0")
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
    bos_token_id=None, eos_token_id=31, pad_token_id=30, initializer_range=0.2)).save_pretrained("lm")
common = {"max_steps": 8, "save_steps": saved, "logging_steps": 1, "report_to": [], "use_cpu": True, "bf16": False, "seed": 1,
          "disable_tqdm": True, "gradient_checkpointing": False, "learning_rate": 0.01, "lr_scheduler_type": "constant"}
synced = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 1.0}
pairs = Dataset.from_list([{"prompt": f"w{i} ", "chosen": f"w{20 + i % 4}", "rejected": f"w{24 + i % 4}"} for i in range(n)])


def dpo(folder, **settings):
    settings = DPOConfig(folder, per_device_train_batch_size=2, beta=0.5, **common, **settings)
    return DPOTrainer("lm", args=settings, train_dataset=pairs, processing_class=tokenizer)


def reward(completion_ids, **_):
    return [float(sum(token < 8 for token in ids)) for ids in completion_ids]


def grpo(folder, **settings):
    settings = GRPOConfig(folder, per_device_train_batch_size=8, num_generations=4, max_completion_length=4, beta=0.04,
                          shuffle_dataset=False, **common, **settings)
    return GRPOTrainer("lm", reward_funcs=reward, args=settings, train_dataset=pairs.select_columns("prompt"), processing_class=tokenizer)


said = []


class Said(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())


class Reference(TrainerCallback):
    """How far the reference is from the first step's LM and from the policy, before the step after the checkpoint."""

    def __init__(self, reference):
        self.reference = reference

    def on_step_begin(self, args, state, control, model, **_):
        if state.global_step == saved:
            start = LlamaForCausalLM.from_pretrained("lm")
            self.apart = [max((a - b).abs().max().item() for a, b in zip(self.reference.parameters(), other.parameters(), strict=True))
                          for other in (start, model)]


def steps(trainer, key, resume=None):
    """What is logged of each step, how far the reference has moved, and what is said by log or warning."""
    said.clear()
    trainer.remove_callback(PrinterCallback)
    reference = Reference(trainer.ref_model)
    trainer.add_callback(reference)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train(resume_from_checkpoint=resume)
    notes = {*said, *(str(one.message) for one in caught)}
    return [entry[key] for entry in trainer.state.log_history if key in entry], reference.apart, notes


for library in ("transformers", "trl"):
    logging.getLogger(library).addHandler(Said(level=logging.WARNING))
found, apart, told = {}, {}, set()
for name, make, key in (("DPO, loss", dpo, "loss"), ("GRPO, KL", grpo, "kl")):
    for kind, settings in (("synced", synced), ("fixed", {})):
        whole, moved, usual = steps(make(f"{make.__name__}-{kind}", **settings), key)
        again, resumed, notes = steps(make(f"{make.__name__}-{kind}-again", **settings), key, f"{make.__name__}-{kind}/checkpoint-{saved}")
        found[name, kind], apart[name, kind] = (whole, again), (moved, resumed)
        told |= notes - usual
        print(f"{name}, {kind} reference: unbroken " + " ".join(f"{value:.4f}" for value in whole)
              + "; resumed, steps 5 to 8: " + " ".join(f"{value:.4f}" for value in again[saved:]))
        print(f"    before step 5 the reference is from the start and from the policy: unbroken {moved}, resumed {resumed}")
print("said of the resumed runs only:", sorted(told))
print("trl", trl.__version__, "transformers", transformers.__version__)
whole, again = found["DPO, loss", "synced"]
as_described = abs(whole[saved] - math.log(2)) < 1e-3 and abs(again[saved] - math.log(2)) > 0.03
whole, again = found["GRPO, KL", "synced"]
as_described &= abs(whole[saved]) < 1e-4 and again[saved] > 0.03 and not told
for moved, resumed in (apart[name, "synced"] for name in ("DPO, loss", "GRPO, KL")):
    as_described &= moved[0] > 0 and moved[1] == 0 and resumed[0] == 0 and resumed[1] > 0
fixed = all(whole == again for (name, kind), (whole, again) in found.items() if kind == "fixed")
sys.exit(not (as_described and fixed))
P
"$folder/venv/bin/python" check.py
