"""RecPOTrainer in two processes with half of the users each ends with the weights of one process with all of them."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from benchmark.provenance import derive_seed
from r2ec.fit import trainer_of
from r2ec.method import Params
from r2ec.model.network import R2ec
from r2ec.recpo.trainer import RecPOTrainer
from r2ec.scoring.reader import Reader
from r2ec.training.schedule import METRIC
from tests.support.tiny_fits import settings, split, write_backbone

USERS = 6
# Of four steps the third begins with a new item table, where nothing else is said.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "reasoning": {"training": {"split_grad_norms": 1}},
    "no reasoning": {"recpo": {"reasoning": False}},
    "iterations, accumulation, evaluations": {
        "recpo": {"num_iterations": 2, "logq": True},
        "training": {"gradient_accumulation_steps": 2, "eval_steps": 2, "split_grad_norms": 1},
    },
    "classification head": {"recpo": {"cls_head": True}, "warm_start": {"cases": 0}},
}


def make(backbone: Path, variant: str, processes: int, folder: Path) -> RecPOTrainer:
    changes = VARIANTS[variant]
    fit_settings = settings(backbone, **(changes | {"training": {"save_steps": 2} | changes.get("training", {})}))
    fit_settings["training"]["per_device_train_batch_size"] = USERS // processes
    params, data = Params.model_validate(fit_settings), split()
    torch.manual_seed(derive_seed(3, "adapters"))
    maps = "none" if params.recpo.cls_head else "free"  # the head takes whole states
    parts = Reader.build(data, params, maps, None if maps == "none" else 8)
    return trainer_of(parts, data, data.valid.take(range(16)), 3, folder)


def train(backbone: Path, variant: str, processes: int, folder: Path, resume: bool = False) -> dict[str, Any]:
    """Weights at the start and at the end, table, log and saved checkpoints of one process."""
    saves: list[str] = []
    save = R2ec.save
    R2ec.save = lambda self, path: (saves.append(Path(path).parent.name), save(self, path))[1]  # type: ignore
    try:
        trainer = make(backbone, variant, processes, folder)
        net = trainer.model
        assert isinstance(net, R2ec)
        for group in trainer.create_optimizer().param_groups:
            group["eps"] = 1e-3  # else a gradient of rounding errors alone moves a weight as far as any other
        start = {name: value.clone() for name, value in net.own_state().items()}
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if resume else None)
    finally:
        R2ec.save = save  # type: ignore[method-assign]
    result = {"start": start, "end": net.own_state(), "table": {"states": trainer.table.states}}
    return result | {"log": trainer.state.log_history, "saves": saves}


def work(rank: int, port: int, backbone: str, folder: str) -> None:
    torch.set_num_threads(1)
    # As torchrun sets them.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    results = {name: train(Path(backbone), name, 2, Path(folder) / name) for name in VARIANTS}
    torch.distributed.barrier()
    results["resumed"] = train(Path(backbone), "reasoning", 2, Path(folder) / "reasoning", resume=True)
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> list[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, str(backbone), str(folder)), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> dict[str, dict[str, Any]]:
    return {name: train(backbone, name, 1, tmp_path_factory.mktemp("one")) for name in VARIANTS}


Results = dict[str, dict[str, Any]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_halves_train_as_the_whole(two_processes: list[Results], one_process: Results, variant: str) -> None:
    whole = one_process[variant]
    for process in two_processes:
        result = process[variant]
        assert result["end"].keys() == whole["end"].keys()
        for name, value in whole["end"].items():
            assert off(result["end"][name], value) <= 1e-5, name
            # A's start is far from 0: how it moved says more than where it is.
            start = whole["start"][name]
            assert torch.equal(result["start"][name], start), name
            if not torch.equal(value, start):
                assert off(result["end"][name] - start, value - start) <= 1e-3, name
        if variant != "classification head":  # it has no table
            assert off(result["table"]["states"], whole["table"]["states"]) <= 1e-4


def off(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm().clamp(min=1e-12))


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_processes_hold_the_same(two_processes: list[Results], variant: str) -> None:
    first, second = (process[variant] for process in two_processes)
    for part in ("end", "table"):
        for name, value in first[part].items():
            assert torch.equal(value.nan_to_num(), second[part][name].nan_to_num()), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_logged_values_are_means_over_both_processes(
    two_processes: list[Results], one_process: Results, variant: str
) -> None:
    # Each of these is a mean over users or rollouts, or a norm over all of them.
    same = ["loss", "grad_norm", "grad_norm_tokens", "grad_norm_items", "reward", "reward_spread", "item_logp", METRIC]
    for process in two_processes:
        assert len(process[variant]["log"]) == len(one_process[variant]["log"])
        for entry, expected in zip(process[variant]["log"], one_process[variant]["log"], strict=True):
            names = [name for name in same if name in expected]
            assert entry.keys() == expected.keys()
            assert [entry[name] for name in names] == pytest.approx([expected[name] for name in names], rel=1e-4)


@pytest.mark.parametrize("variant", [*VARIANTS, "resumed"])
def test_only_the_main_process_saves(two_processes: list[Results], variant: str) -> None:
    expected = ["checkpoint-4"] if variant == "resumed" else ["checkpoint-2", "checkpoint-4"]
    assert [process[variant]["saves"] for process in two_processes] == [expected, []]


def test_two_processes_resume_to_the_same_weights(two_processes: list[Results]) -> None:
    for process in two_processes:
        for name, value in process["reasoning"]["end"].items():
            assert torch.equal(process["resumed"]["end"][name], value), name
