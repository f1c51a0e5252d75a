"""Writes for one user after the other, as somebody who waits for each answer wants it: what they share is kept.

The weights are packed once and not at every call, and the beginning of all prompts, such as an instruction, is read
once. A text's last token and what is appended to it are read together, and no logits are computed behind them. One text
has one cache, so that torch's fused attention serves it. On processors without products in bf16 those of several rows
are computed in float32 (lm/writing/packed.py).

Sums are therefore taken in another order than in a batch: states differ by what bf16 rounds, and a token may be another
one where two are nearly as probable. tests/lm/test_one_user.py holds both to float32 and to the batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm.settings import RolloutSettings
from lm.writing.engine import Sheet, TransformersEngine
from lm.writing.packed import PackedForward
from lm.writing.scores import AttentionSettings
from lm.writing.stopping import EndOfTurn


class OneUserEngine(TransformersEngine):
    """For one prompt and one text with its state at a time; all else, and every LM that isn't packed, goes as before.

    Args:
        beginning: tokens with which prompts begin; a prompt that begins otherwise is read whole.
    The model's weights have to stay as they are from its making on.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: RolloutSettings,
        end: EndOfTurn,
        beginning: Sequence[int],
    ) -> None:
        super().__init__(model, tokenizer, settings, end)
        self._packed: PackedForward | None = None
        if not settings.merge_adapters:  # merged weights are there during a call alone
            causal_lm = model.get_base_model() if isinstance(model, PeftModel) else model
            assert isinstance(causal_lm, PreTrainedModel)
            self._packed = PackedForward.of(causal_lm, with_head=True, or_in_float32=True)
        self._beginning = list(beginning)
        self._kept: _Text | None = None  # with the beginning alone
        if self._packed is not None and self._beginning:
            self._kept = _Text(len(self._beginning))
            with torch.no_grad():
                self._kept.read(self._packed, self._beginning)

    @torch.no_grad()
    def state(self, prompt: Sequence[int]) -> Tensor | None:
        """The state that has read a prompt, float32 [1, d]; None where the LM isn't packed."""
        packed = self._serving(len(prompt))
        return None if packed is None else self._begun(packed, prompt, len(prompt))[1][-1:].float()

    def _serving(self, tokens: int) -> PackedForward | None:
        """The packed LM, unless it isn't, or a layer looks back through a window that this many tokens may fill."""
        packed = self._packed
        return None if packed is None or any(window <= tokens for window in packed.windows()) else packed

    def _begun(self, packed: PackedForward, prompt: Sequence[int], room: int) -> tuple["_Text", Tensor]:
        """A text that has read the prompt, and the states of what wasn't read before."""
        text, known = _Text(room), len(self._beginning)
        if self._kept is None or len(prompt) <= known or list(prompt[:known]) != self._beginning:
            known = 0
        else:
            text.begin_as(self._kept)
        return text, text.read(packed, list(prompt[known:]))

    def _write_all(self, causal_lm: PreTrainedModel, prompts: Sequence[Sequence[int]], sheet: Sheet) -> None:
        room = len(prompts[0]) + sheet.width
        alone = len(prompts) == 1 and self.settings.group_size == 1 and sheet.wants_states
        packed = self._serving(room) if alone else None
        if packed is None:
            super()._write_all(causal_lm, prompts, sheet)
            return
        text, states = self._begun(packed, prompts[0], room)
        row, at = np.zeros(1, dtype=np.int64), 0
        while True:
            self._sample(packed.logits(states[-1:]), row, at, sheet)
            if sheet.ends[0]:
                break
            states = text.read(packed, [int(sheet.ids[0, at])])
            at += 1
        states = text.read(packed, sheet.ids[0, at : sheet.ends[0]].tolist())
        sheet.add_states(row, states[-1:], np.ones(1, dtype=bool))


class _Text:
    """The keys and values of one text, with room for so many tokens, and how far it is read."""

    def __init__(self, room: int) -> None:
        self.room, self.length = room, 0
        self.keys: list[Tensor] = []  # per layer [1, Hkv, room, D]
        self.values: list[Tensor] = []

    def begin_as(self, other: "_Text") -> None:
        """Go on from where the other is, which stays as it is."""
        for own, others in ((self.keys, other.keys), (self.values, other.values)):
            own.extend(F.pad(cache[:, :, : other.length], (0, 0, 0, self.room - other.length)) for cache in others)
        self.length = other.length

    def read(self, packed: PackedForward, tokens: list[int]) -> Tensor:
        """The states of these next tokens, [n, d]."""
        ids = torch.tensor(tokens)
        states = packed.states(ids, torch.arange(self.length, self.length + len(tokens)), self._attend)
        self.length += len(tokens)
        return states

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, settings: AttentionSettings) -> Tensor:
        count = q.shape[2]
        end = self.length + count
        for store, new in ((self.keys, k), (self.values, v)):
            if layer == len(store):
                store.append(new.new_zeros(1, new.shape[1], self.room, new.shape[3]))
            store[layer][:, :, self.length : end] = new
        mask = None
        if count > 1 and self.length:
            mask = torch.ones(count, end, dtype=torch.bool).tril_(self.length)
        seen = F.scaled_dot_product_attention(
            q,
            self.keys[layer][:, :, :end],
            self.values[layer][:, :, :end],
            attn_mask=mask,
            is_causal=count > 1 and not self.length,
            scale=settings.scaling,
            enable_gqa=True,
        )
        return seen.transpose(1, 2)
