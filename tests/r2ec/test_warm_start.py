"""The warm start: its means by hand, what its teacher learns from, and that it learns what the states hold."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.contract import Cases
from benchmark.metrics import ndcg
from r2ec.report import Form
from r2ec.settings import WarmStartSettings
from r2ec.warm_start import maps
from r2ec.warm_start.maps import Encoded, WarmStart, divergence, fit_rec_head, mean_of_history
from tests.support.tiny_fits import split


def test_mean_of_history_by_hand() -> None:
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    history = torch.tensor([[-1, 0, 1], [-1, -1, 2], [0, 1, 2]])
    # Weights 1/2 and 1: (0.5 [1, 0] + 1 [0, 1]) / 1.5; alone: the item itself; 1/4, 1/2, 1 over 7/4.
    expected = torch.tensor([[1 / 3, 2 / 3], [4.0, 4.0], [(0.25 + 4) / 1.75, (0.5 + 4) / 1.75]])
    assert torch.allclose(mean_of_history(history, items, 0.5), expected)


def cases_of(history: Tensor, targets: Tensor) -> Cases:
    """One case of a user of its own for each row: histories int64 [n, L], right-aligned, -1 for none."""
    rows, known = len(history), history.numpy() >= 0
    items = history.numpy()[known].astype(np.int32)
    none, numbers = np.zeros(len(items), dtype=np.int64), np.arange(rows)
    return Cases(
        case=numbers,
        user=numbers.astype(np.int32),
        time=numbers,
        offsets=np.concatenate([[0], np.cumsum(known.sum(axis=1))]),
        items=items,
        ratings=none.astype(np.float32),
        times=none,
        target=targets.numpy().astype(np.int32),
    )


def test_the_teacher_learns_from_the_training_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """From each (history, target) pair that an ID model has, once an epoch, whatever an LLM may read; and from no
    other."""
    data = replace(split(), llm_rows=np.arange(10))
    read: list[Tensor] = []
    taken: list[tuple[tuple[int, ...], int]] = []
    mean, cross_entropy = maps.mean_of_history, torch.nn.functional.cross_entropy

    def mean_of(history: Tensor, *rest: Any) -> Tensor:
        read.append(history)
        return mean(history, *rest)

    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        histories = [tuple(item for item in row if item >= 0) for row in read[-1].tolist()]
        taken.extend(zip(histories, targets.tolist(), strict=True))
        return cross_entropy(scores, targets)

    monkeypatch.setattr(maps, "mean_of_history", mean_of)
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", loss)
    states = torch.randn(data.n_items, 8, generator=torch.Generator().manual_seed(0))
    encoded = Encoded(states[:20], torch.arange(20), torch.arange(20, 40)[:, None])
    settings = WarmStartSettings(rank=8, epochs=1, teacher_epochs=2)
    fit_rec_head(WarmStart(states, encoded, encoded, data.train, 20, settings, tau=0.1, normalize=True, seed=1))
    assert data.train.target is not None
    pairs = [(tuple(data.train.history(i).tolist()), int(data.train.target[i])) for i in range(len(data.train))]
    assert len(pairs) > 1000 and sorted(taken) == sorted(2 * pairs)


ITEMS, WIDTH = 40, 24


def planted(cases: int = 300, seen: int = 300, follows: float = 1.0) -> WarmStart:
    """Items on a cycle, the next one follows from the last; states hold items and last items, each turned at random.

    follows: how often a training target is the next one, and not any item.
    """
    random = torch.Generator().manual_seed(0)
    items = torch.randn(ITEMS, WIDTH, generator=random)
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=random))[0]

    def encoded(count: int, follows: float = 1.0) -> Encoded:
        last = torch.randint(0, ITEMS, (count,), generator=random)
        history = torch.stack([(last - back) % ITEMS for back in (2, 1, 0)], dim=1)
        noise = 0.3 * torch.randn(count, WIDTH, generator=random)
        strays = torch.rand(count, generator=random) >= follows
        target = torch.where(strays, torch.randint(0, ITEMS, (count,), generator=random), (last + 1) % ITEMS)
        return Encoded(items[last] @ turn + noise, target, history)

    train, valid = encoded(cases, follows), encoded(200)
    walks = encoded(seen, follows)
    settings = WarmStartSettings(rank=WIDTH, learning_rate=1e-2, epochs=40, teacher_epochs=20, batch_size=64)
    cases = cases_of(walks.history, walks.targets)
    return WarmStart(items, train, valid, cases, 3, settings, tau=0.1, normalize=True, seed=1)


def with_forms(data: WarmStart, *forms: Form) -> WarmStart:
    return replace(data, settings=data.settings.model_copy(update={"forms": list(forms)}))


def plain_ndcg10(users: Tensor, items: Tensor, cases: Encoded) -> float:
    item_scores = torch.nn.functional.normalize(users, dim=1) @ torch.nn.functional.normalize(items, dim=1).T
    item_scores = item_scores.detach().scatter(1, cases.history, -torch.inf)
    own = item_scores.gather(1, cases.targets[:, None])
    return float(ndcg((item_scores >= own).sum(dim=1).numpy(), 10).mean())


@pytest.mark.parametrize("form", ["free", "taught"])
def test_a_form_learns_and_its_value_is_that_of_its_head(form: Form) -> None:
    data = with_forms(planted(), form)
    fitted = fit_rec_head(data)
    head, tried = fitted.head, fitted.tried
    assert tried[0].form == form and tried[1].form == "none"
    assert tried[0].value > 0.8 > 0.3 > tried[1].value
    plain_value = plain_ndcg10(head.user(data.valid.states), head.item(data.items), data.valid)
    assert plain_value == pytest.approx(tried[0].value, abs=1e-6)


def test_taught_needs_far_fewer_encoded_cases() -> None:
    """The teacher learns from histories that are not encoded; encoded cases only fit the map from states to it."""
    data = with_forms(planted(cases=100, seen=1000, follows=0.5), "free", "taught")
    tried = fit_rec_head(data).tried
    by_form = {choice.form: choice for choice in tried}
    assert by_form["taught"].value > by_form["free"].value + 0.1
    assert by_form["taught"].teacher is not None and by_form["taught"].teacher > 0.8


def test_the_heads_bias_gives_popularity_a_place() -> None:
    """Targets follow popularity and states hold nothing: standardised states have mean zero, the head's bias hasn't."""
    random = torch.Generator().manual_seed(2)
    weights = 1 / torch.arange(1.0, ITEMS + 1)
    items = torch.randn(ITEMS, WIDTH, generator=random)

    def encoded(count: int) -> Encoded:
        rows = torch.stack([torch.multinomial(weights, 4, generator=random) for _ in range(count)])  # no item twice
        rows = rows.gather(1, torch.rand(count, 4, generator=random).argsort(dim=1))
        return Encoded(torch.randn(count, WIDTH, generator=random), rows[:, 3], rows[:, :3])

    walks, valid = encoded(3000), encoded(400)
    cases = cases_of(walks.history, walks.targets)
    popular = weights.expand(len(valid.targets), ITEMS).scatter(1, valid.history, -torch.inf)
    rank = (popular >= popular.gather(1, valid.targets[:, None])).sum(dim=1)
    floor = float(ndcg(rank.numpy(), 10).mean())
    settings = planted().settings
    fitted = fit_rec_head(WarmStart(items, encoded(300), valid, cases, 3, settings, tau=0.1, normalize=True, seed=1))
    by_form = {choice.form: choice.value for choice in fitted.tried}
    assert by_form["taught"] > 0.9 * floor > 1.5 * by_form["none"]


def test_without_anything_to_learn_no_map_is_kept() -> None:
    data = planted()
    random = torch.Generator().manual_seed(1)
    strays = torch.randint(0, ITEMS, (len(data.cases),), generator=random).numpy().astype(np.int32)
    # The states themselves point at the target: any map that learns from random targets can only lose.
    direct = Encoded(data.items[data.valid.targets], data.valid.targets, data.valid.history)
    train = Encoded(
        data.items[data.train.targets], torch.randint(0, ITEMS, (300,), generator=random), data.train.history
    )
    noise = replace(data, cases=replace(data.cases, target=strays), train=train, valid=direct)
    fitted = fit_rec_head(noise)
    assert fitted.tried[0].form == "none" and fitted.tried[0].value > 0.9
    assert fitted.head.user_map is None
    # Not chosen, but there for the adapters to go on from.
    assert fitted.taught is not None and fitted.taught.user_map is not None and fitted.teacher is not None


def test_the_teachers_value_is_the_ndcg_of_its_probabilities() -> None:
    data = with_forms(planted(), "free", "taught")
    fitted = fit_rec_head(data)
    assert fitted.teacher is not None
    probabilities = fitted.teacher.probabilities(data.valid.history)
    assert probabilities.shape == (200, ITEMS) and torch.allclose(probabilities.sum(dim=1), torch.ones(200), atol=1e-5)
    masked = probabilities.scatter(1, data.valid.history, -torch.inf)
    ranks = (masked >= masked.gather(1, data.valid.targets[:, None])).sum(dim=1)
    (taught,) = (choice for choice in fitted.tried if choice.form == "taught")
    assert taught.teacher == pytest.approx(float(ndcg(ranks.numpy(), 10).mean()), abs=1e-6)


def test_divergence_by_hand() -> None:
    soft_targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    scores = torch.tensor([[0.0, math.log(3.0)], [2.0, 2.0]])  # probabilities 1/4, 3/4 and 1/2, 1/2
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert float(divergence(scores, soft_targets)) == pytest.approx((first + math.log(2)) / 2)


def test_the_same_seed_gives_the_same_maps() -> None:
    data = with_forms(planted(), "taught")
    first, second = fit_rec_head(data).head, fit_rec_head(data).head
    for name, value in first.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), second.state_dict()[name].numpy())
