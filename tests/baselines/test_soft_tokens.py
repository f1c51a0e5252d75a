"""Tests that forward and decoder read ids beyond the vocabulary as vectors, in three families of models."""

import pytest
import torch

from baselines._writers.soft_tokens import SoftTokens, placeholder_of
from benchmark.errors import InputError
from lm.writing.decode import SharedPromptDecoder
from tests.support.tiny_models import FAMILIES
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer

PLACEHOLDER = 7
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 7, 13], [5, 6, 9, 7, 7], [5, 6, 20, 21, 7, 30]]


def soft_prompts(first: int) -> tuple[list[list[int]], torch.Tensor]:
    """Return the prompts with each placeholder replaced by an id of its own, and the rows of these ids."""
    row, prompts = 0, []
    for prompt in PROMPTS:
        prompts.append([first + (row := row + 1) - 1 if token == PLACEHOLDER else token for token in prompt])
    return prompts, torch.arange(row)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_table_of_the_placeholders_embedding_says_what_the_placeholder_says(family: str) -> None:
    model = tiny_lm(family)
    soft = SoftTokens(model, PLACEHOLDER)
    prompts, rows = soft_prompts(soft.first)
    table = model.get_input_embeddings()(
        torch.full((len(rows),), PLACEHOLDER)
    )  # as its module gives it: Gemma 2 scales
    for prompt, plain in zip(prompts, PROMPTS, strict=True):
        expected = model(torch.tensor([plain])).logits
        with soft.reading(lambda rows: table[rows]):
            assert torch.equal(model(torch.tensor([prompt])).logits, expected)
        with soft.reading(None):
            assert torch.equal(model(torch.tensor([prompt])).logits, expected)
    with pytest.raises(IndexError):  # nothing is left of it
        model(torch.tensor([prompts[0]]))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_decoder_reads_vectors_as_a_plain_forward_of_embeddings_does(family: str) -> None:
    model = tiny_lm(family)
    soft = SoftTokens(model, PLACEHOLDER)
    prompts, rows = soft_prompts(soft.first)
    table = torch.randn(len(rows), model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    with soft.reading(lambda rows: table[rows]), SharedPromptDecoder(model, 2) as decoder:
        first = decoder.prefill(prompts).clone()
        second = decoder.step(torch.tensor([30, 31, 32, 33, 34, 35])).clone()
    for at, prompt in enumerate(prompts):
        ids = torch.tensor([*prompt, 30 + 2 * at])
        is_soft = ids >= soft.first
        embedded = model.get_input_embeddings()(ids.masked_fill(is_soft, 0))
        embedded[is_soft] = table[ids[is_soft] - soft.first]
        expected = model(inputs_embeds=embedded[None]).logits[0]
        torch.testing.assert_close(first[at], expected[-2], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(second[2 * at], expected[-1], rtol=1e-3, atol=1e-3)


def test_gradients_reach_the_vectors_alone() -> None:
    model = tiny_lm("llama").requires_grad_(False)
    soft = SoftTokens(model, PLACEHOLDER)
    prompts, rows = soft_prompts(soft.first)
    table = torch.randn(len(rows), model.config.hidden_size, requires_grad=True)
    with soft.reading(lambda rows: table[rows]):
        model(torch.tensor([prompts[0]])).logits.sum().backward()
    assert table.grad is not None
    assert (table.grad.abs().sum(dim=1) > 0).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_size_of_tokens_is_that_of_what_the_module_gives(family: str) -> None:
    model = tiny_lm(family)
    embedded = model.get_input_embeddings()(torch.arange(model.config.vocab_size))
    assert SoftTokens(model, PLACEHOLDER).size() == pytest.approx(float(embedded.square().mean().sqrt()), rel=1e-5)


def test_the_placeholder_is_a_special_token_of_the_tokenizer() -> None:
    tokenizer = tiny_tokenizer("llama")
    assert placeholder_of(tokenizer, "<bos>") == ("<bos>", tokenizer.convert_tokens_to_ids("<bos>"))
    with pytest.raises(InputError, match=r"placeholder None: .* set placeholder to one"):
        placeholder_of(tokenizer, None)
    with pytest.raises(InputError, match="placeholder 'the'"):
        placeholder_of(tokenizer, "the")
