"""Tunes an LLM to write the next item's title, by trl's supervised fine-tuning. Light to import.

bigrec.py, d3.py, title_sft.py, s_dpo.py, sp_rec.py, llara.py and latent_r3.py begin with it. It is done once per
dataset, seed and settings, and kept for all of them.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from baselines._writers.settings import rows_of
from benchmark.contract import Cases, Learned, Split
from benchmark.data.texts import PROMPT_TOKENS, TITLE_TOKENS
from benchmark.provenance import derive_seed
from benchmark.storage.io import sha256_of_json
from benchmark.storage.stages import Stage
from benchmark.workload import TUNING, Sizes, Work, named, prompt_tokens
from lm.settings import BackboneSettings, LoraSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from baselines._writers.llm_texts import MessageBuilder

REQUEST = (
    "These are the last {several} I chose, the newest at the end:\n{history}\n"
    "Answer with the title of the {category} that I will choose next."
)
# Rows that begin with the tuning have one random stream in each repetition, in the place of one by each row's name, so
# that they begin with the same adapters.
STREAM = "title tuning"
# The tuned adapters.
TITLES = Stage("title tuning", 1, packages=("torch", "transformers", "peft", "tokenizers", "accelerate", "trl"))
# Share of a title's tokens that a beam reads: 20 beams took 34 to 99 tokens a case on the embedded datasets.
READ_OF_TITLES = 0.25
CLOSING = 8  # tokens at most that a chat template puts behind a title


class TitleTuning(BaseModel):
    """max_items: history items shown; max_prompt_tokens: of a prompt, beyond which the oldest items leave;
    users_per_step, at_once, max_steps, learning_rate: of the tuning, at_once cases in a micro-batch; max_steps 0: the
    LLM as it is; max_epochs: passes over the cases that an LLM may read at which the tuning ends, if max_steps are more
    (null: no such end); tunings: folder in which tuned adapters are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneSettings
    lora: LoraSettings = LoraSettings()
    max_items: int = Field(default=6, ge=1)
    max_prompt_tokens: int = Field(default=PROMPT_TOKENS, ge=1)
    users_per_step: int = Field(default=16, ge=1)
    at_once: int = Field(default=8, ge=1)
    max_steps: int = Field(default=40, ge=0)
    max_epochs: float | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=3e-4, gt=0)
    save_steps: int = Field(default=20, ge=1)
    tunings: str = "results/tunings"


