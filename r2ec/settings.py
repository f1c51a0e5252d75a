"""Every setting of R2ec but its LM's (lm/settings.py). Light to import: configs are checked before torch is loaded."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from benchmark.config.sections import Strict
from benchmark.data import texts
from benchmark.shipped import settings_file
from lm.settings import BackboneSettings, LoraSettings, RolloutSettings, VllmSettings


class PromptSettings(Strict):
    """What the prompts hold."""

    max_items: int = Field(default=20, ge=1, description="history items shown, the newest ones")
    max_prompt_tokens: int = Field(
        default=texts.PROMPT_TOKENS, ge=1, description="the oldest items are dropped beyond it; also for item prompts"
    )
    time_anchor: Literal["last", "target"] = Field(
        default="last",
        description="'{delta} ago' counts back from the newest history item, or from the target's own time, which the "
        "released code does and which no ID baseline is told",
    )
    deltas: Literal["words", "released"] = Field(
        default="words", description="'{delta} ago' as '1 week', or as the released code writes it, '12d 3.4h'"
    )
    wording: Literal["paper", "released"] = Field(
        default="paper", description="of the instructions and ratings: the paper's Figure 5, or the released code's"
    )
    leaky_attributes: bool = Field(default=False, description="crawl-time rating and number of buyers in item prompts")
    description_words: int = Field(
        default=texts.ATTRIBUTE_WORDS, ge=0, description="words kept of each item attribute other than the title"
    )
    system_prompt: str | None = Field(
        default=None, description="null: what the backbone's chat template does by itself"
    )


class AdapterSettings(Strict):
    """The adapters' part of the warm start: they learn from the teacher, with what is written read."""

    steps: int = Field(0, ge=0, description="0: the warm start leaves the LM as it is")
    batch_size: int = Field(16, ge=1, description="training cases per step and process")
    learning_rate: float = Field(5e-4, gt=0, description="falls along a cosine")
    head_learning_rate: float = Field(3e-4, gt=0, description="of the rec head's maps, which go on meanwhile")
    warmup_steps: int = Field(5, ge=0)
    held_items: int = Field(16, ge=0, description="items per step that are encoded anew and held where they were")
    held_weight: float = Field(1.0, ge=0, description="of one minus their cosine, beside the divergence")


class WarmStartSettings(Strict):
    """The rec head before RecPO: linear maps on the frozen LM's states, fitted with the whole catalogue as candidates.

    The paper starts from the bare backbone (cases: 0). On a CPU the first useful item states cost far more RecPO steps
    than there is time for; the maps stay part of the rec head and go on learning.
    """

    cases: int = Field(0, ge=0, description="training cases (a seeded sample) whose states are encoded once; 0: none")
    rank: int = Field(128, ge=1, description="width of the maps' output")
    states: str = Field("results/states", description="folder in which encoded states are kept for later runs")
    forms: list[Literal["tied", "free", "taught"]] = Field(
        ["taught"],
        min_length=1,
        description="tried on validation beside the states without a map; see r2ec/warm_start/maps.py",
    )
    weight_decays: list[Annotated[float, Field(ge=0)]] = Field(
        [0.1], min_length=1, description="tried on validation with each form"
    )
    learning_rate: float = Field(1e-3, gt=0)
    epochs: int = Field(60, ge=1, description="at most; the best epoch on validation is kept")
    teacher_epochs: int = Field(8, ge=1, description="the same for the teacher of `taught`")
    history_decay: float = Field(0.8, gt=0, le=1, description="weight of a history item against the next newer one")
    batch_size: int = Field(256, ge=1)
    valid_cases: int = Field(
        500, ge=1, description="validation cases (the first of a seeded order) for all of these choices"
    )
    adapters: AdapterSettings = AdapterSettings()

    @model_validator(mode="after")
    def _adapters_need_a_teacher(self) -> "WarmStartSettings":
        if self.adapters.steps and not (self.cases and "taught" in self.forms):
            raise ValueError(
                f"adapters.steps {self.adapters.steps} needs a teacher: set cases above 0 (now {self.cases}) and put "
                f"taught into forms (now {self.forms})"
            )
        return self


