"""Tuning an LLM to write the next item's title: trl's supervised fine-tuning, for bigrec.py and d3.py. Light to import."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from baselines._writers.settings import rows_of
from benchmark.contract import Split
from benchmark.data.texts import PROMPT_TOKENS, TITLE_TOKENS
from benchmark.provenance import derive_seed
from benchmark.storage.io import last_checkpoint
from benchmark.workload import Sizes, Work, chosen_by, prompt_tokens, texts_of
from lm.settings import BackboneSettings, LoraSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

REQUEST = (
    "These are the last {several} I chose, the newest at the end:\n{history}\n"
    "Answer with the title of the {category} that I will choose next."
)


CLOSING = 8  # tokens at most


class TitleTuning(BaseModel):
    """max_items: history items shown; max_prompt_tokens: of a prompt, beyond which the oldest items leave; users_per_step, at_once,
    max_steps, learning_rate: of the tuning, at_once cases in a micro-batch; max_steps 0: the LLM as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneSettings
    lora: LoraSettings = LoraSettings()
    max_items: int = Field(default=6, ge=1)
    max_prompt_tokens: int = Field(default=PROMPT_TOKENS, ge=1)
    users_per_step: int = Field(default=16, ge=1)
    at_once: int = Field(default=8, ge=1)
    max_steps: int = Field(default=40, ge=0)
    learning_rate: float = Field(default=3e-4, gt=0)
    save_steps: int = Field(default=20, ge=1)


def tuned(
    split: Split, settings: TitleTuning, *, request: str, seed: int, folder: Path
) -> tuple["PeftModel", "PreTrainedTokenizerBase", list[float]]:
    """The LLM with fresh adapters, tuned on the training cases' titles, in evaluation mode; its tokenizer; each step's loss.

    request: the message, see `llm_texts.Asker.about_users`. A killed tuning goes on from the last checkpoint in `folder`.
    """
    import torch

    from lm import backbone as backbones

    loaded = backbones.load(settings.backbone)
    torch.manual_seed(derive_seed(seed, "adapters"))
    model = backbones.add_lora(loaded.model, settings.lora)
    losses = _tune(split, settings, request, seed, model, loaded.tokenizer, folder) if settings.max_steps else []
    return model.eval(), loaded.tokenizer, losses


def _tune(
    split: Split,
    settings: TitleTuning,
    request: str,
    seed: int,
    model: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
) -> list[float]:
    """Supervised fine-tuning on the rows of `rows_of`, loss on the titles alone. Returns each step's loss."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from baselines._writers import llm_texts
    from baselines._writers.trl import faster_on_cpu

    cases = split.llm_train.take(rows_of(split, settings, seed))
    assert cases.target is not None
    # Behind a title stands what closes the turn, a few tokens.
    length = TITLE_TOKENS + CLOSING
    asker = llm_texts.Asker(split, model, tokenizer, settings.max_items, settings.max_prompt_tokens, length)
    messages, titles = asker.about_users(request, cases), asker.titles
    rows = {
        "prompt": [[{"role": "user", "content": message}] for message in messages],
        "completion": [[{"role": "assistant", "content": titles[target]}] for target in cases.target.tolist()],
    }
    at_once = llm_texts.micro_batch(settings.users_per_step, settings.at_once)
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
    last = last_checkpoint(folder)
    with faster_on_cpu(model):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    return [round(float(entry["loss"]), 4) for entry in trainer.state.log_history if "loss" in entry]


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """Tuning to titles; then a text per case, or beams, each as long as a title."""
    whole = prompt_tokens(s, p["max_items"]) + s.line
    learned = p["max_steps"] * p["users_per_step"]
    tuning = Work(
        learned=learned * whole,
        held=p["at_once"] * whole if p["max_steps"] else 0,
        read=s.items * s.line,
        frozen=p["lora"]["layers_from"],
    )
    if "beams" not in p:
        return [tuning, texts_of(s, p, s.test + chosen_by(s, p, "gamma"))]
    rows = p["evaluation_rows"] * p["beams"]
    return [
        tuning,
        Work(read=s.test * prompt_tokens(s, p["max_items"]), written=s.test * p["beams"] * s.line, rows=rows),
    ]
