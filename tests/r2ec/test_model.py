"""The shared-prefix forward against the plain computation: values and gradients, three families, every strategy."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GraniteConfig

from benchmark.errors import InputError
from lm.kernels import attention
from lm.kernels.attention import use_grouped_attention
from lm.writing.rollouts import Rollouts
from r2ec.model.item_table import ItemTable
from r2ec.model.network import PolicyOutput, R2ec
from r2ec.model.rec_head import RecHead
from r2ec.recpo.objective import HEAD_UPDATES, HeadUpdate, group_advantages, item_logps, recpo_loss
from r2ec.speed.plain import plain_policy
from tests.support.tiny_models import FAMILIES, VOCABULARY, WIDTH, relative, tiny_model, tiny_rollouts

TOLERANCE = 1e-4


def gradients(model: R2ec, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def weighted(out: PolicyOutput) -> Tensor:
    """A loss that weighs every state and log-probability differently."""
    assert out.token_logps is not None
    parts = (out.users, out.token_logps)
    return torch.stack([(part * torch.linspace(-1, 1, part.numel()).reshape(part.shape)).sum() for part in parts]).sum()


def assert_same(model: R2ec, shared: Callable[[], PolicyOutput], expected: Callable[[], PolicyOutput]) -> None:
    outs = [shared(), expected()]
    for name in ("states", "users", "token_logps", "entropy"):
        assert relative(getattr(outs[0], name), getattr(outs[1], name)) < TOLERANCE, name
    grads = [gradients(model, weighted(out)) for out in outs]
    assert grads[0].keys() == grads[1].keys()
    assert len(grads[0]) > 0
    for name, value in grads[1].items():
        assert relative(grads[0][name], value) < TOLERANCE, name


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_prefix_equals_plain(family: str, lora: bool) -> None:
    model = R2ec(tiny_model(family, lora))
    rollouts = tiny_rollouts()
    assert_same(model, lambda: model(rollouts, temperature=1.5), lambda: plain_policy(model, rollouts, 1.5))


@pytest.mark.parametrize("block", [256, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_grouped_attention_equals_eager(family: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "QUERIES_AT_ONCE", block)
    expected, grouped = (R2ec(tiny_model(family)) for _ in range(2))
    expected.causal_lm.set_attn_implementation("eager")
    use_grouped_attention(grouped.causal_lm)
    rollouts = tiny_rollouts()
    outs = [model(rollouts) for model in (grouped, expected)]
    assert relative(outs[0].token_logps, outs[1].token_logps) < 1e-5
    grads = [gradients(model, weighted(out)) for model, out in zip((grouped, expected), outs, strict=True)]
    for name, value in grads[1].items():
        assert relative(grads[0][name], value) < TOLERANCE, name
    with torch.no_grad():  # another kernel
        outs = [model(rollouts) for model in (grouped, expected)]
    assert relative(outs[0].token_logps, outs[1].token_logps) < 1e-5
    assert relative(outs[0].states, outs[1].states) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_repeated_prompts_under_gradient_checkpointing(family: str) -> None:
    model = R2ec(tiny_model(family), share_prefix=False).train()
    rollouts = tiny_rollouts()
    plain = plain_policy(model, rollouts)
    model.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same(model, lambda: model(rollouts), lambda: plain)
    model.share_prefix = True
    with pytest.raises(InputError, match="set share_prefix to false"):
        model(rollouts)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rollout_equals_its_own_forward_without_padding(family: str) -> None:
    model = R2ec(tiny_model(family)).eval()
    rollouts = tiny_rollouts()
    with torch.no_grad():
        out = model(rollouts, temperature=0.7)
    assert out.token_logps is not None and rollouts.action_mask is not None
    for n in range(len(rollouts.completion_ids)):
        prompt = rollouts.prompt_ids[n // 4][rollouts.prompt_mask[n // 4]]
        written = rollouts.completion_ids[n][rollouts.completion_mask[n]]
        whole = torch.cat([prompt, written])[None]
        with torch.no_grad():
            plain = model.causal_lm(input_ids=whole, output_hidden_states=True)
        assert relative(out.states[n], plain.hidden_states[-1][0, -1]) < TOLERANCE
        logps = (plain.logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1).gather(1, written[:, None])[:, 0]
        actions = rollouts.action_mask[n]
        assert torch.allclose(out.token_logps[n][actions], logps[actions[: len(written)]], rtol=1e-4, atol=1e-4)
        assert float(out.token_logps[n][~actions].abs().sum()) == 0


def item_table() -> ItemTable:
    random = torch.Generator().manual_seed(5)
    beginning = torch.randint(3, VOCABULARY, (9,), generator=random).tolist()
    endings = [torch.randint(3, VOCABULARY, (1 + v % 4,), generator=random).tolist() for v in range(7)]
    return ItemTable([beginning + ending for ending in endings], WIDTH)


@pytest.mark.parametrize("how", HEAD_UPDATES)
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_of_every_strategy_equal_the_plain_ones(family: str, how: HeadUpdate) -> None:
    """The whole update, the item side included: everything shared against everything plain."""
    model = R2ec(tiny_model(family), head=RecHead(WIDTH, "free"))
    rollouts, table = tiny_rollouts(), item_table()
    ids, targets = torch.tensor([4, 0, 4]), torch.tensor([4, 0, 4]).repeat_interleave(4)
    rewards = torch.rand(3, 4, generator=torch.Generator().manual_seed(2))
    noise = 0.3 * torch.randn(rollouts.completion_ids.shape, generator=torch.Generator().manual_seed(4))

    def loss(out: PolicyOutput, items: Tensor) -> Tensor:
        assert out.token_logps is not None and rollouts.action_mask is not None
        item = item_logps(out.users, targets, items, ids, tau=0.1)
        # Old log-probabilities that differ: the ratios are real and some are clipped.
        old = (out.token_logps.detach() + noise, item.detach() + 0.3 * torch.linspace(-1, 1, len(item)))
        parts = recpo_loss(
            out.token_logps,
            None if how == "released" else old[0],
            rollouts.action_mask,
            item,
            None if how == "released" else old[1],
            group_advantages(rewards, "grpo"),
            head_update=how,
            topk=2,
            generator=torch.Generator().manual_seed(7),
        )
        return parts.loss

    out = model(rollouts, temperature=1.5, items=table.batch(ids))
    shared_loss = loss(out, out.items)
    plain = plain_policy(model, rollouts, 1.5)
    whole_prompts = [torch.cat([table.beginning, table.batch([int(v)]).ids[0]])[None] for v in ids]
    states = [
        model.causal_lm(input_ids=prompt_ids, output_hidden_states=True).hidden_states[-1][0, -1]
        for prompt_ids in whole_prompts
    ]
    expected = loss(plain, model.head.item(torch.stack(states)))
    assert float(shared_loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4, abs=1e-6)
    # With `released` or `none` some gradients are 0 but for rounding: compare to the largest.
    mine, theirs = gradients(model, shared_loss), gradients(model, expected)
    largest = max(float(value.norm()) for value in theirs.values())
    assert largest > 1e-3
    for name, value in theirs.items():
        assert float((mine[name] - value).norm()) < TOLERANCE * max(float(value.norm()), 1e-2 * largest), name


def test_a_lone_group_learns_no_tokens_under_released() -> None:
    """Through the model, not only the loss: the token part's gradient by the weights is 0 for released."""
    model = R2ec(tiny_model("llama"))
    rollouts = tiny_rollouts(users=1)
    assert rollouts.action_mask is not None
    advantages = group_advantages(torch.tensor([[0.1, 0.9, 0.3, 0.2]]), "grpo")
    norms = {}
    strategies: tuple[HeadUpdate, ...] = ("released", "top1")
    for how in strategies:
        out = model(rollouts)
        parts = recpo_loss(
            out.token_logps, None, rollouts.action_mask, out.users.sum(1), None, advantages, head_update=how
        )
        norms[how] = math.sqrt(sum(float(g.square().sum()) for g in gradients(model, parts.token_part).values()))
    assert norms["released"] < 1e-5 * norms["top1"]
    assert norms["top1"] > 1e-2