class RecPOSettings(Strict):
    """The objective. Defaults are the paper's (arXiv 2505.16994), of tau and normalize the released code's."""

    reasoning: bool = Field(True, description="false: nothing is written, the item term alone (w/o Reasoning)")
    beta: float = Field(0.05, ge=0, le=1, description="R = beta R_c + (1 - beta) R_d; 0: w/o R_c, 1: w/o R_d")
    ndcg_k: int = Field(1000, ge=1, description="cut-off of R_d")
    advantage: Literal["grpo", "rloo", "rloo_released", "batch"] = Field(
        "grpo", description="batch: against the batch's other users, for a group_size of 1"
    )
    head_update: Literal["top1", "topk", "all", "random", "none", "released"] = "top1"
    topk: int = Field(1, ge=1, description="for head_update topk and released")
    token_term: bool = Field(True, description="false: the item term alone learns from the rollouts (a control)")
    epsilon: float = Field(0.2, gt=0, lt=1, description="clip range; nothing is clipped while num_iterations is 1")
    num_iterations: int = Field(
        1, ge=1, description="updates per batch of rollouts; eval_steps and save_steps are multiples of it"
    )
    tau: float = Field(0.02, gt=0, description="temperature of the item softmax (the released code's)")
    normalize: bool = Field(True, description="cosine (the released code) or the paper's bare inner product")
    prior: float = Field(
        0.0,
        ge=0,
        description="weight of the items' log-frequency in the training histories, added to the scores of the "
        "catalogue",
    )
    extra_negatives: int = Field(
        0, ge=0, description="rows of the item table drawn as further candidates of the item term"
    )
    logq: bool = Field(False, description="subtract log of how often an item is a candidate")
    refresh_steps: int = Field(50, ge=1, description="T_refresh: steps between encodings of the whole item table")
    candidates: Literal["batch", "table"] = Field(
        "batch",
        description="of the item term: the batch's targets, encoded anew, or every row of the item table as it stands, "
        "so that no fresh state can be told from a stale one",
    )
    kl: float = Field(
        0.0, ge=0, description="weight of the tokens' divergence from the policy that RecPO began with; 0: left out"
    )
    pooling: Literal["last", "mean", "max", "special"] = "last"
    cls_head: bool = Field(False, description="a free classification head in place of item states (w/ ClsHead)")

    @model_validator(mode="after")
    def _cls_head_excludes_logq(self) -> "RecPOSettings":
        if self.cls_head and self.logq:
            raise ValueError("cls_head has every item as a candidate, always; set logq to false")
        return self

    @model_validator(mode="after")
    def _table_candidates_are_all_items(self) -> "RecPOSettings":
        if self.candidates == "table":
            if self.cls_head:
                raise ValueError("cls_head has no item table; set candidates to batch")
            if self.logq or self.extra_negatives:
                raise ValueError(
                    f"candidates table has every item as a candidate, always; set logq (now {self.logq}) to false and "
                    f"extra_negatives (now {self.extra_negatives}) to 0"
                )
        if self.kl and not self.reasoning:
            raise ValueError(f"kl {self.kl} is of what is written, and reasoning is false; set kl to 0")
        return self


