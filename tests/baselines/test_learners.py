"""Tests of the sequential models' training: every case once an epoch, RecBole's loss and gradient, masks."""

import functools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

# The first brings back what numpy 2 dropped, without which RecBole can't be imported.
from baselines._recbole.training import Catalogue, _config, _read_padding_as_nothing, get_model  # isort: skip
from baselines import bert4rec, caser, gru4rec, sasrec
from baselines._recbole import cross_entropy
from baselines._recbole.learners import EveryCase, EveryPosition, causal_loss
from baselines._recbole.masked_items import MaskedItems, MaskedPlaces
from baselines._recbole.speed import measure
from baselines._recbole.windows import Batch, Windows, left_aligned
from benchmark.contract import Sequences
from tests.support.planted import as_split, planted, planted_split, prepare_planted

CPU = torch.device("cpu")


@functools.cache
def split() -> Any:
    """Return lines of 16 items with baskets; a network reads 8 of them."""
    raw = planted(n_users=30)
    raw.interactions["timestamp"] //= 150_000
    return as_split(prepare_planted(raw, history_length=8))


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 20), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_cross_entropy_is_torchs(n_states: int, n_items: int, n: int, with_bias: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    states, weight = torch.randn(n_states, 3, generator=generator), torch.randn(n_items, 3, generator=generator)
    bias = torch.randn(n_items, generator=generator) if with_bias else None
    state_of = torch.randint(n_states, (n,), generator=generator).sort().values
    target = torch.randint(n_items, (n,), generator=generator)
    whole, least = cross_entropy.BLOCK, cross_entropy.LEAST
    losses, gradients = [], []
    for block in (whole, 3 * n_items, None):  # all at once, three states at a time, torch's own
        inputs = [part.clone().requires_grad_() for part in (states, weight, bias) if part is not None]
        own_bias = inputs[2] if with_bias else None
        if block is None:
            logits = torch.nn.functional.linear(inputs[0], inputs[1], own_bias)[state_of]
            loss = torch.nn.functional.cross_entropy(logits, target)
        else:
            cross_entropy.BLOCK, cross_entropy.LEAST = block, 1
            loss = cross_entropy.cross_entropy(inputs[0], inputs[1], state_of, target, own_bias)
            cross_entropy.BLOCK, cross_entropy.LEAST = whole, least
        (3 * loss).backward()
        losses.append(loss.detach())
        gradients.append([part.grad for part in inputs])
    for loss, gradient in zip(losses[:2], gradients[:2], strict=True):
        torch.testing.assert_close(loss, losses[2])
        torch.testing.assert_close(gradient, gradients[2])


def test_a_large_catalogue_is_read_once_for_many_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """300,000 logits of a state leave room for six in a block; 64 states take two blocks nevertheless, of 38 MB
    each."""
    sizes, product = list[int](), torch.addmm

    def counted(bias: torch.Tensor, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        sizes.append(len(states))
        return product(bias, states, weight)

    monkeypatch.setattr(torch, "addmm", counted)
    state_of = torch.arange(64)
    cross_entropy.cross_entropy(torch.zeros(64, 1), torch.zeros(300_000, 1), state_of, state_of)
    assert sizes == [32, 32]


def epoch(length: int, stride: int, targets: int = 30, seed: int = 0) -> list[Batch]:
    windows = Windows(split().train.sequences(), length, stride)
    return list(windows.batches(targets, np.random.default_rng(seed), CPU))


def pairs(batch: Batch) -> list[tuple[int, tuple[int, ...], int]]:
    """Return (case, items read, target) of each target, in item numbers."""
    length = batch.items.shape[1]
    out = []
    for state, case, target in zip(batch.state_of, batch.case, batch.target, strict=True):
        row, column = divmod(int(batch.places[state]), length)
        read = batch.items[row, : column + 1] - 1
        out.append((int(case), tuple(read.tolist()), int(target) - 1))
    return out


@pytest.mark.parametrize(("length", "stride"), [(8, 8), (8, 4), (8, 1), (5, 2), (1, 1)])
def test_windows_hold_every_case_once_with_the_newest_of_its_history(length: int, stride: int) -> None:
    cases = split().train
    assert cases.target is not None
    for seed in (0, 1):
        triples = [pair for batch in epoch(length, stride, seed=seed) for pair in pairs(batch)]
        assert sorted(case for case, _, _ in triples) == list(range(len(cases)))
        for case, read, target in triples:
            history = cases.history(case).tolist()
            assert list(read) == history[-len(read) :] and target == cases.target[case]
            assert min(len(history), length - stride + 1) <= len(read) <= length
        if stride == 1:  # all of the history that is read
            assert all(len(read) == min(len(cases.history(case)), length) for case, read, _ in triples)


def test_pieces_begin_elsewhere_in_each_epoch() -> None:
    def begins(seed: int) -> set[tuple[int, ...]]:
        return {tuple(row.tolist()) for batch in epoch(8, 8, seed=seed) for row in batch.items}

    assert begins(0) == begins(0) != begins(1)
    sizes = [len(batch.items) for batch in epoch(8, 8)]
    assert len(set(sizes[:-1])) == 1 and 1 <= sizes[-1] <= sizes[0]


@pytest.mark.parametrize("length", [4, 16])
def test_a_step_has_about_so_many_targets_also_where_lines_are_short(length: int) -> None:
    """Pieces of 16 hold 16 targets of long lines and 4 of short ones; a step takes as many pieces as it needs."""
    cases = prepare_planted(planted(n_users=200, length=length), history_length=16).train
    batches = list(Windows(cases.sequences(), 16, 8).batches(100, np.random.default_rng(0), CPU))
    assert 85 < np.mean([len(batch.target) for batch in batches[:-1]]) < 115


def network(name: str, method: Any, length: int = 8, maker: Any = None, **changes: Any) -> tuple[Any, Any]:
    """Return the network without dropout, and its settings."""
    off = {field: 0.0 for field in method.Params.model_fields if "dropout" in field}
    params = method.Params(max_history=length, **(off | changes))
    torch.manual_seed(0)
    config = _config(name, length, 0, params.model_dump())
    users = len(np.unique(split().train.user))
    net = (maker or get_model(name))(config, Catalogue(split().n_items, users))
    _read_padding_as_nothing(net)
    return net.train(), params


def gradients(net: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    net.zero_grad()
    loss.backward()
    return {name: part.grad.clone() for name, part in net.named_parameters() if part.grad is not None}


@pytest.mark.parametrize(("name", "method"), [("SASRec", sasrec), ("GRU4Rec", gru4rec)])
def test_loss_and_gradient_are_recboles_on_the_same_pairs(name: str, method: Any) -> None:
    net, params = network(name, method, train_batch_size=40)
    learner = EveryPosition.of(split(), params)(8)
    batches = list(learner.windows.batches(40, np.random.default_rng(0), CPU))
    assert any(len(batch.target) > len(batch.places) for batch in batches)  # baskets
    steps = list(learner.losses(net, np.random.default_rng(0)))
    for batch, ours in zip(batches[:3], steps[:3], strict=True):
        rows = pairs(batch)
        history = torch.zeros(len(rows), 8, dtype=torch.int64)
        for i, (_, read, _) in enumerate(rows):
            history[i, : len(read)] = torch.tensor(read) + 1
        lengths, target = (history > 0).sum(dim=1), torch.tensor([item for _, _, item in rows]) + 1
        interaction = {"item_id_list": history, "item_length": lengths, "item_id": target}
        theirs = net.calculate_loss(interaction)
        expected = gradients(net, theirs)
        torch.testing.assert_close(ours(), theirs)
        torch.testing.assert_close(gradients(net, ours()), expected, rtol=1e-4, atol=1e-6)
        assert len(expected) >= 5 and all(float(part.abs().max()) > 0 for part in expected.values())
    # The network's own way of choosing a place is back.
    assert net.forward(history, lengths).shape == (len(rows), 64)


def test_casers_loss_and_gradient_are_recboles_and_every_case_is_learned_once() -> None:
    net, params = network("Caser", caser, length=5, train_batch_size=50)
    learner, cases = EveryCase(split(), params, caser.loss, 5), split().train
    steps = list(learner.losses(net, np.random.default_rng(0)))
    at_once = round(50 * len(learner.first) / len(cases))
    assert len(steps) == -(-len(learner.first) // at_once) and len(learner.first) < len(cases)
    seen = []
    for step in steps:
        _, inputs, state_of, target = step.args  # type: ignore[attr-defined]
        assert (state_of.diff() >= 0).all() and set(state_of.tolist()) == set(range(len(inputs["user_id"])))
        users, items = inputs["user_id"][state_of].tolist(), inputs["item_id_list"][state_of].tolist()
        seen += [(user, *row, int(item)) for user, row, item in zip(users, items, target, strict=True)]
    numbers = 1 + np.unique(cases.user, return_inverse=True)[1]
    wanted = zip(numbers.tolist(), left_aligned(cases, 5).tolist(), cases.target + 1, strict=True)
    assert sorted(seen) == sorted((user, *row, int(item)) for user, row, item in wanted)
    inputs, state_of, target = steps[0].args[1:]  # type: ignore[attr-defined]
    inputs = {name: part[state_of] for name, part in inputs.items()}
    theirs = net.calculate_loss(inputs | {"item_id": target})
    expected = gradients(net, theirs)
    torch.testing.assert_close(steps[0](), theirs)
    torch.testing.assert_close(gradients(net, steps[0]()), expected, rtol=1e-4, atol=1e-6)


def masked(ratio: float, last: float, **changes: Any) -> tuple[MaskedItems, MaskedPlaces]:
    net, params = network("BERT4Rec", bert4rec, maker=MaskedItems, mask_ratio=ratio, ft_ratio=last, **changes)
    return net, MaskedPlaces(split(), 8, targets=params.train_batch_size, mask_ratio=ratio, last_alone=last)


def test_bert4rec_reads_all_lines_in_pieces() -> None:
    _, learner = masked(0.2, 0.5)
    lines = split().train.sequences()
    for seed in (0, 1):
        pieces = learner.pieces(np.random.default_rng(seed))
        assert pieces.shape[1] == 9 and (pieces > 0).any(axis=1).all()
        assert (pieces[pieces > 0] - 1).tolist() == lines.items.tolist()  # each item once, in order
    lengths = (pieces > 0).sum(axis=1)
    assert lengths.max() == 9 and len(set(lengths)) > 3  # lines end anywhere in a piece


def test_a_target_alone_is_masked_behind_its_history_and_nothing_of_its_second() -> None:
    _, learner = masked(0.2, 0.5)
    cases = split().train
    rows = np.arange(len(cases))
    items = learner.with_targets(rows)
    for i in rows:
        length = len(cases.history(i))
        assert items[i].tolist() == [*(cases.history(i) + 1), cases.target[i] + 1, *[0] * (8 - length)]


def test_an_epoch_of_bert4rec_has_about_as_many_targets_as_cases() -> None:
    for ratio in (0.1, 0.4):
        net, learner = masked(ratio, 0.5)
        counts = [int(step.args[1].sum()) for step in learner.losses(net, np.random.default_rng(0))]  # type: ignore[attr-defined]
        assert 0.75 * len(split().train) < sum(counts) < 1.35 * len(split().train)
        assert learner.times > 1


def test_bert4recs_loss_is_the_cross_entropy_of_what_is_masked() -> None:
    net, learner = masked(0.8, 0.5, train_batch_size=60)
    steps = list(learner.losses(net, np.random.default_rng(0)))
    n_alone = n_rows = 0
    for step in steps:
        items, places = step.args  # type: ignore[attr-defined]
        assert places.any(dim=1).all() and not places[items == 0].any()
        count = places.sum(dim=1)
        n_alone, n_rows = n_alone + int((count == 1).sum()), n_rows + len(items)
    assert 0.5 <= n_alone / n_rows < 0.7  # half of the rows by intent, some pieces by chance
    states = net(items.masked_fill(places, net.mask_token))[places]
    logits = states @ net.item_embedding.weight[: net.n_items].T + net.output_bias
    theirs = torch.nn.functional.cross_entropy(logits, items[places])
    expected = gradients(net, theirs)
    torch.testing.assert_close(steps[-1](), theirs)
    torch.testing.assert_close(gradients(net, steps[-1]()), expected, rtol=1e-4, atol=1e-6)
    assert "output_bias" in expected


def test_a_line_that_predicts_nothing_at_its_end_is_cut_there() -> None:
    lines = Sequences(
        user=np.array([3], np.int32),
        offsets=np.array([0, 4]),
        items=np.array([5, 6, 7, 8], np.int32),
        times=np.arange(4),
        context=np.array([0, 0]),
        target=np.array([6, 7], np.int32),
    )
    (batch,) = Windows(lines, 4, 4).batches(2, np.random.default_rng(0), CPU)
    assert batch.items.tolist() == [[6, 0, 0, 0]] and batch.places.tolist() == [0]
    assert batch.state_of.tolist() == [0, 0] and sorted(batch.target.tolist()) == [7, 8]


def test_the_loss_is_learned_with_what_a_method_adds_to_its_states() -> None:
    """A method's own loss, as KAR's, gets the batch with the case numbers, by which it finds each case's text."""
    net, params = network("GRU4Rec", gru4rec)
    seen: list[int] = []

    def loss(net: Any, batch: Batch) -> torch.Tensor:
        seen.extend(batch.case.tolist())
        return causal_loss(net, replace(batch))

    for step in EveryPosition.of(split(), params, loss)(8).losses(net, np.random.default_rng(0)):
        assert torch.isfinite(step())
    assert sorted(seen) == list(range(len(split().train)))


def test_validation_cases_cost_no_memory() -> None:
    """A training that validates on 3,200 cases peaks no higher than one on 1,100, each several batches: scored at once,
    the others would be 64 MiB more, and whatever sorts them makes several of these."""
    code = (
        "import resource, sys, numpy as np, pandas as pd\n"
        "from baselines import sasrec\n"
        "from benchmark.datasets import Raw\n"
        "from tests.support.planted import as_split, prepare_planted\n"
        "n, length, items = 3000, 12, 8000\n"
        "draw = np.random.default_rng(0)\n"
        "item = np.concatenate([draw.permutation(items)[:length] for _ in range(n)])\n"
        "users = np.repeat([f'u{i}' for i in range(n)], length)\n"
        "log = pd.DataFrame({'user_id': users, 'item_id': [f'i{v}' for v in item]})\n"
        "log['timestamp'], log['rating'] = 10**9 + draw.permutation(n * length), np.float32(1)\n"
        "names = [f'i{v}' for v in range(items)]\n"
        "raw = Raw(interactions=log, items=pd.DataFrame({'item_id': names, 'title': names}))\n"
        "split = as_split(prepare_planted(raw, valid_cases=int(sys.argv[1])))\n"
        "assert split.n_items > 7000 and len(split.valid) == int(sys.argv[1])\n"
        "sasrec.fit(split, seed=1, params={'epochs': 1}, workdir=None)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    few, many = (
        int(subprocess.run([sys.executable, "-c", code, n], check=True, capture_output=True, text=True).stdout)
        for n in ("1100", "3200")
    )
    assert many < few + 25


@pytest.mark.parametrize("own", [True, False])
def test_targets_per_second_are_those_of_the_epochs_alone(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m baselines._recbole.speed`: both trainings learn, and importing and validating aren't counted."""
    monkeypatch.chdir(tmp_path)
    measured = measure(planted_split()[0], "GRU4Rec", own, 300, 2)
    assert measured["targets_per_second"] > 300 and measured["peak_mib"] > 100
