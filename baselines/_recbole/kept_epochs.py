"""Let RecBole's own training go on after a kill: all that its next epoch depends on is kept after each epoch.

RecBole's checkpoint lacks the states of its random numbers, its curve and, behind an epoch that was no better, the
newest weights; and it is a pickle of whole objects. Here it is a file of safetensors. RecBole 1.2.1 draws from four
generators: Python's, NumPy's and torch's, and one of the training batches' own, by which they are shuffled.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from benchmark.storage.checksums import forget, intact, note_sum
from benchmark.storage.io import atomic


class KeptEpochs:
    """The state of a trainer of RecBole's after its newest epoch, in `folder`.

    trainer: with its network and optimizer, as made. batches: its loader of training batches.
    """

    def __init__(self, folder: Path, trainer: Any, batches: Any) -> None:
        self.folder, self.trainer, self.batches = folder, trainer, batches
        self.curve: list[float] = []  # the value of validation after each epoch
        self.best: dict[str, Tensor] = {}  # the weights behind the best of them

    @property
    def ended(self) -> bool:
        """Whether RecBole would train no further epoch."""
        return len(self.curve) >= self.trainer.epochs or self.trainer.cur_step > self.trainer.stopping_step

    def go_on(self) -> None:
        """Put the trainer where the newest kept epoch ended; a damaged file is passed over, with a word."""
        for path in sorted(self.folder.glob("epoch*.safetensors"), reverse=True):
            if intact(path):
                self._restore(path)
                print(f"goes on behind epoch {len(self.curve)}", flush=True)
                return

    def keep(self, epoch: int, value: float) -> None:
        """RecBole's `callback_fn`, which it calls after each epoch with its number, from 0, and its validation."""
        self.curve.append(float(value))
        if self.trainer.cur_step == 0:
            self.best = {name: tensor.detach().clone() for name, tensor in self.trainer.model.state_dict().items()}
        path = self.folder / f"epoch{epoch:05d}.safetensors"
        with atomic(path) as temporary:
            save_file(self._tensors(), temporary, metadata={"about": json.dumps(self._about())})
            note_sum(path, temporary)
        for older in self.folder.glob("epoch*.safetensors"):
            if older != path:
                forget(older)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"net.{name}": tensor for name, tensor in self.trainer.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for number, moments in self.trainer.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
        tensors["random.python"] = torch.tensor(random.getstate()[1])
        tensors["random.numpy"] = torch.from_numpy(_of_numpy()["state"].pop("key").astype(np.int64))
        tensors["random.torch"] = torch.get_rng_state()
        tensors["random.batches"] = self.batches.generator.get_state()
        for device in range(torch.cuda.device_count()):
            tensors[f"random.cuda.{device}"] = torch.cuda.get_rng_state(device)
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def _about(self) -> dict[str, Any]:
        version, _, gauss = random.getstate()
        numpy = _of_numpy()
        del numpy["state"]["key"]
        return {
            "curve": self.curve,
            "cur_step": self.trainer.cur_step,
            "best_valid_score": self.trainer.best_valid_score,
            "python": [version, gauss],
            "numpy": numpy,
        }

    def _restore(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            parts: dict[str, dict[str, Tensor]] = {"net": {}, "best": {}, "optimizer": {}, "random": {}}
            for name in list(file.keys()):
                part, _, rest = name.partition(".")
                parts[part][rest] = file.get_tensor(name)
        trainer, states = self.trainer, parts["random"]
        self.curve, self.best = about["curve"], parts["best"]
        trainer.start_epoch, trainer.cur_step = len(self.curve), about["cur_step"]
        trainer.best_valid_score = about["best_valid_score"]
        trainer.model.load_state_dict(parts["net"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = tensor
        trainer.optimizer.load_state_dict(trainer.optimizer.state_dict() | {"state": moments})
        version, gauss = about["python"]
        random.setstate((version, tuple(states["python"].tolist()), gauss))
        numpy = about["numpy"]
        numpy["state"]["key"] = states["numpy"].numpy().astype(np.uint32)
        np.random.set_state(numpy)
        torch.set_rng_state(states["torch"])
        self.batches.generator.set_state(states["batches"])
        for device in range(torch.cuda.device_count()):
            if (state := states.get(f"cuda.{device}")) is None:
                print(f"kept without GPU {device}, whose random numbers begin anew", flush=True)
            else:
                torch.cuda.set_rng_state(state, device)


def _of_numpy() -> dict[str, Any]:
    """The state of NumPy's global generator: its key, an array, and numbers."""
    return dict(np.random.get_state(legacy=False))
