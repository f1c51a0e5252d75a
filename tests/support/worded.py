"""A planted task for methods that write: the next item follows from the last one, and one word means each item."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmark.contract import Cases, Split
from tests.support.tiny_fits import split
from tests.support.tiny_models import tiny_config
from tests.support.tiny_tokenizers import tiny_tokenizer

WORDS = ["the", "a", "of", "and", "to", "in", "months", "minutes", "hours", "years"]
N = len(WORDS)


def worded_split(count: int = 400) -> Split:
    """Ten items of one word each; whoever took item v takes item v + 3 next."""
    data = split()
    item = np.random.default_rng(0).integers(0, N, count).astype(np.int32)
    cases = Cases(
        case=np.arange(count),
        user=np.arange(count, dtype=np.int32),
        time=np.arange(count) + 100,
        offsets=np.arange(count + 1),
        items=item,
        ratings=np.full(count, 5, np.float32),
        times=np.arange(count),
        target=((item + 3) % N).astype(np.int32),
    )
    items = pd.DataFrame({"item_id": [str(v) for v in range(N)], "title": [" ".join([word] * 12) for word in WORDS]})
    return replace(data, name="worded", items=items, train=cases, valid=cases.take(np.arange(200)))


def planted_writer() -> PreTrainedModel:
    """A tiny random Llama that reads well enough and writes nearly uniformly; only lm_head is trained."""
    torch.manual_seed(0)
    config = tiny_config("llama")
    config.vocab_size, config.tie_word_embeddings = len(tiny_tokenizer("llama")), False
    lm: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    for name, parameter in lm.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.0 if "embed" in name else 0.25)
    torch.nn.init.normal_(lm.get_output_embeddings().weight, std=0.02)
    lm.requires_grad_(False)
    lm.get_output_embeddings().weight.requires_grad_(True)
    return lm.eval()
