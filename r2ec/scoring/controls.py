"""Controls: reasonings read in the place of the model's own when scoring, to see whether it matters what is written.

One of them, `again`, is the model's own reasoning, read as the other controls are: in one pass, and not token by token
while it is written. In bf16 the two ways round differently, by some percent of the spread of h_T. A control is
therefore compared with `again`.

The controls of the faithfulness literature (Lanham et al., "Measuring Faithfulness in Chain-of-Thought Reasoning",
arXiv 2307.13702: filler tokens, altered reasonings) for a model whose answer is a state: everything is as in
evaluation, but for the tokens between prompt and `<answer>`. Nothing here depends on how cases are batched.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from benchmark.contract import Cases
from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from lm.chat import ids_of, text_of, turn_end_ids
from lm.writing.engine import TransformersEngine
from lm.writing.rollouts import RolloutResult, Rollouts, pack_rollouts, pad_id
from r2ec.model.prompts import ANSWER, PromptBuilder
from r2ec.settings import EvaluationSettings

# Validation cases whose reasonings are lent to other users; each is written once.
DONORS = 64
FILLER = " ..."


class Controls:
    """Writes what `settings` puts in the place of each case's own reasoning.

    Args:
        engine: writes greedily. donors: cases whose reasonings are lent to other users, of at least two users.
    """

    def __init__(
        self, engine: TransformersEngine, prompts: PromptBuilder, settings: EvaluationSettings, donors: Cases
    ) -> None:
        self.engine, self.prompts, self.settings, self.donors = engine, prompts, settings, donors

    def write(self, cases: Cases, prompts: list[list[int]]) -> tuple[Rollouts, list[str], np.ndarray, int]:
        """Rollouts without actions, their texts, whether `<answer>` was appended (bool [b]), and how many tokens were
        sampled for these cases."""
        sampled = 0
        if self.settings.reasoning == "empty":
            reasonings = [""] * len(cases)
        elif self.settings.reasoning == "other":
            reasonings = self._of_others(cases)
        else:
            own = self.engine.generate(prompts, cases=cases.case, seed=0)
            sampled = own.sampled_tokens
            if self.settings.reasoning == "again":  # the very tokens
                read, texts = replace(own.rollouts, action_mask=None), own.texts(self.prompts.tokenizer)
                return read, texts, own.cut.numpy(force=True), sampled
            change: Callable[[str, int], str] = self._fill if self.settings.reasoning == "filler" else self._permute
            reasonings = [change(text, int(case)) for text, case in zip(self._reasonings(own), cases.case, strict=True)]
        return *self._read_as_written(prompts, reasonings), np.ones(len(cases), bool), sampled

    def _read_as_written(self, prompts: list[list[int]], reasonings: Sequence[str]) -> tuple[Rollouts, list[str]]:
        """Each reasoning and `<answer>` behind its prompt."""
        tokenizer = self.prompts.tokenizer
        ids = [[*(ids_of(tokenizer, text) if text else []), *self.prompts.answer_ids] for text in reasonings]
        lengths = np.array([len(row) for row in ids])
        mask = np.arange(lengths.max()) < lengths[:, None]
        completions = np.full(mask.shape, pad_id(tokenizer), dtype=np.int64)
        completions[mask] = np.concatenate(ids)
        rollouts = pack_rollouts(prompts, completions, mask, mask, pad_id(tokenizer), self.engine.model.device)
        return replace(rollouts, action_mask=None), [text + ANSWER for text in reasonings]

    def _reasonings(self, result: RolloutResult) -> list[str]:
        """What was written before `<answer>`."""
        return [text.partition(ANSWER)[0] for text in result.texts(self.prompts.tokenizer)]

    @cached_property
    def _lent(self) -> list[str]:
        prompts = self.prompts.user_prompts(self.donors)
        return self._reasonings(self.engine.generate(prompts, cases=self.donors.case, seed=0))

    def _of_others(self, cases: Cases) -> list[str]:
        """For each case the reasoning of a donor of another user, drawn by the case's number."""
        reasonings = []
        for case, user in zip(cases.case.tolist(), cases.user.tolist(), strict=True):
            other_donors = np.flatnonzero(self.donors.user != user)
            if not len(other_donors):
                raise InputError(
                    f"case {case}: every case that could lend its reasoning is of user {user} too; raise valid_cases"
                )
            reasonings.append(
                self._lent[np.random.default_rng(derive_seed("lent reasoning", case)).choice(other_donors)]
            )
        return reasonings

    def _permute(self, text: str, case: int) -> str:
        """`permuted`, but for the end of the turn, where the text ends with one."""
        ends = [text_of(self.prompts.tokenizer, [token]) for token in turn_end_ids(self.prompts.tokenizer)]
        end = next((end for end in ends if text.endswith(end)), "")
        return permuted(text.removesuffix(end), case) + end

    def _fill(self, text: str, case: int) -> str:
        """Dots, as many tokens as the text, as nearly as whole dots allow."""
        tokenizer = self.prompts.tokenizer
        wanted = len(ids_of(tokenizer, text)) if text else 0
        filler_tokens = len(ids_of(tokenizer, FILLER))
        return FILLER * round(wanted / filler_tokens)


def permuted(text: str, case: int) -> str:
    """A text with its words in an order drawn by the case's number; the white space between them stays where it was.

    >>> permuted("a film\\n\\nabout dogs ", 3)
    'a film\\n\\ndogs about '
    """
    words = text.split()
    order = np.random.default_rng(derive_seed("shuffled reasoning", case)).permutation(len(words))
    others = iter([words[i] for i in order])
    return re.sub(r"\S+", lambda _: next(others), text)
