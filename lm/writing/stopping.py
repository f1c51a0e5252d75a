"""Stopping rules: where a text that a language model writes ends. Every engine gets one of them.

Both rules read the sampled tokens alone, so that they are the same for every engine.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from lm.chat import ids_of, text_of, turn_end_ids


class EndOfTurn:
    """A text ends where the model ends its turn (its end token stays) or at the limit; nothing is appended."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.turn_ends = frozenset(turn_end_ids(tokenizer))
        self.appended: list[int] = []  # to a text that is not complete where it ends
        self.stop_strings: list[str] = []  # for engines that stop by themselves

    def is_complete(self, ids: Sequence[int]) -> bool:
        """Whether the last of these tokens completes the text, so that nothing has to be appended."""
        return False

    def finish(self, ids: Sequence[int]) -> tuple[list[int], int, bool, bool]:
        """Sampled ids -> (the text's ids, how many were sampled, cut, ended), for engines that stop by themselves."""
        for n in range(1, len(ids) + 1):
            if self.is_complete(ids[:n]):
                return list(ids[:n]), n, False, False
            if ids[n - 1] in self.turn_ends:
                return [*ids[:n], *self.appended], n, True, True
        return [*ids, *self.appended], len(ids), True, False


class EndOfReasoning(EndOfTurn):
    """A reasoning ends at the first token with which its decoded text contains `answer`, such as "<answer>".

    The rule reads the text, since `answer` is several tokens for most tokenizers and the model may write it with others
    than the canonical ones. A reasoning that meets the limit, or in which the model ends its turn, gets the canonical
    ids of `answer` appended, so that the last state has read it in every case. Appended ids count as not sampled.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answer: str) -> None:
        super().__init__(tokenizer)
        self.answer = answer
        self.appended, self.stop_strings = ids_of(tokenizer, answer), [answer]
        # Only a token with the last character of `answer` can complete it, so that no other one needs decoding. The
        # character is ASCII, and reads the same in the vocabulary of every kind of tokenizer.
        self.closing = frozenset(i for token, i in tokenizer.get_vocab().items() if answer[-1] in token)

    def is_complete(self, ids: Sequence[int]) -> bool:
        """Whether the last of these tokens makes their text contain `answer`."""
        return ids[-1] in self.closing and self.answer in text_of(self.tokenizer, ids)
