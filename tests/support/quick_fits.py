"""Every method of baselines/, fitted to the planted data in seconds, each once for all tests of a process."""

import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.config.methods import load_method
from benchmark.contract import Cases, Recommender
from tests.support.planted import planted_split
from tests.support.tiny_encoders import write_encoder
from tests.support.tiny_fits import write_backbone

RECBOLE = {"train_batch_size": 64, "patience": 100}
# Settings under which a method learns the planted data in seconds; a method not listed learns it by its defaults.
QUICK: dict[str, dict[str, Any]] = {
    "gru4rec": RECBOLE | {"epochs": 4, "learning_rate": 0.01},
    "caser": RECBOLE | {"epochs": 8, "learning_rate": 0.005, "dropout_prob": 0.1, "max_history": 3},
    "sasrec": RECBOLE | {"epochs": 4, "learning_rate": 0.01, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2},
    # An epoch reads each line once, where RecBole's reads it once per item.
    "stock_recbole": {"model": "GRU4Rec", "train_batch_size": 64, "epochs": 4, "learning_rate": 0.01},
    "rearec": RECBOLE | {"epochs": 4, "learning_rate": 0.005, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2},
    "bert4rec": RECBOLE | {"epochs": 40, "learning_rate": 0.005, "n_layers": 1, "ft_ratio": 0.8},
}


@functools.cache
def data() -> Any:
    return planted_split()


@functools.cache
def unlabelled() -> Cases:
    """Return the test cases without targets, as a method gets them."""
    return replace(data()[1].test, target=None)


@functools.cache
def tiny_llm() -> dict[str, Any]:
    """Return the settings of an LLM baseline on a tiny random LM, with a folder for its texts."""
    folder = Path(tempfile.mkdtemp())
    return {"backbone": {"name": str(write_backbone(folder / "llm")), "dtype": "float32"}}


@functools.cache
def tiny_reader() -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp())
    return {"encoder": str(write_encoder(folder / "encoder")), "texts": str(folder / "texts"), "max_new_tokens": 5}


def tiny_tuning() -> dict[str, Any]:
    """Return the settings of a two-step title tuning with an empty folder of tunings, so that it is trained anew."""
    return {"users_per_step": 2, "max_steps": 2, "tunings": str(Path(tempfile.mkdtemp()) / "tunings")}


def quick(name: str) -> dict[str, Any]:
    if name == "frozen_llm":
        own = {"standardize": [50], "states": str(Path(tempfile.mkdtemp()) / "states")}
        return tiny_llm() | {"prompts": {"max_items": 4, "max_prompt_tokens": 400}} | own
    if name == "profile_retrieval":
        return tiny_llm() | tiny_reader()
    if name == "llm_rerank":
        shown = {"prompts": {"max_items": 3, "max_prompt_tokens": 400}, "rollouts": {"max_new_tokens": 3}}
        return tiny_llm() | shown | {"candidates": 8, "sasrec": [{"epochs": 1}]}
    if name == "tiger":
        small = {"d_model": 48, "d_kv": 16, "d_ff": 96, "num_layers": 1, "dropout_rate": 0.0, "codes": 30, "levels": 1}
        return {"encoder": tiny_reader()["encoder"], **small, "learning_rate": 0.002, "epochs": 20, "patience": 20}
    if name == "langptune":
        few = {"max_new_tokens": 4, "group_size": 2, "users_per_step": 2, "max_steps": 2, "contrastive_cases": 20}
        return tiny_llm() | {"encoder": tiny_reader()["encoder"], "contrastive_epochs": 1} | few
    if name == "bigrec":
        return tiny_llm() | tiny_tuning() | {"max_new_tokens": 4}
    if name == "d3":
        return tiny_llm() | tiny_tuning() | {"sasrec": [QUICK["sasrec"]], "alpha": 0.1}
    if name == "title_sft":
        return tiny_llm() | tiny_tuning()
    if name == "llara":
        few = {"hybrid_steps": 2, "placeholder": "<bos>", "sasrec": [{"epochs": 1}]}
        return tiny_llm() | tiny_tuning() | few
    if name == "latent_r3":
        few = {"thought_steps": 2, "rl_steps": 2, "thoughts": 3, "placeholder": "<bos>"}
        return tiny_llm() | tiny_tuning() | few
    if name == "s_dpo":
        return tiny_llm() | tiny_tuning() | {"preference_steps": 2}
    if name == "sp_rec":
        few = {"cases": 6, "tuning_steps": 1, "preference_steps": 1, "max_new_tokens": 4}
        return tiny_llm() | tiny_tuning() | few | {"encoder": tiny_reader()["encoder"]}
    if name == "kar":
        return tiny_llm() | tiny_reader() | QUICK["sasrec"] | {"cases": 50, "max_items": 4}
    if name == "slim":
        few = {"users_per_step": 2, "writer_steps": 2, "tunings": str(Path(tempfile.mkdtemp()) / "tunings")}
        own = {"cases": 50, "max_items": 4, "taught": 4, "step_tokens": 3}
        return tiny_llm() | tiny_reader() | QUICK["sasrec"] | own | few
    if name == "rec_r1":
        return tiny_llm() | {"max_new_tokens": 4, "group_size": 2, "users_per_step": 2, "max_steps": 2}
    return QUICK.get(name, {})


def fit(name: str, workdir: Path, **changes: Any) -> Recommender:
    params = quick(name) | changes
    recommender: Recommender = load_method(name).fit(data()[0], seed=7, params=params, workdir=workdir)
    return recommender


@functools.cache
def fitted(name: str) -> Recommender:
    """Fitted once for all tests of a method."""
    return fit(name, Path(tempfile.mkdtemp()) / "work")


def all_scores(recommender: Recommender, cases: Cases) -> np.ndarray:
    return np.concatenate([batch.copy() for batch in recommender.score(cases)])


@functools.cache
def scores_of(name: str) -> np.ndarray:
    return all_scores(fitted(name), unlabelled())
