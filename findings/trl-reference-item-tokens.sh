#!/usr/bin/env bash
# trl 1.16.0: DPO and GRPO measure a tuned adapter against a reference that lacks its item tokens.
#
# A recommender is tuned with new item tokens (peft's trainable_token_indices, or LoRA of embed_tokens), saved, loaded, and given to
# DPOTrainer or GRPOTrainer without a ref_model. They add a second adapter, "ref", which is to be a copy. They copy the parameters
# whose name has ".default." in it. The names of token rows and of an embedding's LoRA end in ".default", so these aren't copied: "ref"
# keeps the rows of the untuned LM, and its LoRA of the embedding is that of a new adapter. No error and no warning says so.
#
# Before the first update the LM is its own reference, so that DPO's loss is log 2 = .6931, its rewards 0 and GRPO's KL 0. So it is
# with LoRA of linear layers, with DoRA, and with modules_to_save. With tuned rows of item tokens the first loss here is .6216 and the
# KL .20, with LoRA of the embedding .9830 and 1.19. The training is held to an LM that never learned the items, and the log's rewards
# and KL are measured from it. With the adapter merged into a second LM, given as ref_model, DPO's first loss is log 2. GRPOTrainer
# takes no ref_model.
#
# One would guess that "ref" is a copy of the whole adapter, as trl's comments say.
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
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

datasets.disable_progress_bars()
disable_progress_bar()
torch.set_num_threads(1)
items = [20, 21, 22, 23]  # the tokens of the items; the others are words
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w31", pad_token="w30", unk_token="w0")
once = {"max_steps": 1, "learning_rate": 0.0, "logging_steps": 1, "report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True,
        "gradient_checkpointing": False, "save_strategy": "no", "per_device_train_batch_size": 4, "seed": 1}


def lm():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        bos_token_id=None, eos_token_id=31, pad_token_id=30, initializer_range=0.5))


def tuned(name, settings):
    """An adapter that differs from a new one in all that it trains, as after a fine-tuning, saved and loaded."""
    net = get_peft_model(lm(), LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=4, **settings))
    torch.manual_seed(1)
    for weight in net.parameters():
        if weight.requires_grad:
            weight.data += 0.3 * torch.randn_like(weight)
    net.save_pretrained(name)
    return loaded(name)


def loaded(name):
    return PeftModel.from_pretrained(lm(), name, is_trainable=True)


def first_step(trainer):
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.state.log_history[0]


def dpo(net, reference=None):
    rows = {"prompt": ["w1 w20 w2 w21", "w3 w22 w4"] * 2, "chosen": [" w22", " w21"] * 2, "rejected": [" w23", " w20"] * 2}
    return first_step(DPOTrainer(model=net, ref_model=reference, args=DPOConfig("out", **once), processing_class=tokenizer,
                                 train_dataset=datasets.Dataset.from_dict(rows)))


def grpo(net):
    args = GRPOConfig("out", beta=0.1, num_generations=4, max_completion_length=4, **once)
    return first_step(GRPOTrainer(model=net, args=args, processing_class=tokenizer, reward_funcs=lambda prompts, **_: [0.0, 1.0] * 2,
                                  train_dataset=datasets.Dataset.from_dict({"prompt": ["w1 w20 w2 w21", "w3 w22 w4"]})))


linear = ["q_proj", "v_proj"]
kinds = {
    "LoRA of linear layers": {"target_modules": linear},
    "DoRA of linear layers": {"target_modules": linear, "use_dora": True},
    "and modules_to_save": {"target_modules": linear, "modules_to_save": ["embed_tokens", "lm_head"]},
    "and trainable_token_indices": {"target_modules": linear, "trainable_token_indices": items},
    "and LoRA of the embedding": {"target_modules": [*linear, "embed_tokens"]},
}
print(f"trl {trl.__version__}, peft {peft.__version__}; log 2 = {math.log(2):.4f}")
print(f"{'':29}DPO's loss   rewards chosen, rejected   GRPO's KL")
loss, kl = {}, {}
for kind, settings in kinds.items():
    log = dpo(tuned(kind, settings))
    loss[kind], kl[kind] = log["loss"], grpo(loaded(kind))["kl"]
    print(f"{kind:29}{loss[kind]:10.4f}   {log['rewards/chosen']:14.4f}, {log['rewards/rejected']:8.4f}   {kl[kind]:9.4f}")
kind = "and trainable_token_indices"
net = loaded(kind)
merged = dpo(loaded(kind), loaded(kind).merge_and_unload())["loss"]
print(f"{kind}, the merged LM as ref_model: {merged:.4f}")
dpo(net)
rows = net.get_submodule("base_model.model.model.embed_tokens.token_adapter").trainable_tokens_delta
untuned = torch.equal(rows["ref"], lm().get_input_embeddings().weight[items])
print(f"rows of the item tokens in 'ref': the tuned ones {torch.equal(rows['ref'], rows['default'])}, the untuned LM's {untuned}")
right, wrong = list(kinds)[:3], list(kinds)[3:]
alike = all(abs(loss[kind] - math.log(2)) < 1e-5 and abs(kl[kind]) < 1e-5 for kind in right)
off = all(abs(loss[kind] - math.log(2)) > 0.01 and kl[kind] > 0.01 for kind in wrong)
sys.exit(not (alike and off and untuned and abs(merged - math.log(2)) < 1e-5))
P
"$folder/venv/bin/python" check.py
