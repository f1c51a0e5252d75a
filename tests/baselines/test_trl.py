"""Tests that the faster trl on CPU gives the same losses, rewards and weights, and that its rollouts are R2ec's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trl.trainer.utils as library
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from baselines._writers import grpo, llm_texts, title_tuning, trl
from baselines._writers.settings import WriterTraining
from baselines._writers.title_tuning import TitleTuning
from baselines._writers.trl import SCORED_ONLY, faster_on_cpu, shared_prompt_rollouts
from lm import backbone as backbones
from lm.chat import prompt_ids
from lm.settings import BackboneSettings, LoraSettings, RolloutSettings
from lm.writing.engine import TransformersEngine
from lm.writing.packed import PackedForward
from lm.writing.stopping import EndOfTurn
from tests.support.tiny_fits import split, write_backbone


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> BackboneSettings:
    return BackboneSettings(name=str(write_backbone(tmp_path_factory.mktemp("llm"))), dtype="float32")


def adapted(llm: BackboneSettings) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    loaded = backbones.load(llm)
    torch.manual_seed(0)
    return backbones.add_lora(loaded.model, LoraSettings(r=4, alpha=8)), loaded.tokenizer


def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run trl unchanged."""
    monkeypatch.setattr(trl, "use_grouped_attention", lambda model: None)
    monkeypatch.setattr(trl, "SCORED_ONLY", "__name__")


def adapters(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if "lora" in name}


def assert_close(weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert weights.keys() == expected.keys() and any(
        value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name
    )
    for name, value in weights.items():
        # Adam takes steps of lr = 0.01 whatever the gradient's size is, so that rounding shows where it is nearly zero.
        torch.testing.assert_close(value, expected[name], rtol=0, atol=5e-4)


def scored_rows(patch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that each later batch extends by the number of positions that the lm_head scores."""
    kernel, seen = library._ChunkedLogProbFunction, list[int]()

    def apply(hidden: torch.Tensor, *rest: Any) -> Any:
        seen.append(len(hidden))
        return kernel.apply(hidden, *rest)

    patch.setattr(library, "_ChunkedLogProbFunction", SimpleNamespace(apply=apply))
    return seen


def test_tuning_is_the_same_without_the_prompts_logits(
    llm: BackboneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TitleTuning(backbone=llm, users_per_step=4, at_once=2, max_steps=3, learning_rate=1e-2)
    results = []
    for plain in (False, True):
        with monkeypatch.context() as patch:
            if plain:
                plainly(patch)
            model, tokenizer = adapted(llm)
            seen = scored_rows(patch)
            limits = settings.max_items, settings.max_prompt_tokens
            builder = llm_texts.MessageBuilder(split(), model, tokenizer, *limits, 8)
            cases = split().llm_train.take(title_tuning.rows_of(split(), settings, 1))
            learned = title_tuning.examples(builder, title_tuning.REQUEST, cases)
            losses = title_tuning.tune(model, tokenizer, learned, settings, seed=1, folder=tmp_path / str(plain))
            results.append((losses, adapters(model), seen))
            # trl's own forward would stay, and keep the packed one from every text that is written later.
            assert PackedForward.of(llm_texts.causal_lm_of(model.eval()), with_head=False) is not None
    (losses, weights, few), (plain_losses, plain_weights, many) = results
    assert losses == pytest.approx(plain_losses, abs=2e-4) and len(losses) == 3
    assert_close(weights, plain_weights)
    assert len(few) == len(many) > 0 and sum(few) < 0.5 * sum(many)


def test_grpo_is_the_same_without_the_prompts_logits(
    llm: BackboneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WriterTraining(
        backbone=llm, max_new_tokens=4, group_size=2, users_per_step=4, max_steps=3, learning_rate=1e-2
    )

    def score(texts: list[str]) -> np.ndarray:
        """Something that depends on the text, so that rewards differ within a group."""
        return np.array([np.sin(np.arange(split().n_items) * (1 + sum(text.encode()))) for text in texts])

    def packed(causal_lm: PreTrainedModel, with_head: bool) -> PackedForward | None:
        forward = of(causal_lm, with_head)
        writes.append(forward is not None)
        return forward

    of, writes = PackedForward.of, list[bool]()
    monkeypatch.setattr(PackedForward, "of", packed)
    results = []
    for plain in (False, True):
        with monkeypatch.context() as patch:
            if plain:
                plainly(patch)
            model, tokenizer = adapted(llm)
            folder = tmp_path / str(plain)
            rewards = grpo.train_writer(
                split(),
                settings,
                "{category} {history}",
                score,
                seed=1,
                model=model,
                tokenizer=tokenizer,
                folder=folder,
            )
            results.append((rewards, adapters(model)))
    (rewards, weights), (plain_rewards, plain_weights) = results
    assert rewards == pytest.approx(plain_rewards, abs=1e-6) and len(rewards) == 3 and np.std(rewards) > 0
    assert len(writes) == 6 and all(writes)
    assert_close(weights, plain_weights)


def test_trl_is_restored_afterwards(llm: BackboneSettings) -> None:
    original = getattr(library, SCORED_ONLY)
    assert not original(torch.device("cpu"))  # else there would be nothing to gain
    with pytest.raises(KeyboardInterrupt), faster_on_cpu(adapted(llm)[0]):
        assert getattr(library, SCORED_ONLY)(torch.device("cpu"))
        raise KeyboardInterrupt
    assert getattr(library, SCORED_ONLY) is original


def test_rollouts_are_the_engines(llm: BackboneSettings) -> None:
    """Texts, their ends and their random streams are those of R2ec's engine."""
    model, tokenizer = adapted(llm)
    settings = RolloutSettings(group_size=3, max_new_tokens=6, temperature=1.0, top_k=0)
    write = shared_prompt_rollouts(model, tokenizer, settings, seed=5)
    messages = ["one thing", "a much longer list of things"]
    prompts = [[{"role": "user", "content": message}] for message in messages for _ in range(3)]

    def at(step: int) -> dict[str, Any]:
        return write(prompts, SimpleNamespace(state=SimpleNamespace(global_step=step)))

    rollouts = at(2)
    ids = [prompt_ids(tokenizer, message) for message in messages]
    assert rollouts["prompt_ids"] == [ids[0]] * 3 + [ids[1]] * 3 and rollouts["logprobs"] is None
    engine = TransformersEngine(model, tokenizer, settings, EndOfTurn(tokenizer))
    expected = engine.generate(ids, cases=np.arange(2), seed=5, step=2)
    for row, completion in enumerate(rollouts["completion_ids"]):
        length = int(expected.lengths[row])
        assert completion == expected.rollouts.completion_ids[row, :length].tolist() and 1 <= length <= 6
    assert len({tuple(completion) for completion in rollouts["completion_ids"]}) > 1
    assert at(2) == rollouts and at(3)["completion_ids"] != rollouts["completion_ids"]
    with pytest.raises(AssertionError):
        write(prompts[1:], SimpleNamespace(state=SimpleNamespace(global_step=0)))