def tokens_read(model: R2ec, call: Callable[[], object]) -> int:
    """How many token positions go through the decoder during a call."""
    counts: list[int] = []

    def count(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        counts.append(kwargs["input_ids"].numel())

    handle = model.causal_lm.get_decoder().register_forward_pre_hook(count, with_kwargs=True)
    try:
        call()
    finally:
        handle.remove()
    return sum(counts)


def test_shared_prompts_are_read_once() -> None:
    rollouts = tiny_rollouts()  # 3 prompts of at most 19 tokens, the first 10 in common; 12 completions of 6
    shared, repeated = R2ec(tiny_model("llama")), R2ec(tiny_model("llama"), share_prefix=False)
    assert tokens_read(shared, lambda: shared(rollouts)) == 10 + 3 * 9 + 12 * 6
    assert tokens_read(repeated.train(), lambda: repeated(rollouts)) == 12 * (19 + 6)
    # A window narrower than the sequence counts padding, so the common beginning stays with each prompt.
    narrow, wide = (R2ec(tiny_model("gemma2", sliding_window=w)) for w in (8, 25))
    assert tokens_read(narrow, lambda: narrow(rollouts)) == 3 * 19 + 12 * 6
    assert tokens_read(wide, lambda: wide(rollouts)) == 10 + 3 * 9 + 12 * 6


@pytest.mark.parametrize("window", [24, 25, 64])
def test_a_window_at_the_edge_of_sharing_equals_the_plain_policy(window: int) -> None:
    model = R2ec(tiny_model("gemma2", sliding_window=window))
    rollouts = tiny_rollouts()
    assert_same(model, lambda: model(rollouts), lambda: plain_policy(model, rollouts))


@pytest.mark.parametrize(("users", "group", "beginning"), [(1, 1, 0), (1, 4, 0), (3, 1, 0), (2, 3, 13)])
def test_other_shapes_equal_the_plain_policy(users: int, group: int, beginning: int) -> None:
    model = R2ec(tiny_model("qwen2"))
    rollouts = tiny_rollouts(users, group, beginning)
    assert_same(model, lambda: model(rollouts), lambda: plain_policy(model, rollouts))


def test_equal_prompts_leave_each_a_token() -> None:
    model = R2ec(tiny_model("llama"))
    rollouts = tiny_rollouts(users=2)
    same = replace(
        rollouts, prompt_ids=rollouts.prompt_ids[:1].expand(2, -1), prompt_mask=rollouts.prompt_mask[:1].expand(2, -1)
    )
    assert_same(model, lambda: model(same), lambda: plain_policy(model, same))


# Pooling


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "special"])
def test_pooled_states_equal_the_plain_ones(pooling: str) -> None:
    model = R2ec(tiny_model("llama"), pooling=pooling, special_token=2 if pooling == "special" else None)  # type: ignore[arg-type]
    rollouts = tiny_rollouts()
    assert_same(model, lambda: model(rollouts), lambda: plain_policy(model, rollouts))
    out = model(rollouts)
    for n in (0, 5):
        prompt = rollouts.prompt_ids[n // 4][rollouts.prompt_mask[n // 4]]
        written = rollouts.completion_ids[n][rollouts.completion_mask[n]]
        end = torch.tensor([2]) if pooling == "special" else written[:0]
        whole = torch.cat([prompt, written, end])[None]
        states = model.causal_lm.get_decoder()(input_ids=whole).last_hidden_state[0, len(prompt) :]
        expected = {"mean": states.mean(0), "max": states.amax(0)}.get(pooling, states[-1])
        assert relative(out.states[n], expected) < TOLERANCE


@pytest.mark.parametrize("share", [True, False])
def test_without_reasoning_the_prompts_last_state_scores(share: bool) -> None:
    model = R2ec(tiny_model("llama"), share_prefix=share).train()
    if not share:
        model.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    rollouts = tiny_rollouts(users=3, group=1)
    bare = Rollouts(
        rollouts.prompt_ids, rollouts.prompt_mask, rollouts.completion_ids[:, :0], rollouts.completion_mask[:, :0]
    )
    out = model(bare)
    assert out.token_logps is None
    for user in range(3):
        prompt = rollouts.prompt_ids[user][rollouts.prompt_mask[user]][None]
        expected = model.causal_lm.get_decoder()(input_ids=prompt).last_hidden_state[0, -1]
        assert relative(out.states[user], expected) < TOLERANCE


def test_appended_tokens_alone_train_the_item_action_only() -> None:
    """Without reasoning but with an appended `<answer>`: no token action, yet the item action has its gradient."""
    model = R2ec(tiny_model("llama"))
    rollouts = tiny_rollouts(users=3, group=1)
    actions = torch.zeros_like(rollouts.completion_mask)
    out = model(replace(rollouts, action_mask=actions))
    assert out.token_logps is not None
    ids = torch.tensor([0, 1, 2])
    item = item_logps(out.users, ids, torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)), ids, tau=0.1)
    parts = recpo_loss(out.token_logps, None, actions, item, None, torch.ones(3, 1), head_update="all")
    assert float(parts.token_part.detach()) == 0
    assert max(float(value.norm()) for value in gradients(model, parts.loss).values()) > 1e-2


