"""Compares rollouts, update and item table with r2ec/speed/plain.py, and checks that both do the same."""

import time
from typing import Any

import torch
from torch import Tensor

from benchmark.contract import Split
from lm.kernels.attention import use_grouped_attention
from lm.kernels.lora import FusedLora
from lm.writing.engine import TransformersEngine
from r2ec.model.prompts import end_of_reasoning
from r2ec.speed import plain
from r2ec.speed.limits import Limits
from r2ec.speed.work import Pair, Size, Work, in_turns, paired, relative

# What is compared in float32, so that rounding hides nothing: few users and tokens, as it takes four times as long.
CHECKED = Size(users=3, new_tokens=8)


class Layers:
    """Switches a model between our layers and the libraries'.

    Ours: the fused LoRA and, on a CPU, the attention that `Reader.build` sets. The libraries': peft's LoRA and sdpa.
    """

    def __init__(self, work: Work) -> None:
        self.model = work.reader.model.causal_lm
        self.ours = self.model.config._attn_implementation

    def plain(self) -> None:
        FusedLora.fused = False
        self.model.set_attn_implementation("sdpa")

    def own(self) -> None:
        FusedLora.fused = True
        if self.ours == "grouped":
            use_grouped_attention(self.model)


def rollouts(work: Work, limits: Limits, check: Work) -> Pair:
    """G sampled completions for each user: the shared prompt cache against `generate(num_return_sequences=G)`."""
    layers, end = Layers(work), work.reader.prompts.tokenizer.eos_token_id
    gflop, seconds = 0.0, 0.0

    def ours(turn: int) -> float:
        nonlocal gflop, seconds
        layers.own()
        result = work.engine.generate(work.prompts, cases=work.cases.case, seed=turn)
        gflop, seconds = _gflop_of_rollouts(work, result.sampled_tokens), result.seconds
        return result.sampled_tokens

    def by_generate(turn: int) -> float:
        layers.plain()
        torch.manual_seed(turn)
        return plain.written(plain.generate(work), end)

    rates = in_turns("rollouts", ours, by_generate, work.size.repeats)
    return paired(
        rates,
        part="rollouts",
        plain_way="generate(num_return_sequences=G)",
        unit="tokens",
        target=3.5,
        share_of_matmul=gflop / seconds / limits.gflops(work.dtype),
        check=_same_greedy_tokens(check),
    )


def _gflop_of_rollouts(work: Work, sampled: int) -> float:
    """Every prompt token and every sampled token once, logits where one was sampled."""
    prompt_tokens = sum(len(prompt) for prompt in work.prompts)
    return (prompt_tokens + sampled) * work.gflop_per_token() + sampled * work.gflop_of_logits()


def _same_greedy_tokens(check: Work) -> str:
    """Greedy completions of both ways in float32, up to the end token."""
    layers, tokenizer = Layers(check), check.reader.prompts.tokenizer
    settings = check.params.rollouts.for_evaluation()
    engine = TransformersEngine(check.reader.model.backbone, tokenizer, settings, end_of_reasoning(tokenizer))
    rollouts = engine.generate(check.prompts, cases=check.cases.case, seed=0).rollouts
    layers.plain()
    expected = plain.generate(check, greedy=True)
    layers.own()
    assert rollouts.action_mask is not None
    width = min(expected.shape[1], rollouts.completion_ids.shape[1])
    sampled = rollouts.action_mask[:, :width]
    equal = int((rollouts.completion_ids[:, :width] == expected[:, :width])[sampled].sum())
    return f"{equal} of {int(sampled.sum())} greedy tokens equal (float32)"


def update(work: Work, limits: Limits, check: Work) -> Pair:
    """Loss and gradients of one RecPO update."""
    layers = Layers(work)
    tokens = float(_tokens(work))
    seconds = 0.0

    def ours(turn: int) -> float:
        nonlocal seconds
        layers.own()
        started = time.perf_counter()
        our_update(work)
        seconds = time.perf_counter() - started
        return tokens

    def repeated(turn: int) -> float:
        layers.plain()
        plain.update(work)
        return tokens

    rates = in_turns("update", ours, repeated, work.size.repeats)
    # Forward, and backward to the activations: the frozen weights' own gradients aren't computed.
    assert work.rollouts.action_mask is not None
    logits = int(work.rollouts.action_mask.sum()) * work.gflop_of_logits()
    return paired(
        rates,
        part="update",
        plain_way="prompt repeated per rollout, logits of every position",
        unit="tokens",
        target=2.5,
        share_of_matmul=2 * (tokens * work.gflop_per_token() + logits) / seconds / limits.gflops(work.dtype),
        check=_same_gradients(check),
    )


