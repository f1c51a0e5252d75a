"""Writes with transformers, on CPU or GPU: G completions per prompt, each up to where the stopping rule ends it.

All settings are explicit; nothing is taken from a model's generation_config.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmark.storage.stages import Stage
from lm.backbone import merged_adapters
from lm.settings import RolloutSettings
from lm.writing.decode import SharedPromptDecoder
from lm.writing.packed import PackedForward
from lm.writing.rollouts import RolloutResult, check_prompts, on_device, pack_rollouts, pad_id
from lm.writing.sampling import choose, penalised, stream_uniforms
from lm.writing.stopping import EndOfTurn

# The tokens that are written greedily for a prompt, and the states that have read them.
WRITING = Stage("writing", 1)


class TransformersEngine:
    """Rollouts by the model itself, on one shared prompt cache per user (lm/writing/decode.py).

    Args:
        end: where a text ends, such as `EndOfTurn(tokenizer)`.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: RolloutSettings,
        end: EndOfTurn,
    ) -> None:
        self.model, self.tokenizer, self.settings, self.end = model, tokenizer, settings, end

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
            final_states: also read each completion's last token and return its state, which costs a step
                for each token that is appended, and one more.
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
                packed = PackedForward.of(causal_lm, with_head=True)  # for all batches: the weights stay as they are
                for start in range(0, len(prompts), users_at_once):
                    users = order[start : start + users_at_once]
                    rows = (users[:, None] * group + np.arange(group)).reshape(-1)
                    with SharedPromptDecoder(causal_lm, group, packed=packed) as decoder:
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
        """Choose token `at` of the rows that have not ended; the others are reading what was appended to them."""
        settings = self.settings
        is_open = sheet.ends[rows] == 0
        if not is_open.any():
            return
        logits, rows = _pick(logits, is_open), rows[is_open]
        penalised_logits = None
        if settings.repetition_penalty != 1:
            seen = torch.from_numpy(sheet.seen(rows, settings.group_size, at)).to(logits.device)
            penalised_logits = penalised(logits, seen, settings.repetition_penalty)
        tokens, logps = choose(
            logits,
            torch.from_numpy(sheet.uniforms[rows, at]).to(logits.device),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            greedy=settings.greedy,
            chosen_by=penalised_logits,
        )
        sheet.add(rows, at, tokens.cpu().numpy(), logps.cpu().numpy())


class _Sheet:
    """All rollouts of one call, as far as they are written, in NumPy on the CPU."""

    def __init__(self, uniforms: np.ndarray, end: EndOfTurn, wants_states: bool, prompts: np.ndarray) -> None:
        count, limit = uniforms.shape
        self.prompts = prompts  # int64 [users, P]
        self.uniforms, self.limit, self.end, self.wants_states = uniforms, limit, end, wants_states
        self.width = limit + len(end.appended)
        self.ids = np.zeros((count, self.width), dtype=np.int64)
        self.logps = np.zeros((count, self.width), dtype=np.float32)
        self.sampled = np.zeros(count, dtype=np.int64)
        self.ends = np.zeros(count, dtype=np.int64)  # completion lengths; 0: still being sampled
        self.cut = np.zeros(count, dtype=bool)
        self.ended = np.zeros(count, dtype=bool)
        self.states: dict[int, Tensor] = {}

    def add(self, rows: np.ndarray, at: int, tokens: np.ndarray, logps: np.ndarray) -> None:
        """Token `at` of these rows was sampled: end those that it completes, appending what they lack."""
        self.ids[rows, at], self.logps[rows, at] = tokens, logps
        self.sampled[rows] = at + 1
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            if self.end.is_complete(self.ids[row, : at + 1].tolist()):
                self.ends[row] = at + 1
            elif token in self.end.turn_ends or at + 1 == self.limit:
                self.cut[row], self.ended[row] = True, token in self.end.turn_ends
                self.ends[row] = at + 1 + len(self.end.appended)
                self.ids[row, at + 1 : self.ends[row]] = self.end.appended

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
            lengths=on_device(self.ends, device),
            log_probs=on_device(np.where(sampled, self.logps[:, :width], np.float32(0)), device),
            cut=on_device(self.cut, device),
            ended=on_device(self.ended, device),
            states=states,
            seconds=time.perf_counter() - started,
        )


def repeated_to_one_length(prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """Prompts as one array, int64 [n, longest]. A shorter one is repeated, so that its row has no token but its own."""
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