class TrainingSettings(Strict):
    """The run of transformers' Trainer; names are its own, but those of `objective`, `measured_steps` and the like."""

    objective: Literal["recpo", "teacher"] = Field(
        "recpo",
        description="teacher: in RecPO's place the warm start's adapters go on learning from its teacher (a control)",
    )
    learning_rate: float = Field(1e-5, gt=0)
    head_learning_rate: float | None = Field(
        None, ge=0, description="for the rec head's maps, 0: they stay as they are; null: learning_rate"
    )
    per_device_train_batch_size: int = Field(24, ge=1, description="users per step and process")
    gradient_accumulation_steps: int = Field(1, ge=1)
    max_steps: int = Field(-1, ge=-1, description="-1: num_train_epochs decides; 0: no RecPO at all")
    num_train_epochs: float = Field(3, gt=0)
    warmup_steps: int = Field(32, ge=0)
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "constant_with_warmup"
    max_grad_norm: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    eval_steps: int = Field(
        0,
        ge=0,
        description="validation, early stopping and checkpoint every n steps, for which the item table is encoded "
        "anew, whatever refresh_steps says; 0: at the end only",
    )
    eval_cases: int = Field(500, ge=1, description="validation cases used for it (the first of a seeded order)")
    patience: int = Field(3, ge=1, description="evaluations without a better NDCG@10 before stopping")
    measured_steps: list[Annotated[int, Field(ge=0)]] = Field(
        [],
        description="steps, 0 among them if wanted, behind which the ranks of eval_cases are noted with a fresh item "
        "table; the training goes on as if they weren't",
    )
    save_steps: int = Field(20, ge=1, description="checkpoint every n steps where eval_steps is 0")
    logging_steps: int = Field(1, ge=1)
    split_grad_norms: int = Field(
        10, ge=0, description="every n steps, gradient norms of token and item term apart; 0: never"
    )
    activation_checkpointing: bool = Field(
        False, description="compute activations twice instead of keeping them; prompts are then read for each rollout"
    )
    deepspeed: str | None = Field(None, description="a DeepSpeed config, such as config/accelerate/zero2.json")
    fsdp: str | None = Field(None, description="settings of accelerate's FSDP, such as config/accelerate/fsdp.json")

    @field_validator("deepspeed", "fsdp")
    @classmethod
    def _path_is_a_settings_file(cls, path: str | None) -> str | None:
        if path is not None:
            accelerate_settings(path)
        return path

    @field_validator("measured_steps")
    @classmethod
    def _measured_steps_ascend(cls, steps: list[int]) -> list[int]:
        if steps != sorted(set(steps)):
            raise ValueError(f"measured_steps {steps}; give each step once, in ascending order")
        return steps

    @model_validator(mode="after")
    def _fsdp_excludes_deepspeed_and_split_norms(self) -> "TrainingSettings":
        if self.deepspeed and self.fsdp:
            raise ValueError(
                f"deepspeed {self.deepspeed!r} and fsdp {self.fsdp!r} exclude each other; set one of them to null"
            )
        if self.fsdp and self.split_grad_norms:
            raise ValueError(
                f"split_grad_norms {self.split_grad_norms} needs whole weights, which fsdp has cut into pieces; set "
                "it to 0"
            )
        return self


class EvaluationSettings(Strict):
    """Which reasoning is read when scoring: controls that tell whether it matters. Training never reads these.

    own: what the model writes for the case, read while it is written. again: the same text, read in one pass as the
    following are, which rounds differently: what they are compared with. other: what it writes for another user.
    permuted: its own words in a random order, with line breaks and blanks where they were. empty: nothing but
    `<answer>`. filler: dots, as many tokens as its own.
    """

    reasoning: Literal["own", "again", "other", "permuted", "empty", "filler"] = "own"
    samples: int = Field(1, ge=1, description="above 1: so many reasonings are sampled, as in training, and combined")
    combine: Literal["mean", "best"] = Field(
        "mean", description="of several samples: the mean of their h_T, or the most likely one's"
    )

    @model_validator(mode="after")
    def _several_samples_need_own_reasonings(self) -> "EvaluationSettings":
        if self.samples > 1 and self.reasoning != "own":
            raise ValueError(f"samples {self.samples} are the model's own; set reasoning {self.reasoning!r} to own")
        return self


