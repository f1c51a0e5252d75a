"""RecBole's own training, kept after each epoch: as RecBole's alone, and the same after a kill in any epoch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines._recbole.kept_epochs import KeptEpochs
from baselines.stock_recbole import EPOCHS, Params, StockRecBole, fit, fit_cost
from benchmark.workload import Sizes
from tests.support.planted import planted_split

WHOLE, _ = planted_split()
SPLIT = replace(WHOLE, train=WHOLE.train.take(np.arange(600)), valid=WHOLE.valid.take(np.arange(80)))
# Its rate is so high that validation falls again: the newest epoch isn't the best one, and training ends early.
SETTINGS = {"train_batch_size": 200, "epochs": 6, "learning_rate": 0.05, "stopping_step": 1}


class Killed(Exception):
    """In the place of a signal: nothing in the fit handles it."""


def fitted(folder: Path, **more: Any) -> StockRecBole:
    return fit(SPLIT, seed=1, params=SETTINGS | more, workdir=folder)


def scores(recommender: StockRecBole) -> np.ndarray:
    return np.concatenate(list(recommender.score(replace(SPLIT.valid, target=None))))


@pytest.mark.parametrize("model", ["GRU4Rec", "BERT4Rec"])  # the latter masks items by random numbers of its own
def test_a_fit_killed_in_any_epoch_ends_as_an_unbroken_one(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fitted(tmp_path / "whole", model=model)
    assert int(np.argmax(whole.curve)) < len(whole.curve) - 1  # the newest weights aren't the best
    keep = KeptEpochs.keep
    for at in range(len(whole.curve)):
        for done in (False, True):  # before the epoch is kept, and after

            def killed(self: KeptEpochs, epoch: int, value: float, at: int = at, done: bool = done) -> None:
                if epoch != at or done:
                    keep(self, epoch, value)
                if epoch == at:
                    raise Killed

            monkeypatch.setattr(KeptEpochs, "keep", killed)
            with pytest.raises(Killed):
                fitted(tmp_path / "killed", model=model)
    monkeypatch.setattr(KeptEpochs, "keep", keep)
    capsys.readouterr()
    again = fitted(tmp_path / "killed", model=model)
    assert capsys.readouterr().out == f"goes on behind epoch {len(whole.curve)}\n"  # nothing was left to train
    assert again.curve == whole.curve
    np.testing.assert_array_equal(scores(again), scores(whole))
    assert not (tmp_path / "killed").exists()


def test_it_trains_as_recbole_alone_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole keeps its best epoch in a file of its own, if it is let."""
    from recbole.trainer import Trainer

    plain: dict[str, Any] = {}
    own = Trainer.fit

    def keeps(self: Any, train: Any, valid: Any, saved: bool, callback_fn: Any, **about: Any) -> Any:
        import torch

        result = own(self, train, valid, saved=True, callback_fn=callback_fn, **about)
        plain.update(torch.load(self.saved_model_file, weights_only=False)["state_dict"])
        return result

    ours = fitted(tmp_path / "ours")
    monkeypatch.setattr(Trainer, "fit", keeps)
    fitted(tmp_path / "plain")
    assert plain.keys() == ours.net.state_dict().keys()
    for name, weights in ours.net.state_dict().items():
        np.testing.assert_array_equal(weights.numpy(), plain[name].numpy())


def test_a_damaged_epoch_is_named_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fitted(tmp_path / "whole")
    keep = KeptEpochs.keep

    def killed(self: KeptEpochs, epoch: int, value: float) -> None:
        keep(self, epoch, value)
        if epoch == 1:
            raise Killed

    monkeypatch.setattr(KeptEpochs, "keep", killed)
    with pytest.raises(Killed):
        fitted(tmp_path / "killed")
    monkeypatch.setattr(KeptEpochs, "keep", keep)
    (kept,) = (tmp_path / "killed" / EPOCHS).glob("*.safetensors")
    data = bytearray(kept.read_bytes())
    data[-5] ^= 1
    kept.write_bytes(data)
    capsys.readouterr()
    again = fitted(tmp_path / "killed")
    said = capsys.readouterr().out
    assert f"damaged: {EPOCHS}/{kept.name} is not what was written there" in said and "goes on" not in said
    np.testing.assert_array_equal(scores(again), scores(whole))


def test_the_estimate_by_hand() -> None:
    sizes = Sizes(items=1340, train=96_158, valid=943, test=943)
    # 25 epochs with a gain, and the 10 that RecBole waits; of few epochs all.
    assert fit_cost(sizes, Params(model="GRU4Rec").model_dump()).seconds == pytest.approx(35 * 96_158 * 5.5e-4)
    assert fit_cost(sizes, Params(model="SASRec", epochs=2).model_dump()).seconds == pytest.approx(2 * 96_158 * 1.1e-3)


def test_epochs_kept_without_a_gpu_go_on_beside_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep, go_on = KeptEpochs.keep, KeptEpochs.go_on

    def killed(self: KeptEpochs, epoch: int, value: float) -> None:
        keep(self, epoch, value)
        raise Killed

    monkeypatch.setattr(KeptEpochs, "keep", killed)
    with pytest.raises(Killed):
        fitted(tmp_path / "killed")

    def moved(self: KeptEpochs) -> None:
        with monkeypatch.context() as gpu:
            gpu.setattr("torch.cuda.device_count", lambda: 1)
            go_on(self)
        raise Killed

    monkeypatch.setattr(KeptEpochs, "go_on", moved)
    with pytest.raises(Killed):
        fitted(tmp_path / "killed")
    assert "kept without GPU 0, whose random numbers begin anew\ngoes on behind epoch 1\n" in capsys.readouterr().out
