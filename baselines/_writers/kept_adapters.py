"""Adapters that several rows begin from: trained once per dataset and seed, kept on disk, charged to each row that finds them."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from benchmark.storage import ledger
from benchmark.storage.checksums import intact, note
from benchmark.storage.io import alone, atomic, sha256_of_json


def kept(folder: Path, about: dict[str, Any], model: PreTrainedModel | PeftModel, train: Callable[[], Any]) -> Any:
    """Give the trainable parameters of `model` the values that `train` gives them, and return what it returns, a JSON value.

    about: all that the training depends on, as JSON, whose hash names the file. The first who asks trains, and who asks
    meanwhile waits. The file is written whole or not at all; a training that was killed goes on where `train` can.
    """
    path = folder / f"{sha256_of_json(about)}.safetensors"
    with ExitStack() as held:
        with ledger.waiting():
            held.enter_context(alone(path))
        if intact(path):
            ledger.found(path)
            return _load(path, model)
        with ledger.making(path):
            found = train()
            said = {"about": json.dumps(about, sort_keys=True), "report": json.dumps(found)}
            with atomic(path) as temporary:
                save_file(_trainable(model), temporary, metadata=said)
                note(path, temporary)
    return found


def _trainable(model: PreTrainedModel | PeftModel) -> dict[str, torch.Tensor]:
    return {name: one.detach().contiguous() for name, one in model.named_parameters() if one.requires_grad}


def _load(path: Path, model: PreTrainedModel | PeftModel) -> Any:
    """Take over what is in the file; its name says that it is of the same backbone and adapters."""
    own = _trainable(model)
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            own[name].copy_(file.get_tensor(name))
        return json.loads(file.metadata()["report"])
