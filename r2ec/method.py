"""R2ec as a method of the suite. You et al., R2ec: Towards Large Recommender Models with Reasoning, NeurIPS 2025
(arXiv 2505.16994). One LLM writes a reasoning and scores every item from the state that has read it; RecPO trains both.

Settings of the paper: lora r=4, lr 1e-5, 24 users a step, warm-up 32, at most 3 epochs, G=4, T=1.5, top-k 200,
512 tokens, beta 0.05, NDCG@1000, clip 0.2. What departs from it (README.md, "R2ec") is a setting of its own.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from benchmark.contract import Split
from r2ec.settings import (
    BackboneSettings,
    LoraSettings,
    PromptSettings,
    RecPOSettings,
    RolloutSettings,
    TrainingSettings,
    WarmStartSettings,
)

if TYPE_CHECKING:
    from r2ec.recommender import R2ecRecommender


class Params(BaseModel):
    """All settings of one run. `evaluation_rows`: users whose reasonings are written together when scoring."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneSettings
    lora: LoraSettings = LoraSettings()
    prompts: PromptSettings = PromptSettings()
    rollouts: RolloutSettings = RolloutSettings()
    recpo: RecPOSettings = RecPOSettings()
    training: TrainingSettings = Field(TrainingSettings(), validate_default=True)
    warm_start: WarmStartSettings = WarmStartSettings()
    evaluation_rows: int = 64

    @field_validator("training")
    @classmethod
    def _whole_cycles(cls, training: TrainingSettings, info: ValidationInfo) -> TrainingSettings:
        """Checkpoints (and evaluations, which write one) hold no rollouts: none in the middle of their iterations."""
        name = "eval_steps" if training.eval_steps else "save_steps"
        steps, recpo = getattr(training, name), info.data.get("recpo")  # absent where it is wrong itself
        if recpo is not None and steps % recpo.num_iterations != 0:
            raise ValueError(
                f"{name} {steps} is not a multiple of recpo.num_iterations {recpo.num_iterations}; set it to one, since a "
                "resumed run could not go on with rollouts whose iterations are half done"
            )
        return training

    @field_validator("warm_start")
    @classmethod
    def _nothing_to_warm(cls, warm_start: WarmStartSettings, info: ValidationInfo) -> WarmStartSettings:
        recpo = info.data.get("recpo")
        if recpo is not None and recpo.cls_head and warm_start.cases:
            raise ValueError(
                "a classification head has no item states to start from; set cases to 0 for recpo.cls_head"
            )
        return warm_start


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "R2ecRecommender":
    """Warm start, RecPO, and the finished model in `workdir/model`. A killed fit goes on from its last checkpoint."""
    # Imported late: torch and transformers take seconds, and the config is checked without them.
    from r2ec.recommender import fit_r2ec

    return fit_r2ec(split, seed, Params.model_validate(params), workdir)
