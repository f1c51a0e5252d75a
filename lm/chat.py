"""Tokens of a chat: what a tokenizer's template puts around a message, what ends a turn, and texts as token ids."""

from collections.abc import Sequence

import jinja2
from transformers import PreTrainedTokenizerBase

from benchmark.errors import InputError

# Stands for the message's body while the template is taken apart; no template or instruction holds it.
PLACEHOLDER = "\u2042BODY\u2042"


def split_template(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None) -> tuple[str, str]:
    """What the chat template puts before and behind a user message, up to the start of the assistant's turn.

    Raises InputError for a tokenizer without a chat template, or one that has no place for a system prompt.
    """
    if tokenizer.chat_template is None:
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; use an instruction-tuned backbone"
        )
    messages = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    messages.append({"role": "user", "content": PLACEHOLDER})
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:
        raise InputError(
            f"{tokenizer.name_or_path}: its chat template refuses the system prompt ({error}); leave it out"
        ) from None
    before, separator, behind = str(text).partition(PLACEHOLDER)
    if not separator or PLACEHOLDER in behind or (system_prompt and system_prompt not in before):
        raise InputError(f"{tokenizer.name_or_path}: its chat template does not send the messages once, as they are")
    return before, behind


def turn_end_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an assistant's turn: the tokenizer's eos and the special token its template closes it with.

    The two differ for Gemma 2 (`<eos>`, `<end_of_turn>`). They are read from the tokenizer, not from a model's
    generation_config.
    """
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": PLACEHOLDER}]
    behind = str(tokenizer.apply_chat_template(messages, tokenize=False)).partition(PLACEHOLDER)[2]
    closing = tokenizer(behind, add_special_tokens=False)["input_ids"][:1]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ends = {tokenizer.eos_token_id} | {token for token in closing if token in special}
    return sorted(token for token in ends if token is not None)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, message: str) -> list[int]:
    """Token ids of one user message in the chat template, up to where the assistant begins to write."""
    opening, tail = split_template(tokenizer, None)
    return ids_of(tokenizer, opening + message + tail)


def conversation_ids(tokenizer: PreTrainedTokenizerBase, turns: Sequence[str]) -> list[int]:
    """Token ids of a conversation in the chat template, up to where the assistant begins to write.

    turns: the user's first, the assistant's answer, and so on, the user's last; one turn is what `prompt_ids` reads.
    """
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return ids_of(tokenizer, str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)))


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, with nothing put before or behind it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Token ids as text, special tokens included."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
