"""A chat's tokens: the template around a message, and what ends a turn."""

import copy

import pytest

from benchmark.errors import InputError
from lm.chat import ids_of, prompt_ids, split_template, text_of, turn_end_ids
from tests.support.tiny_models import FAMILIES
from tests.support.tiny_tokenizers import tiny_tokenizer


def test_a_turn_ends_at_eos_and_at_the_templates_closing_token() -> None:
    def tokens(family: str) -> list[str]:
        tokenizer = tiny_tokenizer(family)
        return list(tokenizer.convert_ids_to_tokens(turn_end_ids(tokenizer)))

    assert tokens("llama") == ["<|im_end|>"]
    assert set(tokens("gemma2")) == {"<eos>", "<end_of_turn>"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_message_stands_between_what_the_template_puts_around_it(family: str) -> None:
    tokenizer = tiny_tokenizer(family)
    before, behind = split_template(tokenizer, None)
    chat = [{"role": "user", "content": "Recommend a movie."}]
    whole = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert before + "Recommend a movie." + behind == whole
    ids = prompt_ids(tokenizer, "Recommend a movie.")
    assert ids == ids_of(tokenizer, whole) and text_of(tokenizer, ids) == whole


def test_a_tokenizer_without_a_template_is_refused() -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer("llama"))
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="has no chat template; use an instruction-tuned backbone"):
        split_template(tokenizer, None)
