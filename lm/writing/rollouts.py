"""Rollouts: what a language model has written for a batch of prompts, as tensors, and how they are packed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from benchmark.errors import InputError
from lm.chat import text_of
from lm.writing.stopping import EndOfTurn


@dataclass(frozen=True)
class Rollouts:
    """B users' prompts and their N = B * G completions, user by user. Masks are bool, True at real tokens.

    Prompts may be padded on either side, completions on the right.
    """

    prompt_ids: Tensor  # int64 [B, P]
    prompt_mask: Tensor  # bool [B, P], at least one True in each row
    completion_ids: Tensor  # int64 [N, T]; T = 0 where nothing is written: the state is then the prompt's last
    completion_mask: Tensor  # bool [N, T], at least one True in each row
    action_mask: Tensor | None = None  # bool [N, T], the tokens that were sampled; None: no log-probabilities wanted


@dataclass(frozen=True)
class RolloutResult:
    """N = B * G rollouts, user by user, and how they came about. Tensors lie on the model's device."""

    rollouts: Rollouts  # prompts [B, P] and completions [N, T], both padded on the right; action_mask: sampled tokens
    lengths: Tensor  # int64 [N], completion tokens, appended ones included
    # float32 [N, T], of sampled tokens at the temperature over the whole vocabulary, before any repetition penalty, 0
    # elsewhere. None from vLLM, which gives those after penalty, top-k and top-p: compute them with the model.
    log_probs: Tensor | None
    cut: Tensor  # bool [N], not complete by the stopping rule, so that the rule's ending was appended
    ended: Tensor  # bool [N], cut because the model ended its turn; cut and not ended: it met max_new_tokens
    states: Tensor | None  # float32 [N, d], the LM's state that read the last token; None unless asked for
    seconds: float

    @property
    def sampled_tokens(self) -> int:
        """How many tokens were sampled."""
        assert self.rollouts.action_mask is not None
        return int(self.rollouts.action_mask.sum())

    @property
    def tokens_per_second(self) -> float:
        """Sampled tokens per second, the reading of the prompts included."""
        return self.sampled_tokens / self.seconds

    def texts(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """The N completions as text, to their ends."""
        rows = self.rollouts.completion_ids.tolist()
        return [text_of(tokenizer, row[:n]) for row, n in zip(rows, self.lengths.tolist(), strict=True)]


def check_prompts(prompts: Sequence[Sequence[int]], cases: np.ndarray) -> None:
    """Raise InputError unless there is one non-empty prompt per case."""
    if len(prompts) == 0 or len(prompts) != len(cases):
        raise InputError(f"{len(prompts)} prompts for {len(cases)} cases; give one prompt to each of at least one case")
    if empty := [i for i, prompt in enumerate(prompts) if len(prompt) == 0]:
        raise InputError(f"the prompt of case {cases[empty[0]]} has no token; give it at least one")


def pack_rollouts(
    prompts: Sequence[Sequence[int]],
    ids: np.ndarray,
    mask: np.ndarray,
    sampled: np.ndarray,
    pad: int,
    device: torch.device,
) -> Rollouts:
    """Rollouts as the model takes them.

    prompts: B lists of token ids, none empty. ids: int64 [N, T], completions padded on the right; mask, sampled: bool
    [N, T], their real and their sampled tokens. pad: the token that pads prompts.
    """
    longest = max(len(prompt) for prompt in prompts)
    prompt_mask = np.arange(longest) < np.array([len(prompt) for prompt in prompts])[:, None]
    prompt_ids = np.full(prompt_mask.shape, pad, dtype=np.int64)
    prompt_ids[prompt_mask] = np.concatenate([np.asarray(prompt, dtype=np.int64) for prompt in prompts])
    return Rollouts(*(on_device(x, device) for x in (prompt_ids, prompt_mask, ids, mask, sampled)))


def finished_result(
    prompts: Sequence[Sequence[int]],
    written: Sequence[Sequence[int]],
    end: EndOfTurn,
    limit: int,
    pad: int,
    device: torch.device,
    started: float,
) -> RolloutResult:
    """What an engine that stops by itself has written: N lists of sampled tokens, user by user, ended by our rule.

    limit: tokens that may be sampled. started: `time.perf_counter()` of when the engine began.
    """
    finished = [end.finish(list(ids)[:limit]) for ids in written]
    lengths = np.array([len(ids) for ids, _, _, _ in finished])
    ids = np.full((len(finished), lengths.max()), pad, dtype=np.int64)
    for row, (tokens, _, _, _) in enumerate(finished):
        ids[row, : len(tokens)] = tokens
    at = np.arange(ids.shape[1])
    sampled = at < np.array([n for _, n, _, _ in finished])[:, None]
    return RolloutResult(
        rollouts=pack_rollouts(prompts, ids, at < lengths[:, None], sampled, pad, device),
        lengths=torch.from_numpy(lengths).to(device),
        log_probs=None,
        cut=torch.tensor([cut for _, _, cut, _ in finished], device=device),
        ended=torch.tensor([ended for _, _, _, ended in finished], device=device),
        states=None,
        seconds=time.perf_counter() - started,
    )


def without_reasoning(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> Rollouts:
    """Rollouts without a completion ("w/o Reasoning"): their state is the one that has read the prompt."""
    none = np.zeros((len(prompts), 0), dtype=bool)
    return replace(pack_rollouts(prompts, none.astype(np.int64), none, none, pad, device), action_mask=None)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's pad token. Raises InputError if it has none."""
    if tokenizer.pad_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no pad token; load it with lm.backbone")
    return int(tokenizer.pad_token_id)


def on_device(x: np.ndarray, device: torch.device) -> Tensor:
    """The array as a tensor on this device."""
    return torch.from_numpy(x).to(device)
