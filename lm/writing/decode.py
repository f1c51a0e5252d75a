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
from lm.writing.packed import PackedForward
from lm.writing.scores import AttentionSettings

ATTENTION = "shared_prompt"
# Arguments that models hand to every attention function and that say nothing which packed rows don't already say.
KNOWN_ARGUMENTS = frozenset({"position_ids", "use_cache", "output_attentions", "is_causal", "cache_position"})
# Copying the caches costs about as much as a step's attention to them: only done when at least a quarter is freed.
REPACK_BELOW = 0.75
# A rollout's own cache grows by this many tokens at a time.
CHUNK = 16
# Prompt tokens per forward: enough rows for the matrix products, few enough that activations stay in the caches.
PROMPT_TOKENS_AT_ONCE = 2048


class _Attender(Protocol):
    """Computes the attention of a layer: `_Prefill` while prompts are read, `_Step` while tokens are written."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, settings: AttentionSettings) -> Tensor: ...


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    shared: _Attender,
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
    return shared.attend(layer, query, key, value, AttentionSettings(scaling, softcap, sliding_window)), None


AttentionInterface.register(ATTENTION, _attention)


class _Prefill:
    """Attention while prompts are read: `common` shared tokens, then each prompt's rest. Fills the prompt caches.

    The prompts are read in pieces, `common` with the first.
    """

    def __init__(self, common: int, rests: list[int]) -> None:
        self.common, self.rests = common, rests
        self.keys: list[Tensor] = []  # per layer [U, Hkv, P, D], padded on the right with zeros
        self.values: list[Tensor] = []
        self.users = range(0)  # those of the present piece
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, settings: AttentionSettings) -> Tensor:
        _, heads, n, dim = q.shape
        common = self.common
        if layer == len(self.keys):
            shape = (len(self.rests), k.shape[1], common + max(self.rests), dim)
            self.keys.append(k.new_zeros(shape))
            self.values.append(v.new_zeros(shape))
        keys, values = self.keys[layer], self.values[layer]
        out = q.new_empty(1, n, heads, dim)
        start = 0
        if self.users[0] == 0 and common:
            keys[:, :, :common], values[:, :, :common] = k[:, :, :common], v[:, :, :common]
            part = self._attend_one_prompt(q[:, :, :common], k[:, :, :common], v[:, :, :common], settings)
            out[:, :common] = part.transpose(1, 2)
            start = common
        for user in self.users:
            own, end = slice(start, start + self.rests[user]), common + self.rests[user]
            keys[user, :, common:end], values[user, :, common:end] = k[0, :, own], v[0, :, own]
            part = self._attend_one_prompt(
                q[:, :, own], keys[user : user + 1, :, :end], values[user : user + 1, :, :end], settings
            )
            out[:, own] = part.transpose(1, 2)
            start = own.stop
        return out

    def _attend_one_prompt(self, q: Tensor, k: Tensor, v: Tensor, settings: AttentionSettings) -> Tensor:
        """Causal attention of one prompt's last q tokens to its k tokens, [1, H, q, D]."""
        repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        window = settings.window if settings.window is not None and settings.window < k.shape[2] else None
        whole = q.shape[2] == k.shape[2] and window is None
        mask = None if whole and settings.softcap is None else self._mask(q, k.shape[2], window)
        if settings.softcap is None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=whole, scale=settings.scaling)
        assert mask is not None
        scores = settings.scores(q[0].contiguous(), k[0].contiguous(), mask.expand(q.shape[1], -1, -1))
        return torch.bmm(scores.softmax(dim=-1), v[0])[None]

    def _mask(self, q: Tensor, total: int, window: int | None) -> Tensor:
        """[queries, total], q's dtype, 0 where the last `queries` of `total` tokens may look and -inf elsewhere."""
        queries = q.shape[2]
        if (mask := self._masks.get((queries, total, window))) is None:
            at = torch.arange(total - queries, total, device=q.device)[:, None]
            seen = torch.arange(total, device=q.device)[None]
            hidden = (seen > at) if window is None else (seen > at) | (seen <= at - window)
            mask = q.new_zeros(queries, total).masked_fill_(hidden, -torch.inf)
            self._masks[queries, total, window] = mask
        return mask


