"""R2ec: one causal LM with two heads. `lm_head` writes the reasoning, `rec_head` scores every item by its last state.

What is shared is computed once, with gradients: the prompts' common beginning for the whole batch, a user's prompt for
its G rollouts, the item prompts' instruction for all items. tests/r2ec/test_model.py holds each to the
plain computation.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from benchmark.errors import InputError
from benchmark.storage.io import atomic
from lm.backbone import check_logits
from lm.kernels.token_logps import token_logps
from lm.writing.rollouts import Rollouts
from r2ec.model.rec_head import RecHead

WEIGHTS = "r2ec.safetensors"  # the name of what is trained in a model's folder

Pooling = Literal["last", "mean", "max", "special"]
POOLINGS: tuple[Pooling, ...] = ("last", "mean", "max", "special")
# A common beginning shorter than this is not worth a forward of its own.
SHORTEST_SHARED_BEGINNING = 8


@dataclass(frozen=True)
class ItemPrompts:
    """M items' prompts: a beginning that all share, and the rest of each, padded on the right."""

    beginning: Tensor  # int64 [C], may be empty
    ids: Tensor  # int64 [M, L]
    mask: Tensor  # bool [M, L], at least one True in each row


@dataclass(frozen=True)
class PolicyOutput:
    """What one forward gives. Everything but `entropy` carries gradients; all float32."""

    states: Tensor  # [N, d], h_T, pooled over the reasoning
    users: Tensor  # [N, m], h_T after the rec head's user map
    token_logps: Tensor | None  # [N, T], log pi(o_t | x_u, o_<t) at the temperature; 0 where no action is
    entropy: Tensor | None  # [N, T], nats, 0 where no action is; no graph
    item_states: Tensor | None  # [M, d], as they go into the item table
    items: Tensor | None  # [M, m], after the rec head's item map


