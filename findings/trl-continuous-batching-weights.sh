#!/usr/bin/env bash
# trl 1.16.0: with use_transformers_continuous_batching GRPO and RLOO turn the weights they train into bfloat16, in which steps of their
# learning rate are lost.
#
# The setting is documented as the engine that generates. trl's `bf16`, on by default, is documented as mixed precision: the LM computes
# in bfloat16 and its weights stay float32. Without the setting that is so. With it, the first generation casts the LM itself, in place.
# Nothing casts it back, and the optimiser holds the same tensors. bfloat16 has 8 bits, so that a weight of .02 has its neighbours
# .00012 away. A step of AdamW at the default rate is some 1e-6, and is rounded away, each anew. No error and no warning says so, and
# loss, reward and gradient norm are logged as ever.
#
# Here 4 steps at the default rate move 1.9% of the weights of a tiny LM, the smallest ones. Without the setting, or with it and
# bf16=False, they move 93.8%, all but the embeddings of tokens that no text had. The gradient norms are alike. GRPOTrainer and
# RLOOTrainer do the same. So a full tuning hardly takes place: of SmolLM2-135M's weights, by a count, .4% would move. The optimiser's
# means are bfloat16, too.
#
# One would guess that a way to generate changes how fast a training is, and not what it trains.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A tiny LM with random weights, on the CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import sys, warnings

warnings.filterwarnings("ignore")
import datasets
import torch
import transformers
import trl
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

datasets.disable_progress_bars()
disable_progress_bar()
set_verbosity_error()
torch.set_num_threads(1)
words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w31", pad_token="w30", unk_token="w0")
prompts = datasets.Dataset.from_dict({"prompt": [f"w{i} w{i + 1}" for i in range(8)]})
few = {"num_blocks": 16, "block_size": 32, "max_batch_tokens": 16}  # a cache for a tiny LM on a CPU


def reward(completion_ids, **_):
    return [float(sum(completion)) for completion in completion_ids]


def trained(trainer, config, batching, bf16):
    torch.manual_seed(0)
    net = LlamaForCausalLM(LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        bos_token_id=None, eos_token_id=31, pad_token_id=30))
    start = {name: one.detach().clone() for name, one in net.named_parameters()}
    args = config("out", use_transformers_continuous_batching=batching, transformers_continuous_batching_config=few if batching else None,
                  bf16=bf16, beta=0.0, use_cpu=True, max_steps=4, per_device_train_batch_size=4, num_generations=4,
                  gradient_accumulation_steps=1, max_completion_length=2, lr_scheduler_type="constant", logging_steps=1, report_to=[],
                  disable_tqdm=True, seed=1, gradient_checkpointing=False, save_strategy="no")
    trainer = trainer(model=net, reward_funcs=reward, args=args, processing_class=tokenizer, train_dataset=prompts)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    moved = total = 0
    for name, one in net.named_parameters():
        # the steps alone: a weight that was merely rounded hasn't moved
        moved += (one.detach().float() != start[name].to(one.dtype).float()).sum().item()
        total += one.numel()
    norms = [one["grad_norm"] for one in trainer.state.log_history if "grad_norm" in one]
    kinds = {str(one.dtype).removeprefix("torch.") for one in net.parameters()}
    kept = {str(state["exp_avg"].dtype).removeprefix("torch.") for state in trainer.optimizer.state.values()}
    found = {"rate": args.learning_rate, "dtype": "/".join(kinds), "optimiser": "/".join(kept), "moved": moved / total, "norms": norms}
    print(f"{config.__name__}, continuous batching {batching!s:5} bf16 {args.bf16!s:5} rate {args.learning_rate}: weights {found['dtype']}, "
          f"optimiser's means {found['optimiser']}, {found['moved']:.1%} of {total} weights moved; "
          f"gradient norms {', '.join(f'{one:.2f}' for one in norms)}", flush=True)
    return found


print("trl", trl.__version__, "transformers", transformers.__version__)
as_described = True
for trainer, config in ((trl.GRPOTrainer, trl.GRPOConfig), (trl.RLOOTrainer, trl.RLOOConfig)):
    # None: trl's default
    usual, exact, batched = (trained(trainer, config, *setting) for setting in ((False, None), (True, False), (True, None)))
    for one in (usual, exact):
        as_described &= one["dtype"] == one["optimiser"] == "float32" and one["moved"] > 0.9
    as_described &= batched["dtype"] == batched["optimiser"] == "bfloat16" and batched["moved"] < 0.1 and min(batched["norms"]) > 0.01
sys.exit(not as_described)
P
"$folder/venv/bin/python" check.py
