"""Settings of an LLM that is trained to write for a recommender. Light to import: the config is checked by them."""

from pydantic import Field

from baselines._popularity import PopularityMix
from benchmark.texts import PROMPT_TOKENS
from r2ec.settings import BackboneSettings, LoraSettings


class WriterTraining(PopularityMix):
    """max_items: history items shown; max_prompt_tokens: of a prompt, beyond which the oldest items leave; max_new_tokens: of a
    text; group_size, temperature: of GRPO's rollouts; users_per_step, max_steps, learning_rate: of its training;
    rollouts_at_once: in a micro-batch, at most; ndcg_k: cut-off of the reward; popularity, valid_cases: see PopularityMix."""

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
