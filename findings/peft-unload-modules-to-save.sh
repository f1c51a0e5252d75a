#!/usr/bin/env bash
# peft 0.21.2: `unload` leaves the trained modules_to_save in the LM, so that what it gives back as the base model has the tuned tables of tokens.
#
# A table of results has a row for the LM as it was and one for the tuned LM. With peft both are in memory, and the documentation says of unload that
# it returns the base model by removing all of peft's modules. One would guess the LM's own weights, as within disable_adapter().
# modules_to_save trains whole copies of some modules beside LoRA: embed_tokens and lm_head where items or codes became new tokens, the head of a
# classifier. disable_adapter() goes back to the original modules. unload() puts the active adapter's copies in their place, and drops the originals,
# which is right for merge_and_unload(), which shares the code. No error and no warning says so.
#
# An LM that knows what 48 users took before: 48 of 48. It is tuned to what they took after. With LoRA alone, or with trainable_token_indices for
# all items, unload() gives the LM's own weights back, and 48 of 48 again. With modules_to_save=["embed_tokens", "lm_head"] it gives an LM with
# 0 of 48 of the old items for 48, and 48 of 48 of the new ones for 0. Only these two tables differ from the LM's. disable_adapter() is right.
#
# So the row of the untuned LM is nearly that of the tuned one. A reference LM for DPO or GRPO that is made this way has learnt most of what the
# policy has. An adapter that is trained next on such an LM starts from the tables of the one before it.
#
# Load the LM again, or use disable_adapter(). An issue about it wasn't found. Pull request 3455 mends a crash there, where the active adapter has
# no modules_to_save: then the originals come back.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile peft==0.21.2 transformers==5.23.0 torch==2.13.0 \
    numpy==2.4.6 accelerate==1.15.0
cd "$folder"
cat > check.py <<'P'
import random, sys, warnings

warnings.filterwarnings("ignore", category=FutureWarning)
from importlib.metadata import version

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
torch.set_num_threads(1)
torch.manual_seed(0)
draw = random.Random(0)
USERS, ITEMS, HISTORY = 48, 100, 8
histories = torch.tensor([[draw.randrange(ITEMS) for _ in range(HISTORY)] for _ in range(USERS)])
before, after = (torch.tensor([draw.randrange(ITEMS) for _ in range(USERS)]) for _ in range(2))  # what each user took before the tuning, and after it


def tuned(net, items):
    steps = torch.optim.Adam([weight for weight in net.parameters() if weight.requires_grad], lr=0.003)
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(net(input_ids=histories).logits[:, -1], items)
        loss.backward()
        steps.step()
        steps.zero_grad()
    return net.eval()


@torch.no_grad()
def judged(what, net):
    logits = net.eval()(input_ids=histories).logits[:, -1]
    found = [(int((logits.argmax(-1) == items).sum()), torch.nn.functional.cross_entropy(logits, items).item()) for items in (before, after)]
    print(f"{what:48}" + "; ".join(f"{name} {hits:2} of {USERS} items, loss {loss:6.3f}" for name, (hits, loss) in zip(
        ("before:", "after:"), found, strict=True)))
    return *found, logits


results = {}
tuned(LlamaForCausalLM(LlamaConfig(
    vocab_size=ITEMS, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    bos_token_id=None, eos_token_id=None, pad_token_id=None, initializer_range=0.1)), before).save_pretrained("lm")
base = judged("the LM as it was", LlamaForCausalLM.from_pretrained("lm"))
for name, more in {"LoRA alone": {}, "trainable_token_indices": {"trainable_token_indices": list(range(ITEMS))},
                   "modules_to_save": {"modules_to_save": ["embed_tokens", "lm_head"]}}.items():
    tuned(get_peft_model(LlamaForCausalLM.from_pretrained("lm"), LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **more)), after).save_pretrained(name)
    net = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained("lm"), name)
    judged(f"{name}: tuned", net)
    with net.disable_adapter():
        off = judged(f"{name}: tuned, disable_adapter", net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = net.unload()  # would raise if it warned
    unloaded, own = judged(f"{name}: tuned, unload", plain), LlamaForCausalLM.from_pretrained("lm").state_dict()
    differ = [which for which, weight in plain.state_dict().items() if not torch.equal(weight, own[which])]
    results[name] = torch.equal(off[2], base[2]), unloaded[0][0], unloaded[1][0], differ
    print("    weights that aren't the LM's:", ", ".join(differ) or "none", flush=True)
print(*(f"{package} {version(package)}" for package in ("peft", "transformers", "torch")))
right = all(results[name] == (True, USERS, base[1][0], []) for name in ("LoRA alone", "trainable_token_indices"))
off, old, new, differ = results["modules_to_save"]
kept = off and old <= 4 and new >= 44 and differ == ["model.embed_tokens.weight", "lm_head.weight"]
sys.exit(not (base[0][0] == USERS and base[1][0] <= 4 and right and kept))
P
"$folder/venv/bin/python" check.py
