"""Title tuning alone: an LLM tuned to write the next title ranks the items that its beams reach.

A control, and no paper's method: the part that BIGRec (Bao et al., arXiv 2308.08434), D3 (arXiv 2406.14900), S-DPO
(arXiv 2406.09215), LLaRA (arXiv 2312.02445) and SPRec (arXiv 2412.09243) have in common. It is D3 with alpha 1, without
another recommender. The effect of what s_dpo.py and sp_rec.py add is their difference to this row.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from benchmark.workload import Sizes, Work

if TYPE_CHECKING:
    from baselines._writers.title_ranking import ByTitle

FIT = Stage("title_sft", 2, after=(TITLES,))

__all__ = ["STREAM", "Params", "fit", "work"]

Params = TitleBeams


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "ByTitle":
    """Tune the LLM's adapters; a killed fit goes on from its last checkpoint. It reports the losses of each step."""
    settings = Params.model_validate(params)
    from baselines._writers.title_ranking import ByTitle

    model, tokenizer, losses = tuned(split, settings, request=REQUEST, seed=seed, folder=workdir / "tuning")
    learned = learned_from(split, settings, seed)
    return ByTitle(
        split, settings, model, tokenizer, request=REQUEST, fit_report={"losses": losses}, learned_from=learned
    )


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """The tuning, and each test case's beams."""
    return [tuning_work(s, p), beams_work(s, p)]
