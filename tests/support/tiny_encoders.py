"""A tiny random sentence encoder, on disk as any is."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast


def write_encoder(folder: Path) -> Path:
    """A BERT of one layer that knows the planted items' words and all characters; weights large enough that every word
    matters."""
    # Written out, not trained: a trainer's ties fall differently in every process.
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Thing", "number", "colour", "red", "green", "blue"]
    words += [chr(code) for code in range(33, 127)] + [f"##{chr(code)}" for code in range(33, 127)]
    words += [str(number) for number in range(10, 60)]
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=300,
    )
    model = BertModel(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def encoder_in(folder: Path) -> Path:
    """`write_encoder` in `folder`, by the first call alone: a run that goes on has the same files."""
    return folder / "encoder" if (folder / "encoder").exists() else write_encoder(folder / "encoder")
