"""The two heads: token log-probabilities in chunks, and the rec head with its maps and its saved state."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark.errors import InputError
from lm.kernels import token_logps as module
from lm.kernels.token_logps import distribution, token_logps
from r2ec.model.network import R2ec
from r2ec.model.rec_head import RecHead
from tests.support.tiny_models import WIDTH, relative, tiny_model, tiny_rollouts


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("trained", [False, True])
def test_token_logps_in_chunks_equal_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, softcap: float | None, trained: bool
) -> None:
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 7 * 50)  # 7 rows a chunk, the last one short
    torch.manual_seed(0)
    head = nn.Linear(8, 50).requires_grad_(trained)
    hidden, targets = torch.randn(150, 8, requires_grad=True), torch.randint(0, 50, (150,))
    weights = torch.linspace(-1, 2, 150)
    logps, entropy = token_logps(hidden, head, targets, 1.3, softcap)
    (logps * weights).sum().backward()
    gradients = (hidden.grad, head.weight.grad)
    hidden.grad = head.weight.grad = None
    policy = distribution(head(hidden), 1.3, softcap).log_softmax(-1)
    expected = policy.gather(1, targets[:, None])[:, 0]
    (expected * weights).sum().backward()
    assert torch.allclose(logps, expected, atol=1e-5)
    assert torch.allclose(entropy, -(policy.exp() * policy).sum(1), atol=1e-5)
    assert relative(gradients[0], hidden.grad) < 1e-5  # type: ignore[arg-type]
    if trained:
        assert relative(gradients[1], head.weight.grad) < 1e-5  # type: ignore[arg-type]


def test_entropy_of_a_uniform_policy_is_log_v() -> None:
    head = nn.Linear(4, 50, bias=False).requires_grad_(False)
    nn.init.zeros_(head.weight)
    logps, entropy = token_logps(torch.randn(3, 4), head, torch.tensor([0, 1, 2]), 1.5, None)
    assert torch.allclose(entropy, torch.full((3,), math.log(50)))
    assert torch.allclose(logps, torch.full((3,), -math.log(50)))


def test_rec_head_starts_as_the_identity_and_standardizes() -> None:
    states = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * 3 + 5
    for maps in ("none", "tied", "free"):
        head = RecHead(6, maps)
        assert torch.equal(head.user(states), states) and torch.equal(head.item(states), states)
        head.standardize(states)
        assert torch.allclose(head.item(states).std(0), torch.ones(6), atol=1e-4)
        assert torch.allclose(head.user(states).mean(0), torch.zeros(6), atol=1e-5)
    assert RecHead(6, "free", rank=2).user(states).shape == (200, 2)
    tied = RecHead(6, "tied")
    nn.init.normal_(tied.user_map.weight)  # type: ignore[union-attr]
    assert torch.equal(tied.user(states), tied.item(states))
    assert sum(parameter.numel() for parameter in tied.parameters()) == 36 + 6
    nn.init.ones_(tied.user_bias)  # type: ignore[arg-type]
    assert torch.equal(tied.user(states), tied.item(states) + 1)
    head = RecHead(6)
    head.standardize(states, states + 1, scale=False)
    assert torch.allclose(head.user(states + 1), head.item(states), atol=1e-5)


def test_classification_head_takes_the_place_of_the_items() -> None:
    model = R2ec(tiny_model("llama"), cls_items=11)
    out = model(tiny_rollouts(), item_rows=torch.tensor([3, 3, 10]))
    assert out.items is not None and out.items.shape == (3, WIDTH)
    assert torch.equal(model.catalogue(torch.empty(11, WIDTH)), model.cls_head.weight.detach())  # type: ignore[union-attr]
    out.items.sum().backward()
    assert model.cls_head.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [3, 10]  # type: ignore[union-attr]


def test_saved_state_loads_again(tmp_path: Path) -> None:
    head = RecHead(WIDTH, "tied", rank=5)
    model = R2ec(tiny_model("qwen2"), head=head)
    model.head.standardize(torch.randn(9, WIDTH))
    model.save(tmp_path / "r2ec.safetensors")
    names = model.own_state().keys()
    assert {"head.user_map.weight", "head.item_shift"} <= names and any("lora_A" in name for name in names)
    loaded = R2ec(tiny_model("qwen2"), head=RecHead(WIDTH, "tied", rank=5))
    with torch.no_grad():
        for value in loaded.own_state().values():
            value.add_(1)
    rollouts = tiny_rollouts()
    assert relative(loaded(rollouts).users, model(rollouts).users) > 0.01
    loaded.load(tmp_path / "r2ec.safetensors")
    assert torch.equal(loaded(rollouts).users, model(rollouts).users)
    with pytest.raises(InputError, match="in only one of file and model"):
        R2ec(tiny_model("qwen2")).load(tmp_path / "r2ec.safetensors")
    with pytest.raises(InputError, match=r"user_bias. is \[5\] in the file"):
        R2ec(tiny_model("qwen2"), head=RecHead(WIDTH, "tied")).load(tmp_path / "r2ec.safetensors")
