"""Writing reasonings: G completions per user prompt, ended by `<answer>`, by transformers (CPU, GPU) or by vLLM.

Where a reasoning ends, for both engines: at the first token with which the decoded completion contains `<answer>`. The
rule is on the text, since `<answer>` is several tokens for most tokenizers and the model may write it with others than
the canonical ones. A reasoning that meets the limit, or in which the model ends its turn (its end token stays), gets
the canonical ids of `<answer>` appended, so that h_T has read `<answer>` in every case; these were not sampled.

All settings are explicit; nothing is taken from a model's generation_config.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmark.errors import InputError
from benchmark.storage.stages import Stage
from lm.backbone import merged_adapters
from lm.writing.decode import SharedPromptDecoder
from lm.writing.sampling import choose, penalised, stream_uniforms
from r2ec.model.network import Rollouts
from r2ec.model.prompts import ANSWER, answer_ids, turn_end_ids
from r2ec.settings import RolloutSettings

# What is written greedily for a prompt, and the states that have read it.
WRITING = Stage("writing", 1)


@dataclass(frozen=True)
class RolloutResult:
    """N = B * G rollouts, user by user, and how they came about. Tensors lie on the model's device."""

    rollouts: Rollouts  # prompts [B, P] and completions [N, T], both padded on the right; action_mask: sampled tokens
    lengths: Tensor  # int64 [N], completion tokens, an appended <answer> included
    # float32 [N, T], of sampled tokens at the temperature over the whole vocabulary, before any repetition penalty, 0 elsewhere.
    # None from vLLM, which gives those after penalty, top-k and top-p: compute them with the model.
    log_probs: Tensor | None
    cut: Tensor  # bool [N], <answer> had to be appended
    ended: Tensor  # bool [N], because the model ended its turn; cut and not ended: it met max_new_tokens
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
        """The N completions as text, up to and with `<answer>`."""
        rows = self.rollouts.completion_ids.tolist()
        return [_decode(tokenizer, row[:n]) for row, n in zip(rows, self.lengths.tolist(), strict=True)]


class EndOfReasoning:
    """Says where a completion ends and what is appended to it, for one tokenizer. The same for every engine."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.answer = answer_ids(tokenizer)
        self.turn_ends = frozenset(turn_end_ids(tokenizer))
        # Only a token with the last character of `<answer>` can complete it; it is ASCII, so that it reads the same in
        # the vocabulary of every kind of tokenizer. Spares decoding at each token.
        self.closing = frozenset(i for token, i in tokenizer.get_vocab().items() if ANSWER[-1] in token)

    def answered(self, ids: Sequence[int]) -> bool:
        """Whether the completion's last token makes its text contain `<answer>`."""
        return ids[-1] in self.closing and ANSWER in _decode(self.tokenizer, ids)

    def finish(self, ids: Sequence[int]) -> tuple[list[int], int, bool, bool]:
        """Sampled ids -> (completion ids, how many were sampled, cut, ended), for engines that stop by themselves."""
        for n in range(1, len(ids) + 1):
            if self.answered(ids[:n]):
                return list(ids[:n]), n, False, False
            if ids[n - 1] in self.turn_ends:
                return list(ids[:n]) + self.answer, n, True, True
        return list(ids) + self.answer, len(ids), True, False


