"""LLaRA: an LLM tuned to write the next title reads behind each title what a sequential recommender knows of the item.

Liao et al., "LLaRA: Large Language-Recommendation Assistant", SIGIR 2024 (arXiv 2312.02445; github.com/ljy0ustc/LLaRA).
Kept: an item is its title and one more token, the projection (Linear, GELU, Linear) of its frozen vector in a
conventional recommender (SASRec); the loss on the title alone; the curriculum, in which step t of T has such hybrid
prompts with probability t / T and a placeholder token in their place else; rankings by hybrid prompts; AdamW with decay
for the projector. Different, as in the row "LLaRA*" of R2ec's paper (arXiv 2505.16994, Section 4.1): no candidates in
the prompt, and beams over the trie of all titles rank the whole catalogue, where the original picks one of 20.
Different, too: it begins with the title tuning of title_sft.py, which is text-only without a placeholder; one prompt in
the place of three; rates that fall linearly; the curriculum is drawn once for all micro-batches of a step; the
projector's last layer is scaled at the start, so that its tokens are as large as the vocabulary's, since a few steps
would not take them there. `shuffled` gives each item another item's vector: tokens without a signal.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from baselines._recbole.sasrec import PER_CASE, fit_best
from baselines._recbole.sasrec import Params as SASRecParams
from baselines._writers.title_tuning import REQUEST, STREAM, TITLES, TitleBeams, beams_work, tuned, tuning_work
from benchmark.contract import Split
from benchmark.provenance import derive_seed
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, Work, prompt_tokens, trained

if TYPE_CHECKING:
    from torch import Tensor

    from baselines._writers.item_tokens import ByHybridPrompt

FIT = Stage(
    "llara",
    2,
    after=(TITLES,),
    packages=("torch", "transformers", "peft", "tokenizers", "accelerate", "recbole"),
)

__all__ = ["FIT", "STREAM", "Params", "fit", "fit_cost", "work"]


class Params(TitleBeams):
    """sasrec: settings of the recommender whose item vectors are read, the best on validation cases is taken;
    hybrid_steps: of the second stage, whose steps take as many cases as the tuning's; hybrid_rate, projector_rate,
    projector_decay: of its adapters and of the projector; placeholder: the special token of text-only steps (null: one
    that SmolLM2, Qwen2.5 and Gemma 2 have for nothing); shuffled: a control, item vectors in a random order."""

    sasrec: list[SASRecParams] = Field(default=[SASRecParams()], min_length=1)
    hybrid_steps: int = Field(default=40, ge=0)
    hybrid_rate: float = Field(default=3e-4, gt=0)
    projector_rate: float = Field(default=1e-3, gt=0)
    projector_decay: float = Field(default=1e-5, ge=0)
    placeholder: str | None = None
    shuffled: bool = False


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "ByHybridPrompt":
    """Fit SASRec, tune the LLM's adapters to titles, and train adapters and projector on. A killed fit resumes.

    The fit reports losses: of each step of the tuning; hybrid: of each step of the second stage, see
    `learn_item_tokens`; sasrec: the report of its fit; sasrec_tried: settings with their NDCG@10 on validation cases,
    empty where there was only one.
    """
    settings = Params.model_validate(params)
    import torch

    from baselines._writers import llm_texts
    from baselines._writers.item_tokens import ByHybridPrompt, Projector, Training, learn_item_tokens
    from baselines._writers.soft_tokens import SoftTokens, placeholder_of
    from baselines._writers.step_training import Steps

    sasrec, tried = fit_best(split, settings.sasrec, seed=seed, workdir=workdir)
    model, tokenizer, losses = tuned(split, settings, request=REQUEST, seed=seed, folder=workdir / "tuning")
    mark, token = placeholder_of(tokenizer, settings.placeholder)
    causal_lm = llm_texts.causal_lm_of(model)
    soft = SoftTokens(causal_lm, token)
    torch.manual_seed(derive_seed(seed, "projector"))
    items = item_vectors(sasrec, split.n_items, derive_seed(seed, "shuffled") if settings.shuffled else None)
    projector = Projector(items, causal_lm.config.hidden_size, soft.size()).to(causal_lm.device)
    report = {"losses": losses, "hybrid": [], "sasrec": sasrec.report(), "sasrec_tried": tried}
    recommender = ByHybridPrompt(
        split, settings, model, tokenizer, request=REQUEST, fit_report=report, learned_from=None
    )
    recommender.builder.mark, recommender.projector, recommender.soft = mark, projector, soft
    if settings.hybrid_steps:
        cases = split.llm_train.take(rows_of_second_stage(split, settings, seed))
        steps = Steps(settings.hybrid_steps, settings.users_per_step, settings.at_once, settings.save_steps)
        training = Training(steps, settings.hybrid_rate, settings.projector_rate, settings.projector_decay)
        report["hybrid"] = learn_item_tokens(recommender, cases, training, seed=seed, folder=workdir / "hybrid")
    return recommender


def item_vectors(sasrec: Any, n_items: int, shuffled: int | None) -> "Tensor":
    """SASRec's input vectors of the catalogue, float32 [n_items, d], on the CPU. shuffled: seed of a random order."""
    vectors: Tensor = sasrec.net.item_embedding.weight.detach().float().cpu()[1:]  # row 0 is padding
    assert len(vectors) == n_items
    return vectors.clone() if shuffled is None else vectors[np.random.default_rng(shuffled).permutation(n_items)]


def rows_of_second_stage(split: Split, settings: Params, seed: int) -> np.ndarray:
    """The rows of `split.llm_train` that the second stage takes, int64: a seeded order, repeated where it ends."""
    order = np.random.default_rng(derive_seed(seed, "hybrid")).permutation(len(split.llm_train))
    return np.resize(order, settings.hybrid_steps * settings.users_per_step)


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """The tuning; the second stage, in which gradients reach the tokens of prompts and so pass all layers; beams."""
    whole = prompt_tokens(s, p["max_items"]) + p["max_items"] + s.line
    second = Work(
        learned=p["hybrid_steps"] * p["users_per_step"] * whole,
        held=p["at_once"] * whole if p["hybrid_steps"] else 0,
    )
    return [tuning_work(s, p), second, beams_work(s, p)]


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, p["sasrec"], PER_CASE)
