"""Signal and noise of RecPO's gradients: by hand, and of a tiny model."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmark.output.page.headroom import Gradients
from benchmark.storage.io import read_json
from r2ec.headroom import __main__ as headroom
from r2ec.headroom import gradients as module
from r2ec.headroom.gradients import gradients, noise_of, rows_of, trainer_at
from tests.support.planted import planted, write_prepared
from tests.support.tiny_fits import fit_one_step

USERS = 6


def test_signal_and_noise_by_hand() -> None:
    """Products of three gradients: squares 5, 2, 5, and 1, 4, 1 between them. Mean square 4, signal 2."""
    noise = noise_of(np.array([[1.0, 2.0], [1.0, 0.0 + 0.0], [1.0, 2.0]]) + np.array([[0, 0], [0, 1], [0, 0]]))
    products = np.array([[5.0, 3.0, 5.0], [3.0, 2.0, 3.0], [5.0, 3.0, 5.0]])
    assert noise.size == pytest.approx(np.sqrt(np.trace(products) / 3))
    share = (3 + 5 + 3) / 3 / 4
    assert noise.signal == pytest.approx(share)
    # Without the first, second and third: 3 of 3.5, 5 of 5, 3 of 3.5.
    without = np.array([3 / 3.5, 1.0, 3 / 3.5])
    error = np.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert (noise.low, noise.high) == pytest.approx((share - 1.96 * error, share + 1.96 * error))
    assert noise.scale(share, 16) == pytest.approx(16 * (1 - share) / share)
    assert noise.scale(-0.1, 16) is None


def test_the_noise_scale_is_that_of_the_users_however_they_are_batched() -> None:
    """Gradients of users are a signal of norm 1 and noise of variance 40 in all: the scale is 40 users."""
    rng = np.random.default_rng(1)
    signal = np.full(400, 0.05)
    users = signal + np.sqrt(0.1) * rng.normal(size=(4096, 400))
    for size in (8, 32):
        row = rows_of({"tokens": users.reshape(-1, size, 400).mean(axis=1)}, size).iloc[0]
        assert row["scale"] == pytest.approx(40, rel=0.15)
        assert row["scale_low"] < 40 < row["scale_high"]
        assert row["steps"] == pytest.approx(1 + row["scale"] / size)
    none = rows_of({"tokens": (users - signal)[:64]}, 1).iloc[0]
    assert np.isinf(none["scale_high"]) and none["low"] < 0 < none["high"]


def test_gradients_that_are_drawn_without_replacement() -> None:
    """All eight cases of a set whose gradients are of equal length and sum to nothing: products are -1/7 on average."""
    cases = np.vstack([np.eye(4), -np.eye(4)])
    assert noise_of(cases).signal == pytest.approx(-1 / 7)
    assert noise_of(cases, drawn=1 / 7).signal == pytest.approx(0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = planted(n_users=60)
    return write_prepared(tmp_path_factory.mktemp("data") / "toy", raw, test_cases=60, valid_cases=40, history_length=6)


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_one_step(data, tmp_path_factory.mktemp("fit"))


def test_both_terms_together_are_the_gradient_of_the_loss(data: Path, model: Path, tmp_path: Path) -> None:
    trainer, split = trainer_at(model, data, tmp_path / "trainer")
    cases = split.llm_train
    found = gradients(trainer, cases.take(np.arange(3 * USERS)), USERS, tmp_path / "parts")
    assert {term: len(rows) for term, rows in found.items()} == {"tokens": 3, "items": 3}
    assert all((np.abs(rows).sum(axis=1) > 0).all() for rows in found.values())
    trainer.place, trainer.state.global_step = (0, 0), 0
    trainer.compute_loss(trainer.model, trainer.prepared(cases.take(np.arange(USERS)))).backward()
    weights = [weight for weight in trainer.net.parameters() if weight.requires_grad]
    whole = torch.cat([torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights])
    assert found["tokens"][0] + found["items"][0] == pytest.approx(whole.numpy(), abs=1e-6)


def test_the_command_goes_on_from_finished_batches_and_writes_its_report(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["gradients", "--model", str(model), "--data", str(data), "--out", str(tmp_path), "--batches", "3"]
    monkeypatch.setattr(sys, "argv", words)
    module.main()
    text = (tmp_path / "gradients.md").read_text()
    assert "toy: 3 batches of 6 training cases with 3 reasonings each" in text and "| tokens |" in text
    assert text.strip() in capsys.readouterr().out
    frame = (tmp_path / "gradients.csv").read_text()
    measure = Gradients.model_validate(read_json(tmp_path / "gradients.json"))
    assert (measure.run, measure.batches, measure.size, measure.samples) == (None, 3, 6, 3)
    assert [term.term for term in measure.terms] == ["tokens", "items"]
    parts = sorted(tmp_path.glob("gradients-*/*.npz"))
    assert [part.name for part in parts] == ["000000.npz", "000006.npz", "000012.npz"]
    kept = parts[0].stat().st_mtime_ns
    parts[1].unlink()
    module.main()
    assert (tmp_path / "gradients.csv").read_text() == frame and parts[0].stat().st_mtime_ns == kept
    monkeypatch.setattr(sys, "argv", [*words[:-1], "4"])  # more batches go on from fewer
    module.main()
    assert "toy: 4 batches" in (tmp_path / "gradients.md").read_text() and parts[0].stat().st_mtime_ns == kept


def test_too_few_batches_are_refused(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["gradients", "--model", str(model), "--data", str(data), "--out", str(tmp_path), "--batches", "2"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        module.main()
    assert "--batches 2; give at least 3" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*words[:-1], "3"])
    only = trainer_at(model, data, tmp_path / "trainer")
    few = SimpleNamespace(llm_train=only[1].llm_train.take(np.arange(3 * USERS - 1)))
    monkeypatch.setattr(module, "trainer_at", lambda *given: (only[0], few))
    with pytest.raises(SystemExit):
        module.main()
    assert f"{data}: 17 training cases are fewer than three batches of 6" in capsys.readouterr().err
    assert not list(tmp_path.glob("gradients*"))


def test_a_model_without_a_reasoning_has_nothing_to_choose(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fit_one_step(data, tmp_path / "fit", recpo={"reasoning": False})
    words = ["--model", str(model), "--data", str(data), "--out", str(tmp_path / "out")]
    for command in (module.main, headroom.main):
        for more in ([], ["--dry-run"]) if command is headroom.main else ([],):
            monkeypatch.setattr(sys, "argv", ["command", *words, *more])
            with pytest.raises(SystemExit):
                command()
            assert "was trained without a reasoning" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))
