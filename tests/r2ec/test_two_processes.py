"""Two processes with half the batch each: the loss and gradients of one process with the whole batch."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lm.writing.rollouts import Rollouts
from r2ec.model.item_table import ItemTable
from r2ec.model.network import PolicyOutput, R2ec
from r2ec.model.rec_head import RecHead
from r2ec.recpo.objective import HeadUpdate, group_advantages, item_logps, recpo_loss
from r2ec.training.gather import gather_rows, users_per_process
from tests.support.tiny_models import VOCABULARY, WIDTH, relative, tiny_model, tiny_rollouts

GROUP = 3
TARGETS = torch.tensor([4, 0, 4, 2, 6])  # item 4 twice, in different halves
STRATEGIES: tuple[HeadUpdate, ...] = ("top1", "topk", "all", "none", "released")


def part(users: slice, how: HeadUpdate, wrap: bool) -> dict[str, Tensor]:
    """Loss and gradients of these users' share of the batch, as a trainer computes them."""
    torch.manual_seed(0)
    model = R2ec(tiny_model("llama"), head=RecHead(WIDTH, "free"))
    random = torch.Generator().manual_seed(5)
    beginning = torch.randint(3, VOCABULARY, (9,), generator=random).tolist()
    table = ItemTable([[*beginning, 3 + v, 20 - v] for v in range(9)], WIDTH)
    table.refresh(model)
    whole = tiny_rollouts(users=5, group=GROUP)
    rows = slice(users.start * GROUP, users.stop * GROUP)
    assert whole.action_mask is not None
    share = Rollouts(
        whole.prompt_ids[users],
        whole.prompt_mask[users],
        whole.completion_ids[rows],
        whole.completion_mask[rows],
        whole.action_mask[rows],
    )
    targets = TARGETS[users]
    advantages = group_advantages(torch.rand(5, GROUP, generator=random), "rloo")[users]
    call = DistributedDataParallel(model) if wrap else model
    out: PolicyOutput = call(share, temperature=1.5, items=table.batch(targets))
    assert out.items is not None and out.token_logps is not None and share.action_mask is not None
    extra = torch.tensor([8, 4, 7])
    item = item_logps(
        out.users,
        targets.repeat_interleave(GROUP),
        out.items,
        targets,
        tau=0.2,
        extra_items=model.catalogue(table.states[extra]),
        extra_ids=extra,
    )
    parts = recpo_loss(
        out.token_logps, None, share.action_mask, item, None, advantages,
        head_update=how, topk=2, users=users_per_process(len(targets)),
    )  # fmt: skip
    parts.loss.backward()
    grads = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {"loss": parts.loss.detach(), **grads}


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    # Halves of 3 and 2 users: unequal on purpose.
    users = slice(0, 3) if rank == 0 else slice(3, 5)
    results: dict[str, Any] = {how: part(users, how, wrap=True) for how in STRATEGIES}
    for how in STRATEGIES:
        # A process's loss is its share; their mean is the batch's.
        dist.all_reduce(results[how]["loss"])
        results[how]["loss"] /= 2
    ragged = torch.full((rank + 1, 2), float(rank), requires_grad=True)
    gathered = gather_rows(ragged)
    (gathered * (rank + 1) * torch.arange(6.0).reshape(3, 2)).sum().backward()
    results["gather"] = {"rows": gathered.detach(), "grad": ragged.grad}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, str(folder)), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("how", STRATEGIES)
def test_two_halves_equal_the_whole(processes: list[dict[str, dict[str, Tensor]]], how: HeadUpdate) -> None:
    expected = part(slice(0, 5), how, wrap=False)
    largest = max(float(value.norm()) for value in expected.values())
    assert largest > 1e-3
    for process in processes:
        result = process[how]
        assert result.keys() == expected.keys()
        assert float(result["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-4, abs=1e-6)
        for name, value in expected.items():
            assert float((result[name] - value).norm()) < 1e-4 * max(float(value.norm()), 1e-2 * largest), name


def test_the_item_side_needs_the_other_process(processes: list[dict[str, dict[str, Tensor]]]) -> None:
    """Half the batch alone has other negatives: without the gather its gradients would not be the whole's."""
    halves = [part(users, "all", wrap=False)["head.item_map.weight"] for users in (slice(0, 3), slice(3, 5))]
    without_gather = (3 * halves[0] + 2 * halves[1]) / 5
    assert relative(without_gather, processes[0]["all"]["head.item_map.weight"]) > 0.01


def test_gather_keeps_order_and_sums_gradients(processes: list[dict[str, dict[str, Tensor]]]) -> None:
    # Process 0 weighs row r, column c by 2r + c, process 1 by twice that: the gradient is three times it.
    weights = 3 * torch.arange(6.0).reshape(3, 2)
    for process, own in zip(processes, (weights[:1], weights[1:]), strict=True):
        assert process["gather"]["rows"].tolist() == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
        assert torch.equal(process["gather"]["grad"], own)
