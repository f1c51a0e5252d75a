#!/usr/bin/env bash
# OpenVINO GenAI 2026.4.1: of an adapter that peft wrote, what isn't a plain LoRA pair is left out without an error or a warning.
#
# LLMPipeline takes adapter_model.safetensors as peft 0.21.2 saves it. It applies the pairs A and B of linear layers, and also a
# whole output layer (modules_to_save), so an adapter seems to be supported. Not applied, and not mentioned: the rows of new or
# retrained tokens (trainable_token_indices), the magnitudes of DoRA, and a LoRA pair of the token embedding. What is written is
# then, token by token, what peft writes with an adapter from which these tensors were taken out. lora_alpha stands in another file
# and isn't read either: AdapterConfig's own alpha is the whole factor, 1 unless given, where peft takes lora_alpha / r.
# An LM that was tuned with new tokens, as recommenders with item tokens are, so goes on writing fluently as another model.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A small LM with random weights, float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 openvino-genai==2026.4.1.0 optimum-intel==2.2.0 \
    optimum==2.3.0 transformers==5.5.4 torch==2.14.1 peft==0.21.2 numpy==2.4.6 nncf==3.4.0 accelerate==1.15.0
cd "$folder"
cat > check.py <<'P'
import os, subprocess, sys, warnings

warnings.filterwarnings("ignore")
import numpy as np
import openvino
import openvino_genai
import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
torch.manual_seed(0)
prompt, new, vocabulary = [5, 9, 17, 33, 40, 2], 24, 64
tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w63", unk_token="w0").save_pretrained("lm")
LlamaForCausalLM(LlamaConfig(
    vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    tie_word_embeddings=False, bos_token_id=None, eos_token_id=63, pad_token_id=63, initializer_range=0.3,
)).save_pretrained("lm")
subprocess.run([os.path.join(os.path.dirname(sys.executable), "optimum-cli"), "export", "openvino", "-m", "lm", "--task",
    "text-generation-with-past", "--weight-format", "fp32", "converted"], check=True, capture_output=True)


def adapter(name, **settings):
    """An adapter whose every tensor differs from its start, saved by peft."""
    model = get_peft_model(LlamaForCausalLM.from_pretrained("lm"), LoraConfig(task_type="CAUSAL_LM", r=8, **settings))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.shape[0] == 8 or 8 in parameter.shape else 0.3))
    model.save_pretrained(name)


def without(name, part):
    """The adapter less the tensors whose names hold `part`, and how many those are."""
    tensors = load_file(f"{name}/adapter_model.safetensors")
    os.makedirs(f"{name}-less", exist_ok=True)
    save_file({key: value for key, value in tensors.items() if part not in key}, f"{name}-less/adapter_model.safetensors")
    return sum(part in key for key in tensors)


def by_peft(name):
    model = LlamaForCausalLM.from_pretrained("lm").eval()
    if name:
        model = PeftModel.from_pretrained(model, name).eval()
    ids = torch.tensor([prompt])
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, eos_token_id=None)[0, 6:].tolist()


def by_openvino(name, alpha=None):
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    if name:
        one = openvino_genai.Adapter(f"{name}/adapter_model.safetensors")
        options["adapters"] = openvino_genai.AdapterConfig(one) if alpha is None else openvino_genai.AdapterConfig(one, alpha)
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.do_sample, config.ignore_eos = new, False, True
    pipeline = openvino_genai.LLMPipeline("converted", "CPU", **options)
    return list(pipeline.generate(openvino.Tensor(np.array([prompt], dtype=np.int64)), config).tokens[0])


def equal(one, other):
    return sum(a == b for a, b in zip(one, other, strict=True))


layers = ["q_proj", "v_proj", "down_proj"]
adapter("scaled", lora_alpha=32, target_modules=layers)
adapter("head", lora_alpha=8, target_modules=layers, modules_to_save=["lm_head"])
adapter("tokens", lora_alpha=8, target_modules=layers, trainable_token_indices={"embed_tokens": [2, 9, 33]})
adapter("dora", lora_alpha=8, target_modules=layers, use_dora=True)
adapter("embedding", lora_alpha=8, target_modules=[*layers, "embed_tokens"])

as_expected = by_peft(None) == by_openvino(None)
print("no adapter: the same", new, "tokens:", as_expected)
whole = by_peft("scaled")
default, given = by_openvino("scaled"), by_openvino("scaled", 32 / 8)
print(f"lora_alpha 32, r 8: of {new} tokens as peft {equal(default, whole)} with AdapterConfig(adapter), {equal(given, whole)} with alpha 32 / 8")
as_expected &= given == whole and default != whole
same = by_openvino("head") == by_peft("head")
print("a whole output layer: as peft:", same)
as_expected &= same
for name, part in {"tokens": "trainable_tokens_delta", "dora": "magnitude", "embedding": "embed_tokens"}.items():
    left_out = without(name, part)
    whole, written, less = by_peft(name), by_openvino(name), by_openvino(f"{name}-less")
    print(f"{name}: of {new} tokens as peft {equal(written, whole)}, as without its {left_out} tensors {part!r} {equal(written, less)}")
    as_expected &= left_out > 0 and written != whole and written == less
print("openvino-genai", openvino_genai.__version__, "peft", peft.__version__)
sys.exit(not as_expected)
P
"$folder/venv/bin/python" check.py