class _Step:
    """Attention of one new token per active rollout. Rollouts lie in a grid [users, group]; `slots` says where.

    All active rollouts have written equally many tokens. Caches are contiguous, since products of strided matrices
    begin by copying them: a rollout's own grows by CHUNK tokens at a time, its unwritten end is masked.
    """

    def __init__(self, prefill: _Prefill, group: int, device: torch.device) -> None:
        self.prompt_keys, self.prompt_values = prefill.keys, prefill.values
        self.lengths = torch.tensor([prefill.common + rest for rest in prefill.rests], device=device)
        self.users, self.group = len(prefill.rests), group
        self.keys: list[Tensor] = []  # per layer [users, Hkv, group, room, D], room a multiple of CHUNK
        self.values: list[Tensor] = []
        self.slots = torch.arange(self.users * group, device=device)  # of each active rollout, ascending
        self.written = 0
        self._prompt_masks: dict[int | None, Tensor | None] = {}

    def positions(self) -> Tensor:
        """The position of each active rollout's new token, int64 [active]."""
        return self.lengths[self.slots // self.group] + self.written

    def advance(self) -> None:
        """The new tokens are now written."""
        self.written += 1
        self._prompt_masks = {window: mask for window, mask in self._prompt_masks.items() if window is None}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, settings: AttentionSettings) -> Tensor:
        _, heads, rows, dim = q.shape
        users, group, kv_heads = self.users, self.group, k.shape[1]
        repeats = heads // kv_heads
        self._write(layer, k, v)
        own_keys, own_values = self.keys[layer], self.values[layer]
        # A group's queries are the rows of one product with its user's prompt.
        q = self._grid(q).view(users, group, kv_heads, repeats, dim).transpose(1, 2).contiguous()
        shape = (users, kv_heads, group, repeats, -1)
        prompt_mask = self._prompt_mask(settings.window, kv_heads, group * repeats, q.dtype)
        to_prompt = settings.scores(
            q.view(users * kv_heads, -1, dim), self.prompt_keys[layer].flatten(0, 1), prompt_mask
        )
        to_own = settings.scores(q.view(-1, repeats, dim), own_keys.flatten(0, 2), None)
        to_own[..., self.written + 1 :] = -torch.inf
        if settings.window is not None and self.written >= settings.window:
            to_own[..., : self.written - settings.window + 1] = -torch.inf
        # The softmax of a low-precision tensor is computed in float32.
        weights = torch.cat([to_prompt.view(shape), to_own.view(shape)], dim=-1).softmax(dim=-1)
        width = to_prompt.shape[-1]
        on_prompt = weights[..., :width].reshape(users * kv_heads, -1, width)
        on_own = weights[..., width:].reshape(users * kv_heads * group, repeats, -1)
        out = torch.bmm(on_prompt, self.prompt_values[layer].flatten(0, 1)).view(shape)
        out = out + torch.bmm(on_own, own_values.flatten(0, 2)).view(shape)
        out = out.transpose(1, 2).reshape(users * group, heads, dim)
        return (out if rows == users * group else out[self.slots])[None]

    def _write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Append the new tokens' keys and values, [1, Hkv, active, D], to the rollouts' caches."""
        for store, new in ((self.keys, k), (self.values, v)):
            if layer == len(store):
                store.append(new.new_zeros(self.users, new.shape[1], self.group, CHUNK, new.shape[3]))
            elif self.written == store[layer].shape[3]:
                store[layer] = F.pad(store[layer], (0, 0, 0, CHUNK))
            store[layer][:, :, :, self.written] = self._grid(new).transpose(1, 2)

    def _grid(self, x: Tensor) -> Tensor:
        """[1, heads, active, D] -> [users, group, heads, D], zeros where no rollout is."""
        rows = x[0].transpose(0, 1)
        if len(rows) < self.users * self.group:
            rows = rows.new_zeros(self.users * self.group, *rows.shape[1:]).index_copy_(0, self.slots, rows)
        return rows.reshape(self.users, self.group, *rows.shape[1:])

    def _prompt_mask(self, window: int | None, kv_heads: int, queries: int, dtype: torch.dtype) -> Tensor | None:
        """[users * Hkv, queries, P], -inf where a query must not look in the prompt, else 0; None: all 0."""
        width = self.prompt_keys[0].shape[2]
        if window is not None and width + self.written < window:
            window = None
        if window not in self._prompt_masks:
            seen = torch.arange(width, device=self.lengths.device)
            hidden = seen >= self.lengths[:, None]
            if window is not None:
                hidden |= seen <= self.lengths[:, None] + self.written - window
            mask = None
            if bool(hidden.any()):
                mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
                mask = mask[:, None, None].expand(-1, kv_heads, queries, -1).flatten(0, 1).contiguous()
            self._prompt_masks[window] = mask
        return self._prompt_masks[window]

    def keep(self, rows: Tensor) -> None:
        """Drop all active rollouts but these, int64 [m] ascending, m >= 1; copy the caches where that frees enough."""
        self.slots = self.slots[rows]
        users, of_user, counts = torch.unique(self.slots // self.group, return_inverse=True, return_counts=True)
        if len(users) * int(counts.max()) <= REPACK_BELOW * self.users * self.group:
            self._repack(users, of_user)

    def fork(self, rows: Tensor) -> None:
        """Go on with copies of these active rollouts, int64 [m], m >= 1, users ascending, repeats allowed."""
        self.slots = self.slots[rows]
        users, of_user = torch.unique(self.slots // self.group, return_inverse=True)
        if len(users) > REPACK_BELOW * self.users:  # copying the prompts' caches would cost more than it frees
            of_user, users = users[of_user], torch.arange(self.users, device=users.device)
        self._repack(users, of_user)

    def _repack(self, users: Tensor, of_user: Tensor) -> None:
        """A new grid of these users, int64 ascending; rollout i, in slots[i], is of users[of_user[i]], ascending."""
        counts = torch.bincount(of_user, minlength=len(users))
        group = int(counts.max())
        first = counts.cumsum(dim=0) - counts
        new = of_user * group + torch.arange(len(self.slots), device=self.slots.device) - first[of_user]
        # A slot without a rollout gets another one's, which nothing reads: one copy, and no zeros before it.
        old = (
            self.slots[first.clamp(max=len(self.slots) - 1)]
            .repeat_interleave(group)
            .index_copy_(0, new, self.slots)
            .view(len(users), 1, group)
        )
        rows: dict[int, Tensor] = {}  # of a cache as [users * Hkv * group, ...], by Hkv
        for heads in {cache.shape[1] for cache in self.keys}:
            head = torch.arange(heads, device=old.device)[:, None]
            rows[heads] = ((old // self.group * heads + head) * self.group + old % self.group).flatten()
        for store in (self.keys, self.values):
            for layer, cache in enumerate(store):
                packed = cache.flatten(0, 2).flatten(1).index_select(0, rows[cache.shape[1]])
                store[layer] = packed.view(len(users), cache.shape[1], group, *cache.shape[3:])
        if len(users) < self.users:
            self.lengths = self.lengths[users]
            longest = int(self.lengths.max())
            for store in (self.prompt_keys, self.prompt_values):
                for layer, cache in enumerate(store):
                    store[layer] = cache[users, :, :longest].contiguous()
        self.slots, self.users, self.group = new, len(users), group
        self._prompt_masks.clear()


class _FewTokens(nn.Module):
    """An lm_head's logits of some tokens alone, float32 also where the LM is bf16.

    bf16 has steps of 1/16 to 1/8 where the logits of an LM's best tokens lie, so that different tokens get equal ones.
    """

    def __init__(self, head: nn.Module, tokens: Tensor) -> None:
        super().__init__()
        assert isinstance(head, nn.Linear)
        tokens = tokens.to(head.weight.device)
        self.register_buffer("weight", head.weight.detach()[tokens].float(), persistent=False)
        self.register_buffer(
            "bias", None if head.bias is None else head.bias.detach()[tokens].float(), persistent=False
        )
        self.weight: Tensor
        self.bias: Tensor | None

    def forward(self, states: Tensor) -> Tensor:
        return F.linear(states.float(), self.weight, self.bias)


class SharedPromptDecoder:
    """Prefill, then a token at a time for G rollouts of each of U prompts. A context manager; use it without gradients.

    Args:
        model: a causal LM in evaluation mode, adapters merged or not. group: G. tokens: int64 [n], those whose logits
            are wanted, float32 whatever the model's dtype is; None: all of the vocabulary, in the model's dtype.
        packed: the model on packed weights, with lm_head unless `tokens` are given; None: its own forward runs.
    Raises InputError for a model with layers other than full or sliding-window attention.
    """

    def __init__(
        self, model: PreTrainedModel, group: int, tokens: Tensor | None = None, packed: PackedForward | None = None
    ) -> None:
        types = set(model.config.to_dict().get("layer_types") or ["full_attention"])
        if unknown := sorted(types - {"full_attention", "sliding_attention"}):
            raise InputError(
                f"{model.config.model_type}: rollouts don't know its layers of type {unknown[0]!r}; use vllm"
            )
        self.model, self.group, self.tokens, self._packed = model, group, tokens, packed
        self.states: Tensor | None = None  # [rows, d], the last call's states, before lm_head

    def __enter__(self) -> Self:
        self._attention = self.model.config._attn_implementation
        self.model.set_attn_implementation(ATTENTION)
        if self.model.config._attn_implementation != ATTENTION:
            raise InputError(f"{self.model.config.model_type}: its attention can't be replaced for rollouts; use vllm")
        head = self._head = self.model.get_output_embeddings()
        if self.tokens is not None:  # what the model does with its logits, such as a soft cap, stays
            head = _FewTokens(head, self.tokens)
            self.model.set_output_embeddings(head)
        self._hook = head.register_forward_pre_hook(self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hook.remove()
        if self.tokens is not None:
            self.model.set_output_embeddings(self._head)
        self.model.set_attn_implementation(self._attention)

    def _remember(self, head: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self.states = arguments[0][0]

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read U prompts, their common beginning once; logits of each one's next token, [U, n or |vocabulary|]."""
        device = self.model.device
        common = common_beginning(prompts)
        shared = _Prefill(common, [len(prompt) - common for prompt in prompts])
        logits = []
        first = 0
        while first < len(prompts):
            end, size = first + 1, shared.rests[first]
            while end < len(prompts) and size + shared.rests[end] <= PROMPT_TOKENS_AT_ONCE:
                size, end = size + shared.rests[end], end + 1
            shared.users = range(first, end)
            opening = common if first == 0 else 0
            packed = list(prompts[0][:opening]) + [token for u in shared.users for token in prompts[u][common:]]
            places = list(range(opening)) + [at for u in shared.users for at in range(common, len(prompts[u]))]
            last = torch.tensor(shared.rests[first:end], device=device).cumsum(dim=0) + opening - 1
            ids, positions = (torch.tensor([values], device=device) for values in (packed, places))
            logits.append(self._forward(ids, positions, shared, logits_to_keep=last))
            if len(shared.keys) != self.model.config.num_hidden_layers:
                raise InputError(f"{self.model.config.model_type}: a layer attends in a way of its own; use vllm")
            first = end
        self._step = _Step(shared, self.group, device)
        return torch.cat(logits)

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token of each active rollout, int64 [rows]; logits of the next, [rows, n or |vocabulary|]."""
        logits = self._forward(tokens[None], self._step.positions()[None], self._step)
        self._step.advance()
        return logits

    def keep(self, rows: Tensor) -> None:
        """Go on with these of the active rollouts only, int64 [m], ascending indices into the present ones, m >= 1."""
        self._step.keep(rows)

    def fork(self, rows: Tensor) -> None:
        """Go on with copies of these active rollouts, as beams do: int64 [m], m >= 1, indices into the present ones.

        The rows of a user stand together, users in their order: before the first fork G rows of each user, after it
        those of the last call.
        """
        self._step.fork(rows)

    def _forward(
        self, ids: Tensor, positions: Tensor, shared: _Attender, logits_to_keep: Tensor | None = None
    ) -> Tensor:
        """Logits [rows, n or |vocabulary|] of these places of the packed row [1, tokens]; None: of all."""
        if self._packed is None:
            keep = 0 if logits_to_keep is None else logits_to_keep
            out = self.model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=keep, shared=shared)
            logits: Tensor = out.logits[0]
            return logits
        states = self._packed.states(ids[0], positions[0], shared.attend)
        self.states = states = states if logits_to_keep is None else states[logits_to_keep]
        if self.tokens is None:
            return self._packed.logits(states)
        few: Tensor = self.model.get_output_embeddings()(states[None])[0]
        return few


def common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts share, leaving at least one token to each.

    >>> common_beginning([[1, 2, 3], [1, 2, 4, 5]]), common_beginning([[7, 8], [7, 8]])
    (2, 1)
    """
    lowest, highest = min(list(prompt) for prompt in prompts), max(list(prompt) for prompt in prompts)
    shared = 0
    for a, b in zip(lowest, highest, strict=False):
        if a != b:
            break
        shared += 1
    return min(shared, min(len(prompt) for prompt in prompts) - 1)
