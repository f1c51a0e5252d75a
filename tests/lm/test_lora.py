"""The fused LoRA layer against peft's own: values and gradients, and every case that is left to peft."""

from collections.abc import Iterator

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from lm.kernels.lora import FusedLora, _LowRank


class Two(nn.Module):
    """Two linear layers, one with a bias, and a tanh between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 10, bias=False), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.tanh(self.first(x)))
        return out


def adapted(fused: bool, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> PeftModel:
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=7, target_modules=["first", "second"], lora_dropout=dropout)
    if fused:
        config._register_custom_module({nn.Linear: FusedLora})
    model = get_peft_model(Two().to(dtype), config)
    torch.manual_seed(1)
    for name, value in model.named_parameters():
        if "lora" in name:
            nn.init.normal_(value)
    assert isinstance(model, PeftModel)
    return model


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often the fused product ran."""
    fused_calls: list[int] = []
    apply = _LowRank.apply

    def counted(*args: object) -> Tensor:
        fused_calls.append(1)
        out: Tensor = apply(*args)
        return out

    monkeypatch.setattr(_LowRank, "apply", counted)
    yield fused_calls


def output_and_gradients(model: PeftModel, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of x and of every adapter."""
    x = x.clone().requires_grad_()
    out = model(x)
    (out.to(torch.promote_types(out.dtype, torch.float32)) * torch.arange(out.numel()).view(out.shape)).sum().backward()
    assert x.grad is not None
    return out.detach(), [x.grad, *(p.grad for _, p in sorted(model.named_parameters()) if p.grad is not None)]


def test_values_and_gradients_are_pefts(calls: list[int]) -> None:
    # In float64, where sums in another order differ by nothing that the default tolerances would forgive.
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected, wanted = output_and_gradients(adapted(False).double(), x)
    assert not calls
    values, gradients = output_and_gradients(adapted(True).double(), x)
    assert len(calls) == 2 and len(gradients) == len(wanted) == 5
    assert all(value.dtype == torch.float64 for value in (values, *gradients))
    torch.testing.assert_close(values, expected)
    for mine, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_bf16_stays_near_float32_and_the_adapters_are_float32(calls: list[int]) -> None:
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(2))
    model = adapted(True, torch.bfloat16)
    expected, wanted = output_and_gradients(adapted(False).to(torch.float32), x.bfloat16().float())
    values, gradients = output_and_gradients(model, x.bfloat16())
    assert calls and values.dtype == torch.bfloat16
    assert all(p.dtype == g.dtype == torch.float32 for (_, p), g in zip(
        ((n, p) for n, p in sorted(model.named_parameters()) if p.requires_grad), gradients[1:], strict=True
    ))  # fmt: skip
    for mine, theirs in zip([values, *gradients], [expected, *wanted], strict=True):
        assert float((mine.float() - theirs).norm() / theirs.norm()) < 0.03


def test_everything_else_is_left_to_peft(calls: list[int]) -> None:
    x = torch.randn(3, 6)
    model = adapted(True)
    plain = adapted(False)
    with model.disable_adapter(), plain.disable_adapter():
        torch.testing.assert_close(model(x), plain(x))
    dropped = adapted(True, dropout=0.5)
    dropped(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
    model.merge_adapter()
    torch.testing.assert_close(model(x), plain(x))
    assert not calls
    model.unmerge_adapter()
    model(x)
    assert len(calls) == 2


def test_a_bias_that_learns_is_left_to_peft(calls: list[int]) -> None:
    """The adapters' own, and the layer's: the fused product adds no bias of B, and has no gradient for either."""
    for more in ({"lora_bias": True}, {"bias": "lora_only"}):
        config = LoraConfig(r=3, lora_alpha=3, target_modules=["second"], init_lora_weights=False, **more)  # type: ignore[arg-type]
        config._register_custom_module({nn.Linear: FusedLora})
        torch.manual_seed(0)
        model = get_peft_model(Two(), config)
        biases = [p for name, p in model.named_parameters() if name.endswith("bias") and p.requires_grad]
        assert len(biases) == 1
        model(torch.ones(3, 6)).sum().backward()
        assert biases[0].grad is not None
        torch.testing.assert_close(biases[0].grad, torch.full((5,), 3.0))  # a sum over three rows
        before = model(torch.ones(3, 6)).detach()
        nn.init.constant_(biases[0], 9.0)
        assert not torch.allclose(model(torch.ones(3, 6)), before)
    assert not calls


def test_the_backbone_gets_fused_lora_layers(calls: list[int]) -> None:
    from lm.backbone import add_lora
    from lm.settings import LoraSettings
    from tests.support.tiny_tokenizers import tiny_lm

    model = add_lora(tiny_lm("llama"), LoraSettings())
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    assert layers and all(isinstance(module, FusedLora) for module in layers)
    model(input_ids=torch.tensor([[1, 2, 3]]))
    assert len(calls) == len(layers)
