"""Loads a model of Hugging Face, of which every weight comes from its files, and its tokenizer."""

from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from benchmark.errors import InputError

# What transformers raises for what it can't find, doesn't know, or finds in another shape, its config for a setting of
# the wrong type, and safetensors for a damaged file.
UNREADABLE = (OSError, ValueError, TypeError, RuntimeError, StrictDataclassError, SafetensorError)


def read_model(loader: Any, name: str, what: str, unread: str | None = None, **where: Any) -> PreTrainedModel:
    """The model that `loader`, one of transformers' AutoModels, makes of a folder or a name on the hub.

    transformers draws weights at random that the files lack, and says so in a log alone: the model would then compute
    something else, without an error.

    Args:
        what: which model it is, for a message. unread: how the names of weights begin that nobody reads, so that they
            may be missing. where: what else the loader takes.

    Raises InputError for files that can't be read, aren't safetensors, or lack a weight.
    """
    try:
        model, found = loader.from_pretrained(name, use_safetensors=True, output_loading_info=True, **where)
    except UNREADABLE as error:
        raise InputError(f"{what}: {first_line(error)}") from None
    lacking = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
    if lacking := {key for key in lacking if unread is None or not key.startswith(unread)}:
        raise InputError(
            f"{what}: {len(lacking)} of its weights aren't in its files, first {min(lacking)}; save or fetch it again, "
            "whole, with the config.json that belongs to it"
        )
    return model


def read_tokenizer(name: str, what: str, **where: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or a name on the hub; what: see `read_model`. Raises InputError for damaged files."""
    try:
        return AutoTokenizer.from_pretrained(name, **where)
    except Exception as error:  # the tokenizers library raises Exception itself, for a file that it can't read
        raise InputError(f"{what}: its tokenizer can't be read ({first_line(error)}); save or fetch it again") from None


def first_line(error: Exception) -> str:
    """What an error of these libraries says, on one line: its first line, and the second where that is a heading.

    >>> first_line(ValueError("Error in 'x':\\n    no number\\n  more")), first_line(OSError())
    ("Error in 'x': no number", 'OSError')
    """
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
