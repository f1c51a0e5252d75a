"""The frozen LLM as a recommender: R2ec's user state and item table of the untrained backbone, with or without a reasoning.

A control: what the LLM's states say without any training. Scores are cosines of the state that has read the user's prompt
(`reasoning: false`: with an opened `<answer>`; true: after a greedy reasoning) and the states of the items' prompts, as in R2ec
(You et al., NeurIPS 2025) before its first step. LLM states share a large common part that says nothing about items (Mu and
Viswanath, "All-but-the-Top", ICLR 2018): `standardize` takes each side's mean and spread off, the user's from training cases.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Split
from r2ec.settings import BackboneSettings, PromptSettings, RolloutSettings

if TYPE_CHECKING:
    from r2ec.recommender import R2ecRecommender


class Params(BaseModel):
    """reasoning: write one first; standardize: on how many training cases' states (0: bare cosines); evaluation_rows: per batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneSettings
    prompts: PromptSettings = PromptSettings()
    rollouts: RolloutSettings = RolloutSettings()
    reasoning: bool = False
    standardize: int = Field(default=0, ge=0)
    evaluation_rows: int = Field(default=64, ge=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "R2ecRecommender":
    """Encode the item table, and some training cases where states are to be standardised. Nothing is trained."""
    settings = Params.model_validate(params)
    import torch

    from r2ec import recommender
    from r2ec.settings import Params as R2ecParams

    made = recommender.build(
        split,
        R2ecParams(
            backbone=settings.backbone,
            prompts=settings.prompts,
            rollouts=settings.rollouts,
            recpo={"reasoning": settings.reasoning},
            training={"max_steps": 0},
            evaluation_rows=settings.evaluation_rows,
        ),
    )
    made.table.refresh(made.model)
    if settings.standardize:
        some = recommender.sample(split.train, settings.standardize, split.name)
        states = torch.cat([made.read(batch)[0].float() for batch in some.batches(settings.evaluation_rows)])
        made.model.head.standardize(made.table.states, states)
    return made
