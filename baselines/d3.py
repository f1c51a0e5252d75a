"""D3: an LLM tuned to write the next title writes only real ones, by beams that a collaborative model helps to choose.

Bao et al., "Decoding Matters: Addressing Amplification Bias and Homogeneity Issue for LLM-based Recommendation", EMNLP
2024 (arXiv 2406.14900; github.com/SAI990323/DecodingMatters). Kept: BIGRec's tuning, beams held to the trie of all
titles, the sum of log-probabilities without any length normalisation, and a text-free assistant (SASRec) whose
probability mass of the items below each token is mixed in, token by token, in the logarithm, with weight 1 - alpha.
Different: the LLM's probabilities are normalised over the tokens that the trie allows, so that a ghost token (the only
one allowed) adds exactly nothing, and a title is complete once no other begins like it; the mass below a token is the
items' sum, where the released code takes the largest; items of the history are closed, since the evaluator would drop
them; items of the same title are told apart by the assistant alone, and don't differ where alpha is 1. Left out: the
temperature. An item that no beam has reached isn't retrieved (-inf), as in tiger.py: the assistant ranks nothing by
itself.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from baselines._recbole.sasrec import PER_CASE, fit_best
from baselines._recbole.sasrec import Params as SASRecParams
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
from benchmark.contract import Split
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, Work, trained

if TYPE_CHECKING:
    from baselines._writers.title_ranking import ByTitle

FIT = Stage("d3", 3, after=(TITLES,), packages=("torch", "transformers", "peft", "tokenizers", "trl", "recbole"))

__all__ = ["STREAM", "Params", "fit", "fit_cost", "work"]


class Params(TitleBeams):
    """alpha: weight of the LLM's log-probabilities, the assistant's is 1 - alpha (1: no assistant is fitted); sasrec:
    settings of the assistant, the best on validation cases is taken; the others are those of the tuning and beams."""

    sasrec: list[SASRecParams] = Field(default=[SASRecParams()], min_length=1)
    alpha: float = Field(default=0.5, gt=0, le=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "ByTitle":
    """Fit the assistant, then tune the LLM's adapters. A killed fit goes on from the tuning's last checkpoint.

    The fit reports losses: of each step of the tuning; sasrec: the report of the assistant's fit, null without one;
    sasrec_tried: settings and their NDCG@10 on validation cases, empty where there was only one.
    """
    settings = Params.model_validate(params)
    from baselines._writers.title_ranking import ByTitle

    assistant, tried = None, list[dict[str, Any]]()
    if settings.alpha < 1:
        assistant, tried = fit_best(split, settings.sasrec, seed=seed, workdir=workdir)
    model, tokenizer, losses = tuned(split, settings, request=REQUEST, seed=seed, folder=workdir / "tuning")
    report = None if assistant is None else assistant.report()
    return ByTitle(
        split,
        settings,
        model,
        tokenizer,
        request=REQUEST,
        fit_report={"losses": losses, "sasrec_tried": tried, "sasrec": report},
        # None stands for all training cases, from which an assistant learns.
        learned_from=learned_from(split, settings, seed) if assistant is None else None,
        assistant=assistant,
        alpha=settings.alpha,
    )


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """The tuning, and each test case's beams."""
    return [tuning_work(s, p), beams_work(s, p)]


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, p["sasrec"], PER_CASE)
