"""A whole fit whose rollouts come from vLLM, on a server or beside it, by trl's code and ours.

vLLM itself is tests/support/vllm_stub.py.
"""

import socket
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.errors import InputError, checked
from lm.settings import BackboneSettings
from lm.writing.vllm import VllmEngine, folder_of
from r2ec.fit import fit_r2ec
from r2ec.method import Params
from r2ec.scoring.recommender import R2ecRecommender
from tests.support.tiny_fits import scores, settings, split, write_backbone
from tests.support.vllm_stub import install

STEPS = 3


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


def params(backbone: Path, **changes: Any) -> Params:
    few = {"max_steps": STEPS, "save_steps": STEPS, "per_device_train_batch_size": 3}
    changes["training"] = few | changes.get("training", {})
    return Params.model_validate(settings(backbone, **{"warm_start": {"cases": 0}} | changes))


@pytest.fixture(scope="module")
def by_transformers(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> R2ecRecommender:
    return fit_r2ec(split(), 3, params(backbone), tmp_path_factory.mktemp("plain"))


def same(fitted: R2ecRecommender, expected: R2ecRecommender) -> None:
    """The stub writes the same tokens, so that h_T, rewards, every weight and the table are equal bit by bit."""
    for name, value in expected.reader.model.own_state().items():
        assert torch.equal(fitted.reader.model.own_state()[name], value), name
    assert torch.equal(fitted.reader.table.states, expected.reader.table.states)
    np.testing.assert_array_equal(scores(fitted), scores(expected))
    for mine, theirs in zip(fitted.report()["recpo_log"], expected.report()["recpo_log"], strict=True):
        for name in ("loss", "reward", "reward_ndcg", "length", "cut_share", "entropy", "item_logp"):
            assert mine[name] == theirs[name], name
        assert "seconds_sync" in mine and "seconds_sync" not in theirs


def test_a_fit_through_the_server_equals_one_by_transformers(
    backbone: Path, by_transformers: R2ecRecommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = install(monkeypatch, "server")
    server, address = stub.serve(backbone)
    try:
        fit_params = params(backbone, rollouts={"backend": "vllm"}, vllm={"mode": "server", "server_base_url": address})
        fitted = fit_r2ec(split(), 3, fit_params, tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    same(fitted, by_transformers)
    counts = Counter(stub.asked)
    # The weights go out before the first rollouts and after each update that is followed by others.
    assert stub.the().updates == STEPS and counts["/v1/completions"] == STEPS
    assert counts["/start_weight_update"] == counts["/finish_weight_update"] == counts["/reset_prefix_cache"] == STEPS
    assert counts["/init_weight_transfer_engine"] == 1


def test_a_fit_with_vllm_beside_it_equals_one_by_transformers(
    backbone: Path, by_transformers: R2ecRecommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = install(monkeypatch, "colocate")
    fit_params = params(backbone, rollouts={"backend": "vllm"}, vllm={"gpu_memory_utilization": 0.4})
    same(fit_r2ec(split(), 3, fit_params, tmp_path), by_transformers)
    assert stub.the().updates == STEPS
    assert stub.engine["model"] == str(backbone) and stub.engine["gpu_memory_utilization"] == 0.4
    assert stub.engine["max_model_len"] == 400 + 5 and stub.engine["tensor_parallel_size"] == 1


def test_vllm_gets_the_repetition_penalty(
    backbone: Path, by_transformers: R2ecRecommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "colocate")
    expected = fit_r2ec(split(), 3, params(backbone, rollouts={"repetition_penalty": 1.5}), tmp_path / "plain")
    fit_params = params(backbone, rollouts={"backend": "vllm", "repetition_penalty": 1.5})
    same(fit_r2ec(split(), 3, fit_params, tmp_path / "vllm"), expected)
    lengths = [[entry["entropy"] for entry in fit.report()["recpo_log"]] for fit in (expected, by_transformers)]
    assert lengths[0] != lengths[1], "the penalty changes what is written"


def test_the_weights_go_out_once_per_update(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches of one update share them, and so do several updates on the same rollouts."""
    stub = install(monkeypatch, "colocate")
    training = {"max_steps": 4, "save_steps": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    fit_params = params(backbone, rollouts={"backend": "vllm"}, training=training, recpo={"num_iterations": 2})
    fit_r2ec(split(), 3, fit_params, tmp_path)
    assert stub.the().updates == 2


def test_the_weights_stay_bit_by_bit(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, where adding the adapters and taking them off again would leave a trace."""
    install(monkeypatch, "colocate")
    synced = []
    original = VllmEngine.sync_weights

    def sync(self: VllmEngine) -> None:
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        original(self)
        after = self.model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert self.generation.model is self.model
        synced.append(any(float(value.abs().max()) > 0 for name, value in after.items() if "lora_B" in name))

    monkeypatch.setattr(VllmEngine, "sync_weights", sync)
    fit_params = params(backbone, rollouts={"backend": "vllm"})
    lm = fit_params.backbone.model_copy(update={"dtype": "bfloat16"})
    fit_r2ec(split(), 3, fit_params.model_copy(update={"backbone": lm}), tmp_path)
    assert synced == [False, True, True]


def test_a_missing_server_is_one_sentence(backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    where = {"mode": "server", "server_base_url": address, "server_timeout": 0}
    fit_params = params(backbone, rollouts={"backend": "vllm"}, vllm=where)
    with pytest.raises(
        InputError, match=f"^vllm.server_base_url {address}: The vLLM server can't be reached.*; start the server"
    ):
        fit_r2ec(split(), 3, fit_params, tmp_path)


def test_without_vllm_a_fit_ends_before_it_begins(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm.writing.vllm.is_vllm_available", lambda: False)
    monkeypatch.setattr("r2ec.scoring.reader.Reader.build", lambda *_: pytest.fail("the backbone was loaded"))
    with pytest.raises(InputError, match=r"^rollout backend 'vllm' needs the package vllm; install it as docs"):
        fit_r2ec(split(), 3, params(backbone, rollouts={"backend": "vllm"}), tmp_path)


def test_vllm_reads_the_pinned_revision(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {}

    def snapshot(name: str, **how: Any) -> str:
        arguments.update(how, name=name)
        return "/hub/snapshots/abc"

    monkeypatch.setattr("lm.writing.vllm.snapshot_download", snapshot)
    assert folder_of(BackboneSettings(name=str(backbone))) == str(backbone) and not arguments
    assert folder_of(BackboneSettings(name="some/lm", revision="abc")) == "/hub/snapshots/abc"
    assert arguments == {"name": "some/lm", "revision": "abc", "local_files_only": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vllm": {"mode": "server"}}, "p: vllm: mode 'server' with server_base_url None: give it for 'server' alone"),
        ({"vllm": {"server_base_url": "http://x"}}, "p: vllm: mode 'colocate' with server_base_url http://x: give it"),
        ({"vllm": {"gpu_memory_utilization": 1.5}}, "p: vllm.gpu_memory_utilization: expected less than 1"),
        (
            {
                "rollouts": {"backend": "vllm"},
                "training": {"fsdp": "config/accelerate/fsdp.json", "split_grad_norms": 0},
            },
            "p: rollouts.backend 'vllm' is not wired to training.fsdp 'config/accelerate/fsdp.json'; use deepspeed",
        ),
        (
            {"training": {"deepspeed": "gone.json"}},
            "p: training.deepspeed: no file 'gone.json', neither here nor in the",
        ),
        (
            {"training": {"fsdp": "pyproject.toml"}},
            "p: training.fsdp: pyproject.toml: not JSON (Expecting value: line 1",
        ),
        (
            {"training": {"deepspeed": "config/accelerate/zero2.json", "fsdp": "config/accelerate/fsdp.json"}},
            "p: training: deepspeed 'config/accelerate/zero2.json' and fsdp 'config/accelerate/fsdp.json' exclude each "
            "other",
        ),
        ({"training": {"fsdp": "config/accelerate/fsdp.json"}}, "p: training: split_grad_norms 10 needs whole weights"),
    ],
    ids=str,
)
def test_settings_that_exclude_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        checked(Params, {"backbone": {"name": "x"}} | changes, "p")
    assert str(caught.value).startswith(message)


def test_evaluation_is_written_by_transformers(backbone: Path) -> None:
    fit_params = params(backbone, rollouts={"backend": "vllm"})
    assert fit_params.rollouts.for_evaluation().backend == "transformers"
    assert (
        fit_params.rollouts.for_evaluation() == params(backbone).rollouts.for_evaluation()
    )  # one name for kept states
