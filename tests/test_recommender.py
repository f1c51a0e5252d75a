"""R2ec as a method, on a tiny random model: fitted, saved, loaded, killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.contract import Split, check_scores
from benchmark.errors import InputError
from benchmark.methods import ROOT
from r2ec.method import Params
from r2ec.recommender import R2ecRecommender, fit_r2ec
from r2ec.settings import TrainingSettings
from r2ec.trainer import Order, last_checkpoint
from tests.planted import planted_split
from tests.tiny_tokenizers import tiny_lm, tiny_tokenizer


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a chat template, on disk as any backbone is."""
    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    tiny_lm("llama").save_pretrained(folder)
    tiny_tokenizer("llama").save_pretrained(folder)
    return folder


def settings(backbone: Path, **changes: Any) -> dict[str, Any]:
    """A run of a few seconds with every part of RecPO in it."""
    made: dict[str, Any] = {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "lora": {"r": 4, "alpha": 8},
        "prompts": {"max_items": 4, "max_prompt_tokens": 400},
        "rollouts": {"group_size": 3, "max_new_tokens": 5, "top_k": 20},
        "recpo": {"refresh_steps": 2, "tau": 0.1, "extra_negatives": 8},
        "training": {
            "max_steps": 4,
            "per_device_train_batch_size": 6,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "save_steps": 1,
            "eval_cases": 40,
        },
        "warm_start": {"cases": 60, "rank": 8, "valid_cases": 40, "epochs": 3, "weight_decays": [0.1]},
        "evaluation_rows": 16,
    }
    for section, values in changes.items():
        made[section] = made[section] | values
    return made


def split() -> Split:
    made: Split = planted_split()[0]
    return made


def scores(recommender: R2ecRecommender, count: int = 20) -> np.ndarray:
    cases = replace(split().valid.take(np.arange(count)), target=None)
    return np.concatenate(list(recommender.score(cases)))


def test_fit_trains_saves_and_loads_to_the_same_scores(backbone: Path, tmp_path: Path) -> None:
    fitted = fit_r2ec(split(), 3, Params.model_validate(settings(backbone)), tmp_path)
    found = scores(fitted)
    assert np.isfinite(check_scores(found, split().n_items, "r2ec")).all()
    assert fitted.tokens_written() > 0
    texts = fitted.texts()
    assert list(texts.columns) == ["case", "prompt", "reasoning", "cut"] and len(texts) == 20
    assert texts["reasoning"].str.endswith("<answer>").all()
    report = fitted.report()
    assert report["recpo_steps"] == 4 and len(report["recpo_log"]) == 4
    for name in ("reward", "reward_ndcg", "reward_softmax", "advantage_abs", "groups_without_spread", "length",
                 "cut_share", "entropy", "clip_share_tokens", "grad_norm", "rollout_tokens_per_second"):  # fmt: skip
        assert name in report["recpo_log"][0], name
    # Training moved both factors of the adapters and the maps of the head.
    state = fitted.model.own_state()
    assert all(float(value.abs().max()) > 0 for name, value in state.items() if "lora_B" in name)
    again = fit_r2ec(split(), 3, Params.model_validate(settings(backbone)), tmp_path)  # finished: loads
    np.testing.assert_array_equal(scores(again), found)


@pytest.mark.parametrize(
    "changes",
    [
        {"recpo": {"reasoning": False}},
        {"recpo": {"pooling": "mean"}},
        {"recpo": {"pooling": "special"}},
        {"recpo": {"cls_head": True, "extra_negatives": 0}},
        {"recpo": {"num_iterations": 2, "advantage": "rloo", "head_update": "random"}},
        {"recpo": {"head_update": "released", "advantage": "rloo_released", "logq": True, "normalize": False}},
        {"training": {"gradient_accumulation_steps": 2, "eval_steps": 2, "head_learning_rate": 1e-3}},
    ],
    ids=str,
)
def test_every_variant_trains(backbone: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    made = settings(backbone, **({"warm_start": {"cases": 0}} | changes))
    made["training"] = made["training"] | {"max_steps": 2, "save_steps": 2}
    fitted = fit_r2ec(split(), 3, Params.model_validate(made), tmp_path)
    assert np.isfinite(scores(fitted, 5)).all()
    assert fitted.report()["recpo_steps"] == 2


def test_a_killed_fit_resumes_to_the_same_scores(backbone: Path, tmp_path: Path) -> None:
    """SIGKILL between two steps, and a checkpoint cut off in the middle, change nothing."""
    made = settings(backbone)
    whole = scores(fit_r2ec(split(), 3, Params.model_validate(made), tmp_path / "whole"))
    broken = tmp_path / "broken"
    script = (
        "from pathlib import Path; from r2ec.method import Params; from r2ec.recommender import fit_r2ec\n"
        "from tests.planted import planted_split\n"
        f"fit_r2ec(planted_split()[0], 3, Params.model_validate({made!r}), Path({str(broken)!r}))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while last_checkpoint(broken / "recpo") is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (broken / "model").exists()
    cut_off = broken / "recpo" / "checkpoint-99"
    cut_off.mkdir()
    (cut_off / "r2ec.safetensors").write_bytes(b"half")
    resumed = fit_r2ec(split(), 3, Params.model_validate(made), broken)
    np.testing.assert_array_equal(scores(resumed), whole)


def test_order_repeats_each_step_and_shuffles_each_epoch() -> None:
    training = TrainingSettings(max_steps=6)
    order = Order(cases=5, per_step=2, settings=training, iterations=2, seed=1)
    rows = [order[i] for i in range(len(order))]
    assert len(rows) == 12
    assert rows[0:2] == rows[2:4] and rows[4:6] == rows[6:8] and rows[8:10] == rows[10:12]
    fresh = rows[0:2] + rows[4:6] + rows[8:10]
    assert sorted(fresh[:5]) == [0, 1, 2, 3, 4]  # the first epoch shows every case once
    assert rows == [Order(5, 2, training, 2, seed=1)[i] for i in range(12)]
    assert rows != [Order(5, 2, training, 2, seed=2)[i] for i in range(12)]


def test_too_few_cases_for_a_step_is_one_sentence() -> None:
    with pytest.raises(InputError, match="3 training cases are fewer than the 4 of one step; lower the batch size"):
        Order(cases=3, per_step=4, settings=TrainingSettings(max_steps=1), iterations=1, seed=0)


def test_out_of_memory_stops_and_says_what_to_lower(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("r2ec.trainer.item_logps", full)
    with pytest.raises(
        InputError, match=r"out of memory at step 0: no room; lower training.per_device_train_batch_size"
    ):
        fit_r2ec(split(), 3, Params.model_validate(settings(backbone)), tmp_path)
