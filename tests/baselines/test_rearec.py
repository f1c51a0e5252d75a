"""Tests of ReaRec: without steps it is SASRec, steps equal a pass over each history, losses by hand."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

# The first brings back what numpy 2 dropped, without which RecBole can't be imported.
from baselines._recbole.training import Catalogue, _config, _read_padding_as_nothing  # isort: skip
from baselines import rearec, sasrec
from baselines._recbole import latent_steps
from baselines._recbole.cross_entropy import cross_entropy
from baselines._recbole.latent_steps import LatentSASRec, ThinkingEverywhere, contrast, divergence, temperatures
from baselines._recbole.windows import Batch
from tests.support.planted import as_split, planted, prepare_planted

LENGTH = 8


@functools.cache
def split() -> Any:
    """Return lines of 16 items with baskets; a network reads 8 of them."""
    raw = planted(n_users=30)
    raw.interactions["timestamp"] //= 150_000
    return as_split(prepare_planted(raw, history_length=LENGTH))


def network(**changes: Any) -> tuple[LatentSASRec, rearec.Params]:
    """Return a network without dropout, whose step embeddings are as long as items are, and its settings."""
    off = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
    params = rearec.Params.model_validate(off | changes)
    own = params.model_dump(include=set(sasrec.Params.model_fields))
    torch.manual_seed(0)
    net = LatentSASRec(_config("SASRec", LENGTH, 0, own), Catalogue(split().n_items, 30), params.steps, params.learning)
    _read_padding_as_nothing(net)
    for part in net.parameters():
        if part.dim() > 1:
            torch.nn.init.normal_(part, std=0.3)
    return net.train(), params


def learner(params: rearec.Params, **changes: Any) -> ThinkingEverywhere:
    how = params.model_dump(include={"tau", "alpha", "push", "noise", "quiet_epochs"}) | changes
    return ThinkingEverywhere(split(), params, LENGTH, **how)


def batch_of(params: rearec.Params) -> Batch:
    everywhere = learner(params)
    return next(everywhere.windows.batches(60, np.random.default_rng(0), torch.device("cpu")))


def scored(method: Any) -> np.ndarray:
    return np.concatenate([part.copy() for part in method.score(split().valid)])


@pytest.mark.parametrize("learning", ["prl", "erl"])
def test_without_steps_it_is_sasrec_to_the_last_bit(learning: str, tmp_path: Path) -> None:
    """Both are trained with dropout, for more epochs than stay without noise."""
    few = {"epochs": 4, "train_batch_size": 64, "learning_rate": 0.01}
    plain = sasrec.fit(split(), seed=7, params=few, workdir=tmp_path)
    none = rearec.fit(split(), seed=7, params=few | {"steps": 0, "learning": learning}, workdir=tmp_path)
    np.testing.assert_array_equal(scored(none), scored(plain))
    assert none.report() == plain.report()


def states_behind(net: LatentSASRec, history: list[int], steps: int) -> list[torch.Tensor]:
    """States [d] before and after each step: the history in one row with the steps behind it, read anew for each of
    them."""
    items = torch.tensor([history])
    known = net.LayerNorm(net.item_embedding(items) + net.position_embedding.weight[: len(history)])
    inputs, states = [known], []
    for step in range(steps + 1):
        hidden = torch.cat(inputs, dim=1)
        mask = torch.full((hidden.shape[1], hidden.shape[1]), -10000.0).triu(1)[None, None]
        for layer in net.trm_encoder.layer:
            hidden = layer(hidden, mask)
        states.append(hidden[0, -1])
        if step < steps:
            inputs.append(net.LayerNorm(hidden[:, -1:] + net.step_embedding[step]))
    return states


def test_steps_at_every_place_are_those_behind_each_history_alone() -> None:
    net, params = network(steps=3)
    batch = batch_of(params)
    with torch.no_grad():
        states = net.think(net.read(batch.items, batch.places))
    assert states.shape == (4, len(batch.places), 64)
    rows = (batch.places // LENGTH).tolist()
    assert len(set(rows)) < len(rows)  # several places of one line
    for at, place in enumerate(batch.places.tolist()):
        row, column = divmod(place, LENGTH)
        history = batch.items[row, : column + 1].tolist()
        with torch.no_grad():
            expected = torch.stack(states_behind(net, history, 3))
        torch.testing.assert_close(states[:, at], expected, rtol=1e-4, atol=1e-4)
    assert float((states[1:] - states[:-1]).abs().mean()) > 0.1


@pytest.mark.parametrize("learning", ["prl", "erl"])
def test_the_user_is_the_last_state_or_the_mean(learning: Any) -> None:
    net, _ = network(steps=2, learning=learning)
    histories = [[3, 9, 4], [7], [5, 6, 7, 8, 9, 10, 11, 12]]
    items = torch.zeros(3, LENGTH, dtype=torch.int64)
    for row, history in enumerate(histories):
        items[row, : len(history)] = torch.tensor(history)
    with torch.no_grad():
        users = net.eval().forward(items, (items > 0).sum(dim=1))
        states = [torch.stack(states_behind(net, history, 2)) for history in histories]
    expected = torch.stack([own[-1] if learning == "prl" else own.mean(dim=0) for own in states])
    torch.testing.assert_close(users, expected, rtol=1e-4, atol=1e-4)


def test_temperatures_by_hand() -> None:
    assert temperatures(1, 5, 2) == [25, 5, 1] and temperatures(0.1, 5, 0) == [0.1]


def test_progressive_learning_is_the_sum_that_its_paper_says() -> None:
    net, params = network(steps=2, tau=0.5, alpha=3.0, noise=0.0)
    batch = batch_of(params)
    with torch.no_grad():
        states = net.think(net.read(batch.items, batch.places))[:, batch.state_of]
        logits = states @ net.item_embedding.weight.T
        first, second, last = (
            float(F.cross_entropy(own / tau, batch.target)) for own, tau in zip(logits, (4.5, 1.5, 0.5), strict=True)
        )
        loss = float(learner(params).loss_of(net, batch))
    assert loss == pytest.approx(last + (first + second) / 2, rel=1e-5)


def test_noise_begins_after_the_quiet_epochs() -> None:
    net, params = network(steps=2, noise=0.3, quiet_epochs=1)
    everywhere, random = learner(params), np.random.default_rng(0)
    calls: list[float] = []
    think = net.think
    net.think = lambda read, noise=0.0: calls.append(noise) or think(read, noise)  # type: ignore[method-assign]
    for _ in range(2):
        next(iter(everywhere.losses(net, random)))()
    assert calls == [0.0, 0.0, 0.3]


def test_the_contrast_by_hand() -> None:
    clean = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    noisy = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0]]])
    # The first finds its own with 3/4, the second is at a loss: 1/2.
    assert float(contrast(noisy, clean, 1.0)) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert float(contrast(2 * noisy, clean, 2.0)) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_the_divergence_by_hand() -> None:
    """Two states whose distributions over two items are (1/4, 3/4) and (1/2, 1/2)."""
    weight = torch.eye(2)
    states = torch.tensor([[[0.0, math.log(3.0)]], [[0.0, 0.0]]])
    forward = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    backward = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert float(divergence(states, weight, 1.0)) == pytest.approx((forward + backward) / 2)
    assert float(divergence(states[:1], weight, 1.0)) == 0
    assert float(divergence(states[[0, 0]], weight, 1.0)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("block", [latent_steps.BLOCK, 100])
def test_the_divergence_and_its_gradient_are_torchs(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_steps, "BLOCK", block)
    monkeypatch.setattr(latent_steps, "LEAST", 2)
    states = torch.randn(3, 7, 4, requires_grad=True)
    weight = torch.randn(9, 4, requires_grad=True)
    (2 * divergence(states, weight, 0.7)).backward()
    gradients = states.grad.clone(), weight.grad.clone()  # type: ignore[union-attr]
    states.grad = weight.grad = None
    logp = (states @ weight.T / 0.7).log_softmax(dim=-1)
    pairs = [
        (logp[j].exp() * (logp[j] - logp[i].detach())).sum(dim=-1).mean() for i in range(3) for j in range(3) if i != j
    ]
    expected = torch.stack(pairs).mean()
    (2 * expected).backward()
    torch.testing.assert_close(divergence(states, weight, 0.7), expected)
    torch.testing.assert_close(gradients, (states.grad, weight.grad))


def test_an_ensemble_without_steps_or_push_is_plain_cross_entropy() -> None:
    for changes in ({"steps": 0}, {"steps": 2, "push": 0.0}):
        net, params = network(learning="erl", **changes)
        batch = batch_of(params)
        with torch.no_grad():
            states = net.think(net.read(batch.items, batch.places)).mean(dim=0)
            expected = cross_entropy(states, net.item_embedding.weight, batch.state_of, batch.target)
            torch.testing.assert_close(learner(params).loss_of(net, batch), expected)
    net, params = network(learning="erl", steps=2, push=0.5)
    with torch.no_grad():
        states = net.think(net.read(batch.items, batch.places))
        pushed = 0.5 * divergence(states, net.item_embedding.weight, 1.0)
        plain = cross_entropy(states.mean(dim=0), net.item_embedding.weight, batch.state_of, batch.target)
        torch.testing.assert_close(learner(params).loss_of(net, batch), plain - pushed)
    assert float(pushed) > 0.01


@pytest.mark.parametrize("learning", ["prl", "erl"])
def test_every_parameter_and_step_gets_a_gradient(learning: Any) -> None:
    net, params = network(steps=2, learning=learning, noise=0.1, quiet_epochs=0)
    next(iter(learner(params).losses(net, np.random.default_rng(0))))().backward()
    for name, part in net.named_parameters():
        assert part.grad is not None and float(part.grad.abs().max()) > 0, name
    assert net.step_embedding.grad is not None and (net.step_embedding.grad.abs().amax(dim=1) > 0).all()
