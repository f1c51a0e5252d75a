#!/usr/bin/env bash
# trl 1.16.0 with transformers 5.23.0: disable_dropout leaves OPT's dropout on, so that DPO logs rewards where there are none, and RLOO drops
# nearly half of its sequences.
#
# Log-probabilities with dropout are noise, so trl switches it off: by default in DPO, KTO and RewardTrainer, and as an option of GRPO and RLOO.
# It sets p to 0 in the torch.nn.Dropout modules of an LM. OPT has none: it calls torch's dropout function with a number of its own,
# .1 by default. XGLM, BioGPT and the attention of GPT-BigCode do so, too, by their source. There the setting changes nothing or not all.
# No error and no warning says so. GPT-2 has the same .1, as modules.
#
# Here policy and reference are one LM in the first step. DPO's rewards and margins are then 0, and none of the pairs is above 0 ("accuracy").
# So it is for GPT-2. With OPT the mean reward of chosen completions is .018 off, and the accuracy is .52, as by a coin. RLOO takes the ratio of
# new to old probability of a whole sequence, a reason of 24 words and an item, and clips it. It must be 1. With OPT and disable_dropout=True
# 46 % of the sequences are beyond the clip and have no gradient, and KL is .014 off. With model_init_kwargs={"dropout": 0.0} all are 0.
# In 60 steps of RLOO with reasons of 8 words (not in this script) it cost little: .94 of the items were wanted ones, and .98 without dropout.
#
# One would guess that the setting switches dropout off, or that it's an error. OPT is the LM of A-LLMRec, among other LLM recommenders. The
# setting's text names no condition. Nothing was found in trl's tracker; a pull request of another trainer (LlamaFactory 10779) handles both.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. Tiny LMs, trained here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import logging, random, sys, warnings

import datasets
import torch
import trl
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import DPOConfig, DPOTrainer, RLOOConfig, RLOOTrainer

datasets.disable_progress_bars()
torch.set_num_threads(1)
said = set()  # what trl, transformers and Python's warnings say


class Noted(logging.Handler):
    def emit(self, record):
        said.add(record.getMessage())


for name in ("trl", "transformers"):
    logging.getLogger(name).addHandler(Noted(logging.WARNING))
warnings.simplefilter("always")
warnings.showwarning = lambda message, *where, **more: said.add(str(message))

words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w37", eos_token="w39", pad_token="w38", unk_token="w0")
items = range(20, 36)  # the tokens of the items; the genre of an item is what is left of it by 4
why = 24  # words of the reason that stands before the item
kinds = {  # both have a dropout of .1 by default
    "opt": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 96, "word_embed_proj_dim": 48, "init_std": 0.1},
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 2, "n_inner": 96, "initializer_range": 0.1},
}
common = {"report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True, "gradient_checkpointing": False, "save_strategy": "no",
          "logging_steps": 1, "max_steps": 2, "seed": 0}


def reason(chance):
    return [chance.randrange(4, 20) for _ in range(why)]


def saved(kind):
    """Saves an LM that has learned a little to write a reason, an item, a wanted one in every second case or so, and EOS."""
    torch.manual_seed(0)
    chance = random.Random(0)
    ends = {"vocab_size": 40, "bos_token_id": 37, "eos_token_id": 39, "pad_token_id": 38}
    net = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **kinds[kind], **ends)).eval()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.005)
    for _ in range(80):
        rows = []
        for _ in range(32):
            newest, item = chance.choice(items), chance.choice(items)
            rows.append([1, newest, 2, *reason(chance), item - item % 4 + newest % 4 if chance.random() < 0.5 else item, 39])
        rows = torch.tensor(rows)
        net(input_ids=rows, labels=rows).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    net.save_pretrained(kind)
    tokenizer.save_pretrained(kind)


def pairs(count, chance):
    rows = []
    for _ in range(count):
        newest, good, bad = (chance.choice(items) for _ in range(3))
        good, bad = good - good % 4 + newest % 4, bad - bad % 4 + (newest + chance.randrange(1, 4)) % 4
        because = " ".join(f"w{token}" for token in reason(chance))
        rows.append({"prompt": f"w1 w{newest} w2 ", "chosen": f"{because} w{good}", "rejected": f"{because} w{bad}"})
    return datasets.Dataset.from_list(rows)


def first_step(trainer_class, **settings):
    trainer = trainer_class(processing_class=tokenizer, **settings)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.state.log_history[0]


def wanted(prompts, completions, **_):
    last = [(prompt.split()[1], (done.split() or ["w0"])[-1]) for prompt, done in zip(prompts, completions)]
    return [float(int(item[1:]) in items and int(item[1:]) % 4 == int(newest[1:]) % 4) for newest, item in last]


def measured(kind, given):
    dpo = first_step(DPOTrainer, model=kind, train_dataset=pairs(256, random.Random(1)),
                     args=DPOConfig("out", model_init_kwargs=given, per_device_train_batch_size=128, **common))
    rloo = first_step(RLOOTrainer, model=kind, reward_funcs=wanted,
                      train_dataset=datasets.Dataset.from_dict({"prompt": [f"w1 w{item} w2" for item in items]}),
                      args=RLOOConfig("out", num_generations=8, max_completion_length=why + 2, disable_dropout=True, model_init_kwargs=given,
                                      per_device_train_batch_size=128, **common))
    row = (abs(dpo["rewards/chosen"]), dpo["rewards/margins"], dpo["rewards/accuracies"], rloo["clip_ratio/region_mean"], abs(rloo["kl"]))
    modules = sum(isinstance(module, torch.nn.Dropout) for module in AutoModelForCausalLM.from_pretrained(kind).modules())
    print(f"{kind:6}{str(given or ''):17}{modules:8}" + "".join(f"{value:15.5f}" for value in row), flush=True)
    return row


print(f"trl {trl.__version__}; first step, in which the policy is its own reference")
print("model  settings        modules  DPO: |reward|         margin    'accuracy'  RLOO: clipped           |KL|", flush=True)
for kind in kinds:
    saved(kind)
opt, off, gpt2 = measured("opt", {}), measured("opt", {"dropout": 0.0}), measured("gpt2", {})
told = [text for text in said if "dropout" in text.lower()]
print("warnings of it:", told)
same = max(off + gpt2) < 1e-5 and not told
same &= opt[0] > 1e-3 and abs(opt[1]) > 1e-5 and 0.2 < opt[2] < 0.8 and opt[3] > 0.1 and opt[4] > 1e-4
sys.exit(not same)
P
"$folder/venv/bin/python" check.py 2> log || { cat log; exit 1; }
