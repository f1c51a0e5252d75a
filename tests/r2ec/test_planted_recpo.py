"""A planted task in which only what is written decides the rank, on a tiny LM: does RecPO learn to write it?

Ten items, each meant by one word. The catalogue's vectors are the states that have read that word, so that a rollout
lands on its target only by writing the target's word; which word that is follows from the item in the prompt. Only
lm_head is trained: the item term, whose gradient doesn't reach it, can't move the states towards the items instead, and
the items' vectors, which it does reach, have a learning rate at which they stay where they are.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmark.contract import Cases
from lm.settings import RolloutSettings
from lm.writing.engine import TransformersEngine
from lm.writing.rollouts import pack_rollouts
from r2ec.model.item_table import ItemTable
from r2ec.model.network import R2ec
from r2ec.model.prompts import PromptBuilder, end_of_reasoning
from r2ec.recpo.trainer import RecPOTrainer
from r2ec.settings import PromptSettings, RecPOSettings, TrainingSettings
from tests.support.tiny_models import tiny_config
from tests.support.tiny_tokenizers import tiny_tokenizer

WORDS = ["the", "a", "of", "and", "to", "in", "months", "minutes", "hours", "years"]
N = len(WORDS)
SHIFT = 3  # whoever took item v takes item v + 3 next


def writer() -> PreTrainedModel:
    """A tiny random Llama that reads well enough, writes nearly uniformly, and of which only lm_head is trained."""
    torch.manual_seed(0)
    config = tiny_config("llama")
    config.vocab_size, config.tie_word_embeddings = len(tiny_tokenizer("llama")), False
    lm: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    for name, parameter in lm.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.0 if "embed" in name else 0.25)
    head = lm.get_output_embeddings().weight
    torch.nn.init.normal_(head, std=0.02)
    lm.requires_grad_(False)
    head.requires_grad_(True)
    return lm.eval()


def histories(count: int = 400) -> Cases:
    """One item each; the target is SHIFT items further."""
    item = np.random.default_rng(0).integers(0, N, count).astype(np.int32)
    return Cases(
        case=np.arange(count),
        user=np.arange(count, dtype=np.int32),
        time=np.arange(count) + 100,
        offsets=np.arange(count + 1),
        items=item,
        ratings=np.full(count, 5, np.float32),
        times=np.arange(count),
        target=((item + SHIFT) % N).astype(np.int32),
    )


def planted_model(lm: PreTrainedModel, prompts: PromptBuilder, cases: Cases) -> tuple[R2ec, float]:
    """The model whose catalogue is the states of the words, and how often writing an item's word puts it on rank 1."""
    model = R2ec(lm, pooling="mean", cls_items=N)
    assert model.cls_head is not None
    first = [int(np.flatnonzero(cases.items == v)[0]) for v in range(N)]
    prompt_ids = prompts.user_prompts(cases.take(np.array(first)))
    states = torch.zeros(N, N, model.dim)  # [user who took v, word written]
    with torch.no_grad():
        for word, text in enumerate(WORDS):
            ids = prompts.tokenizer(f" {text}", add_special_tokens=False)["input_ids"] + prompts.answer_ids
            written = np.array([ids] * N)
            mask = np.ones_like(written, dtype=bool)
            states[:, word] = model(pack_rollouts(prompt_ids, written, mask, mask, 0, torch.device("cpu"))).states
        centre = states.mean(dim=(0, 1))
        model.head.user_shift.copy_(centre)
        model.cls_head.weight.copy_(states.mean(dim=0) - centre)
        cosines = F.normalize(states - centre, dim=-1) @ F.normalize(model.cls_head.weight, dim=-1).T
    return model, float((cosines.argmax(dim=-1) == torch.arange(N)).float().mean())


def rewards(folder: Path, users: int = 16, steps: int = 120, **recpo: object) -> np.ndarray:
    """The mean reward (share of rollouts with the target on rank 1) of each step of RecPO."""
    tokenizer, cases = tiny_tokenizer("llama"), histories()
    # A word many times over, so that a tiny LM notices it.
    items = pd.DataFrame({"item_id": range(N), "title": [" ".join([word] * 12) for word in WORDS]})
    prompts = PromptBuilder(tokenizer, items, "thing", PromptSettings(), rating_scale=5)
    lm = writer()
    model, right = planted_model(lm, prompts, cases)
    assert right >= 0.9  # the task is solvable by writing
    settings = RolloutSettings(group_size=8, temperature=1.0, top_k=0, max_new_tokens=1)
    trainer = RecPOTrainer(
        model=model,
        table=ItemTable(prompts.item_prompts(), model.dim),
        prompts=prompts,
        engine=TransformersEngine(lm, tokenizer, settings, end_of_reasoning(tokenizer)),
        cases=cases,
        validate=lambda: 0.0,
        recpo=RecPOSettings(beta=0, ndcg_k=1, cls_head=True, pooling="mean", tau=0.1, **recpo),  # type: ignore[arg-type]
        training=TrainingSettings(
            learning_rate=0.01,
            max_steps=steps,
            per_device_train_batch_size=users,
            head_learning_rate=1e-8,
            warmup_steps=0,
            save_steps=steps,
            split_grad_norms=0,
        ),
        seed=1,
        folder=folder,
    )
    trainer.train()
    return np.array([entry["reward"] for entry in trainer.state.log_history if "reward" in entry])


@pytest.mark.parametrize("advantage", ["grpo", "rloo"])
def test_recpo_learns_to_write_what_decides_the_rank(tmp_path: Path, advantage: str) -> None:
    reward = rewards(tmp_path, advantage=advantage)
    assert reward[:10].mean() < 0.2
    assert reward[-20:].mean() > 0.4


def test_without_the_token_term_nothing_is_learned(tmp_path: Path) -> None:
    reward = rewards(tmp_path, token_term=False)
    assert reward[-20:].mean() < 0.2


def test_the_released_arithmetic_with_one_group_per_mini_batch_learns_nothing(tmp_path: Path) -> None:
    """Its advantages of a group sum to 0 and meet every rollout's ratio: the token gradient vanishes."""
    released = rewards(tmp_path / "released", users=1, steps=480, head_update="released")
    paper = rewards(tmp_path / "paper", users=1, steps=480)
    assert released[-80:].mean() < 0.2
    assert paper[-80:].mean() > 0.3