class Params(Strict):
    """All settings of one run. `evaluation_rows`: users whose reasonings are written together when scoring."""

    backbone: BackboneSettings
    lora: LoraSettings = LoraSettings()
    prompts: PromptSettings = PromptSettings()
    rollouts: RolloutSettings = RolloutSettings()
    vllm: VllmSettings = VllmSettings()
    recpo: RecPOSettings = RecPOSettings()
    training: TrainingSettings = Field(TrainingSettings(), validate_default=True)
    warm_start: WarmStartSettings = Field(WarmStartSettings(), validate_default=True)
    evaluation: EvaluationSettings = EvaluationSettings()
    evaluation_rows: int = Field(64, ge=1)

    @field_validator("training")
    @classmethod
    def _checkpoints_need_finished_iterations(
        cls, training: TrainingSettings, info: ValidationInfo
    ) -> TrainingSettings:
        """Checkpoints (and evaluations, which write one) hold no rollouts: none in the middle of their iterations."""
        name = "eval_steps" if training.eval_steps else "save_steps"
        steps, recpo = getattr(training, name), info.data.get("recpo")  # absent where it is wrong itself
        if recpo is not None and steps % recpo.num_iterations != 0:
            raise ValueError(
                f"{name} {steps} is not a multiple of recpo.num_iterations {recpo.num_iterations}; set it to one, "
                "since a resumed run could not go on with rollouts whose iterations are half done"
            )
        return training

    @field_validator("training")
    @classmethod
    def _kl_excludes_sharding(cls, training: TrainingSettings, info: ValidationInfo) -> TrainingSettings:
        recpo = info.data.get("recpo")
        if recpo is not None and recpo.kl and (shared := training.deepspeed or training.fsdp):
            raise ValueError(f"recpo.kl {recpo.kl} is not wired to {shared!r}; set it to 0, or train without")
        return training

    @field_validator("training")
    @classmethod
    def _advantage_needs_other_rollouts(cls, training: TrainingSettings, info: ValidationInfo) -> TrainingSettings:
        """An advantage compares a rollout with others: of its user, or of the other users in the batch."""
        recpo, rollouts = info.data.get("recpo"), info.data.get("rollouts")
        if recpo is None or rollouts is None or not recpo.reasoning or training.max_steps == 0:
            return training
        if training.objective == "teacher":
            return training
        if recpo.advantage == "batch" and training.per_device_train_batch_size < 2:
            raise ValueError("recpo.advantage batch needs other users; raise per_device_train_batch_size above 1")
        if recpo.advantage != "batch" and rollouts.group_size < 2:
            raise ValueError(
                f"recpo.advantage {recpo.advantage} compares the rollouts of a user, but rollouts.group_size is 1; "
                "raise it, or set recpo.advantage to batch"
            )
        return training

    @field_validator("warm_start")
    @classmethod
    def _cls_head_excludes_warm_start(cls, warm_start: WarmStartSettings, info: ValidationInfo) -> WarmStartSettings:
        recpo = info.data.get("recpo")
        if recpo is not None and recpo.cls_head and warm_start.cases:
            raise ValueError(
                "a classification head has no item states to start from; set cases to 0 for recpo.cls_head"
            )
        return warm_start

    @field_validator("warm_start")
    @classmethod
    def _adapters_exclude_sharding(cls, warm_start: WarmStartSettings, info: ValidationInfo) -> WarmStartSettings:
        training = info.data.get("training")
        if training is not None and warm_start.adapters.steps and (shared := training.deepspeed or training.fsdp):
            raise ValueError(
                f"adapters.steps {warm_start.adapters.steps} is not wired to {shared!r}; set it to 0, or train without"
            )
        return warm_start

    @field_validator("warm_start")
    @classmethod
    def _objective_needs_a_teacher(cls, warm_start: WarmStartSettings, info: ValidationInfo) -> WarmStartSettings:
        training, recpo = info.data.get("training"), info.data.get("recpo")
        if training is None or recpo is None or training.objective != "teacher":
            return warm_start
        if not (warm_start.cases and "taught" in warm_start.forms):
            raise ValueError(
                f"training.objective teacher needs a teacher: set cases above 0 (now {warm_start.cases}) and put "
                f"taught into forms (now {warm_start.forms})"
            )
        if shared := training.deepspeed or training.fsdp:
            raise ValueError(f"training.objective teacher is not wired to {shared!r}; train without")
        if recpo.cls_head or recpo.num_iterations != 1:
            raise ValueError(
                "training.objective teacher has no rollouts to learn from twice and no classification head; set "
                "recpo.num_iterations to 1 and recpo.cls_head to false"
            )
        return warm_start

    @field_validator("evaluation")
    @classmethod
    def _evaluation_needs_reasoning(cls, evaluation: EvaluationSettings, info: ValidationInfo) -> EvaluationSettings:
        recpo = info.data.get("recpo")
        if recpo is not None and not recpo.reasoning and evaluation != EvaluationSettings():
            raise ValueError("nothing is written under recpo.reasoning false; leave evaluation out")
        return evaluation

    @model_validator(mode="after")
    def _vllm_excludes_fsdp(self) -> "Params":
        if self.rollouts.backend == "vllm" and self.training.fsdp:
            raise ValueError(
                f"rollouts.backend 'vllm' is not wired to training.fsdp {self.training.fsdp!r}; use deepspeed or "
                "neither"
            )
        return self


def accelerate_settings(path: str) -> dict[str, Any]:
    """The settings in a JSON file, looked for from the current folder and then from the project's.

    Raises ValueError for a file that is missing or holds something else.
    """
    file = settings_file(path)
    if file is None:
        raise ValueError(
            f"no file {path!r}, neither here nor in the project; give a file such as config/accelerate/zero2.json"
        )
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); correct it") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: holds no settings; see config/accelerate/zero2.json")
    return settings
