"""FSDP on two gloo processes: a fit with every weight in two pieces gives the results of one process with whole ones.

accelerate gives FSDP to GPUs alone. Here it is told that these processes are such, and everything behind that is what
runs there: its preparation of model and optimizer, torch's fully_shard, the Trainer's checkpoints.
"""

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from r2ec.fit import fit_r2ec
from r2ec.method import Params
from r2ec.recpo.trainer import RecPOTrainer
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.training.schedule import METRIC
from tests.support.tiny_fits import scores, settings, split, write_backbone

USERS = 6


def params(backbone: Path, processes: int, **changes: Any) -> Params:
    training = {
        "per_device_train_batch_size": USERS // processes,
        "split_grad_norms": 0,
        "eval_steps": 2,
        "eval_cases": 20,
    }
    fit_settings = settings(
        backbone, training=training | {"learning_rate": 1e-3} | changes, recpo={"num_iterations": 1}
    )
    return Params.model_validate(fit_settings)


def fsdp_without_gpus() -> None:
    original = AcceleratorState.__init__

    def init(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

    AcceleratorState.__init__ = init  # type: ignore[method-assign]


def work(rank: int, port: int, backbone: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    fsdp_without_gpus()
    pieces = []
    step = RecPOTrainer.training_step

    def watched(self: RecPOTrainer, model: Any, *args: Any, **kwargs: Any) -> Any:
        weights = list(model.parameters())
        pieces.append(all(isinstance(w, DTensor) for w in weights) and sum(w.to_local().numel() for w in weights))
        return step(self, model, *args, **kwargs)

    RecPOTrainer.training_step = watched  # type: ignore[method-assign]
    fit_params = params(Path(backbone), 2, fsdp="config/accelerate/fsdp.json")
    fitted = fit_r2ec(split(), 3, fit_params, Path(folder) / "both")
    np.save(f"{folder}/{rank}.npy", scores(fitted))
    torch.distributed.barrier()
    if rank == 0:  # as if it had been killed behind the second step
        shutil.rmtree(f"{folder}/both/model")
        shutil.rmtree(f"{folder}/both/recpo/checkpoint-4")
    torch.distributed.barrier()
    resumed = fit_r2ec(split(), 3, fit_params, Path(folder) / "both")
    states = {"state": fitted.reader.model.own_state(), "resumed": resumed.reader.model.own_state()}
    torch.save(states | {"pieces": pieces, "log": fitted.report()["recpo_log"]}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


def test_a_fit_in_pieces_is_the_fit_of_whole_weights(backbone: Path, tmp_path: Path) -> None:
    whole = fit_r2ec(split(), 3, params(backbone, 1), tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, str(backbone), str(tmp_path)), nprocs=2)
    expected, total = whole.reader.model.own_state(), sum(w.numel() for w in whole.reader.model.parameters())
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert len(results["pieces"]) == 4 + 2
        assert all(0.4 * total < count < 0.6 * total for count in results["pieces"])  # each has a half
        assert results["state"].keys() == expected.keys()
        for name, value in expected.items():
            assert float((results["state"][name] - value).abs().max()) <= 1e-4, name
            assert torch.equal(results["resumed"][name], results["state"][name]), name
        assert np.abs(np.load(tmp_path / f"{rank}.npy") - scores(whole)).max() < 1e-2
        assert sum(METRIC in entry for entry in results["log"]) == 2
        for mine, theirs in zip(results["log"], whole.report()["recpo_log"], strict=True):
            assert mine.keys() == theirs.keys()
            for value in ("reward", "grad_norm", METRIC):
                if value in mine:
                    assert mine[value] == pytest.approx(theirs[value], rel=1e-3), value
    assert isinstance(R2ecRecommender.load(tmp_path / "both" / "model", split()), R2ecRecommender)
