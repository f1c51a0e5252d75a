"""Whole fits of R2ec of about a second: a tiny random LM on the planted log."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contract import Split
from benchmark.data.store import read_split
from r2ec.fit import fit_r2ec
from r2ec.scoring.recommender import R2ecRecommender
from r2ec.settings import Params
from tests.support.planted import planted_split
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer


def write_backbone(folder: Path) -> Path:
    """A tiny random Llama with a chat template, on disk as any backbone is."""
    tiny_lm("llama").save_pretrained(folder)
    tiny_tokenizer("llama").save_pretrained(folder)
    return folder


def backbone_in(folder: Path) -> Path:
    """`write_backbone` in `folder`, by the first call alone: a run that goes on has the same files."""
    return folder / "llm" if (folder / "llm").exists() else write_backbone(folder / "llm")


def settings(backbone: Path, **changes: Any) -> dict[str, Any]:
    """A run of a few seconds with every part of RecPO in it."""
    params: dict[str, Any] = {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "lora": {"r": 4, "alpha": 8},
        "prompts": {"max_items": 4, "max_prompt_tokens": 400},
        "rollouts": {"group_size": 3, "max_new_tokens": 5, "top_k": 20},
        "recpo": {"refresh_steps": 2, "tau": 0.1, "extra_negatives": 8},
        "training": {
            "max_steps": 4,
            "per_device_train_batch_size": 6,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "save_steps": 1,
            "eval_cases": 40,
        },
        "warm_start": {"cases": 60, "rank": 8, "valid_cases": 40, "epochs": 3, "weight_decays": [0.1]}
        | {"states": str(backbone.parent / "states")},
        "evaluation_rows": 16,
    }
    for section, values in changes.items():
        params[section] = params.get(section, {}) | values
    return params


def fit_one_step(data: Path, folder: Path, **changes: Any) -> Path:
    """The model's folder of a fit of one step, without a warm start, on a prepared dataset."""
    sections = {"training": {"max_steps": 1}, "warm_start": {"cases": 0}} | changes
    params = settings(write_backbone(folder / "tiny"), **sections)
    fit_r2ec(read_split(data), 3, Params.model_validate(params), folder)
    return folder / "model"


def split() -> Split:
    planted: Split = planted_split()[0]
    return planted


def scores(recommender: R2ecRecommender, count: int = 20) -> np.ndarray:
    cases = replace(split().valid.take(np.arange(count)), target=None)
    return np.concatenate(list(recommender.score(cases)))