class TransformersEngine:
    """Rollouts by the model itself, on one shared prompt cache per user (lm/writing/decode.py)."""

    def __init__(
        self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, settings: RolloutSettings
    ):
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.end = EndOfReasoning(tokenizer)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        cases: np.ndarray,
        seed: int,
        step: int = 0,
        final_states: bool = False,
    ) -> RolloutResult:
        """Write G completions for each of B prompts (token ids, none empty).

        Args:
            cases: int [B], the cases' numbers. With seed and step they name each rollout's random stream, so that a
                resumed run samples the same; the order and size of batches play no part (but for rounding).
            final_states: also read each completion's last token and return its state, which costs len(<answer>) steps.
        The model is put into evaluation mode and back; LoRA weights are as they were afterwards, bit by bit.
        """
        started = time.perf_counter()
        check_prompts(prompts, cases)
        settings = self.settings
        cases = np.asarray(cases)
        group, device = settings.group_size, self.model.device
        uniforms = stream_uniforms(seed, step, cases, group, settings.max_new_tokens)
        sheet = _Sheet(uniforms, self.end, final_states, repeated_to_one_length(prompts))
        users_at_once = max(1, settings.rows_at_once // group)
        # Similar lengths together: a batch's prompt caches are as long as its longest prompt.
        order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with merged_adapters(self.model, settings.merge_adapters) as causal_lm:
                for start in range(0, len(prompts), users_at_once):
                    users = order[start : start + users_at_once]
                    rows = (users[:, None] * group + np.arange(group)).reshape(-1)
                    with SharedPromptDecoder(causal_lm, group) as decoder:
                        self._write(decoder, [prompts[u] for u in users], rows, sheet)
        finally:
            for module, mode in modes:
                module.training = mode
        return sheet.result(prompts, pad_id(self.tokenizer), device, started)

    def _write(
        self, decoder: SharedPromptDecoder, prompts: list[Sequence[int]], rows: np.ndarray, sheet: "_Sheet"
    ) -> None:
        """One batch: read its prompts, then write token by token into these rows of the sheet until all have ended."""
        logits = decoder.prefill(prompts).repeat_interleave(self.settings.group_size, dim=0)
        at = 0
        while True:
            self._sample(logits, rows, at, sheet)
            if not sheet.wants_states:
                stays = sheet.ends[rows] == 0
                rows = _keep(decoder, rows, stays)
                if len(rows) == 0:
                    return
            logits = decoder.step(torch.from_numpy(sheet.ids[rows, at]).to(logits.device))
            at += 1
            if sheet.wants_states:
                stays = sheet.ends[rows] != at
                sheet.add_states(rows[~stays], decoder.states, ~stays)
                rows, logits = _keep(decoder, rows, stays), _pick(logits, stays)
                if len(rows) == 0:
                    return

    def _sample(self, logits: Tensor, rows: np.ndarray, at: int, sheet: "_Sheet") -> None:
        """Choose token `at` of those rows that have not ended; the others are being given their `<answer>`."""
        settings = self.settings
        is_open = sheet.ends[rows] == 0
        if not is_open.any():
            return
        logits, rows = _pick(logits, is_open), rows[is_open]
        less = None
        if settings.repetition_penalty != 1:
            seen = torch.from_numpy(sheet.seen(rows, settings.group_size, at)).to(logits.device)
            less = penalised(logits, seen, settings.repetition_penalty)
        tokens, logps = choose(
            logits,
            torch.from_numpy(sheet.uniforms[rows, at]).to(logits.device),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            greedy=settings.greedy,
            chosen_by=less,
        )
        sheet.add(rows, at, tokens.cpu().numpy(), logps.cpu().numpy())


class _Sheet:
    """What has been written so far, all rollouts of a call, in NumPy on the CPU."""

    def __init__(self, uniforms: np.ndarray, end: EndOfReasoning, wants_states: bool, prompts: np.ndarray) -> None:
        count, limit = uniforms.shape
        self.prompts = prompts  # int64 [users, P]
        self.uniforms, self.limit, self.end, self.wants_states = uniforms, limit, end, wants_states
        self.width = limit + len(end.answer)
        self.ids = np.zeros((count, self.width), dtype=np.int64)
        self.logps = np.zeros((count, self.width), dtype=np.float32)
        self.sampled = np.zeros(count, dtype=np.int64)
        self.ends = np.zeros(count, dtype=np.int64)  # completion lengths; 0: still being sampled
        self.cut = np.zeros(count, dtype=bool)
        self.ended = np.zeros(count, dtype=bool)
        self.states: dict[int, Tensor] = {}

    def add(self, rows: np.ndarray, at: int, tokens: np.ndarray, logps: np.ndarray) -> None:
        """Token `at` of these rows was sampled: end those that it completes, with `<answer>` where it is lacking."""
        self.ids[rows, at], self.logps[rows, at] = tokens, logps
        self.sampled[rows] = at + 1
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            if token in self.end.closing and self.end.answered(self.ids[row, : at + 1].tolist()):
                self.ends[row] = at + 1
            elif token in self.end.turn_ends or at + 1 == self.limit:
                self.cut[row], self.ended[row] = True, token in self.end.turn_ends
                self.ends[row] = at + 1 + len(self.end.answer)
                self.ids[row, at + 1 : self.ends[row]] = self.end.answer

    def seen(self, rows: np.ndarray, group: int, at: int) -> np.ndarray:
        """The tokens before token `at` of these rows, the prompt's and their own, int64 [rows, P + at]."""
        return np.concatenate([self.prompts[rows // group], self.ids[rows, :at]], axis=1)

    def add_states(self, rows: np.ndarray, states: Tensor | None, which: np.ndarray) -> None:
        """Store the states of these rows, the ones marked among the decoder's active rollouts."""
        if len(rows) == 0:
            return
        assert states is not None
        self.states.update(zip(rows.tolist(), _pick(states, which).float(), strict=True))

    def result(self, prompts: Sequence[Sequence[int]], pad: int, device: torch.device, started: float) -> RolloutResult:
        """All rollouts as tensors."""
        width = int(self.ends.max())
        at = np.arange(width)
        mask, sampled = at < self.ends[:, None], at < self.sampled[:, None]
        states = torch.stack([self.states[row] for row in range(len(self.ends))]) if self.wants_states else None
        return RolloutResult(
            rollouts=pack_rollouts(prompts, np.where(mask, self.ids[:, :width], pad), mask, sampled, pad, device),
            lengths=_tensor(self.ends, device),
            log_probs=_tensor(np.where(sampled, self.logps[:, :width], np.float32(0)), device),
            cut=_tensor(self.cut, device),
            ended=_tensor(self.ended, device),
            states=states,
            seconds=time.perf_counter() - started,
        )


def check_prompts(prompts: Sequence[Sequence[int]], cases: np.ndarray) -> None:
    """Raise InputError unless there is one non-empty prompt per case."""
    if len(prompts) == 0 or len(prompts) != len(cases):
        raise InputError(f"{len(prompts)} prompts for {len(cases)} cases; give one prompt to each of at least one case")
    if empty := [i for i, prompt in enumerate(prompts) if len(prompt) == 0]:
        raise InputError(f"the prompt of case {cases[empty[0]]} has no token; build it with PromptBuilder")


def repeated_to_one_length(prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """Prompts as one array, int64 [n, longest], shorter ones begun anew: no token stands there that a prompt hasn't."""
    longest = max(len(prompt) for prompt in prompts)
    return np.stack([np.resize(np.asarray(prompt, dtype=np.int64), longest) for prompt in prompts])


def _keep(decoder: SharedPromptDecoder, rows: np.ndarray, stays: np.ndarray) -> np.ndarray:
    """The rows that stay; the decoder drops the others, unless none stays."""
    if stays.any() and not stays.all():
        decoder.keep(torch.from_numpy(np.flatnonzero(stays)).to(decoder.model.device))
    kept: np.ndarray = rows[stays]
    return kept


def _pick(x: Tensor, which: np.ndarray) -> Tensor:
    """Rows of x where `which` is True, x itself if that is all."""
    return x if which.all() else x[torch.from_numpy(which).to(x.device)]


def pack_rollouts(
    prompts: Sequence[Sequence[int]],
    ids: np.ndarray,
    mask: np.ndarray,
    sampled: np.ndarray,
    pad: int,
    device: torch.device,
) -> Rollouts:
    """Rollouts as the model takes them, from prompts and padded completions [N, T]."""
    longest = max(len(prompt) for prompt in prompts)
    prompt_mask = np.arange(longest) < np.array([len(prompt) for prompt in prompts])[:, None]
    prompt_ids = np.full(prompt_mask.shape, pad, dtype=np.int64)
    prompt_ids[prompt_mask] = np.concatenate([np.asarray(prompt, dtype=np.int64) for prompt in prompts])
    return Rollouts(*(_tensor(x, device) for x in (prompt_ids, prompt_mask, ids, mask, sampled)))


def without_reasoning(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> Rollouts:
    """Prompts behind which nothing is written ("w/o Reasoning"): the state is the one that has read the prompt."""
    none = np.zeros((len(prompts), 0), dtype=bool)
    return replace(pack_rollouts(prompts, none.astype(np.int64), none, none, pad, device), action_mask=None)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's pad token. Raises InputError if it has none."""
    if tokenizer.pad_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no pad token; load it with lm.backbone")
    return int(tokenizer.pad_token_id)


def _tensor(x: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(x).to(device)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
