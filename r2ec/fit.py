"""Fits R2ec on a prepared dataset: warm start, RecPO, last encoding of the item table."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils import broadcast_object_list

from benchmark.contract import Cases, Learned, Split
from benchmark.errors import InputError
from benchmark.evaluate import rank, validation_ndcg
from benchmark.provenance import derive_seed
from benchmark.storage.checksums import intact
from lm import checkpoints
from lm.writing.engine import TransformersEngine
from lm.writing.stopping import EndOfTurn
from r2ec.model.item_table import TABLE
from r2ec.model.prompts import end_of_reasoning
from r2ec.recpo.trainer import RecPOTrainer
from r2ec.report import Curve, FitReport
from r2ec.scoring.reader import Reader, sample
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.settings import EvaluationSettings, Params
from r2ec.training import sharded
from r2ec.training.schedule import METRIC, processes
from r2ec.warm_start.adapters import TaughtTrainer, refit_item_map, taught_trainer
from r2ec.warm_start.kept_states import frozen_states
from r2ec.warm_start.maps import Teacher
from r2ec.warm_start.start import teacher_again, warm_start

if TYPE_CHECKING:
    from lm.writing.vllm import VllmEngine  # importing it takes seconds
    from lm.writing.vllm_processor import ProcessorVllmEngine


def fit_r2ec(split: Split, seed: int, params: Params, workdir: Path) -> R2ecRecommender:
    """Warm start, RecPO, last encoding of the table; each is on disk in `workdir` when the next begins.

    Several processes may call it together, as torchrun starts them: they share the users of each step, and only the
    first one writes files.
    """
    first = processes(params).is_main_process  # before the backbone is loaded: each has a GPU of its own from here on
    model_folder = workdir / "model"
    is_fitted = broadcast_object_list([first and intact(model_folder)])[0]
    fitted = None if is_fitted else _fit(split, seed, params, workdir)
    if fitted is None or params.evaluation != fitted.reader.params.evaluation:
        fitted = R2ecRecommender.load(model_folder, split, params.evaluation)
    # For `python -m r2ec.recommend --run`; not saved with it, as a folder may move.
    return R2ecRecommender(fitted.reader, fitted.report() | {"model": str(model_folder)}, fitted.learned())


def _fit(split: Split, seed: int, params: Params, workdir: Path) -> R2ecRecommender:
    """Fit and save. A fit reads the model's own reasonings, whatever `evaluation` says."""
    params = params.model_copy(update={"evaluation": EvaluationSettings()})
    if writes_by_vllm(params):
        from lm.writing.vllm import require_vllm

        require_vllm()  # before the hours that come first
    torch.manual_seed(derive_seed(seed, "adapters"))
    reader = Reader.build(split, params)
    trained, teacher = params.training.max_steps != 0, None
    if trained and params.training.objective == "teacher":
        with torch.random.fork_rng(devices=[]):  # or a warm start that is made here would draw other numbers
            teacher = teacher_again(reader, split, seed)
    report = warm_start(reader, split, seed, workdir) if params.warm_start.cases else FitReport()
    rows = np.array([], dtype=np.int64)
    if trained:
        report, rows = train(reader, split, seed, workdir / "recpo", report, teacher)
    learned = learned_from(report, split, params, rows)
    reader.model.eval()
    with sharded.whole(reader.model):
        if trained:
            encode_again(reader, refit=teacher is not None)
        elif not reader.table.encoded and not params.recpo.cls_head:
            with processes(params).main_process_first():
                frozen_states(reader, {})
        if torch.device(params.backbone.device).type == "cuda":
            report = replace(report, peak_gpu_mib=round(torch.cuda.max_memory_allocated() / 2**20))
        if processes(params).is_main_process:
            reader.save(workdir / "model", report.as_json(), learned)
    processes(params).wait_for_everyone()
    if params.training.fsdp:  # only one process goes on, and it holds no more than a piece of each weight
        del reader
        return R2ecRecommender.load(workdir / "model", split)
    return R2ecRecommender(reader, report.as_json(), learned)


def writes_by_vllm(params: Params) -> bool:
    """Whether vLLM writes the rollouts of the training."""
    training = params.training
    writes = params.recpo.reasoning and training.max_steps != 0 and training.objective == "recpo"
    return writes and params.rollouts.backend == "vllm"


def train(
    reader: Reader, split: Split, seed: int, folder: Path, report: FitReport, teacher: Teacher | None = None
) -> tuple[FitReport, np.ndarray]:
    """Train by RecPO, from the last checkpoint in `folder` if there is one. With a teacher, its objective replaces
    RecPO's.

    Returns the report with RecPO's part, and the rows of `split.llm_train` that it learned from, int64, ascending.
    """
    validation_cases = sample(split.valid, reader.params.training.eval_cases, split.name)
    trainer = trainer_of(reader, split, validation_cases, seed, folder, teacher)
    started = time.monotonic()
    # DeepSpeed reads its own weights from a checkpoint, and nothing else.
    checkpoints.train(trainer, lambda last: reader.table.load(last / TABLE))
    measured = reader.params.training.measured_steps
    writer = None
    if writes_by_vllm(reader.params):
        from lm.writing.vllm import vllm_version

        writer = f"vllm {vllm_version()}"
    report = replace(
        report,
        recpo_steps=trainer.state.global_step,
        recpo_seconds=round(time.monotonic() - started, 1),
        rollouts_by=writer,
        recpo_log=trainer.logged("reward", "divergence", METRIC),
        curve=Curve(validation_cases.user.tolist(), trainer.measured()) if measured else None,
    )
    # With validation the best step's weights stay.
    return report, trainer.order.until(trainer.state.best_global_step or trainer.state.global_step)


