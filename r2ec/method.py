"""R2ec as a method of the suite: one LLM writes a reasoning and scores every item from the state that has read it.

You et al., "R2ec: Towards Large Recommender Models with Reasoning", NeurIPS 2025 (arXiv 2505.16994). RecPO trains both.

Settings of the paper: lora r=4, lr 1e-5, 24 users a step, warm-up 32, at most 3 epochs, G=4, T=1.5, top-k 200,
512 tokens, beta 0.05, NDCG@1000, clip 0.2. What departs from it (docs/r2ec.md) is a setting of its own.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.contract import Split
from benchmark.storage.stages import Stage
from r2ec.settings import Params
from r2ec.workload import work

if TYPE_CHECKING:
    from r2ec.scoring.recommender import R2ecRecommender

__all__ = ["FIT", "KIND", "SCORING", "SEVERAL_PROCESSES", "Params", "fit", "thinking", "work"]

FIT = Stage("r2ec", 1, packages=("torch", "transformers", "peft", "tokenizers", "accelerate"))
KIND = "reference"  # what the baselines are held against
SEVERAL_PROCESSES = True  # they share the users of a step; the first one alone writes
# Sections of Params that only scoring reads: settings that differ in nothing else share one fit.
SCORING = ("evaluation",)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "R2ecRecommender":
    """Warm start, RecPO, and the finished model in `workdir/model`. A killed fit goes on from its last checkpoint."""
    # Imported late: torch and transformers take seconds, and the config is checked without them.
    from r2ec.fit import fit_r2ec

    return fit_r2ec(split, seed, Params.model_validate(params), workdir)


def thinking(p: dict[str, Any]) -> str:
    """What is computed before a recommendation: see `benchmark.config.methods.thinking_of`."""
    return "written" if p["recpo"]["reasoning"] else "nothing"
