"""The item table against encoding each item by itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.errors import InputError
from r2ec.model import item_table as module
from r2ec.model.item_table import ItemTable
from r2ec.model.network import R2ec
from tests.support.tiny_models import FAMILIES, VOCABULARY, WIDTH, relative, tiny_model


def item_prompts(count: int = 23, beginning: int = 11) -> list[list[int]]:
    random = np.random.default_rng(0)
    first = random.integers(3, VOCABULARY, beginning).tolist()
    return [[*first, 3 + v, *random.integers(3, VOCABULARY, v % 9).tolist()] for v in range(count)]


def state_of(model: R2ec, prompt: list[int]) -> Tensor:
    return model.causal_lm.get_decoder()(input_ids=torch.tensor([prompt])).last_hidden_state[0, -1]


@pytest.mark.parametrize("family", FAMILIES)
def test_refresh_equals_one_by_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 24)  # several batches, the last ones of many short items
    model, prompts = R2ec(tiny_model(family)).train(), item_prompts()
    table = ItemTable(prompts, WIDTH)
    assert bool(table.states.isnan().all()) and not table.encoded
    table.refresh(model)
    assert model.training and not table.states.requires_grad and table.encoded
    with torch.no_grad():
        expected = torch.stack([state_of(model, prompt) for prompt in prompts])
    for v in range(len(prompts)):
        assert relative(table.states[v], expected[v]) < 1e-4, v


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_one_by_one(family: str, share: bool) -> None:
    model, prompts = R2ec(tiny_model(family), share_prefix=share).train(), item_prompts()
    table, rows = ItemTable(prompts, WIDTH), [5, 0, 17, 5]
    weights = torch.linspace(-1, 1, 4 * WIDTH).reshape(4, WIDTH)
    grads = []
    for states in (
        model.encode_items(table.batch(rows)).float(),
        torch.stack([state_of(model, prompts[v]) for v in rows]),
    ):
        model.zero_grad()
        (states * weights).sum().backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert len(grads[1]) > 20 and grads[0].keys() == grads[1].keys()
    for name, value in grads[1].items():
        assert relative(grads[0][name], value) < 1e-4, name
    assert bool(table.states.isnan().all())  # the table itself is left alone


def test_the_shared_beginning_is_read_once() -> None:
    model, prompts = R2ec(tiny_model("llama")), item_prompts()
    table = ItemTable(prompts, WIDTH)
    assert table.beginning.tolist() == prompts[0][:11]
    read: list[tuple[int, ...]] = []
    decoder = model.causal_lm.get_decoder()
    decoder.register_forward_pre_hook(lambda _, args, kwargs: read.append(kwargs["input_ids"].shape), with_kwargs=True)
    table.refresh(model)
    assert read == [(1, 11), (23, 9)]


def test_only_the_named_rows_change() -> None:
    model = R2ec(tiny_model("llama"))
    table = ItemTable(item_prompts(), WIDTH)
    table.refresh_rows(model, torch.tensor([7, 2, 7]))
    assert (~table.states.isnan().any(1)).nonzero().flatten().tolist() == [2, 7]
    before = table.states[7].clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    table.refresh_rows(model, [7])
    assert relative(table.states[7], before) > 0.01


def test_written_targets_are_detached_and_in_place() -> None:
    table = ItemTable(item_prompts(), WIDTH, dtype=torch.bfloat16)
    states = torch.randn(2, WIDTH, requires_grad=True)
    table.write([3, 1], states)
    assert torch.equal(table.states[3], states[0].detach().bfloat16())
    assert torch.equal(table.states[1], states[1].detach().bfloat16())
    assert not table.states.requires_grad


@pytest.mark.parametrize(
    ("prompts", "common"),
    [
        ([[5, 6, 7]], 2),  # a single item keeps one token of its own
        ([[5, 6, 7], [5, 6, 7]], 2),
        ([[5, 6], [5, 6, 7]], 1),  # one prompt is the beginning of the other
        ([[4, 6], [5, 6]], 0),
    ],
)
def test_prompts_with_any_common_beginning_are_encoded_alike(prompts: list[list[int]], common: int) -> None:
    model, table = R2ec(tiny_model("gemma2")), ItemTable(prompts, WIDTH)
    assert len(table.beginning) == common
    table.refresh(model)
    for v, prompt in enumerate(prompts):
        assert relative(table.states[v], state_of(model, prompt)) < 1e-4


def test_saved_table_loads_again_and_another_is_refused(tmp_path: Path) -> None:
    model, path = R2ec(tiny_model("llama")), tmp_path / "table.safetensors"
    table = ItemTable(item_prompts(), WIDTH)
    table.refresh(model)
    table.save(path)
    loaded = ItemTable(item_prompts(), WIDTH)
    loaded.load(path)
    assert torch.equal(loaded.states, table.states)
    changed = item_prompts()
    changed[4][-1] += 1
    with pytest.raises(InputError, match="other item prompts"):
        ItemTable(changed, WIDTH).load(path)
    with pytest.raises(InputError, match=r"states \[23, 32\], expected \[23, 16\]"):
        ItemTable(item_prompts(), 16).load(path)


@pytest.mark.parametrize("rows", [[23], [-1], [], [[1]]])
def test_bad_rows_are_named(rows: list[int]) -> None:
    with pytest.raises(InputError, match="table of 23 items"):
        ItemTable(item_prompts(), WIDTH).batch(rows)


def test_bad_prompts_are_named() -> None:
    with pytest.raises(InputError, match="no item prompts"):
        ItemTable([], WIDTH)
    with pytest.raises(InputError, match="prompt of item 1 is empty"):
        ItemTable([[3], []], WIDTH)
