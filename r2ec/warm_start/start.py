"""Runs the warm start, from the bare backbone to where RecPO begins: maps, then adapters, on a dataset's cases."""

import copy
import hashlib
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from benchmark.contract import Cases, Split
from benchmark.provenance import derive_seed
from benchmark.storage import ledger
from benchmark.storage.checksums import intact
from benchmark.storage.io import locked, read_json, sha256_of_json
from benchmark.storage.kept import key
from benchmark.storage.stages import Stage
from lm import backbone as backbones
from lm.checkpoints import train
from r2ec.model.item_table import TABLE, hash_of
from r2ec.model.network import WEIGHTS
from r2ec.model.rec_head import RecHead
from r2ec.report import AdapterReport, Choice, FitReport
from r2ec.scoring.reader import SETTINGS, Reader, sample
from r2ec.settings import Params
from r2ec.training.schedule import processes
from r2ec.warm_start.adapters import adapter_training, refit_item_map, taught_trainer
from r2ec.warm_start.kept_states import GREEDY, STATES, frozen_states
from r2ec.warm_start.maps import Encoded, Fitted, Teacher, WarmStart, divergence, fit_rec_head

# Maps and adapters where RecPO begins.
WARM_START = Stage(
    "warm start", 1, after=(STATES,), packages=("torch", "transformers", "peft", "tokenizers", "accelerate")
)
SHOWN = 32  # cases whose prompts stand for how prompts are worded


def warm_start(reader: Reader, split: Split, seed: int, workdir: Path) -> FitReport:
    """Give the reader the rec head that `fit_rec_head` fits on frozen states, and adapters taught by its teacher.

    The result is kept in the folder `warm_start.states` under the hash of all that it depends on, so that runs which
    differ in RecPO alone, as most ablations do, begin from the same one. Every process loads it from disk, so that all
    have the same weights to the last bit.
    """
    about = _depends_on(reader, split, seed)
    kept_folder = Path(reader.params.warm_start.states) / f"warm-start-{sha256_of_json(about)}"
    # The first process decides for all: a slower one might see what another job has written meanwhile.
    is_kept = broadcast_object_list([processes(reader.params).is_main_process and intact(kept_folder)])[0]
    if not is_kept:
        if processes(reader.params).is_main_process:
            with locked(kept_folder):  # a folder that can't be written is said now, and not after the training
                pass
        with ledger.making(kept_folder):
            report = _warm(reader, split, seed, workdir / "adapters")
            if processes(reader.params).is_main_process:
                with locked(kept_folder):  # no job may replace what another one reads
                    if not kept_folder.exists():
                        reader.save(kept_folder, report.as_json())
        processes(reader.params).wait_for_everyone()
    elif processes(reader.params).is_main_process:
        ledger.charge_for(kept_folder)
        print(f"warm start: as kept in {kept_folder}", flush=True)
    settings = read_json(kept_folder / SETTINGS)
    reader.model.head = RecHead(reader.model.dim, **settings["head"]).to(reader.params.backbone.device)
    reader.model.load(kept_folder / WEIGHTS)
    reader.table.load(kept_folder / TABLE)
    return FitReport.from_json(settings["report"])


def _depends_on(reader: Reader, split: Split, seed: int) -> dict[str, Any]:
    """All that a warm start depends on: stages, packages, weights, texts, cases, seed, settings that it reads."""
    params = reader.params
    cases = hashlib.sha256()
    for part in (split.train, split.valid):
        for field in fields(part):
            if (values := getattr(part, field.name)) is not None:
                cases.update(f"{field.name} {len(values)}".encode() + np.ascontiguousarray(values).tobytes())
    if split.llm_rows is not None:
        cases.update(b"llm_rows" + np.ascontiguousarray(split.llm_rows).tobytes())
    recpo, training = params.recpo.model_dump(mode="json"), adapter_training(params).model_dump(mode="json")
    shown = split.llm_train.take(np.arange(min(SHOWN, len(split.llm_train))))
    inputs = {
        "user_prompts": hash_of(reader.prompts.user_prompts(shown, open_answer=not params.recpo.reasoning)),
        "backbone": [*backbones.identity(params.backbone), params.backbone.device],
        "processes": processes(params).num_processes,
        "seed": seed,
        "category": [split.category, split.category_plural],
        "rating_scale": split.rating_scale,
        "items": reader.table.prompts_hash,
        "cases": cases.hexdigest(),
        "evaluation_rows": params.evaluation_rows,
        "rollouts": params.rollouts.model_dump(mode="json", include=GREEDY),
        "warm_start": params.warm_start.model_dump(mode="json", exclude={"states"}),
        "lora": params.lora.model_dump(mode="json"),
        "prompts": params.prompts.model_dump(mode="json"),
        "recpo": {name: recpo[name] for name in ("reasoning", "tau", "normalize", "prior", "pooling")},
        "training": {name: training[name] for name in ("max_grad_norm", "weight_decay", "activation_checkpointing")},
    }
    return key(WARM_START, inputs)


