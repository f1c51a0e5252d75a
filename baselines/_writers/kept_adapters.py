"""Keeps adapters that several rows begin from: trained once, kept on disk, charged to each row that loads them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from benchmark.storage.kept import kept, place


def kept_adapters(
    folder: Path, about: dict[str, Any], model: PreTrainedModel | PeftModel, train: Callable[[], Any]
) -> Any:
    """Train `model` by calling `train`, or load the trainable weights that an equal training has kept.

    about: all that the training depends on, as JSON; its hash names the file. The first job trains, and others wait for
    it. A killed training goes on where `train` can. Returns what `train` returned, a JSON value.
    """
    path = place(folder, about, ".safetensors")

    def make(temporary: Path) -> None:
        metadata = {"about": json.dumps(about, sort_keys=True), "report": json.dumps(train())}
        save_file(_trainable(model), temporary, metadata=metadata)

    was_kept = kept(path, make)
    own = _trainable(model)
    with safe_open(path, framework="pt") as file:
        # The file's name says that they are of the same backbone and adapters.
        for name in file.keys() if was_kept else ():
            own[name].copy_(file.get_tensor(name))
        return json.loads(file.metadata()["report"])


def _trainable(model: PreTrainedModel | PeftModel) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().contiguous() for name, parameter in model.named_parameters() if parameter.requires_grad
    }
