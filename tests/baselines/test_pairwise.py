"""Tests of the pairwise trainer: losses by hand, titles' log-probabilities, the reference, resume, learning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel

from baselines._writers import pairwise
from baselines._writers.pairwise import Preferences, Training, prefer, preference_loss, title_logps
from benchmark.errors import InputError
from r2ec.model.network import R2ec
from tests.support.interrupting import interrupt
from tests.support.tiny_models import VOCABULARY, tiny_model

PAD = 0


def rows(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def test_losses_by_hand() -> None:
    zeros = torch.zeros(1, 4)
    assert float(preference_loss(zeros, zeros, 1.0)) == pytest.approx(1.386294, abs=1e-6)  # log 4
    # Delta(p) = log 3 against three zeros: 3 / (3 + 3).
    softmax_loss = preference_loss(rows(-1 + np.log(3), -2, -3, -4), rows(-1, -2, -3, -4), 1.0)
    assert float(softmax_loss) == pytest.approx(0.693147, abs=1e-6)
    # DPO with beta .1: -log sigma(.1 (1 - -1)).
    assert float(preference_loss(rows(1, -1), rows(0, 0), 0.1)) == pytest.approx(0.598139, abs=1e-6)
    # The mean over cases.
    mean_loss = preference_loss(torch.tensor([[1.0, -1.0], [0, 0]]), torch.zeros(2, 2), 0.1)
    assert float(mean_loss) == pytest.approx((0.598139 + 0.693147) / 2, abs=1e-6)


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("count", [1, 3])
def test_the_loss_and_its_gradient_are_the_papers(beta: float, count: int) -> None:
    """The loss is -log sigma(-log sum_d exp(beta (Delta(d) - Delta(p)))), which for one rejected title is DPO's."""
    torch.manual_seed(0)
    logps, reference = torch.randn(5, 1 + count, dtype=torch.float64), torch.randn(5, 1 + count, dtype=torch.float64)
    logps.requires_grad_(True)
    delta = logps - reference
    plain = -F.logsigmoid(-torch.logsumexp(beta * (delta[:, 1:] - delta[:, :1]), dim=1)).mean()
    if count == 1:
        torch.testing.assert_close(plain, -F.logsigmoid(beta * (delta[:, 0] - delta[:, 1])).mean())
    loss = preference_loss(logps, reference, beta)
    torch.testing.assert_close(loss, plain)
    (ours,), (papers,) = (torch.autograd.grad(value, logps) for value in (loss, plain))
    torch.testing.assert_close(ours, papers)


def test_large_differences_do_not_overflow() -> None:
    logps = torch.tensor([[-4000.0, 0.0, -1.0], [0.0, -4000.0, -4000.0]], requires_grad=True)
    loss = preference_loss(logps, torch.zeros(2, 3), 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2000.1566, abs=1e-3)
    assert logps.grad is not None and bool(torch.isfinite(logps.grad).all())


def toy(count: int, negatives: int = 3, seed: int = 0) -> Preferences:
    """Return prompts of 9 to 14 tokens, some with a common beginning, and titles of 1 to 5 tokens."""
    random = np.random.default_rng(seed)

    def tokens(least: int, most: int) -> list[int]:
        return list(random.integers(3, VOCABULARY, random.integers(least, most + 1)).tolist())

    beginning = tokens(8, 8)
    prompts = [beginning + tokens(1, 6) for _ in range(count)]
    return Preferences(prompts, [[tokens(1, 5) for _ in range(1 + negatives)] for _ in range(count)])


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_titles_are_read_as_one_by_one(family: str) -> None:
    """Value and gradient of log pi equal those of a forward of each prompt with each title."""
    model, preferences = tiny_model(family), toy(3)
    model.eval()
    net, weights = R2ec(model), [part for part in model.parameters() if part.requires_grad]
    logps = title_logps(net, preferences, PAD)
    plain = []
    for prompt, titles in zip(preferences.prompts, preferences.titles, strict=True):
        for title in titles:
            logits = model(torch.tensor([[*prompt, *title]])).logits[0, len(prompt) - 1 : -1].float()
            plain.append(logits.log_softmax(dim=1)[torch.arange(len(title)), torch.tensor(title)].sum())
    expected = torch.stack(plain).reshape(3, 4)
    torch.testing.assert_close(logps, expected, rtol=1e-4, atol=1e-3)
    pull = torch.randn(3, 4)
    grads, expected_grads = (
        torch.autograd.grad((pull * part).sum(), weights, allow_unused=True) for part in (logps, expected)
    )
    assert all(part is not None for part in grads)
    for part, expected_part in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(part, expected_part, rtol=1e-3, atol=1e-3)


def training(**changes: Any) -> Training:
    usual = {"beta": 1.0, "steps": 4, "learning_rate": 5e-3, "users_per_step": 4, "at_once": 2, "save_steps": 2}
    return Training(**usual | changes)


def trained(model: PeftModel, preferences: Preferences, folder: Path, **changes: Any) -> list[dict[str, float]]:
    return prefer(model, preferences, training(**changes), pad=PAD, seed=5, folder=folder)