# Token log-probabilities


def test_no_logits_are_kept_for_backward() -> None:
    model = R2ec(tiny_model("llama"))
    rollouts = tiny_rollouts()
    widths: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        widths.append(tensor.shape[-1] if tensor.dim() else 0)
        return tensor

    def saved(call: Callable[[], object]) -> bool:
        widths.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            call()
        return VOCABULARY in widths

    assert saved(lambda: plain_policy(model, rollouts))
    assert not saved(lambda: model(rollouts))


def test_a_family_that_scales_its_logits_is_refused() -> None:
    config = GraniteConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, logits_scaling=4.0, initializer_range=1.0, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    with pytest.raises(InputError, match="granite: logits aren't"):
        R2ec(AutoModelForCausalLM.from_config(config))


# Precision, accumulation


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_follows_fp32(family: str) -> None:
    full, half = R2ec(tiny_model(family)), R2ec(tiny_model(family).bfloat16())
    rollouts = tiny_rollouts()
    expected, half_out = full(rollouts), half(rollouts)
    assert half_out.states.dtype == half_out.token_logps.dtype == torch.float32
    # bf16 keeps 8 bits: the plain way in bf16 is as far from fp32.
    limit = 1.5 * relative(plain_policy(half, rollouts).states, expected.states) + 0.01
    assert 0 < relative(half_out.states, expected.states) < limit
    grads = gradients(half, weighted(half_out))
    assert grads and all(bool(torch.isfinite(value).all()) for value in grads.values())


