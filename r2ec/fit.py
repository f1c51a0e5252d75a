"""Fitting R2ec from a prepared dataset."""

import time
from pathlib import Path

import numpy as np
import torch

from benchmark.contract import Cases, Learned, Split
from benchmark.evaluate import validation_ndcg
from benchmark.provenance import derive_seed
from benchmark.storage.io import last_checkpoint
from lm.writing.engine import TransformersEngine
from r2ec.model.item_table import TABLE
from r2ec.model.prompts import end_of_reasoning
from r2ec.recpo.trainer import METRIC, RecPOTrainer
from r2ec.scoring.reader import sample
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.settings import EvaluationSettings, Params
from r2ec.training import sharded
from r2ec.training.schedule import processes
from r2ec.warm_start.kept_states import frozen_states
from r2ec.warm_start.start import warm_start


def fit_r2ec(split: Split, seed: int, params: Params, workdir: Path) -> R2ecRecommender:
    """Warm start, RecPO, last encoding of the table; each is on disk in `workdir` when the next begins.

    Several processes may call it together, as torchrun starts them: they share the users of each step, and what is
    written is written by the first of them.
    """
    processes(params)  # before the backbone is loaded: each process has a GPU of its own from here on
    done = workdir / "model"
    made = None if done.exists() else _fit(split, seed, params, workdir)
    if made is None or params.evaluation != made.params.evaluation:
        made = R2ecRecommender.load(done, split, params.evaluation)
    made.found["model"] = str(done)  # for `python -m r2ec.recommend --run`; not saved with it, a folder may move
    return made


def _fit(split: Split, seed: int, params: Params, workdir: Path) -> R2ecRecommender:
    """Fits and saves; whatever is written meanwhile is the model's own, so that `evaluation` plays no part."""
    params = params.model_copy(update={"evaluation": EvaluationSettings()})
    if writes_by_vllm(params):
        from lm.writing.vllm import require_vllm

        require_vllm()  # before the hours that come first
    torch.manual_seed(derive_seed(seed, "adapters"))
    made = R2ecRecommender.build(split, params)
    if params.warm_start.cases:
        warm_start(made, split, seed, workdir)
    rows = np.array([], dtype=np.int64)
    if params.training.max_steps != 0:
        rows = train(made, split, seed, workdir / "recpo")
    made.learned_from = learned_from(made, split, rows)
    made.model.eval()
    with sharded.whole(made.model):
        if params.training.max_steps != 0:
            made.table.refresh(made.model)
        elif not made.table.encoded and not params.recpo.cls_head:
            with processes(params).main_process_first():
                frozen_states(made, {})
        if torch.device(params.backbone.device).type == "cuda":
            made.found["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
        if processes(params).is_main_process:
            made.save(workdir / "model")
    processes(params).wait_for_everyone()
    if params.training.fsdp:  # one process alone goes on, which has but a piece of each weight
        del made
        made = R2ecRecommender.load(workdir / "model", split)
    return made


def writes_by_vllm(params: Params) -> bool:
    """Whether vLLM writes the rollouts of the training."""
    return params.rollouts.backend == "vllm" and params.recpo.reasoning and params.training.max_steps != 0


def train(made: R2ecRecommender, split: Split, seed: int, folder: Path) -> np.ndarray:
    """RecPO, from the last checkpoint in `folder` if there is one. Returns the rows of `split.llm_train` that it learned from."""
    some = sample(split.valid, made.params.training.eval_cases, split.name)
    trainer = trainer_of(made, split, some, seed, folder)
    last = last_checkpoint(folder)
    if last is not None:
        made.table.load(last / TABLE)  # DeepSpeed reads its own weights from a checkpoint, and nothing else
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    made.found |= {"recpo_steps": trainer.state.global_step, "recpo_seconds": round(time.monotonic() - started, 1)}
    made.found["recpo_log"] = trainer.logged("reward", METRIC)
    # With validation the best step's weights stay.
    return trainer.order.until(trainer.state.best_global_step or trainer.state.global_step)


def learned_from(made: R2ecRecommender, split: Split, rows: np.ndarray) -> Learned:
    """What has taught this model: rows of `split.llm_train` by RecPO, and by the warm start's form that was kept its sample of
    these, or, through the teacher, all of `split.train`. The prior counts them, too."""
    params, llm = made.params, split.llm_train
    form = made.found["warm_start"][0]["form"] if params.warm_start.cases else None
    if form in ("taught", "adapters"):
        return Learned.of(split.train)
    encoded = sample(llm, params.warm_start.cases, split.name)  # for its mean and spread, where no map was kept
    trained = np.isin(np.arange(len(llm)), rows)
    if form in ("tied", "free"):
        trained |= np.isin(llm.case, encoded.case)
    counted = split.train if params.recpo.prior else None
    return Learned.of_fit(llm.take(np.flatnonzero(trained)), counted, read=encoded if form == "none" else None)


def trainer_of(made: R2ecRecommender, split: Split, some: Cases, seed: int, folder: Path) -> RecPOTrainer:
    """RecPO of `made` on the training cases that an LLM may read; validated on `some`, its checkpoints in `folder`."""
    params, end = made.params, end_of_reasoning(made.prompts.tokenizer)

    def validate() -> float:
        made.table.refresh(made.model)
        return validation_ndcg(made, some, split.n_items, "r2ec")

    trainer = RecPOTrainer(
        model=made.model,
        table=made.table,
        prompts=made.prompts,
        engine=TransformersEngine(made.model.backbone, made.prompts.tokenizer, params.rollouts, end),
        cases=split.llm_train,
        validate=validate,
        recpo=params.recpo,
        training=params.training,
        seed=seed,
        folder=folder,
    )
    if writes_by_vllm(params):
        from lm.writing.vllm import VllmEngine, folder_of

        made.model.causal_lm.name_or_path = folder_of(params.backbone)
        trainer.engine = VllmEngine.start(
            made.model.backbone,
            trainer.accelerator,
            made.prompts.tokenizer,
            params.rollouts,
            end,
            params.vllm,
            max_model_length=params.prompts.max_prompt_tokens + params.rollouts.max_new_tokens,
        )
    return trainer