def weights_of(model: PeftModel) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters() if parameter.requires_grad])


def adapted() -> PeftModel:
    """Return a tiny LM whose adapters are far from their start, as tuning leaves them."""
    model = tiny_model("llama")
    assert isinstance(model, PeftModel)
    return model


def test_the_reference_is_the_model_as_it_was_and_not_the_backbone(tmp_path: Path) -> None:
    model, preferences = adapted(), toy(8)
    with torch.no_grad():
        expected = title_logps(R2ec(model).eval(), preferences, PAD)
        with model.disable_adapter():
            backbone = title_logps(R2ec(model), preferences, PAD)
    assert not torch.allclose(expected, backbone, atol=1)
    logged = trained(model, preferences, tmp_path / "work")
    kept = torch.from_numpy(np.load(tmp_path / "work" / "reference.npy"))
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-3)
    first = logged[0]
    assert first["loss"] == pytest.approx(np.log(4), abs=1e-3) and first["margin"] == pytest.approx(0, abs=1e-3)
    # Two micro-batches of two cases.
    assert first["chosen"] == pytest.approx(float(expected[:4, 0].mean()), abs=1e-3)
    assert logged[-1]["loss"] < first["loss"] and len(logged) == 4


def test_the_reference_is_read_in_the_batches_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[Sequence[int]]] = []

    def title_logps_(net: R2ec, preferences: Preferences, pad: int) -> torch.Tensor:
        read.append(list(preferences.prompts))
        return title_logps(net, preferences, pad)

    monkeypatch.setattr(pairwise, "title_logps", title_logps_)
    trained(adapted(), toy(5), tmp_path, steps=2)  # five cases, eight are taken: the first three twice
    assert [len(batch) for batch in read] == [2, 2, 1, 2, 2, 2, 2]
    assert read[3:5] == read[:2]
    assert [prompt for batch in read[3:] for prompt in batch] == [*toy(5).prompts, *toy(5).prompts[:3]]
    read.clear()
    trained(adapted(), toy(50), tmp_path / "more", steps=1)  # of many, those of the steps alone
    assert [len(batch) for batch in read] == [2, 2, 2, 2]


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in step 3, behind the checkpoint of step 2; the reference stays that of step 0, not the loaded model."""
    preferences, whole = toy(12), adapted()
    expected = trained(whole, preferences, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, pairwise.PreferenceTrainer, "training_step", call=6)  # two micro-batches a step
        trained(adapted(), preferences, tmp_path / "broken")
    assert [path.name for path in (tmp_path / "broken").glob("checkpoint-*")] == ["checkpoint-2"]
    again = adapted()
    assert trained(again, preferences, tmp_path / "broken") == expected
    torch.testing.assert_close(weights_of(again), weights_of(whole), rtol=0, atol=0)
    loaded = adapted()  # of a training that had ended
    assert trained(loaded, preferences, tmp_path / "broken") == expected
    torch.testing.assert_close(weights_of(loaded), weights_of(whole), rtol=0, atol=0)
    assert not torch.equal(weights_of(whole), weights_of(adapted()))


def test_the_margin_rises_on_cases_that_it_has_not_seen(tmp_path: Path) -> None:
    """In the planted task the chosen title repeats the prompt's last token, and the rejected ones are other tokens."""
    random = np.random.default_rng(1)

    def preferences_of(count: int) -> Preferences:
        prompts = random.integers(3, 13, (count, 6)).tolist()
        rejected = [
            random.permutation([token for token in range(3, 13) if token != prompt[-1]])[:2] for prompt in prompts
        ]
        titles = [
            [[prompt[-1], 2], *([int(token), 2] for token in tokens)]
            for prompt, tokens in zip(prompts, rejected, strict=True)
        ]
        return Preferences(prompts, titles)

    model, unseen = adapted(), preferences_of(60)

    def ahead() -> torch.Tensor:
        with torch.no_grad():
            logps = title_logps(R2ec(model).eval(), unseen, PAD)
        return logps[:, :1] - logps[:, 1:]

    before = ahead()
    logged = trained(
        model,
        preferences_of(400),
        tmp_path,
        steps=60,
        users_per_step=16,
        at_once=16,
        learning_rate=1e-2,
        save_steps=1000,
    )
    after = ahead()
    assert np.mean([step["loss"] for step in logged[-20:]]) < 0.75 * np.log(3)
    assert np.mean([step["below"] for step in logged[-20:]]) > 0.75
    assert float((after - before).mean()) > 1 and float(((after - before) > 0).float().mean()) > 0.7
    assert float((after > 0).float().mean()) > float((before > 0).float().mean()) + 0.15


@pytest.mark.parametrize("titles", [[[[3]]], [[[3], [4]], [[3], [4], [5]]]])
def test_a_chosen_title_needs_rejected_ones(titles: list[list[list[int]]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one chosen title and the same number of rejected ones"):
        trained(adapted(), Preferences([[3, 4]] * len(titles), titles), tmp_path)
