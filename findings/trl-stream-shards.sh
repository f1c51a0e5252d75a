#!/usr/bin/env bash
# trl 1.16.0: On several processes, GRPO and RLOO on a stream of several files measure a prompt's completions against another prompt's, or
# never use a part of the prompts.
#
# Both trainers repeat each prompt num_generations times and take the mean reward of these as the baseline. For a streaming dataset, which they
# support since 1.9.0, they repeat the rows in the stream itself, in the order in which all processes together have to read it. The release
# notes say that this keeps the groups of prompts whole. So it does for a stream of one file. But a stream of at least as many files (shards)
# as there are processes is shared out by accelerate 1.15.0 by files: each process repeats the rows of its own files. Then what the processes
# read together is no longer what the repetition was made for. No error and no warning says so. A dataset of parquet files that is loaded with
# streaming=True is such a stream.
#
# With two processes and two files two things were seen. (1) Where the completions of one process are no multiple of num_generations, as with
# 8 generations and a batch of 4 in each process, a group is half of one prompt and half of another. A reward that depends on the user alone
# says nothing about what was written. It has no advantage, and the LM has to stay as it is: with a Dataset and with one file the gradient is 0
# in all steps. With two files all groups are mixed, and the LM moves. (2) Where steps_per_generation is above 1, as it is with gradient
# accumulation, a process reads only the first half of each block of its prompts, and reads it twice: in one pass of 32 users 16 are
# written for, each twice, and the other 16 never. With N processes it is as little as one N-th of the prompts (read, not run).
#
# Load such a dataset as a Dataset, without streaming, or make it a stream of one shard before it goes to the trainer. DistillationTrainer
# repeats a stream in the same way (read, not run). An issue about it wasn't found. In the review of the pull request that brought streams
# (trl 6351) it was asked whether groups stay whole on several processes.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11 and a package index. A small LM with random weights, on two CPU processes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile trl==1.16.0 transformers==5.23.0 accelerate==1.15.0 \
    datasets==5.2.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
cat > check.py <<'P'
import json, os, sys, warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import torch
from accelerate.utils import gather_object
from datasets import disable_progress_bars, load_dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, set_seed
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

logging.set_verbosity_error()
logging.disable_progress_bar()
disable_progress_bars()
users = 32
words = ["<pad>", "<eos>"] + [f"user{number}" for number in range(users)] + [f"item{number}" for number in range(16)]
model = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="<eos>")


def run(trainer_class, config_class, kind, generations, batch, accumulation, **options):
    """Trains on one pass at most; returns the users of each group, how often a user got completions, and how far the LM moved."""
    files = ["one.jsonl"] if kind == "one file" else ["first.jsonl", "second.jsonl"]
    data = load_dataset("json", data_files=files, split="train", streaming=kind != "Dataset", cache_dir=f"cache{torch.distributed.get_rank()}")
    set_seed(0)
    lm = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        bos_token_id=None, eos_token_id=1, pad_token_id=0,
    ))
    before, calls = [parameter.detach().clone() for parameter in lm.parameters()], []

    def reward(prompts, user, **_):
        calls.append(list(user))
        return [number / users for number in user]

    arguments = config_class(
        "out", num_generations=generations, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_completion_length=4,
        max_steps=8, learning_rate=0.01, lr_scheduler_type="constant", use_cpu=True, ddp_backend="gloo", bf16=False, report_to="none",
        save_strategy="no", logging_steps=1, disable_tqdm=True, **options,
    )
    trainer = trainer_class(lm, reward, arguments, train_dataset=data, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    rows = [row for call in zip(*gather_object([calls]), strict=True) for part in call for row in part]
    groups = [rows[start : start + generations] for start in range(0, len(rows), generations)]
    mixed = sum(len(set(group)) > 1 for group in groups)
    times = [rows.count(user) / generations for user in range(users)]
    norms = [log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log]
    moved = max((new.detach() - old).abs().max().item() for new, old in zip(lm.parameters(), before, strict=True))
    return mixed, len(groups), sum(time > 0 for time in times), max(times), max(norms), moved


rank = int(os.environ["RANK"])
torch.distributed.init_process_group("gloo")
if rank == 0:
    for name, numbers in (("one", range(users)), ("first", range(users // 2)), ("second", range(users // 2, users))):
        with open(f"{name}.jsonl", "w") as file:
            file.writelines(json.dumps({"prompt": f"user{number}", "user": number}) + "\n" for number in numbers)
torch.distributed.barrier()
seen = {}
for trainer_class, config_class, case, settings in (
    (GRPOTrainer, GRPOConfig, "8 generations, 4 completions in a process", dict(generations=8, batch=4, accumulation=1)),
    (RLOOTrainer, RLOOConfig, "8 generations, 4 completions in a process", dict(generations=8, batch=4, accumulation=1, beta=0.0)),
    (GRPOTrainer, GRPOConfig, "4 generations, 2 x 4 completions in a process", dict(generations=4, batch=4, accumulation=2)),
):
    for kind in ("Dataset", "one file", "two files"):
        if trainer_class is RLOOTrainer and kind == "one file":
            continue
        mixed, groups, used, most, norm, moved = seen[trainer_class, case, kind] = run(trainer_class, config_class, kind, **settings)
        if rank == 0:
            print(f"{trainer_class.__name__}, {case}, {kind}: {mixed} of {groups} groups mix users; {used} users, each at most {most:g} times; "
                  f"largest gradient {norm:.3g}; LM moved by {moved:.3g}", flush=True)
if rank == 0:
    print(*(f"{name} {version(name)}" for name in ("trl", "transformers", "accelerate", "datasets", "torch")))
right = all(mixed == norm == moved == 0 and most == 1 for (_, _, kind), (mixed, _, _, most, norm, moved) in seen.items() if kind != "two files")
whole = all(used == users for (_, case, kind), (_, _, used, *_) in seen.items() if case.startswith("4") and kind != "two files")
two = [(case, result) for (_, case, kind), result in seen.items() if kind == "two files"]
mixed = all(result[0] == result[1] and result[4] > 0.01 and result[5] > 0.01 for case, result in two if case.startswith("8"))
half = [result[2:4] for case, result in two if case.startswith("4")] == [(users // 2, 2)]
torch.distributed.destroy_process_group()
sys.exit(not (right and whole and mixed and half))
P
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
"$folder/venv/bin/python" -m torch.distributed.run --standalone --nproc-per-node 2 check.py