def _tokens(work: Work) -> int:
    """Tokens that one update has to read: each user's prompt once, each completion, each target's prompt."""
    distinct, items = work.items
    rollouts = work.rollouts
    return int(
        rollouts.prompt_mask.sum()
        + rollouts.completion_mask.sum()
        + items.mask.sum()
        + len(items.beginning) * (len(distinct) > 0)
    )


def our_update(work: Work) -> float:
    """The shared-prefix update as the trainer does it. Returns the loss; gradients stay in the model."""
    model = work.reader.model.train()
    model.zero_grad()
    distinct, items = work.items
    out = model(work.rollouts, temperature=work.params.rollouts.temperature, items=items)
    loss = plain.loss_of(work, out, out.items, distinct, slice(0, work.size.users), work.rollouts)
    loss.backward()
    return float(loss.detach())


def _same_gradients(check: Work) -> str:
    layers, model = Layers(check), check.reader.model
    losses, gradients = [], []
    for run_update in (our_update, plain.update):
        layers.own() if run_update is our_update else layers.plain()
        result: Any = run_update(check)
        losses.append(result if run_update is our_update else result[0])
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    layers.own()
    loss = abs(losses[0] - losses[1]) / abs(losses[1])
    return f"loss {loss:.1e}, gradient {relative(*gradients):.1e} apart (float32)"


def item_table(work: Work, limits: Limits, check: Work) -> Pair:
    """Every item's state."""
    layers, table = Layers(work), work.reader.table
    seconds = 0.0

    def ours(turn: int) -> float:
        nonlocal seconds
        layers.own()
        started = time.perf_counter()
        table.refresh(work.reader.model)
        seconds = time.perf_counter() - started
        return len(table)

    def in_catalogue_order(turn: int) -> float:
        layers.plain()
        plain.item_table(work)
        return len(table)

    rates = in_turns("item table", ours, in_catalogue_order, work.size.repeats)
    return paired(
        rates,
        part="item table",
        plain_way=f"batches of {plain.ITEMS_AT_ONCE} whole prompts in catalogue order",
        unit="items",
        target=2.0,
        share_of_matmul=table.tokens * work.gflop_per_token() / seconds / limits.gflops(work.dtype),
        check=_same_states(check),
    )


def items_again(work: Work, limits: Limits, check: Work) -> Pair:
    """Every item's state once more, with adapters in the upper half of the layers, as after a training of them."""
    backbone = work.params.backbone
    half = int(work.reader.model.causal_lm.config.num_hidden_layers) // 2
    upper = Work(work.split, backbone.name, work.size, backbone.dtype, layers_from=half)
    model, table = upper.reader.model, upper.reader.table
    apart = 0.0

    def ours(turn: int) -> float:
        table.refresh(model)
        return len(table)

    def by_all_layers(turn: int) -> float:
        nonlocal apart
        again = table.states.clone()
        table.refresh_rows(model, torch.arange(len(table)))
        apart = max(apart, relative(again, table.states))
        return len(table)

    rates = in_turns("item table again", ours, by_all_layers, work.size.repeats)
    return paired(
        rates,
        part="item table again",
        plain_way="all layers read it",
        unit="items",
        target=1.5,
        share_of_matmul=None,
        check=f"states of {len(table)} items {apart:.1e} apart ({str(upper.dtype).removeprefix('torch.')})",
    )


@torch.no_grad()
def _same_states(check: Work, items: int = 96) -> str:
    layers, model = Layers(check), check.reader.model
    some = torch.arange(min(items, len(check.reader.table)))
    check.reader.table.refresh_rows(model, some)
    layers.plain()
    prompts = check.reader.prompts.item_prompts()
    expected: Tensor = plain.item_states(
        model.eval(), [prompts[v] for v in some.tolist()], check.reader.prompts.tokenizer.pad_token_id
    )
    layers.own()
    apart = relative(check.reader.table.states[some], expected)
    return f"states of {len(some)} items {apart:.1e} apart (float32)"


def check_work(split: Split, backbone: str) -> Work:
    """The small float32 work that the checks compare on."""
    return Work(split, backbone, CHECKED, dtype="float32")