def steps_of(max_steps: int, max_epochs: float | None, users_per_step: int, cases: int) -> int:
    """Steps of a tuning: `max_steps`, or as many whole ones as `max_epochs` of the cases have, if that is fewer.

    >>> steps_of(1000, 3, 128, 10_748), steps_of(1000, 3, 128, 50_801), steps_of(40, None, 16, 100)
    (251, 1000, 40)
    """
    return max_steps if max_epochs is None else min(max_steps, max(1, int(max_epochs * cases) // users_per_step))


def within_epochs(split: Split, settings: TitleTuning) -> TitleTuning:
    """The settings with the steps that the tuning takes on this split."""
    steps = steps_of(settings.max_steps, settings.max_epochs, settings.users_per_step, len(split.llm_train))
    return settings.model_copy(update={"max_steps": steps})


def tuned_rows(split: Split, settings: TitleTuning, seed: int) -> np.ndarray:
    """The rows of `split.llm_train` that the tuning takes, step by step, int64."""
    return rows_of(split, within_epochs(split, settings), seed)


class TitleBeams(TitleTuning):
    """beams: how many items are retrieved; evaluation_rows: users whose beams are read together."""

    beams: int = Field(default=20, ge=1)
    evaluation_rows: int = Field(default=32, ge=1)


def tuned(
    split: Split, settings: TitleTuning, *, request: str, seed: int, folder: Path
) -> tuple["PeftModel", "PreTrainedTokenizerBase", list[float]]:
    """The LLM with adapters tuned on the training cases' titles, in evaluation mode; its tokenizer; each step's loss.

    request: the message, see `llm_texts.MessageBuilder.user_messages`. Adapters that another row has tuned in the same
    way are loaded from `settings.tunings`. A killed tuning goes on from the last checkpoint in `folder`.
    """
    import torch

    from baselines._writers import llm_texts
    from baselines._writers.kept_adapters import kept_adapters
    from lm import backbone as backbones
    from lm.kernels.attention import use_grouped_attention

    loaded = backbones.load(settings.backbone)
    torch.manual_seed(derive_seed(seed, "adapters"))
    model = backbones.add_lora(loaded.model, settings.lora)
    if not settings.max_steps:
        return model.eval(), loaded.tokenizer, []
    settings = within_epochs(split, settings)
    builder = llm_texts.MessageBuilder(
        split, model, loaded.tokenizer, settings.max_items, settings.max_prompt_tokens, TITLE_TOKENS + CLOSING
    )
    learned = examples(builder, request, split.llm_train.take(tuned_rows(split, settings, seed)))
    about = {
        **TITLES.about(),
        "backbone": [*backbones.identity(settings.backbone), settings.backbone.device],
        "lora": settings.lora.model_dump(mode="json"),
        "training": settings.model_dump(
            mode="json", include={"users_per_step", "at_once", "max_steps", "learning_rate"}
        ),
        "seed": seed,
        "examples": sha256_of_json(learned),
    }
    training = partial(tune, model, loaded.tokenizer, learned, settings, seed=seed, folder=folder)
    losses: list[float] = kept_adapters(Path(settings.tunings), about, model, training)
    if not torch.cuda.is_available():  # as `tune` leaves it, for those who find the adapters
        use_grouped_attention(llm_texts.causal_lm_of(model))
    return model.eval(), loaded.tokenizer, losses


def examples(builder: "MessageBuilder", request: str, cases: Cases) -> dict[str, list[str]]:
    """The message about each training case, `prompt`, and the title of its target, `completion`."""
    assert cases.target is not None
    titles = [builder.titles[target] for target in cases.target.tolist()]
    return {"prompt": builder.user_messages(request, cases), "completion": titles}


def tune(
    model: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    learned: dict[str, list[str]],
    settings: TitleTuning,
    *,
    seed: int,
    folder: Path,
) -> list[float]:
    """Supervised fine-tuning on one epoch of these examples, with the loss on titles and the ends of their turns only.

    Returns each step's loss. Goes on from the last checkpoint in `folder`.
    """
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from baselines._writers import llm_texts
    from baselines._writers.trl import faster_on_cpu
    from lm.checkpoints import train

    rows = {
        "prompt": [[{"role": "user", "content": message}] for message in learned["prompt"]],
        "completion": [[{"role": "assistant", "content": title}] for title in learned["completion"]],
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
        save_total_limit=None,
        logging_steps=1,
        seed=derive_seed(seed, "tuning") % 2**31,
        report_to=[],
        bf16=False,  # the weights are bf16 already; the adapters stay float32
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer)
    with faster_on_cpu(model):
        train(trainer)
    return [round(float(entry["loss"]), 4) for entry in trainer.state.log_history if "loss" in entry]


def learned_from(split: Split, settings: TitleTuning, seed: int, *more: np.ndarray) -> Learned:
    """The cases that the tuning and later stages learned from. more: rows of `split.llm_train` of later stages."""
    return Learned.of_fit(split.llm_train.take(np.unique(np.concatenate([tuned_rows(split, settings, seed), *more]))))


def tuning_work(s: Sizes, p: dict[str, Any]) -> Work:
    """The tuning, which rows of the same settings share."""
    whole = prompt_tokens(s, p["max_items"]) + s.line
    shared = [p[name] for name in ("backbone", "lora", "max_items", "max_prompt_tokens", "learning_rate")]
    steps = steps_of(p["max_steps"], p["max_epochs"], p["users_per_step"], s.train_llm)
    return Work(
        learned=steps * p["users_per_step"] * whole,
        held=p["at_once"] * whole if steps else 0,
        frozen=p["lora"]["layers_from"],
        kept=named(TUNING, *shared, steps, p["users_per_step"], p["at_once"]),
    )


def beams_work(s: Sizes, p: dict[str, Any]) -> Work:
    """A prompt for each test case, and beams behind it.

    A title is complete where no other begins like it, long before its end.
    """
    read, written = s.test * prompt_tokens(s, p["max_items"]), s.test * p["beams"] * s.line * READ_OF_TITLES
    return Work(read=read, written=written, rows=p["evaluation_rows"] * p["beams"])
