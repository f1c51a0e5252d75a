"""BIGRec: the LLM is fine-tuned to write the next item's title; what it writes is grounded to the nearest real item.

Bao et al., "A Bi-Step Grounding Paradigm for Large Language Models in Recommendation Systems" (arXiv 2308.08434;
github.com/SAI990323/BIGRec). Kept: instruction tuning on titles, one text per user, L2 distance between the LLM's own embedding of
that text and of each item's title, scaled to 0..1 per user, and popularity put in by dividing it by (1 + popularity) ** gamma.
Different: a LoRA of our backbone, and a greedy text in the place of beams. Left out: injecting another recommender's scores.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Recommender, Split
from benchmark.provenance import derive_seed
from r2ec.settings import BackboneSettings, LoraSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

REQUEST = (
    "These are the last {category}s I chose, the newest at the end:\n{history}\n"
    "Answer with the title of the {category} that I will choose next."
)


class Params(BaseModel):
    """max_items: history items shown; max_new_tokens: of a title; users_per_step, at_once, max_steps, learning_rate: of the tuning,
    at_once cases in a micro-batch; gamma: weight of popularity in the distances (0: none)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneSettings
    lora: LoraSettings = LoraSettings()
    max_items: int = Field(default=6, ge=1)
    max_new_tokens: int = Field(default=16, ge=1)
    users_per_step: int = Field(default=16, ge=1)
    at_once: int = Field(default=8, ge=1)
    max_steps: int = Field(default=40, ge=0)
    learning_rate: float = Field(default=3e-4, gt=0)
    gamma: float = Field(default=0.0, ge=0)
    save_steps: int = Field(default=20, ge=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> Recommender:
    """Tune the LLM's adapters on the training cases' titles. A killed fit goes on from its last checkpoint."""
    settings = Params.model_validate(params)
    import torch

    from baselines import _llm
    from r2ec import backbone as backbones

    loaded = backbones.load(settings.backbone)
    torch.manual_seed(derive_seed(seed, "adapters"))
    model = backbones.add_lora(loaded.model, settings.lora)
    losses = _tune(split, settings, seed, model, loaded.tokenizer, workdir / "tuning") if settings.max_steps else []
    model.eval()
    items = _llm.states_of(model, loaded.tokenizer, split.items["title"].tolist(), "embedding titles")
    assert split.train.target is not None
    counts = np.bincount(split.train.target, minlength=split.n_items)
    return _llm.ByText(
        split,
        model,
        loaded.tokenizer,
        request=REQUEST,
        scores_of=Grounding(model, loaded.tokenizer, items, counts, settings.gamma).scores,
        max_items=settings.max_items,
        max_new_tokens=settings.max_new_tokens,
        report={"losses": losses},
    )


def _tune(
    split: Split, settings: Params, seed: int, model: "PeftModel", tokenizer: "PreTrainedTokenizerBase", folder: Path
) -> list[float]:
    """trl's supervised fine-tuning on a seeded order of the training cases, loss on the titles alone. Returns each step's loss."""
    import torch
    from datasets import Dataset
    from transformers.trainer_utils import get_last_checkpoint
    from trl import SFTConfig, SFTTrainer

    from baselines import _llm

    order = np.random.default_rng(derive_seed(seed, "order")).permutation(len(split.train))
    cases = split.train.take(np.resize(order, settings.max_steps * settings.users_per_step))
    assert cases.target is not None
    titles = split.items["title"].tolist()
    messages = _llm.asked(REQUEST, split, cases, settings.max_items)
    rows = {
        "prompt": [[{"role": "user", "content": message}] for message in messages],
        "completion": [[{"role": "assistant", "content": titles[target]}] for target in cases.target.tolist()],
    }
    at_once = next(
        n for n in range(min(settings.at_once, settings.users_per_step), 0, -1) if settings.users_per_step % n == 0
    )
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=settings.users_per_step // at_once,
        max_steps=settings.max_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        completion_only_loss=True,
        max_length=None,
        save_steps=settings.save_steps,
        save_total_limit=1,
        logging_steps=1,
        seed=derive_seed(seed, "tuning") % 2**31,
        report_to=[],
        bf16=False,  # the weights are bf16 already; the adapters stay float32
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer)
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    return [round(float(entry["loss"]), 4) for entry in trainer.state.log_history if "loss" in entry]


class Grounding:
    """How far a written text is from every item."""

    def __init__(
        self,
        model: "PeftModel",
        tokenizer: "PreTrainedTokenizerBase",
        items: "Tensor",
        counts: np.ndarray,
        gamma: float,
    ) -> None:
        self.model, self.tokenizer, self.items, self.gamma = model, tokenizer, items, gamma
        self.popularity = counts / counts.max()  # float64 [n_items], 1 for the most popular

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Minus the grounded distance of each text to each item, float64 [n, n_items]; an empty text counts as a space."""
        import torch

        from baselines import _llm

        states = _llm.states_of(self.model, self.tokenizer, [text if text else " " for text in texts])
        found = torch.cdist(states.double(), self.items.double()).numpy()
        lowest, highest = found.min(axis=1, keepdims=True), found.max(axis=1, keepdims=True)
        scaled = np.divide(found - lowest, highest - lowest, out=np.zeros_like(found), where=highest > lowest)
        # A distance of 0 would stay 0 whatever the popularity is.
        return np.asarray(-(scaled + 1e-3) / (1 + self.popularity) ** self.gamma)
