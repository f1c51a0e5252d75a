"""Settings of an LLM that is trained to write for a recommender, and its work. Light to import, to check configs."""

from typing import Any, Protocol

import numpy as np
from pydantic import Field

from baselines._writers.popularity import PopularityMix
from benchmark.contract import Split
from benchmark.data.texts import PROMPT_TOKENS
from benchmark.provenance import derive_seed
from benchmark.workload import Sizes, Work, chosen_by, prompt_tokens, texts_of
from lm.settings import BackboneSettings, LoraSettings


class WriterTraining(PopularityMix):
    """max_items: history items shown; max_prompt_tokens: of a prompt, beyond which the oldest items leave;
    max_new_tokens: of a text; group_size, temperature: of GRPO's rollouts; users_per_step, max_steps, learning_rate: of
    its training; rollouts_at_once: in a micro-batch, at most; ndcg_k: cut-off of the reward; popularity, valid_cases:
    see PopularityMix."""

    backbone: BackboneSettings
    lora: LoraSettings = LoraSettings()
    max_items: int = Field(default=6, ge=1)
    max_prompt_tokens: int = Field(default=PROMPT_TOKENS, ge=1)
    max_new_tokens: int = Field(default=16, ge=1)
    group_size: int = Field(default=4, ge=2)
    temperature: float = Field(default=1.0, gt=0)
    users_per_step: int = Field(default=16, ge=2)
    rollouts_at_once: int = Field(default=8, ge=1)
    max_steps: int = Field(default=12, ge=0)
    learning_rate: float = Field(default=1e-5, gt=0)
    ndcg_k: int = Field(default=1000, ge=1)
    save_steps: int = Field(default=20, ge=1)


class Steps(Protocol):
    """Settings of a training that takes some users a step."""

    @property
    def max_steps(self) -> int: ...

    @property
    def users_per_step(self) -> int: ...


def rows_of(split: Split, settings: Steps, seed: int) -> np.ndarray:
    """The rows of `split.llm_train` that a training takes, step by step, int64: a seeded order, repeated to the end."""
    order = np.random.default_rng(derive_seed(seed, "order")).permutation(len(split.llm_train))
    return np.resize(order, settings.max_steps * settings.users_per_step)


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """Texts and training. A group shares its prompt in writing; trl's trainer repeats it in each rollout it learns."""
    rounds = p.get("rounds", 1)
    rollouts = rounds * p["max_steps"] * p["users_per_step"] * p["group_size"]
    profiles = (rounds + 1) * min(p["contrastive_cases"], s.train_llm) if "contrastive_cases" in p else 0
    prompt = prompt_tokens(s, p["max_items"])
    whole = prompt + p["max_new_tokens"]
    return [
        texts_of(s, p, s.test + profiles + chosen_by(s, p, "popularity")),
        Work(
            read=rollouts / p["group_size"] * prompt,
            written=rollouts * p["max_new_tokens"],
            rows=p["users_per_step"] * p["group_size"],
            learned=rollouts * whole,
            held=p["rollouts_at_once"] * whole if p["max_steps"] else 0,
            frozen=p["lora"]["layers_from"],
        ),
    ]
