#!/usr/bin/env bash
# peft 0.21.2: add_weighted_adapter leaves the tuned rows of new tokens out, so that a mean of adapters has lost its items.
#
# add_weighted_adapter makes one adapter of several, as a mean over seeds or domains. It adds up LoRA's matrices and nothing else. Rows
# that were tuned by trainable_token_indices get a place in the new adapter, but keep the values of the untuned LM. One adapter with
# weight 1 should be that adapter again. So it is for LoRA, also of the embedding. With token rows the logits are others. No error says
# so, and no warning but those of any new adapter.
#
# Here a tiny LM learns which of 16 items follows which, with item tokens that were added by resize_token_embeddings. Two seeds'
# adapters are right in all 16 cases. One of them with weight 1 is right in none, and neither is the mean of the two. With its rows put
# in by hand the one with weight 1 is the first again. (LoRA alone can't learn these cases, as rows of new tokens are all alike.)
#
# One would guess that what is saved and loaded as one adapter is also weighted as one.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM with random weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 transformers==5.23.0 accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import contextlib, sys, warnings

warnings.filterwarnings("ignore")
import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import set_verbosity_error

set_verbosity_error()
torch.set_num_threads(1)
words, n = 32, 16
items = torch.arange(words, words + n)
following = items[torch.randperm(n, generator=torch.Generator().manual_seed(0))]  # the item that is taken after each
prompts = torch.stack([torch.full((n,), 1), items, torch.full((n,), 2)], dim=1)  # word 1, an item, word 2


def lm():
    torch.manual_seed(0)
    net = LlamaForCausalLM(LlamaConfig(
        vocab_size=words, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        bos_token_id=None, eos_token_id=None, initializer_range=0.2, tie_word_embeddings=True))
    net.resize_token_embeddings(words + n)
    return net


@contextlib.contextmanager
def noted(messages):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    messages |= {str(one.message) for one in caught}


def tune(name, seed, **settings):
    with noted(usual):
        net = get_peft_model(lm(), LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **settings))
    torch.manual_seed(seed)
    for weight in net.parameters():
        if weight.requires_grad:
            weight.data += 0.01 * torch.randn_like(weight)
    steps = torch.optim.Adam([weight for weight in net.parameters() if weight.requires_grad], lr=0.01)
    for _ in range(120):
        loss = torch.nn.functional.cross_entropy(net(prompts).logits[:, -1], following)
        steps.zero_grad()
        loss.backward()
        steps.step()
    net.save_pretrained(name)


@torch.no_grad()
def logits(net, adapter):
    net.set_adapter(adapter)
    return net.eval()(prompts).logits[:, -1]


def right(scores):
    return (scores.argmax(dim=1) == following).float().mean().item()


linear = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
kinds = {
    "LoRA of linear layers": {"target_modules": linear},
    "and of the embedding": {"target_modules": [*linear, "embed_tokens"]},
    "and trainable_token_indices": {"target_modules": linear, "trainable_token_indices": items.tolist()},
}
print("peft", peft.__version__)
apart, usual, said = {}, set(), set()  # usual: the warnings that come with any new adapter
for kind, settings in kinds.items():
    tune("first", 1, **settings)
    tune("second", 2, **settings)
    net = PeftModel.from_pretrained(lm(), "first/", adapter_name="first")
    net.load_adapter("second", "second")
    with noted(said):
        net.add_weighted_adapter(["first"], [1.0], "again", combination_type="linear")
        net.add_weighted_adapter(["first", "second"], [0.5, 0.5], "mean", combination_type="cat")
    own = logits(net, "first")
    apart[kind] = (logits(net, "again") - own).abs().max().item()
    shares = {name: right(logits(net, name)) for name in ("first", "second", "again", "mean")}
    print(f"{kind:28} right: " + ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
          + f"; logits of first with weight 1 from first's: {apart[kind]:.1e}")
rows = next(module for module in net.modules() if hasattr(module, "token_adapter")).token_adapter.trainable_tokens_delta
untuned = lm().get_input_embeddings().weight[items]
kept = torch.equal(rows["again"], untuned) and torch.equal(rows["mean"], untuned)
print(f"rows of the items in again and mean are the untuned LM's: {kept}; warnings that no other adapter has: {sorted(said - usual)}")
rows["again"].data.copy_(rows["first"])
put_in = (logits(net, "again") - own).abs().max().item()
print(f"with the rows of first put into again: logits from first's {put_in:.1e}, right {right(logits(net, 'again')):.3f}")
*whole, lost = apart.values()
as_described = max(whole) < 1e-3 and lost > 0.1 and kept and put_in < 1e-3 and not said - usual
sys.exit(not (as_described and min(shares["first"], shares["second"]) > 0.9 and max(shares["again"], shares["mean"]) < 0.5))
P
"$folder/venv/bin/python" check.py
