#!/usr/bin/env bash
# trl 1.16.0: DPO's default loss no longer reads label_smoothing, so that a training set up for noisy preferences is plain DPO.
#
# Preferences of recommenders are noisy: an item that wasn't taken may be wanted all the same. Conservative DPO holds that a share e of
# the pairs is the wrong way round. In trl that was `label_smoothing: e` with the default loss, "sigmoid", up to 0.28.0, which also
# warned where a loss had no use for it. From 0.29.0 on the sigmoid loss has none, and the warning is gone, too. The setting is still
# accepted. Its text names Robust DPO and EXO as its users; the guide from v0 to v1 doesn't mention it.
#
# Smoothed, the loss is least where the margin (logged as rewards/margins) is log((1 - e) / e): .8473 for e = .3, with a loss of
# .6109, by hand. trl 0.28.0 arrives there. trl 1.16.0 has a margin of 8.09 and a loss of .0004, and its weights are those without
# smoothing to the bit. Without smoothing, and with `loss_type: robust`, both versions have the same losses and margins. So the pairs
# that were held to be wrong in three of ten cases are learned as certain.
#
# One would guess that a setting of a loss that had it for years still has it, or that trl says so, as it did for hinge and IPO.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM with random weights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
python3.11 -m venv "$folder/before"
# the older trl takes torch and what else fits from the other environment
echo "$folder"/venv/lib/python3.11/site-packages > "$folder/before/lib/python3.11/site-packages/other.pth"
"$folder/before/bin/pip" install --quiet --disable-pip-version-check trl==0.28.0 transformers==4.57.6 accelerate==1.12.0 \
    datasets==4.5.0 huggingface-hub==0.36.2 2> "$folder/pip.log" ||
    { cat "$folder/pip.log"; exit 1; }
cd "$folder"
cat > train.py <<'P'
import hashlib, json, sys, warnings

warnings.filterwarnings("ignore")
import datasets
import torch
import trl
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import DPOConfig, DPOTrainer

datasets.disable_progress_bars()
torch.set_num_threads(1)
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w31", pad_token="w30", unk_token="w0")


def lm():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        bos_token_id=None, eos_token_id=31, pad_token_id=30, initializer_range=0.5))


def trained(loss, smoothing):
    rows = {"prompt": ["w1 w20 w2 w21", "w3 w22 w4"] * 2, "chosen": [" w22", " w21"] * 2, "rejected": [" w23", " w20"] * 2}
    args = DPOConfig("out", loss_type=loss, label_smoothing=smoothing, beta=0.5, max_steps=150, learning_rate=0.002,
                     lr_scheduler_type="linear", logging_steps=1, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True,
                     gradient_checkpointing=False, save_strategy="no", per_device_train_batch_size=4, seed=1)
    net = lm()
    trainer = DPOTrainer(model=net, ref_model=lm(), args=args, processing_class=tokenizer,
                         train_dataset=datasets.Dataset.from_dict(rows))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    last = [one for one in trainer.state.log_history if "loss" in one][-1]
    weights = hashlib.sha256(b"".join(one.detach().numpy().tobytes() for one in net.parameters())).hexdigest()
    return {"loss": last["loss"], "margin": last["rewards/margins"], "weights": weights}


found = {"trl": trl.__version__}
for loss, smoothing in (("sigmoid", 0.0), ("sigmoid", 0.3), ("robust", 0.0), ("robust", 0.3), ("hinge", 0.3)):
    found[f"{loss} {smoothing}"] = trained(loss, smoothing)
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
P
cat > compare.py <<'P'
import json, math, sys

found, said = {}, {}
for name in ("before", "venv"):
    with open(f"{name}.json") as file:
        found[name] = json.load(file)
    with open(f"{name}.log") as file:
        said[name] = any("label_smoothing" in line for line in file)
kinds = [kind for kind in found["venv"] if kind != "trl"]
print("loss and label_smoothing: loss and margin at the end" + " " * 14 + f"(by hand for .3: loss {-0.7 * math.log(0.7) - 0.3 * math.log(0.3):.4f}, "
      f"margin {math.log(0.7 / 0.3):.4f})")
for kind in kinds:
    print(f"{kind:14}" + "    ".join(f"trl {one['trl']}: {one[kind]['loss']:9.4f} {one[kind]['margin']:9.4f}" for one in found.values()))
alike = found["venv"]["sigmoid 0.0"]["weights"] == found["venv"]["sigmoid 0.3"]["weights"]
print(f"trl 1.16.0: weights with and without smoothing equal to the bit: {alike}")
print("a line of the log names label_smoothing, with hinge:", {one["trl"]: said[name] for name, one in found.items()})


def ends_at(one, loss, margin):
    return abs(one["loss"] - loss) < 0.01 and abs(one["margin"] - margin) < 0.01


before, now = found["before"], found["venv"]
as_described = ends_at(before["sigmoid 0.3"], 0.6109, math.log(0.7 / 0.3)) and now["sigmoid 0.3"]["margin"] > 5 and alike
for kind in kinds:
    if kind != "sigmoid 0.3":
        as_described &= ends_at(before[kind], now[kind]["loss"], now[kind]["margin"])
as_described &= now["robust 0.0"]["weights"] != now["robust 0.3"]["weights"]
sys.exit(not (as_described and said == {"before": True, "venv": False}))
P
for name in before venv; do
    "$folder/$name/bin/python" train.py $name.json > $name.log 2>&1 || { cat $name.log; exit 1; }
done
"$folder/venv/bin/python" compare.py