class R2ec(nn.Module):
    """Wraps a causal LM (with or without peft's LoRA) of any family of Hugging Face transformers.

    Args:
        backbone: the LM. pooling: which state of the reasoning scores the items: `last` (paper), `mean`, `max` over the
            completion's tokens, or `special`: that of one more token, `special_token`, read after the reasoning.
        head: the rec head; by default none of its maps. cls_items: for the ablation "w/ ClsHead", the number of items
            of a free classification head nn.Linear(d, |V|), whose rows take the place of the item states.
        item_prior: float32 [V], what is added to the scores of the whole catalogue (`ranking.scores`).
        share_prefix: False repeats the prompt for every rollout, which gradient checkpointing needs: it can't keep a
            KV cache. Values and gradients are the same.
    Dropout makes shared and repeated prompts differ; the LoRA dropout has to be 0 for exactness.
    """

    def __init__(
        self,
        backbone: PreTrainedModel | PeftModel,
        *,
        pooling: Pooling = "last",
        special_token: int | None = None,
        head: RecHead | None = None,
        cls_items: int | None = None,
        share_prefix: bool = True,
        item_prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise InputError(f"no pooling {pooling!r}; known: {', '.join(POOLINGS)}")
        if (pooling == "special") != (special_token is not None):
            raise InputError(
                f"pooling {pooling!r} with special_token {special_token}: give it for 'special' and only then"
            )
        self.backbone = backbone
        causal = self.causal_lm
        self.dim: int = causal.config.hidden_size
        self.pooling = pooling
        self.special_token = special_token
        self.head = RecHead(self.dim) if head is None else head
        self.cls_head = None if cls_items is None else nn.Linear(self.dim, cls_items, bias=False)
        self.share_prefix = share_prefix
        # Not saved: it follows from the training cases.
        self.register_buffer("item_prior", item_prior, persistent=False)
        self.item_prior: Tensor | None
        # Only some families (Gemma 2) have a soft cap on their logits.
        self.softcap: float | None = causal.config.to_dict().get("final_logit_softcapping")
        check_logits(causal)

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The LM below peft's wrapper; adapters are inside its layers."""
        inner = self.backbone.get_base_model() if isinstance(self.backbone, PeftModel) else self.backbone
        return cast(PreTrainedModel, inner)

    # Shared prefixes

    def _run(self, ids: Tensor, mask: Tensor, cache: DynamicCache | None) -> Tensor:
        """Last hidden states [n, q, d] of ids [n, q] after what the cache holds; mask [n, cached + q]."""
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.causal_lm.get_decoder()(
            input_ids=ids,
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        states: Tensor = out.last_hidden_state
        return states

    @property
    def _shares(self) -> bool:
        # Gradient checkpointing, the reason not to share, is only active in training.
        return self.share_prefix or not self.training

    def new_cache(self) -> DynamicCache:
        """An empty KV cache of the backbone's layer types. Raises InputError under gradient checkpointing."""
        if self.causal_lm.is_activation_checkpointing and self.training:
            raise InputError("gradient checkpointing can't keep a KV cache; set share_prefix to false to use it")
        return DynamicCache(config=self.causal_lm.config)

    def prefill(self, ids: Tensor, mask: Tensor, room: int) -> tuple[Tensor, DynamicCache, Tensor]:
        """Read B prompts, their common beginning once.

        Args: ids, mask [B, P], padded on either side; room: how many tokens will follow.
        Returns the last token's state [B, d], the cache, and the mask [B, P'] of what it holds. Gradients flow through.
        """
        cache = self.new_cache()
        windows = [layer.sliding_window for layer in cache.layers if isinstance(layer, DynamicSlidingWindowLayer)]
        packed, packed_mask = _pad(ids, mask, "right")
        common = _common_beginning(packed, packed_mask)
        # With the beginning split off, padding lies in the middle. A sliding window counts it, so that the window must
        # be wide enough to hold everything.
        fits = packed.shape[1] + room <= min(windows, default=packed.shape[1] + room)
        if common < SHORTEST_SHARED_BEGINNING or not fits:
            ids, mask = _pad(ids, mask, "left")
            return self._run(ids, mask, cache)[:, -1], cache, mask
        self._run(packed[:1, :common], packed_mask[:1, :common], cache)
        cache = fork(cache, len(ids))
        ids, ending_mask = _pad(packed[:, common:], packed_mask[:, common:], "left")
        mask = torch.cat([ending_mask.new_ones(len(ids), common), ending_mask], dim=1)
        return self._run(ids, mask, cache)[:, -1], cache, mask

    def _read(self, rollouts: Rollouts, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States before and after each completion token, [N, T, d] each: the one predicts it, the other has read it."""
        group = len(ids) // len(rollouts.prompt_ids)
        if self._shares:
            last, cache, seen = self.prefill(rollouts.prompt_ids, rollouts.prompt_mask, ids.shape[1])
            last = last.repeat_interleave(group, dim=0)[:, None]
            seen = torch.cat([seen.repeat_interleave(group, dim=0), mask], dim=1)
            after = self._run(ids, seen, fork(cache, group))
        else:
            whole, seen, width = repeat_prompts(rollouts, ids, mask)
            states = self._run(whole, seen, None)
            last, after = states[:, width - 1 : width], states[:, width:]
        return torch.cat([last, after[:, :-1]], dim=1), after

    def encode_items(self, items: ItemPrompts, cache: DynamicCache | None = None) -> Tensor:
        """The last token's state of each item prompt, [M, d], with gradients where they are on.

        `cache` may hold the beginning already read, as `read_beginning` gives it.
        """
        count, common = len(items.ids), len(items.beginning)
        mask = torch.cat([items.mask.new_ones(count, common), items.mask], dim=1)
        if common == 0 or not self._shares:
            states = self._run(torch.cat([items.beginning.expand(count, -1), items.ids], dim=1), mask, None)[:, common:]
        else:
            cache = self.read_beginning(items.beginning) if cache is None else cache
            states = self._run(items.ids, mask, fork(cache, count))
        return _last(states, items.mask)

    def read_beginning(self, ids: Tensor) -> DynamicCache:
        """The cache (batch 1) of a beginning, int64 [C], C >= 1, to be forked for what continues it."""
        cache = self.new_cache()
        self._run(ids[None], torch.ones_like(ids[None], dtype=torch.bool), cache)
        return cache

    # The two heads

    def forward(
        self,
        rollouts: Rollouts,
        *,
        temperature: float = 1.0,
        items: ItemPrompts | None = None,
        item_rows: Tensor | None = None,
    ) -> PolicyOutput:
        """Everything that one update differentiates, in one call, as DistributedDataParallel wants it.

        Args:
            rollouts: prompts and completions. temperature: that of the sampling. items: prompts of the batch's targets.
            item_rows: int64 [M], the targets' numbers, in place of `items`, for the classification head.
        Raises InputError for shapes or masks that disagree.
        """
        _check(rollouts, temperature)
        ids, mask = self.completions(rollouts)
        if ids.shape[1] == 0:
            prompts = _pad(rollouts.prompt_ids, rollouts.prompt_mask, "left")
            last = self.prefill(*prompts, 0)[0] if self._shares else self._run(*prompts, None)[:, -1]
            states, logps, entropy = last.float(), None, None
        else:
            before, after = self._read(rollouts, ids, mask)
            states = self.pool(after, mask).float()
            logps, entropy = self._token_logps(before, rollouts, temperature)
        item_states = None if items is None else self.encode_items(items).float()
        return PolicyOutput(
            states=states,
            users=self.head.user(states),
            token_logps=logps,
            entropy=entropy,
            item_states=item_states,
            items=self._item_vectors(item_states, item_rows),
        )

    def _item_vectors(self, states: Tensor | None, rows: Tensor | None) -> Tensor | None:
        if self.cls_head is None:
            return None if states is None else self.head.item(states)
        return None if rows is None else self.cls_head.weight[rows].float()

    def completions(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """Completion ids and mask, with the special token behind each where the pooling wants it."""
        ids, mask = rollouts.completion_ids, rollouts.completion_mask
        if self.special_token is None:
            return ids, mask
        end = mask.sum(dim=1, keepdim=True)
        ids = torch.cat([ids, ids.new_zeros(len(ids), 1)], dim=1).scatter(1, end, self.special_token)
        mask = torch.cat([mask, mask.new_zeros(len(mask), 1)], dim=1).scatter(1, end, True)
        return ids, mask

    def pool(self, after: Tensor, mask: Tensor) -> Tensor:
        """h_T [N, d] from the states [N, T, d] that have read the completion's tokens."""
        if self.pooling in ("last", "special"):
            return _last(after, mask)
        if self.pooling == "mean":
            # Summed in float32: hundreds of bf16 states would lose digits.
            return (after.float() * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return after.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)

    def _token_logps(
        self, before: Tensor, rollouts: Rollouts, temperature: float
    ) -> tuple[Tensor | None, Tensor | None]:
        """log pi and entropy [N, T] of the sampled tokens, from the states that predict them."""
        if rollouts.action_mask is None:
            return None, None
        actions = rollouts.action_mask
        chosen = before[:, : actions.shape[1]][actions]
        head = self.causal_lm.get_output_embeddings()
        logps, entropy = token_logps(chosen, head, rollouts.completion_ids[actions], temperature, self.softcap)
        empty = logps.new_zeros(actions.shape)
        return empty.masked_scatter(actions, logps), empty.masked_scatter(actions, entropy)

    @torch.no_grad()
    def catalogue(self, states: Tensor) -> Tensor:
        """Item vectors of the whole catalogue, float32 [V, m], from the item table's states [V, d], without a graph."""
        return self.cls_head.weight.float() if self.cls_head is not None else self.head.item(states)

    # What training changes

    def own_state(self) -> dict[str, Tensor]:
        """What training changes: trainable parameters (LoRA, heads) and the rec head's shift and scale."""
        state: dict[str, Tensor] = {name: value for name, value in self.named_parameters() if value.requires_grad}
        # Not by state_dict, at which FSDP cuts the weights into pieces.
        state |= {f"head.{name}": value for name, value in (*self.head.named_parameters(), *self.head.named_buffers())}
        return {name: value.detach().contiguous() for name, value in state.items()}

    def save(self, path: str | Path) -> None:
        """Write `own_state` as safetensors, atomically."""
        with atomic(path) as temporary:
            save_file(self.own_state(), temporary)

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote into a model of the same settings. Raises InputError where names or shapes differ."""
        own, saved = self.own_state(), load_file(path)
        if wrong := sorted(own.keys() ^ saved.keys()):
            raise InputError(f"{path}: {wrong[0]!r} is in only one of file and model; load it with the run's settings")
        for name, value in own.items():
            if value.shape != saved[name].shape:
                shapes = f"{list(saved[name].shape)} in the file, {list(value.shape)} in the model"
                raise InputError(f"{path}: {name!r} is {shapes}; load it with the run's settings")
            value.copy_(saved[name])


def fork(cache: DynamicCache, times: int) -> DynamicCache:
    """A cache whose every row stands `times` times in a row, for continuations that leave `cache` as it is.

    Gradients of all copies add up in the original. A batch of one is expanded without copying.
    """
    branch = copy.copy(cache)
    branch.layers = []
    for layer in cache.layers:
        if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
            raise InputError(f"a {type(layer).__name__} of the KV cache can't be shared; set share_prefix to false")
        twig = copy.copy(layer)
        if len(layer.keys) == 1:
            twig.keys, twig.values = (x.expand(times, -1, -1, -1) for x in (layer.keys, layer.values))
        elif times > 1:
            twig.batch_repeat_interleave(times)
        branch.layers.append(twig)
    return branch


def _pad(ids: Tensor, mask: Tensor, side: Literal["left", "right"]) -> tuple[Tensor, Tensor]:
    """Move all padding to one side, and cut the columns that are padding in every row."""
    longest = int(mask.sum(dim=1).max())
    order = (mask if side == "left" else ~mask).long().argsort(dim=1, stable=True)
    order = order[:, -longest:] if side == "left" else order[:, :longest]
    return ids.gather(1, order), mask.gather(1, order)


def _common_beginning(ids: Tensor, mask: Tensor) -> int:
    """How many first tokens all rows (padded on the right) share, leaving each at least one; 0 for a single row."""
    if len(ids) == 1:
        return 0
    same = (ids == ids[:1]).all(dim=0) & mask.all(dim=0)
    return min(int(same.long().cumprod(dim=0).sum()), int(mask.sum(dim=1).min()) - 1)


def repeat_prompts(rollouts: Rollouts, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, int]:
    """Prompt and completion of every rollout in one row, its mask, and the prompts' width."""
    group = len(ids) // len(rollouts.prompt_ids)
    prompts, prompt_mask = _pad(rollouts.prompt_ids, rollouts.prompt_mask, "left")
    whole = torch.cat([prompts.repeat_interleave(group, dim=0), ids], dim=1)
    return whole, torch.cat([prompt_mask.repeat_interleave(group, dim=0), mask], dim=1), prompts.shape[1]


def _last(states: Tensor, mask: Tensor) -> Tensor:
    """The state of each row's last real token, [n, q, d] -> [n, d], rows padded on the right."""
    return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]


def _check(rollouts: Rollouts, temperature: float) -> None:
    """Raise InputError for rollouts whose shapes or masks disagree."""
    prompts, completions = rollouts.prompt_mask, rollouts.completion_mask
    if not temperature > 0:
        raise InputError(
            f"temperature {temperature} must be above 0: log-probabilities are those of the sampling policy"
        )
    if len(completions) == 0 or len(completions) % len(prompts) != 0:
        raise InputError(f"{len(completions)} completions do not divide among {len(prompts)} prompts; pass B * G rows")
    if completions.shape[1] == 0 and len(completions) != len(prompts):
        raise InputError("completions of length 0 need one row per prompt; set the group size to 1")
    if not bool(prompts.any(dim=1).all()) or (completions.shape[1] > 0 and not bool(completions.any(dim=1).all())):
        raise InputError("a prompt or completion has no token; leave that row out")
    if bool((completions.long().diff(dim=1) > 0).any()):
        raise InputError("completions must be padded on the right only; move their padding")
    actions = rollouts.action_mask
    if actions is not None and (actions.shape != completions.shape or bool((actions & ~completions).any())):
        raise InputError("action_mask marks a token that completion_mask does not; pass a subset of it")
