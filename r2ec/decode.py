"""Decoding the G rollouts of each user on one shared cache of the user's prompt, with any Hugging Face causal LM.

The LM's own forward runs; only its attention function is replaced, through transformers' AttentionInterface, while a
decoder is open. All tokens of a call lie in one packed row without padding: in the prefill the prompts' common
beginning, then the rest of each prompt; in a step one token per active rollout. Attention is softmax over
[the user's prompt | the rollout's own tokens], the same sum as over one long cache, so nothing is approximated: the
families' soft cap (Gemma 2) and sliding windows are applied, and what isn't known here is refused.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from benchmark.errors import InputError

ATTENTION = "r2ec_shared_prompt"
# Arguments that models hand to every attention function and that say nothing which packed rows don't already say.
KNOWN_ARGUMENTS = frozenset({"position_ids", "use_cache", "output_attentions", "is_causal", "cache_position"})
# Copying the caches costs about as much as a step's attention to them: only done when at least a quarter is freed.
REPACK_BELOW = 0.75


class _Attends(Protocol):
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, how: "_How") -> Tensor: ...


class _How:
    """How a layer attends: scale of the scores, soft cap, and window (all None or float/int as the LM gives them)."""

    def __init__(self, scaling: float, softcap: float | None, window: int | None) -> None:
        self.scaling, self.softcap, self.window = scaling, softcap, window

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Scaled and capped q k^T, in q's dtype."""
        scores = torch.matmul(q, k.transpose(-1, -2)).mul_(self.scaling)
        if self.softcap is not None:
            scores = scores.div_(self.softcap).tanh_().mul_(self.softcap)
        return scores


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    shared: _Attends,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function of every layer: query [1, H, n, D], key and value [1, Hkv, n, D] -> [1, n, H, D]."""
    if unknown := [name for name, value in others.items() if value is not None and name not in KNOWN_ARGUMENTS]:
        raise InputError(
            f"{type(module).__name__}: rollouts don't know its attention argument {unknown[0]!r}; use vllm"
        )
    if dropout:
        raise InputError(f"{type(module).__name__}: rollouts need a model in evaluation mode, got dropout {dropout}")
    layer: int = module.layer_idx  # type: ignore[assignment]
    return shared.attend(layer, query, key, value, _How(scaling, softcap, sliding_window)), None


AttentionInterface.register(ATTENTION, _attention)


class _Prefill:
    """Attention while prompts are read: `common` shared tokens, then each prompt's rest. Fills the prompt caches."""

    def __init__(self, common: int, rests: list[int]) -> None:
        self.common, self.rests = common, rests
        self.keys: list[Tensor] = []  # per layer [U, Hkv, P, D], padded on the right with zeros
        self.values: list[Tensor] = []
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, how: _How) -> Tensor:
        _, heads, n, dim = q.shape
        common = self.common
        longest = common + max(self.rests)
        shape = (len(self.rests), k.shape[1], longest, dim)
        keys, values = k.new_zeros(shape), v.new_zeros(shape)
        out = q.new_empty(1, n, heads, dim)
        if common:
            keys[:, :, :common], values[:, :, :common] = k[:, :, :common], v[:, :, :common]
            part = self._one(q[:, :, :common], k[:, :, :common], v[:, :, :common], how)
            out[:, :common] = part.transpose(1, 2)
        start = common
        for user, rest in enumerate(self.rests):
            own, end = slice(start, start + rest), common + rest
            keys[user, :, common:end], values[user, :, common:end] = k[0, :, own], v[0, :, own]
            part = self._one(q[:, :, own], keys[user : user + 1, :, :end], values[user : user + 1, :, :end], how)
            out[:, own] = part.transpose(1, 2)
            start += rest
        # Layers are called once each and in order.
        assert layer == len(self.keys), "the model calls its layers out of order"
        self.keys.append(keys)
        self.values.append(values)
        return out

    def _one(self, q: Tensor, k: Tensor, v: Tensor, how: _How) -> Tensor:
        """Causal attention of one prompt's last q tokens to its k tokens, [1, H, q, D]."""
        repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        window = how.window if how.window is not None and how.window < k.shape[2] else None
        whole = q.shape[2] == k.shape[2] and window is None
        if how.softcap is None:
            mask = None if whole else self._mask(q.shape[2], k.shape[2], window, q.device)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=whole, scale=how.scaling)
        scores = how.scores(q, k).masked_fill(~self._mask(q.shape[2], k.shape[2], window, q.device), -torch.inf)
        return torch.matmul(scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype), v)

    def _mask(self, queries: int, total: int, window: int | None, device: torch.device) -> Tensor:
        """bool [queries, total]: which of `total` tokens the last `queries` of them may see."""
        if (found := self._masks.get((queries, total, window))) is None:
            at = torch.arange(total - queries, total, device=device)[:, None]
            seen = torch.arange(total, device=device)[None]
            found = (seen <= at) if window is None else (seen <= at) & (seen > at - window)
            self._masks[queries, total, window] = found
        return found