def test_autocast_gives_gradients_to_fp32_adapters() -> None:
    model = R2ec(tiny_model("llama"))
    rollouts = tiny_rollouts()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(rollouts)
    expected = gradients(model, weighted(model(rollouts)))
    autocast = gradients(model, weighted(out))
    assert autocast.keys() == expected.keys()
    for name, value in expected.items():
        assert autocast[name].dtype == torch.float32
        assert relative(autocast[name], value) < 0.2, name


def test_gradients_of_two_halves_add_up_to_the_whole() -> None:
    model = R2ec(tiny_model("gemma2"))
    rollouts = tiny_rollouts(users=4)
    advantages = group_advantages(torch.rand(4, 4, generator=torch.Generator().manual_seed(0)), "rloo")

    def part(users: slice) -> dict[str, Tensor]:
        rows = slice(users.start * 4, users.stop * 4)
        rollouts_of_users = Rollouts(
            rollouts.prompt_ids[users],
            rollouts.prompt_mask[users],
            rollouts.completion_ids[rows],
            rollouts.completion_mask[rows],
            rollouts.action_mask[rows],  # type: ignore[index]
        )
        assert rollouts_of_users.action_mask is not None
        out = model(rollouts_of_users)
        parts = recpo_loss(
            out.token_logps,
            None,
            rollouts_of_users.action_mask,
            out.users.mean(1),
            None,
            advantages[users],
            head_update="all",
        )
        return gradients(model, parts.loss)

    whole, halves = part(slice(0, 4)), (part(slice(0, 2)), part(slice(2, 4)))
    for name, value in whole.items():
        assert relative((halves[0][name] + halves[1][name]) / 2, value) < TOLERANCE, name


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, completion_ids=r.completion_ids[:5], completion_mask=r.completion_mask[:5]), "divide"),
        (lambda r: replace(r, completion_mask=r.completion_mask.flip(1)), "right only"),
        (lambda r: replace(r, completion_mask=r.completion_mask & False), "no token"),
        (lambda r: replace(r, prompt_mask=r.prompt_mask & False), "no token"),
        (lambda r: replace(r, action_mask=torch.ones_like(r.completion_mask)), "action_mask marks"),
    ],
)
def test_bad_rollouts_are_named(change: Callable[[Rollouts], Rollouts], message: str) -> None:
    with pytest.raises(InputError, match=message):
        R2ec(tiny_model("llama", lora=False))(change(tiny_rollouts()))


def test_bad_settings_are_named() -> None:
    backbone = tiny_model("llama", lora=False)
    with pytest.raises(InputError, match="no pooling 'first'"):
        R2ec(backbone, pooling="first")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="special_token"):
        R2ec(backbone, pooling="special")
    with pytest.raises(InputError, match="temperature 0"):
        R2ec(backbone)(tiny_rollouts(), temperature=0.0)
    with pytest.raises(InputError, match="no rec head maps 'both'"):
        RecHead(4, "both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rank 9"):
        RecHead(4, "free", rank=9)
