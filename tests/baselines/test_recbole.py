"""RecBole's adapter: settings reach its networks, faster dropout, a job's GPUs, early stopping and histories."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import gru4rec
from benchmark.errors import InputError
from tests.support.quick_fits import all_scores, data, fit, unlabelled


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Run torch on one thread, as in a job of one core; two threads on tiny tensors only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def byte_dropout() -> Any:
    from baselines._recbole.dropout import ByteDropout

    return ByteDropout


def test_casers_settings_reach_its_network(tmp_path: Path) -> None:
    net = fit("caser", tmp_path, epochs=1, nv=3, nh=5, embedding_size=6).net  # type: ignore[attr-defined]
    assert net.conv_v.out_channels == 3 and {conv.out_channels for conv in net.conv_h} == {5}
    assert net.item_embedding.embedding_dim == 6


def test_a_setting_that_recboles_model_does_not_have_is_refused() -> None:
    from baselines._recbole.learners import fit_causal

    class Misspelt(gru4rec.Params):
        n_v: int = 4

    with pytest.raises(
        InputError, match=r"^GRU4Rec: RecBole's model has no setting 'n_v'; .* properties/model/GRU4Rec\.yaml"
    ):
        fit_causal("GRU4Rec", data()[0], 1, Misspelt(epochs=1))


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_byte_dropout_keeps_mean_and_rate(p: float) -> None:
    import torch

    dropout, x = byte_dropout()(p), torch.ones(999, 1001)  # no whole number of words
    torch.manual_seed(0)
    out = dropout(x)
    cut = round(256 * p) / 256
    values = out.unique()
    assert values[0] == 0 and len(values) == 2 and float(values[1]) == pytest.approx(1 / (1 - cut), rel=1e-6)
    error = (cut * (1 - cut) / x.numel()) ** 0.5  # one standard deviation of the rate
    assert float((out == 0).float().mean()) == pytest.approx(cut, abs=5 * error) and abs(cut - p) <= 1 / 512
    assert float(out.mean()) == pytest.approx(1, abs=5 * error / (1 - cut))
    # Neighbours fall independently: as often together as the product of their rates says.
    dropped = out == 0
    assert float((dropped[:, 1:] & dropped[:, :-1]).float().mean()) == pytest.approx(cut**2, abs=0.004)


def test_byte_dropout_is_a_dropout() -> None:
    import torch

    dropout = byte_dropout()
    x = torch.randn(7, 5, requires_grad=True)
    assert dropout(0.5).eval()(x) is x and dropout(0.0)(x) is x
    torch.manual_seed(1)
    dropped = dropout(0.5)(x)
    torch.manual_seed(1)
    assert torch.equal(dropped, dropout(0.5)(x))
    dropped.sum().backward()
    assert x.grad is not None and torch.equal(x.grad != 0, dropped != 0)
    assert torch.isfinite(dropout(1.0)(x)).all()
    assert dropout(0.3)(torch.empty(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("gpus", [None, "", "3"])
def test_recbole_leaves_the_gpus_that_a_job_was_given(
    gpus: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RecBole would write its own setting, "0" by default, into CUDA_VISIBLE_DEVICES."""
    import baselines._recbole.training as training

    seen: list[Any] = []
    init_seed = training.init_seed

    def look(*arguments: Any, **named: Any) -> None:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        init_seed(*arguments, **named)

    monkeypatch.setattr(training, "init_seed", look)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if gpus is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    fit("gru4rec", tmp_path / "work", epochs=1)
    assert set(seen) == {"0" if gpus is None else gpus}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == gpus


def test_early_stopping_waits_for_patience(tmp_path: Path) -> None:
    # So fast a learner overshoots at once: the best epoch is followed by exactly `patience` worse ones.
    report = fit("gru4rec", tmp_path, epochs=40, patience=2, learning_rate=0.05).report()
    curve = report["valid_ndcg@10_by_epoch"]
    assert report["epochs"] == len(curve) == report["best_epoch"] + 2 < 40
    assert report["best_epoch"] == 1 + int(np.argmax(curve))


def test_max_history_cuts_the_oldest(tmp_path: Path) -> None:
    recommender = fit("gru4rec", tmp_path / "w", epochs=1, max_history=2)
    cases = unlabelled().take(np.arange(10))
    rows = [cases.history(i)[-2:] for i in range(10)]
    lengths = [len(row) for row in rows]
    flat = np.concatenate(rows)
    short = replace(
        cases,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=flat,
        ratings=np.zeros(len(flat), np.float32),
        times=np.zeros(len(flat), np.int64),
    )
    assert max(np.diff(cases.offsets)) > 2
    np.testing.assert_allclose(all_scores(recommender, cases), all_scores(recommender, short), rtol=1e-5)