class _Step:
    """Attention of one new token per active rollout. Rollouts lie in a grid [users, group]; `slots` says where.

    All active rollouts have written the same number of tokens.
    """

    def __init__(self, prefill: _Prefill, group: int, room: int, device: torch.device) -> None:
        self.prompt_keys, self.prompt_values = prefill.keys, prefill.values
        self.lengths = torch.tensor([prefill.common + rest for rest in prefill.rests], device=device)
        self.users, self.group, self.room = len(prefill.rests), group, room
        self.keys: list[Tensor] = []  # per layer [users, Hkv, group, room, D]
        self.values: list[Tensor] = []
        self.slots = torch.arange(self.users * group, device=device)  # of each active rollout, ascending
        self.written = 0
        self._masks: dict[int | None, tuple[Tensor | None, Tensor | None]] = {}

    def positions(self) -> Tensor:
        """The position of each active rollout's new token, int64 [active]."""
        return self.lengths[self.slots // self.group] + self.written

    def advance(self) -> None:
        """The new tokens are now written."""
        self.written += 1
        self._masks.clear()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, how: _How) -> Tensor:
        _, heads, rows, dim = q.shape
        kv_heads, users, group = k.shape[1], self.users, self.group
        if layer == len(self.keys):
            for store in (self.keys, self.values):
                store.append(k.new_zeros(users, kv_heads, group, self.room, dim))
        now = self.written
        self.keys[layer][:, :, :, now] = self._grid(k).transpose(1, 2)
        self.values[layer][:, :, :, now] = self._grid(v).transpose(1, 2)
        own_keys, own_values = self.keys[layer][:, :, :, : now + 1], self.values[layer][:, :, :, : now + 1]
        # A group's queries are the rows of one product with its user's prompt: [users, Hkv, group * H / Hkv, D].
        repeats = heads // kv_heads
        q = self._grid(q).view(users, group, kv_heads, repeats, dim).permute(0, 2, 1, 3, 4).contiguous()
        to_prompt = how.scores(q.flatten(2, 3), self.prompt_keys[layer]).unflatten(2, (group, repeats))
        to_own = how.scores(q, own_keys)
        prompt_mask, own_mask = self._mask(how.window)
        if prompt_mask is not None:
            to_prompt.masked_fill_(prompt_mask, -torch.inf)
        if own_mask is not None:
            to_own.masked_fill_(own_mask, -torch.inf)
        weights = torch.cat([to_prompt, to_own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(v.dtype)
        width = to_prompt.shape[-1]
        out = torch.matmul(weights[..., :width].flatten(2, 3), self.prompt_values[layer]).unflatten(2, (group, repeats))
        out = out.add_(torch.matmul(weights[..., width:], own_values))
        out = out.permute(0, 2, 1, 3, 4).reshape(users * group, heads, dim)
        return (out if rows == users * group else out[self.slots])[None]

    def _grid(self, x: Tensor) -> Tensor:
        """[1, heads, active, D] -> [users, group, heads, D], zeros where no rollout is."""
        rows = x[0].transpose(0, 1)
        if len(rows) < self.users * self.group:
            rows = rows.new_zeros(self.users * self.group, *rows.shape[1:]).index_copy_(0, self.slots, rows)
        return rows.reshape(self.users, self.group, *rows.shape[1:])

    def _mask(self, window: int | None) -> tuple[Tensor | None, Tensor | None]:
        """True where a query must not look: bool [users, 1, 1, 1, P] in the prompt, bool [written + 1] in its own tokens."""
        if window not in self._masks:
            width = self.prompt_keys[0].shape[2]
            seen = torch.arange(width, device=self.lengths.device)
            prompt = seen >= self.lengths[:, None]
            own = None
            if window is not None and width + self.written >= window:
                prompt |= seen <= self.lengths[:, None] + self.written - window
                written = torch.arange(self.written + 1, device=self.lengths.device)
                own = written <= self.written - window
            self._masks[window] = (prompt[:, None, None, None] if bool(prompt.any()) else None, own)
        return self._masks[window]

    def keep(self, rows: Tensor) -> None:
        """Go on with these of the active rollouts, int64 [m] ascending, m >= 1; copy the caches where that frees enough."""
        self.slots = self.slots[rows]
        users, of_user, counts = torch.unique(self.slots // self.group, return_inverse=True, return_counts=True)
        group = int(counts.max())
        if len(users) * group > REPACK_BELOW * self.users * self.group:
            return
        first = counts.cumsum(dim=0) - counts
        member = torch.arange(len(self.slots), device=self.slots.device) - first[of_user]
        old = (self.slots // self.group, self.slots % self.group)
        for store in (self.keys, self.values):
            for layer, cache in enumerate(store):
                packed = cache.new_zeros(len(users), cache.shape[1], group, self.room, cache.shape[4])
                packed[of_user, :, member] = cache[old[0], :, old[1]]
                store[layer] = packed
        self.lengths = self.lengths[users]
        longest = int(self.lengths.max())
        for store in (self.prompt_keys, self.prompt_values):
            for layer, cache in enumerate(store):
                store[layer] = cache[users, :, :longest].contiguous()
        self.slots, self.users, self.group = of_user * group + member, len(users), group
        self._masks.clear()


class SharedPromptDecoder:
    """Prefill, then one token at a time for G rollouts of each of U prompts. Use as a context manager, without gradients.

    Args:
        model: a causal LM in evaluation mode, adapters merged or not. room: the most tokens that will be written.
    Raises InputError for a model with other than full or sliding-window attention layers.
    """

    def __init__(self, model: PreTrainedModel, group: int, room: int) -> None:
        types = set(model.config.to_dict().get("layer_types") or ["full_attention"])
        if unknown := sorted(types - {"full_attention", "sliding_attention"}):
            raise InputError(
                f"{model.config.model_type}: rollouts don't know its layers of type {unknown[0]!r}; use vllm"
            )
        self.model, self.group, self.room = model, group, room
        self.states: Tensor | None = None  # [rows, d], the last call's states, before lm_head

    def __enter__(self) -> Self:
        self._attention = self.model.config._attn_implementation
        self.model.set_attn_implementation(ATTENTION)
        head = self.model.get_output_embeddings()
        self._hook = head.register_forward_pre_hook(self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hook.remove()
        self.model.set_attn_implementation(self._attention)

    def _remember(self, head: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.states = arguments[0][0]

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read U prompts, their common beginning once; logits of each one's next token, [U, |vocabulary|]."""
        device = self.model.device
        common = common_beginning(prompts)
        packed = list(prompts[0][:common]) + [token for prompt in prompts for token in prompt[common:]]
        positions = list(range(common)) + [at for prompt in prompts for at in range(common, len(prompt))]
        rests = [len(prompt) - common for prompt in prompts]
        shared = _Prefill(common, rests)
        last = torch.tensor(rests, device=device).cumsum(dim=0) + common - 1
        ids, positions_ = (torch.tensor([values], device=device) for values in (packed, positions))
        logits = self._forward(ids, positions_, shared, logits_to_keep=last)
        self._step = _Step(shared, self.group, self.room, device)
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token of each active rollout, int64 [rows]; logits of the next, [rows, |vocabulary|]."""
        logits = self._forward(tokens[None], self._step.positions()[None], self._step)
        self._step.advance()
        return logits

    def keep(self, rows: Tensor) -> None:
        """Go on with these of the active rollouts only, int64 [m], ascending indices into the present ones, m >= 1."""
        self._step.keep(rows)

    def _forward(self, ids: Tensor, positions: Tensor, shared: _Attends, logits_to_keep: Tensor | int = 0) -> Tensor:
        out = self.model(
            input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=logits_to_keep, shared=shared
        )
        logits: Tensor = out.logits[0]
        return logits


def common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts share, leaving at least one token to each.

    >>> common_beginning([[1, 2, 3], [1, 2, 4, 5]]), common_beginning([[7, 8], [7, 8]])
    (2, 1)
    """
    lowest, highest = min(prompts), max(prompts)
    shared = 0
    for a, b in zip(lowest, highest, strict=False):
        if a != b:
            break
        shared += 1
    return min(shared, min(len(prompt) for prompt in prompts) - 1)