def learned_from(report: FitReport, split: Split, params: Params, rows: np.ndarray) -> Learned:
    """The cases that a model learned from.

    rows: int64, those of `split.llm_train` that RecPO learned from. The warm start adds its sample of `split.llm_train`
    or, where a teacher taught the form that was kept or went on teaching, all of `split.train`. The prior counts
    `split.train`, too.
    """
    llm, form = split.llm_train, report.form
    by_teacher = params.training.objective == "teacher" and params.training.max_steps != 0
    if form in ("taught", "adapters") or by_teacher:
        return Learned.of(split.train)
    encoded = sample(llm, params.warm_start.cases, split.name)  # for its mean and spread, where no map was kept
    trained = np.isin(np.arange(len(llm)), rows)
    if form in ("tied", "free"):
        trained |= np.isin(llm.case, encoded.case)
    counted = split.train if params.recpo.prior else None
    return Learned.of_fit(llm.take(np.flatnonzero(trained)), counted, read=encoded if form == "none" else None)


def encode_again(reader: Reader, refit: bool) -> None:
    """Encode the table by the present model. refit: fit the item map so that it maps the new states to what it mapped
    the old ones to, as at the end of the warm start."""
    old, head = reader.table.states.clone(), reader.model.head
    reader.table.refresh(reader.model)
    if refit and head.item_map is not None:
        refit_item_map(head, old, reader.table.states, reader.params.recpo.normalize)


def ranks_now(reader: Reader, cases: Cases, n_items: int, refit: bool) -> list[int]:
    """Return the target's rank for each case, by the present model with the table encoded again.

    The reader is left as it was, except that a table not encoded before is encoded then.
    """
    table, encoded = reader.table.states.clone(), reader.table.encoded
    maps = {name: value.clone() for name, value in reader.model.head.state_dict().items()} if refit else {}
    encode_again(reader, refit)
    hidden = replace(cases, target=None)
    assert cases.target is not None
    ranking = rank(R2ecRecommender(reader).score(hidden), hidden, cases.target, n_items, "r2ec")
    if encoded:
        reader.table.states.copy_(table)
    if refit:
        reader.model.head.load_state_dict(maps)
    ranks: list[int] = ranking.column("rank").to_pylist()
    return ranks


def trainer_of(
    reader: Reader, split: Split, validation_cases: Cases, seed: int, folder: Path, teacher: Teacher | None = None
) -> RecPOTrainer | TaughtTrainer:
    """RecPO of the reader's model on the training cases that an LLM may read, or what the teacher goes on to teach it;
    validated on `validation_cases`, its checkpoints in `folder`."""
    params = reader.params

    def validate() -> float:
        reader.table.refresh(reader.model)
        return validation_ndcg(R2ecRecommender(reader), validation_cases, split.n_items, "r2ec")

    def measure() -> list[int]:
        return ranks_now(reader, validation_cases, split.n_items, refit=teacher is not None)

    if teacher is not None:
        # The warm start's own objective for as many steps as RecPO would have, by the settings of its training.
        return taught_trainer(
            reader,
            split,
            teacher,
            training=params.training,
            seed=derive_seed(seed, "teacher goes on"),  # other cases than the warm start's adapters had first
            folder=folder,
            validate=validate,
            measure=measure,
        )
    end = end_of_reasoning(reader.prompts.tokenizer)
    trainer = RecPOTrainer(
        model=reader.model,
        table=reader.table,
        prompts=reader.prompts,
        engine=TransformersEngine(reader.model.backbone, reader.prompts.tokenizer, params.rollouts, end),
        cases=split.llm_train,
        validate=validate,
        measure=measure,
        recpo=params.recpo,
        training=params.training,
        seed=seed,
        folder=folder,
    )
    if writes_by_vllm(params):
        trainer.engine = vllm_engine(reader, trainer, params, end)
    return trainer


def vllm_engine(
    reader: Reader, trainer: RecPOTrainer, params: Params, end: EndOfTurn
) -> "VllmEngine | ProcessorVllmEngine":
    """Raises InputError where vLLM is missing, no server answers, or several processes train on a processor."""
    from lm.writing.vllm import VllmEngine, folder_of, require_vllm
    from lm.writing.vllm_processor import ProcessorVllmEngine, is_for_processors

    require_vllm()
    backbone, tokenizer, folder = reader.model.backbone, reader.prompts.tokenizer, folder_of(params.backbone)
    prompt = params.prompts.max_prompt_tokens
    if params.vllm.mode == "colocate" and is_for_processors():
        if trainer.accelerator.num_processes > 1:
            raise InputError("rollouts.backend 'vllm' on a processor writes for one process alone; set processes: 1")
        return ProcessorVllmEngine(backbone, tokenizer, params.rollouts, end, folder=folder, max_prompt_tokens=prompt)
    reader.model.causal_lm.name_or_path = folder
    longest = prompt + params.rollouts.max_new_tokens
    return VllmEngine.start(
        backbone, trainer.accelerator, tokenizer, params.rollouts, end, params.vllm, max_model_length=longest
    )
