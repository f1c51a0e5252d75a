"""Tiny random models of the three families, and rollouts for them."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen2Config

from lm.writing.rollouts import Rollouts

FAMILIES = ("llama", "qwen2", "gemma2")
VOCABULARY = 61
WIDTH = 32


def tiny_config(family: str, sliding_window: int = 8) -> PreTrainedConfig:
    """Three layers of width 32. Gemma 2 alternates a window of 8 tokens, shorter than the tests' sequences."""
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family == "llama":
        return LlamaConfig(**common, tie_word_embeddings=True)
    if family == "qwen2":
        return Qwen2Config(**common)
    # Small caps, so that a forgotten one shows.
    caps: dict[str, Any] = {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0}
    return Gemma2Config(**common, **caps, head_dim=8, query_pre_attn_scalar=8, sliding_window=sliding_window)


def tiny_model(family: str, lora: bool = True, sliding_window: int = 8, seed: int = 0) -> PreTrainedModel | PeftModel:
    """Weights large enough that every position matters; LoRA r=4 on all linear layers, both of its factors random."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, sliding_window))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    if not lora:
        return model
    settings = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, settings)


def tiny_rollouts(users: int = 3, group: int = 4, beginning: int = 10, seed: int = 1) -> Rollouts:
    """Prompts of 13 to 19 tokens with a common beginning, padded on both sides, completions of 1 to 6 tokens.

    The last token of some completions was appended, not sampled.
    """
    random = torch.Generator().manual_seed(seed)
    longest, length = 19, 6
    ids = torch.randint(3, VOCABULARY, (users, longest), generator=random)
    ids[1:, :beginning] = ids[0, :beginning]
    mask = torch.ones(users, longest, dtype=torch.bool)
    for user in range(1, users):
        mask[user, longest - 2 * user :] = False
    # The last user's padding goes to the left: both sides are allowed.
    ids[-1], mask[-1] = ids[-1].roll(2 * (users - 1)), mask[-1].roll(2 * (users - 1))
    completions = torch.randint(3, VOCABULARY, (users * group, length), generator=random)
    lengths = torch.randint(1, length + 1, (users * group,), generator=random)
    lengths[0] = lengths[-1] = length
    written = torch.arange(length)[None] < lengths[:, None]
    sampled = torch.arange(length)[None] < (lengths - torch.arange(users * group) % 2)[:, None]
    return Rollouts(ids, mask, completions, written, sampled)


def relative(values: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected."""
    values, expected = values.detach(), expected.detach()
    return float((values - expected).norm() / expected.norm().clamp(min=1e-12))