def _warm(reader: Reader, split: Split, seed: int, folder: Path) -> FitReport:
    """Fit maps on frozen states, then train adapters, whose checkpoints are in `folder`.

    The teacher needs no LM and learns from all training cases; the LM reads only a sample of them. Validation decides
    whether the adapters are kept: against their own start, `taught`, they must diverge less from its teacher; against
    another form they must rank better.
    """
    params, settings = reader.params, reader.params.warm_start
    data, valid = _data(reader, split, seed)
    fitted = _fitted(data, params)
    tried, report = fitted.tried, FitReport()
    if settings.adapters.steps:
        frozen = {name: value.clone() for name, value in reader.model.own_state().items() if "lora" in name}
        adapted, report = _teach_adapters(reader, split, seed, folder, data, valid, fitted)
        assert report.adapters is not None
        # Against their own start by the divergence, which both minimise: NDCG of some hundred cases can't tell two
        # apart that have the same teacher.
        closer, better = report.adapters.divergence < report.adapters.divergence_before, adapted.value > tried[0].value
        take_adapters = closer if tried[0].form == "taught" else better
        tried = [adapted, *tried] if take_adapters else [tried[0], adapted, *tried[1:]]
        if not take_adapters:
            for name, value in reader.model.own_state().items():
                if name in frozen:
                    value.copy_(frozen[name])
            reader.table.states.copy_(data.items)
    if tried[0].form != "adapters":
        reader.model.head = fitted.head.to(params.backbone.device)
    print(f"warm start: {_line(tried[0])}; tried {len(tried)}", flush=True)
    return replace(report, warm_start=tried)


def _data(reader: Reader, split: Split, seed: int) -> tuple[WarmStart, Cases]:
    """Return the data that the maps are fitted on, and its validation cases. The LM must be as it was loaded."""
    params, settings = reader.params, reader.params.warm_start
    parts = {
        "train": sample(split.llm_train, settings.cases, split.name),
        "valid": sample(split.valid, settings.valid_cases, split.name),
    }
    with processes(params).main_process_first():  # the others find its files
        states = frozen_states(reader, parts)

    def encoded(part: str) -> Encoded:
        return Encoded(states[part], *_targets_and_history(parts[part], split.history_length))

    data = WarmStart(
        items=states["items"],
        train=encoded("train"),
        valid=encoded("valid"),
        cases=split.train,
        history_length=split.history_length,
        settings=settings,
        tau=params.recpo.tau,
        normalize=params.recpo.normalize,
        seed=seed,
        prior=None if reader.model.item_prior is None else reader.model.item_prior.cpu(),
    )
    return data, parts["valid"]


def _fitted(data: WarmStart, params: Params) -> Fitted:
    """Fit the maps in one process for all: rounding differs between processes and might choose other maps."""
    from_first = [fit_rec_head(data) if processes(params).is_main_process else None]
    fitted: Fitted | None = broadcast_object_list(from_first)[0]
    assert fitted is not None
    return fitted


def teacher_again(reader: Reader, split: Split, seed: int) -> Teacher:
    """Fit the warm start's teacher once more and return it; the warm start doesn't save it.

    Cases, states and random numbers are the same, so the teacher is, too. The reader's LM must be as it was loaded; the
    call leaves the frozen states in its table. It takes as long as fitting all maps, of which the best has the teacher.
    """
    teacher = _fitted(_data(reader, split, seed)[0], reader.params).teacher
    assert teacher is not None  # the settings see to it
    return teacher


def _teach_adapters(
    reader: Reader, split: Split, seed: int, folder: Path, data: WarmStart, valid: Cases, fitted: Fitted
) -> tuple[Choice, FitReport]:
    """Teach adapters and maps, from the last checkpoint in `folder` if there is one, and encode the table again."""
    params, own = reader.params, reader.params.warm_start.adapters
    assert fitted.taught is not None and fitted.teacher is not None
    reader.model.head = copy.deepcopy(fitted.taught).to(params.backbone.device)
    trainer = taught_trainer(
        reader,
        split,
        fitted.teacher,
        training=adapter_training(params),
        seed=derive_seed(seed, "taught adapters"),  # other cases first than those of RecPO
        folder=folder,
    )
    started = time.monotonic()
    train(trainer)
    log = trainer.logged("divergence")
    reader.model.eval()
    head, frozen = reader.model.head, reader.table.states.clone()
    reader.table.refresh(reader.model)
    kept = refit_item_map(head, frozen, reader.table.states, params.recpo.normalize)
    read = torch.cat([reader.read(batch)[0] for batch in valid.batches(params.evaluation_rows)])
    soft_targets = fitted.teacher.probabilities(data.valid.history)

    def differs(users: Tensor, items: Tensor) -> float:
        return round(float(divergence(data.scores(users, items), soft_targets)), 6)

    with torch.no_grad():
        users, items = head.user(read).cpu(), head.item(reader.table.states).cpu()
        report = AdapterReport(
            divergence=differs(users, items),
            divergence_before=differs(fitted.taught.user(data.valid.states), fitted.taught.item(data.items)),
            item_cosine=round(kept, 6),
            seconds=round(time.monotonic() - started, 1),
        )
    choice = Choice("adapters", 0.0, own.steps, data.ndcg10(users, items))
    return choice, FitReport(adapter_log=log, adapters=report)


def _targets_and_history(cases: Cases, length: int) -> tuple[Tensor, Tensor]:
    """int64 [n] and int64 [n, length], right-aligned, -1 for none."""
    assert cases.target is not None
    return torch.from_numpy(cases.target.astype(np.int64)), torch.from_numpy(cases.padded(-1, length))


def _line(choice: Choice) -> str:
    return f"{choice.form}, weight decay {choice.weight_decay:g}, valid NDCG@10 {choice.value:.4f}"
