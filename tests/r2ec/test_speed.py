"""The speed script on a tiny model: both ways do the same work, and its table says what was measured."""

import math
import unittest.mock
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from r2ec.speed import __main__ as script
from r2ec.speed import evaluation, growth, limits, parts, peer, plain, report
from r2ec.speed.growth import Point
from r2ec.speed.work import Pair, Size, Work, in_turns, paired
from tests.support.tiny_fits import split, write_backbone

SMALL = Size(users=4, group=2, items_in_prompt=4, new_tokens=5, repeats=1)
LIMITS = limits.Limits(threads=1, float32_gflops=100, bfloat16_gflops=100, copy_gbytes=10)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_backbone(tmp_path_factory.mktemp("backbone")))


def make(backbone: str, size: Size = SMALL) -> Work:
    return Work(split(), backbone, size, dtype="float32")


def test_limits_are_those_of_the_work_counted() -> None:
    measured = limits.measure(width=64, copied=2**16, tries=1)
    assert measured.threads == torch.get_num_threads()
    assert min(measured.float32_gflops, measured.bfloat16_gflops, measured.copy_gbytes) > 0
    assert LIMITS.gflops(torch.bfloat16) == 100


@pytest.mark.parametrize(("seconds", "widest"), [(2.0, 8), (0.5, 64)])
def test_no_wider_product_follows_a_slow_one(seconds: float, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []

    def best(work: Callable[[], torch.Tensor], tries: int) -> float:
        product = work()
        if product.dim() == 2:  # not the copy
            widths.append(len(product))
        return seconds

    monkeypatch.setattr(limits, "_best", best)
    measured = limits.measure(width=64, copied=2**16, tries=1)
    assert max(widths) == widths[-1] == widest
    assert measured.float32_gflops == round(2 * widest**3 / seconds / 1e9, 1)


def test_ratios_are_of_pairs() -> None:
    pair = paired(
        ([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]),
        part="x",
        plain_way="y",
        unit="z",
        target=None,
        share_of_matmul=None,
        check="",
    )
    assert (pair.ours, pair.plain, pair.ratio, pair.lowest, pair.highest) == (4.0, 1.0, 3.0, 2.0, 4.0)


def test_turns_alternate_and_the_first_is_not_counted() -> None:
    turns: list[str] = []
    rates = in_turns("x", lambda t: turns.append(f"a{t}") or 1.0, lambda t: turns.append(f"b{t}") or 1.0, 2)  # type: ignore
    assert turns == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert [len(rates_of_one) for rates_of_one in rates] == [2, 2]


def test_the_plain_update_in_parts_is_ours(backbone: str) -> None:
    work = make(backbone, Size(users=3, group=2, items_in_prompt=4, new_tokens=5))  # parts of 2 and 1 users
    ours = parts.our_update(work)
    gradients = [p.grad.clone() for p in work.reader.model.parameters() if p.grad is not None]
    loss, _ = plain.update(work)
    assert loss == pytest.approx(ours, rel=1e-4)
    expected = [p.grad for p in work.reader.model.parameters() if p.grad is not None]
    assert len(gradients) == len(expected) > 0
    for gradient, grad in zip(gradients, expected, strict=True):
        assert float((gradient - grad).norm()) <= 1e-3 * float(grad.norm()) + 1e-6


def test_written_counts_up_to_the_end_token() -> None:
    assert plain.written(torch.tensor([[5, 2, 2], [5, 6, 7]]), end=2) == 2 + 3


@pytest.mark.parametrize("part", [parts.rollouts, parts.update, parts.item_table, parts.items_again])
def test_parts_are_measured_and_checked(part: object, backbone: str) -> None:
    pair = part(make(backbone), LIMITS, make(backbone))  # type: ignore[operator]
    assert isinstance(pair, Pair) and pair.ratio > 0
    if part is parts.rollouts:
        count, total = pair.check.split(" of ")
        assert int(count) == int(total.split()[0]) > 0
    else:
        numbers = [float(word) for word in pair.check.replace(",", "").split() if "e-" in word or word == "0.0e+00"]
        assert numbers and max(numbers) < (1e-3 if part is not parts.items_again else 1e-30)


def test_a_step_of_the_peer_has_the_same_states_and_trains(backbone: str, tmp_path: Path) -> None:
    work, peers = make(backbone), make(backbone)
    before = [p.detach().clone() for p in peers.reader.model.parameters() if p.requires_grad]
    pair = peer.step(work, peers, tmp_path)
    assert pair.ratio > 0
    assert float(pair.check.split(" apart")[0].split()[-1]) < 1e-4
    after = [p for p in peers.reader.model.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_peers_reward_is_recpos(backbone: str, tmp_path: Path) -> None:
    """Each way from its own h_T to the reward of the same rollouts."""
    from r2ec.recpo.reward import recpo_rewards

    work = make(backbone)
    work.reader.table.refresh(work.reader.model)
    theirs = peer.GRPORecommender(work, tmp_path)
    rollouts, group, recpo = work.rollouts, work.size.group, work.params.recpo
    history = torch.from_numpy(work.cases.padded(-1, work.split.history_length)).repeat_interleave(group, dim=0)
    targets = work.targets.repeat_interleave(group)
    expected = recpo_rewards(
        work.reader.model.eval()(rollouts).users,
        work.reader.model.catalogue(work.reader.table.states),
        targets,
        history,
        tau=recpo.tau,
    )
    prompts = [work.reader.prompts.text(work.prompts[row // group]) for row in range(len(targets))]
    completions = [
        ids[mask].tolist() for ids, mask in zip(rollouts.completion_ids, rollouts.completion_mask, strict=True)
    ]
    rewards = theirs._reward(prompts, completions, target=targets.tolist(), history=history.tolist())
    torch.testing.assert_close(torch.tensor(rewards), expected.reward, rtol=1e-3, atol=1e-4)


def test_every_part_is_on_disk_when_the_next_begins(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "measure", lambda: LIMITS)
    monkeypatch.setattr(parts, "CHECKED", Size(users=2, group=2, items_in_prompt=3, new_tokens=3))
    monkeypatch.setattr(script, "read_split", lambda folder: split())
    small = ["--users", "2", "--group", "2", "--items-in-prompt", "3", "--new-tokens", "3", "--repeats", "1"]
    wanted = ["--parts", "rollouts", "update"]
    monkeypatch.setattr("sys.argv", ["speed", "--backbone", backbone, "--out", str(tmp_path / "out"), *small, *wanted])
    monkeypatch.setattr(parts, "update", stopped := unittest.mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        script.main()
    stopped.assert_called_once()
    measured = report.Measured.model_validate_json((tmp_path / "out" / "speed.json").read_text())
    assert [pair.part for pair in measured.pairs] == ["rollouts"]


def test_latencies_of_both_methods_are_measured(backbone: str, tmp_path: Path) -> None:
    latencies = evaluation.measure(make(backbone), tmp_path)
    assert [row.method for row in latencies] == ["r2ec", "sasrec"]
    assert all(0 < row.alone_ms <= row.alone_ms_p95 and row.together > 0 for row in latencies)


def test_growth_begins_with_a_group_of_one(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "NEW_TOKENS", 3)
    points = growth._of_group(split(), backbone, growth.GROUPS[0])
    assert growth.GROUPS[0] == 1
    assert [(point.part, point.value) for point in points] == [("rollouts", 1), ("update", 1)]
    assert all(point.seconds > 0 for point in points)


def test_growth_of_the_reward_is_measured_and_its_exponent_right() -> None:
    (point,) = growth._of_catalogue(500)
    assert point.seconds > 0
    quadratic = [Point(part="x", against="y", value=v, seconds=v**2, added_mib=1) for v in (4, 1, 2)]
    assert growth.exponent(quadratic) == pytest.approx(2)


def test_the_table_and_plot_are_written(tmp_path: Path) -> None:
    pair = paired(
        ([3.0], [1.0]), part="update", plain_way="plain", unit="tokens", target=2.5, share_of_matmul=0.5, check="ok"
    )
    points = [Point(part="reward", against="items", value=v, seconds=v / 10, added_mib=v) for v in (10, 100)]
    latency = [evaluation.Latency(method="r2ec", alone_ms=12.0, alone_ms_p95=20.0, together=3.0)]
    measured = report.Measured(
        commit="abc",
        hardware={},
        dataset="d",
        size=SMALL,
        limits=LIMITS,
        pairs=[pair],
        latency=latency,
        growth=points,
    )
    report.write(measured, tmp_path)
    text = (tmp_path / "speed.md").read_text()
    assert "| update | 3 tokens/s | 1, plain | 3.00 (3.00 to 3.00) | 2.5 | 50% | ok |" in text
    assert "| reward | items | 1.00 |" in text and "| r2ec | 12 (20) | 3.0 |" in text
    assert {path.name for path in tmp_path.iterdir()} == {
        "speed.json",
        "speed.md",
        "speed.csv",
        "growth.png",
        "growth.pdf",
    }
    assert report.Measured.model_validate_json((tmp_path / "speed.json").read_text()) == measured
    assert math.isclose(measured.pairs[0].ratio, 3.0)
