#!/usr/bin/env bash
# trl 1.16.0: a deep copy of an LM that SFTTrainer has tuned computes with the original's weights, not with its own.
#
# Copies of a tuned LM are how one keeps the best round (copy.deepcopy), averages weights over a training (torch's AveragedModel, which makes a
# deep copy), or holds the reference of a loss of one's own (trl's create_reference_model, which makes one, too). SFTTrainer puts
# a forward of its own on the LM and leaves it there. What it calls inside is the method of the LM it was put on. A copy has that
# forward, too, and so runs the original, whatever its own parameters say: state_dict and named_parameters
# show the copy's own. No error and no warning says so.
#
# 16 users take the next item of a first month, then of a second one. The LM kept after the first month names 16 of 16 of its items by its
# weights, and 0 of 16 by a call once the original has learned the second month. A copy with all weights set to zero answers as the original does.
# The mean of the weights over the second month gives the last step's answers. A reference from create_reference_model is at a KL of 0 from the
# LM that went on training, and at 12.7 by its weights, so that a KL term holds nothing back. With that forward taken off before they are made, all of them are right.
#
# One would guess that a deep copy is a model of its own, as any other transformers model's is. By its source KTO, GRPO and RLOO put on the same
# forward (add_fused_lm_head). An issue about it wasn't found. Take the forward off after the training (vars(model).pop("forward", None), on the
# LM below peft's wrapper), or save the LM and load it.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM with random weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import copy, os, sys, warnings

os.environ["TQDM_DISABLE"] = os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
import datasets
import torch
import transformers
import trl
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.optim.swa_utils import AveragedModel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer
from trl.experimental.utils import create_reference_model

datasets.disable_progress_bars()
disable_progress_bar()
torch.set_num_threads(1)
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(48)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w47", pad_token="w46", unk_token="w0")
users = torch.arange(16)
first_month, second_month = 16 + users % 8, 24 + (users + 3) % 8  # the item that each user takes next
config = LlamaConfig(vocab_size=48, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                     num_key_value_heads=2, bos_token_id=None, eos_token_id=47, pad_token_id=46, initializer_range=0.2)


def learn(net, items):
    """SFT on the items of a month."""
    rows = [{"prompt": f"w{user} ", "completion": f"w{item}"} for user, item in zip(users.tolist(), items.tolist())]
    settings = SFTConfig("out", max_steps=60, learning_rate=0.02, report_to=[], use_cpu=True, bf16=False, seed=1, disable_tqdm=True,
                         save_strategy="no", gradient_checkpointing=False, per_device_train_batch_size=16)
    trainer = SFTTrainer(net, args=settings, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.model.eval()


def log_probs(net):
    with torch.no_grad():
        return net(input_ids=users[:, None]).logits[:, -1].log_softmax(-1)


def by_its_weights(net):
    """A new LM with the weights of this one."""
    new = LlamaForCausalLM(config)
    new.load_state_dict(net.state_dict())
    return new.eval()


def hits(net, items):
    return int((log_probs(net).argmax(-1) == items).sum())


def kl(net, reference):
    """KL of an LM from a reference, mean over users."""
    own = log_probs(net)
    return float((own.exp() * (own - log_probs(reference))).sum(-1).mean())


def tried(taken_off):
    torch.manual_seed(0)
    net = learn(LlamaForCausalLM(config), first_month)
    if taken_off:
        del net.forward
    kept, zeros, reference = copy.deepcopy(net), copy.deepcopy(net), create_reference_model(net)
    averaged = AveragedModel(net)
    averaged.update_parameters(net)
    with torch.no_grad():
        for weight in zeros.parameters():
            weight.zero_()
    learn(net, second_month)
    averaged.update_parameters(net)  # the mean of the LM after each month
    averaged.eval()
    far = float((log_probs(averaged) - log_probs(by_its_weights(averaged.module))).abs().max())
    return {
        "kept after the first month: its items, by a call": hits(kept, first_month),
        "kept after the first month: its items, by its weights": hits(by_its_weights(kept), first_month),
        "largest logit of a copy of zeros, by a call": float(zeros(input_ids=users[:, None]).logits.abs().max()),
        "mean of the weights: farthest from its weights' answer": far,
        "mean of the weights: farthest from the last step's answer": float((log_probs(averaged) - log_probs(net)).abs().max()),
        "KL from the reference, by a call": kl(net, reference),
        "KL from the reference, by its weights": kl(net, by_its_weights(reference)),
    }


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    left, off = list(tried(False).items()), list(tried(True).items())
print(f"{'the forward of the trainer is':60}{'left on':>10}{'taken off':>10}")
for (what, value), (_, other) in zip(left, off, strict=True):
    print(f"{what:60}{value:10.3f}{other:10.3f}")
print("warnings that name a copy or a forward:", [str(one.message) for one in caught if "deepcopy" in str(one.message) or "patch" in str(one.message)])
print("trl", trl.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
d, p = [value for _, value in left], [value for _, value in off]
as_described = d[0] == 0 and d[1] == p[0] == p[1] == 16 and d[2] > 1 and p[2] == 0 and d[3] > 0.5 and p[3] < 1e-4
as_described &= d[4] < 1e-4 and p[4] > 0.5 and abs(d[5]) < 1e-4 and d[6] > 1 and abs(p[5] - p[6]) < 1e-3
sys.exit(not as_described)
P
"$folder/venv/bin/python" check.py
