"""Small tokenizers, trained in a moment, that split text as those of the three families do, and LMs for them."""

import json
from functools import cache

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from r2ec.model.prompts import ITEM_INSTRUCTION, USER_INSTRUCTION, WITH_RATINGS
from tests.support.tiny_models import tiny_config

# The words that each family's tokenizer never merges across.
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Templates in the families' manner: the first two add a system message of their own, Gemma's refuses one.
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are tiny.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
CORPUS = [
    (USER_INSTRUCTION + WITH_RATINGS + ITEM_INSTRUCTION).format(category="movie", scale=5),
    "3 days ago: [Toy Story (1995)] (4.5)\n2 weeks ago: [Alien: Resurrection] (3)\n",
    "1 year ago: [Up]\nmoments ago: [It's]\n",
    "<answer> </answer> answer> ></ ]\n\n \n Title: Description: Genres: the a of and to in months minutes hours years",
]


@cache
def tiny_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """llama: GPT-2's word pattern, byte level. qwen2: line breaks join the punctuation before them. gemma2: no words,
    spaces are letters and line breaks tokens of their own, bytes for what is unknown.
    """
    specials = ["<pad>", "<bos>", "<eos>"]
    specials += ["<start_of_turn>", "<end_of_turn>"] if family == "gemma2" else ["<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if family == "gemma2":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<eos>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+|\u2581?[^\u2581\n]+|\u2581+"), "isolated")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        alphabet = []
    else:
        tokenizer = Tokenizer(models.BPE())
        split = pre_tokenizers.ByteLevel(add_prefix_space=False)
        if family == "qwen2":
            words = pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated")
            split = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.pre_tokenizer = split
        tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    if family == "gemma2":
        tokenizer.pre_tokenizer = None
        trained = json.loads(tokenizer.to_str())
        vocabulary = trained["model"]["vocab"]
        vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
        tokenizer = Tokenizer.from_str(json.dumps(trained))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>" if family == "gemma2" else "<|im_end|>",
        chat_template=GEMMA if family == "gemma2" else CHATML,
    )


def tiny_lm(family: str, scale: float = 0.3, seed: int = 0) -> PreTrainedModel:
    """A random LM of `tests.support.tiny_models` with the vocabulary of the family's tokenizer, float32, in evaluation
    mode."""
    torch.manual_seed(seed)
    config = tiny_config(family)
    config.vocab_size = len(tiny_tokenizer(family))
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=scale)
    return model.eval()
