"""S-DPO: an LLM tuned to write the next title learns to prefer it to several titles that weren't taken, all at once.

Chen et al., "On Softmax Direct Preference Optimization for Recommendation", NeurIPS 2024 (arXiv 2406.09215;
github.com/chenyuxin1999/S-DPO). Kept: the two stages, supervised tuning and then the softmax loss over one chosen and N
rejected titles; policy and reference both begin as the tuned model; 3 rejected titles drawn at random, beta 1.
Different, as in the row "SDPO*" of R2ec's paper (arXiv 2505.16994, Section 4.1): there are no candidates in the prompt.
Rejected titles come from the whole catalogue, and the LLM ranks it by beams over the trie of all titles, where the
original picks one of 20. Different, too: one prompt in the place of 10 drawn at random; rejected titles that are the
same in every epoch; 16 cases a step where the original has 128, so that a smaller and noisier gain is to be expected;
and a fixed number of steps without early stopping. The loss is a cross-entropy (`_writers/pairwise.py`), which can't
overflow as the released form can.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from baselines._writers.title_tuning import (
    REQUEST,
    STREAM,
    TITLES,
    TitleBeams,
    beams_work,
    learned_from,
    tuned,
    tuning_work,
)
from benchmark.contract import Cases, Split
from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from benchmark.storage.stages import Stage
from benchmark.workload import Sizes, Work, prompt_tokens

if TYPE_CHECKING:
    from baselines._writers.title_ranking import ByTitle

FIT = Stage("s_dpo", 2, after=(TITLES,), packages=("torch", "transformers", "peft", "tokenizers", "accelerate"))

__all__ = ["STREAM", "Params", "fit", "work"]


class Params(TitleBeams):
    """negatives: rejected titles of a case; negatives_from: drawn from all items alike (`uniform`) or by how many
    training cases have an item as their target (`popularity`); beta: how far the LLM may leave the tuned one, the less
    the larger; preference_steps, preference_rate: of the second stage, whose steps take as many cases as the
    tuning's."""

    negatives: int = Field(default=3, ge=1)
    negatives_from: Literal["uniform", "popularity"] = "uniform"
    beta: float = Field(default=1.0, gt=0)
    preference_steps: int = Field(default=40, ge=0)
    preference_rate: float = Field(default=3e-4, gt=0)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "ByTitle":
    """Tune the LLM's adapters to titles, then train them by preferences. A killed fit goes on from its last checkpoint.

    The fit reports losses: of each step of the tuning; preferences: of each step of the second stage, see
    `pairwise.prefer`.
    """
    settings = Params.model_validate(params)
    from baselines._writers.title_ranking import ByTitle

    model, tokenizer, losses = tuned(split, settings, request=REQUEST, seed=seed, folder=workdir / "tuning")
    rows = preferred(split, settings, seed)
    recommender = ByTitle(
        split,
        settings,
        model,
        tokenizer,
        request=REQUEST,
        fit_report={"losses": losses, "preferences": []},
        learned_from=learned_from(split, settings, seed, rows),
    )
    if settings.preference_steps:
        recommender.fit_report["preferences"] = _prefer(
            split, settings, recommender, rows, seed, workdir / "preferences"
        )
    return recommender


def preferred(split: Split, settings: Params, seed: int) -> np.ndarray:
    """The rows of `split.llm_train` that the second stage learns from, each once, in their order."""
    order = np.random.default_rng(derive_seed(seed, "preferred")).permutation(len(split.llm_train))
    return order[: settings.preference_steps * settings.users_per_step]


def _prefer(
    split: Split, settings: Params, recommender: "ByTitle", rows: np.ndarray, seed: int, folder: Path
) -> list[dict[str, float]]:
    """The second stage."""
    from baselines._writers.pairwise import prefer_titles

    cases = split.llm_train.take(rows)
    assert cases.target is not None
    weights = np.ones(split.n_items)
    if settings.negatives_from == "popularity":
        assert split.train.target is not None
        weights = np.bincount(split.train.target, minlength=split.n_items).astype(np.float64)
    drawn = rejected(cases, recommender.builder.titles, weights, settings.negatives, seed)
    return prefer_titles(
        recommender,
        cases,
        [(target, *negatives) for target, negatives in zip(cases.target.tolist(), drawn, strict=True)],
        settings,
        request=REQUEST,
        beta=settings.beta,
        steps=settings.preference_steps,
        learning_rate=settings.preference_rate,
        seed=seed,
        folder=folder,
    )


def rejected(cases: Cases, titles: list[str], weights: np.ndarray, count: int, seed: int) -> Iterator[list[int]]:
    """For each case `count` items with different titles, outside its history and without its target's title.

    They are drawn without replacement, in proportion to weights [n_items], of which 0 is never drawn; seeded by case.
    Raises InputError where there are fewer.
    """
    assert cases.target is not None
    with np.errstate(divide="ignore"):
        logs = np.log(weights)
    for i, target in enumerate(cases.target.tolist()):
        random = np.random.default_rng(derive_seed(seed, "rejected", int(cases.case[i])))
        # The order of the sums is that of draws without replacement (the Gumbel-top-k trick).
        keys = logs + random.gumbel(size=len(logs))
        keys[cases.history(i)] = -np.inf
        seen, items = {titles[target]}, list[int]()
        for item in np.argsort(-keys, kind="stable").tolist():
            if keys[item] == -np.inf or len(items) == count:
                break
            if titles[item] not in seen:
                seen.add(titles[item])
                items.append(item)
        if len(items) < count:
            raise InputError(
                f"case {cases.case[i]}: {len(items)} titles outside its history can be rejected, and "
                f"negatives is {count}; lower negatives"
            )
        yield items


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """The tuning; the second stage, in which a case's titles share its prompt, for the reference, too; beams."""
    prompt, titles = prompt_tokens(s, p["max_items"]), (1 + p["negatives"]) * s.line
    cases = p["preference_steps"] * p["users_per_step"]
    second = Work(
        read=min(cases, s.train_llm) * (prompt + titles),
        learned=cases * (prompt + titles),
        held=p["at_once"] * (prompt + titles) if cases else 0,
        frozen=p["lora"]["layers_from"],
    )
    return [tuning_work(s, p), second, beams_work(s, p)]
