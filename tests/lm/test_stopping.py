"""Where a text ends, on tokens that another engine has sampled, and in an engine of its own."""

import numpy as np
import pytest

from lm.settings import RolloutSettings
from lm.writing.engine import TransformersEngine
from lm.writing.stopping import EndOfReasoning, EndOfTurn
from tests.support.tiny_models import FAMILIES
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer

ANSWER = "<answer>"


def test_answer_is_recognised_by_its_text() -> None:
    """In other tokens than the canonical ones, and inside a token that goes on."""
    tokenizer = tiny_tokenizer("qwen2")
    end = EndOfReasoning(tokenizer, ANSWER)
    letters = tokenizer.convert_tokens_to_ids(list("<answer>"))
    assert letters != end.appended and None not in letters
    assert end.finish([*letters, 99]) == (letters, 8, False, False)
    longer = tokenizer("<answer></", add_special_tokens=False)["input_ids"]
    stop = end.finish([5, *longer])
    assert "<answer>" in tokenizer.decode(stop[0]) and not stop[2]
    assert end.finish(letters[:-1])[2]


def test_another_answer_ends_a_reasoning_as_well() -> None:
    tokenizer = tiny_tokenizer("llama")
    end = EndOfReasoning(tokenizer, "movies")
    assert end.stop_strings == ["movies"] and tokenizer.decode(end.appended) == "movies"
    assert end.finish([*end.appended, 9]) == (end.appended, len(end.appended), False, False)
    assert end.finish([7]) == ([7, *end.appended], 1, True, False)


def test_a_turn_is_ended_by_its_token_or_the_limit() -> None:
    tokenizer = tiny_tokenizer("gemma2")
    end = EndOfTurn(tokenizer)
    close, eos = tokenizer.convert_tokens_to_ids(["<end_of_turn>", "<eos>"])
    answer = EndOfReasoning(tokenizer, ANSWER).appended
    assert end.finish([7, close, 8]) == ([7, close], 2, True, True) == end.finish([7, close])
    assert end.finish([*answer, eos]) == ([*answer, eos], len(answer) + 1, True, True)
    assert end.finish([7, 8]) == ([7, 8], 2, True, False)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_engine_ends_by_the_rule_that_it_is_given(family: str) -> None:
    """The same tokens up to the end of one rule, whatever the other appends."""
    tokenizer, model = tiny_tokenizer(family), tiny_lm(family, scale=0.15)
    settings = RolloutSettings(group_size=4, max_new_tokens=12, temperature=1.0)
    sampled_by_rule = {}
    for name, end in (("turn", EndOfTurn(tokenizer)), ("reasoning", EndOfReasoning(tokenizer, ANSWER))):
        result = TransformersEngine(model, tokenizer, settings, end).generate(
            [[11, 12, 13]], cases=np.arange(1), seed=1
        )
        assert result.rollouts.action_mask is not None
        sampled = result.rollouts.action_mask.sum(dim=1)
        assert result.lengths.equal(sampled + len(end.appended) * result.cut)
        rows = result.rollouts.completion_ids.tolist()
        sampled_by_rule[name] = [row[:n] for row, n in zip(rows, sampled.tolist(), strict=True)]
        for row, length in zip(rows, result.lengths.tolist(), strict=True):
            assert end.finish(row[:length])[0][:length] == row[:length]
    assert sampled_by_rule["turn"] == sampled_by_rule["reasoning"]  # none of these writes the answer
