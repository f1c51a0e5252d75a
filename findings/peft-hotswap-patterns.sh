#!/usr/bin/env bash
# peft 0.21.2: `hotswap_adapter` gives a layer that has a rank or an alpha of its own the common scale, so that the LM isn't the one that was trained.
#
# An evaluation of many adapters (one for each shop, month or grid point) loads one and swaps the others into it, which keeps a compiled LM. One
# would guess that an adapter swapped in computes as one that is loaded, and an error where it can't. rank_pattern and alpha_pattern give some
# layers a rank or an alpha of their own. What LoRA adds to a layer is multiplied by that layer's alpha / rank.
#
# The swap sets this scale anew for each weight, and looks the pattern up by the weight's name, "...down_proj.lora_A.default.weight". Patterns are
# of layers, and must match the end of a layer's name. So none is found, and all layers get lora_alpha / r. The weights themselves are right, with
# the ranks they have. An adapter that is swapped for itself, from the folder it was loaded from, is another LM afterwards. No error and no warning.
#
# 48 users, two adapters of 100 steps each, r = 4, lora_alpha = 16. With a rank of 32 for up_proj and down_proj the scale of these is 0.5 by rights
# and 4 once swapped: a loaded adapter names 48 of 48 users' items, a swapped one 12, and the loss is 3.44 for 0.22. With an alpha of 64 for them
# (4 for 16) it is 39 of 48, and 2.17 for 0.28. Without patterns a swapped adapter is a loaded one, to the last digit printed.
#
# Whoever sweeps ranks by layer this way reports such adapters below those of one rank. Adapters that began as EVA write a rank_pattern of their own.
# With adjust_scaling_factors, on by default, their scale is the common one and all is well. Without it they are wrong, too (measured apart).
#
# Load such adapters by load_adapter, or swap and then set `scaling` of each layer. The documentation's caveats (LoRA only, the same layers or fewer)
# don't name patterns. The code refuses a swap between different alpha_patterns, and takes equal ones. An issue about it wasn't found.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM with random weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile peft==0.21.2 transformers==5.23.0 torch==2.13.0 \
    numpy==2.4.6 accelerate==1.15.0
cd "$folder"
cat > check.py <<'P'
import random, sys, tempfile, warnings

warnings.filterwarnings("ignore")
from importlib.metadata import version

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.hotswap import hotswap_adapter
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
draw = random.Random(0)
USERS, ITEMS, HISTORY = 48, 100, 8
histories = torch.tensor([[draw.randrange(ITEMS) for _ in range(HISTORY)] for _ in range(USERS)])
SHOPS = {shop: torch.tensor([draw.randrange(ITEMS) for _ in range(USERS)]) for shop in ("books", "films")}  # what each user takes next
PROJECTIONS = ["q_proj", "v_proj", "up_proj", "down_proj"]


def lm():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=ITEMS, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        bos_token_id=None, eos_token_id=None, pad_token_id=None, initializer_range=0.1)).eval()


@torch.no_grad()
def judged(net, shop):
    """The loss of the users' next items, and for how many users the best item is theirs."""
    logits = net.eval()(input_ids=histories).logits[:, -1]
    return torch.nn.functional.cross_entropy(logits, SHOPS[shop]).item(), int((logits.argmax(-1) == SHOPS[shop]).sum())


def scales(net):
    """Each layer's alpha / rank, of the two kinds of projections."""
    found = {name.rpartition(".")[2]: module.scaling["default"] for name, module in net.named_modules() if isinstance(module, LoraLayer)}
    return {name: round(float(found[name]), 2) for name in ("q_proj", "down_proj")}


def swap(net, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # so that a warning would be seen
        hotswap_adapter(net, folder, adapter_name="default", torch_device="cpu")


results = {}
for name, more in {"neither": {}, "rank_pattern": {"rank_pattern": {"up_proj": 32, "down_proj": 32}},
                   "alpha_pattern": {"alpha_pattern": {"up_proj": 64, "down_proj": 64}}}.items():
    folder = tempfile.mkdtemp(dir=".")
    for shop, items in SHOPS.items():
        net = get_peft_model(lm(), LoraConfig(r=4, lora_alpha=16, target_modules=PROJECTIONS, task_type="CAUSAL_LM", **more))
        steps = torch.optim.Adam([weight for weight in net.parameters() if weight.requires_grad], lr=0.01)
        for _ in range(100):
            loss = torch.nn.functional.cross_entropy(net(input_ids=histories).logits[:, -1], items)
            loss.backward()
            steps.step()
            steps.zero_grad()
        net.save_pretrained(f"{folder}/{shop}")
    loaded = PeftModel.from_pretrained(lm(), f"{folder}/films")
    swapped = PeftModel.from_pretrained(lm(), f"{folder}/books")
    first = judged(swapped, "books")
    swap(swapped, f"{folder}/films")
    again = PeftModel.from_pretrained(lm(), f"{folder}/books")
    swap(again, f"{folder}/books")  # the folder that is loaded already
    results[name] = judged(loaded, "films"), judged(swapped, "films"), first, judged(again, "books")
    for what, (loss, hits) in zip(("films loaded", "films swapped in", "books loaded", "books swapped for itself"), results[name], strict=True):
        print(f"{name:14}{what:26}loss {loss:7.4f}, {hits:2} of {USERS} items")
    print(f"{name:14}alpha / rank: loaded {scales(loaded)}, swapped in {scales(swapped)}", flush=True)
print(*(f"{package} {version(package)}" for package in ("peft", "transformers", "torch")))
right = all(hits == USERS for _, hits in results["neither"]) and results["neither"][0] == results["neither"][1]
wrong = [results[name][loaded][1] == USERS and results[name][swapped][1] <= most and results[name][swapped][0] > 4 * results[name][loaded][0]
         for name, most in (("rank_pattern", 24), ("alpha_pattern", 44)) for loaded, swapped in ((0, 1), (2, 3))]
sys.exit(not (right and all(wrong)))
P
"$folder/venv/bin/python" check.py
