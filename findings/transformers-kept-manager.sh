#!/usr/bin/env bash
# transformers 5.23.0: with persistent_manager generate_batch keeps to the settings of the first call, and reads what the LM had left of the prompts
# before it was trained or another adapter was chosen.
#
# generate_batch is transformers' own continuous batching. persistent_manager=True keeps its manager, graphs and cache for the next call, as in a
# loop of training and sampling, or in an evaluation of several settings or adapters. One would guess that each call follows the GenerationConfig
# that it is given, and the LM as it is now.
#
# A kept manager is taken as it is, and the second call's generation_config and continuous_batching_config aren't looked at, but for max_new_tokens.
# So a call that should sample goes on greedily, and one that should be greedy samples. Nor is what it kept of the prompts emptied: full pages of
# keys and values are found again by their tokens, whatever the weights. The only warning is that the manager was sized for the first call's prompts.
#
# 8 prompts of 80 tokens, pages of 32. Without a kept manager all calls are right: 8 of 8. With one, sampling at a temperature of 1.5 after a greedy
# call gives the greedy texts, 8 of 8. A greedy call after a sampled one gives 0 of 8. return_logprobs of a second call gives none. Of two adapters
# that are asked for the same prompts, the second has the right text for 0 of 8. So has the LM that was asked before a step of training.
# Pages are of 256 tokens unless set, so prompts shorter than that aren't affected by the second part.
#
# So a table of temperatures has one row many times, and in RL the rollouts are of no policy. The guide says that such a manager is cached for the
# next session, and nothing of settings or weights. An issue about it wasn't found. The same of prompts is known of vLLM and OpenVINO
# (vllm-adapter-reloaded.sh, openvino-prefixes-of-adapters.sh). trl's trainers don't keep the manager.
#
# Call destroy_cached_continuous_batching_manager() after each change of settings, adapter or weights.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM and adapters of random numbers, on a processor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile transformers==5.23.0 peft==0.21.2 torch==2.13.0 \
    numpy==2.4.6 accelerate==1.15.0
cd "$folder"
cat > check.py <<'P'
import random, sys, warnings

warnings.filterwarnings("ignore")
from importlib.metadata import version

import torch
from peft import LoraConfig
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation import ContinuousBatchingConfig

torch.set_num_threads(1)
draw = random.Random(0)
USERS, PROMPT, NEW = 8, 80, 8
prompts = [[draw.randrange(3, 100) for _ in range(PROMPT)] for _ in range(USERS)]
GREEDY, SAMPLED = {"do_sample": False}, {"do_sample": True, "temperature": 1.5}


def lm():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        initializer_range=0.2, bos_token_id=1, eos_token_id=2, pad_token_id=0)).eval()


def by_generate(net):
    ids = torch.tensor(prompts)
    return net.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, eos_token_id=None,
                        pad_token_id=0)[:, PROMPT:].tolist()


def asked(net, kept, settings, **more):
    outputs = net.generate_batch(
        prompts, generation_config=GenerationConfig(max_new_tokens=NEW, eos_token_id=-1, pad_token_id=0, **settings), persistent_manager=kept,
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=64, page_size=32, max_batch_tokens=1024, **more), warmup=False).values()
    return [one.generated_tokens for one in outputs], sum(len(one.logprobs) for one in outputs)


def equal(texts, others):
    return sum(map(list.__eq__, texts, others))


found = {}
for kept in (False, True):
    net = lm()
    right = by_generate(net)
    first = equal(asked(net, kept, GREEDY)[0], right)
    texts, scores = asked(net, kept, SAMPLED, return_logprobs=True)
    found["greedy texts in a greedy call", kept], found["greedy texts in a sampled call after it", kept] = first, equal(texts, right)
    found["log-probabilities that this call asked for", kept] = scores
    net.destroy_cached_continuous_batching_manager()
    asked(net, kept, SAMPLED)
    found["greedy texts in a greedy call after a sampled one", kept] = equal(asked(net, kept, GREEDY)[0], right)

    net = lm()
    for shop in ("books", "films"):
        net.add_adapter(LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"]), adapter_name=shop)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.15)
    net.eval()
    for shop in ("books", "films"):
        net.set_adapter(shop)
        found[f"right texts by the adapter of {shop}", kept] = equal(asked(net, kept, GREEDY)[0], by_generate(net))

    net = lm()
    asked(net, kept, GREEDY)
    ids = torch.tensor(prompts)
    net(input_ids=ids, labels=ids).loss.backward()
    torch.optim.Adam(net.parameters(), lr=0.03).step()
    found["right texts after a step of training", kept] = equal(asked(net, kept, GREEDY)[0], by_generate(net))
for what in dict.fromkeys(what for what, _ in found):
    print(f"{what:52}{found[what, False]:3} without, {found[what, True]:3} with a kept manager ({USERS} users)")
print(*(f"{package} {version(package)}" for package in ("transformers", "peft", "torch")))
without, kept = ([number for (_, which), number in found.items() if which == this] for this in (False, True))
sys.exit(not (without[0] == USERS and without[1] <= 1 and without[2:] == [USERS * NEW, USERS, USERS, USERS, USERS]
              and kept[:5] == [USERS, USERS, 0, 0, USERS] and max(kept[5:]) <= 1))
P
"$folder/venv/bin/python" check.py 2> log || { code=$?; tail -5 log; exit "$code"; }
