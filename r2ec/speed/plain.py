"""The plain way to do each part, as one writes it with transformers: no prefix shared, nothing sorted or packed.

It is spared what a careful user would spare it: an inference of one position asks for the logits of that position only,
and an update that would not fit into memory goes through in parts, with the very gradients of the whole.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lm.kernels.token_logps import chosen_and_entropy
from lm.writing.rollouts import Rollouts
from r2ec.model.network import PolicyOutput, R2ec, repeat_prompts
from r2ec.recpo.objective import item_logps, recpo_loss
from r2ec.speed.work import Work

USERS_AT_ONCE = 2  # of an update: 8 rows with whole logits need about 5 GB
ITEMS_AT_ONCE = 64


def plain_policy(model: R2ec, rollouts: Rollouts, temperature: float = 1.0) -> PolicyOutput:
    """What `forward` computes, the plain way: prompts repeated per rollout, logits at every position over the whole
    vocabulary."""
    ids, mask = model.completions(rollouts)
    whole, seen, width = repeat_prompts(rollouts, ids, mask)
    positions = (seen.long().cumsum(dim=1) - 1).clamp(min=0)
    out = model.causal_lm(
        input_ids=whole, attention_mask=seen.long(), position_ids=positions, output_hidden_states=True, use_cache=False
    )
    states = model.pool(out.hidden_states[-1][:, width:], mask).float()
    logps = entropy = None
    if rollouts.action_mask is not None:
        actions, length = rollouts.action_mask, rollouts.completion_ids.shape[1]
        logits = out.logits[:, width - 1 : width - 1 + length].float() / temperature
        chosen, spread = chosen_and_entropy(logits.flatten(0, 1), rollouts.completion_ids.flatten())
        logps, entropy = chosen.reshape(actions.shape) * actions, spread.reshape(actions.shape) * actions
    return PolicyOutput(states, model.head.user(states), logps, entropy, None, None)


def left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """ids and mask, int64 [B, P]."""
    rows = [torch.tensor(prompt) for prompt in prompts]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    return ids, mask


@torch.no_grad()
def generate(work: Work, greedy: bool = False) -> Tensor:
    """Completions [B * G, T] by `generate`, padded behind the end token."""
    tokenizer, settings = work.reader.prompts.tokenizer, work.params.rollouts
    ids, mask = left_padded(work.prompts, tokenizer.pad_token_id)
    sampling = (
        {"do_sample": False}
        if greedy
        else {"do_sample": True, "temperature": settings.temperature, "top_k": settings.top_k, "top_p": 1.0}
    )
    model = work.reader.model.eval().backbone
    sequences = model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=settings.max_new_tokens,
        num_return_sequences=1 if greedy else settings.group_size,
        pad_token_id=tokenizer.pad_token_id,
        **sampling,
    )
    completions: Tensor = sequences[:, ids.shape[1] :]
    return completions


def written(completions: Tensor, end: int) -> int:
    """How many tokens were sampled: up to and with the first end token."""
    ended = completions == end
    lengths = torch.where(ended.any(dim=1), ended.int().argmax(dim=1) + 1, completions.shape[1])
    return int(lengths.sum())


def update(work: Work) -> tuple[float, PolicyOutput]:
    """Loss and gradients of one RecPO update: prompts per rollout, logits of every position, item prompts whole.

    Returns the loss and the last part's output.
    """
    model, group = work.reader.model.train(), work.size.group
    model.zero_grad()
    distinct, _ = work.items
    prompts = work.reader.prompts.item_prompts()
    states = item_states(model, [prompts[v] for v in distinct.tolist()], work.reader.prompts.tokenizer.pad_token_id)
    # Every part of the batch scores the same items: their gradient is gathered and sent back once.
    leaf = states.detach().requires_grad_()
    total = 0.0
    for start in range(0, work.size.users, USERS_AT_ONCE):
        users = slice(start, min(start + USERS_AT_ONCE, work.size.users))
        out, loss = _part(work, model, users, group, leaf, distinct)
        loss.backward()
        total += float(loss.detach())
    assert leaf.grad is not None
    states.backward(leaf.grad)
    return total, out


def _part(
    work: Work, model: R2ec, users: slice, group: int, items: Tensor, distinct: Tensor
) -> tuple[PolicyOutput, Tensor]:
    whole, rows = work.rollouts, slice(users.start * group, users.stop * group)
    assert whole.action_mask is not None
    part = Rollouts(
        whole.prompt_ids[users],
        whole.prompt_mask[users],
        whole.completion_ids[rows],
        whole.completion_mask[rows],
        whole.action_mask[rows],
    )
    out = plain_policy(model, part, work.params.rollouts.temperature)
    return out, loss_of(work, out, model.head.item(items), distinct, users, part)


def loss_of(work: Work, out: PolicyOutput, items: Tensor, distinct: Tensor, users: slice, rollouts: Rollouts) -> Tensor:
    """RecPO's loss of some of the batch's users, as their share of the whole batch's."""
    recpo = work.params.recpo
    targets = work.targets[users].repeat_interleave(work.size.group)
    logps = item_logps(out.users, targets, items, distinct, tau=recpo.tau, normalize=recpo.normalize)
    assert out.token_logps is not None and rollouts.action_mask is not None
    parts = recpo_loss(
        out.token_logps,
        None,
        rollouts.action_mask,
        logps,
        None,
        work.advantages[users],
        eps=recpo.epsilon,
        users=work.size.users,
    )
    return parts.loss


def item_states(model: R2ec, prompts: Sequence[Sequence[int]], pad: int) -> Tensor:
    """States of whole item prompts, float32 [M, d], with gradients where they are on."""
    ids, mask = left_padded(prompts, pad)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    out = model.causal_lm(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        output_hidden_states=True,
        logits_to_keep=1,
        use_cache=False,
    )
    states: Tensor = out.hidden_states[-1][:, -1].float()
    return states


@torch.no_grad()
def item_table(work: Work) -> Tensor:
    """All items in catalogue order, float32 [V, d]."""
    model = work.reader.model.eval()
    prompts, pad = work.reader.prompts.item_prompts(), work.reader.prompts.tokenizer.pad_token_id
    parts = [
        item_states(model, prompts[start : start + ITEMS_AT_ONCE], pad)
        for start in range(0, len(prompts), ITEMS_AT_ONCE)
    ]
    return torch.cat(parts)
