"""ReaRec: SASRec reasons before it recommends, by latent steps behind the last item and without any text.

Tang et al., "Think Before Recommend: Unleashing the Latent Reasoning Power for Sequential Recommendation" (arXiv
2503.22675; github.com/TangJiakai/ReaRec). Kept: a step's input is the state before it plus a learned vector of that
step, through the same LayerNorm and dropout as items; a step attends to all items and to the steps before it. `erl`:
the user's vector is the mean of the states, and the distributions of the steps are pushed apart by their KL divergence,
as its released code weighs and detaches it. `prl`: the user's vector is the last state; the earlier states learn the
same target at higher temperatures, and each step's noisy state is matched to its clean one among the batch's, after two
epochs without noise.
Different: every place of a line is learned from, as the row sasrec does, and not one target of each history, so that a
batch holds several places of one user; our SASRec's size and settings (64 wide, full histories of the dataset);
temperature 1, the plain cross-entropy of SASRec, in the place of .07. With `steps: 0` it is the row sasrec to the last
bit, which its repository lacks.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from baselines._recbole.sasrec import PER_CASE
from baselines._recbole.sasrec import Params as SASRecParams
from benchmark.contract import Recommender, Split
from benchmark.storage.stages import Stage
from benchmark.workload import FitCost, Sizes, trained

FIT = Stage("rearec", 1, packages=("torch", "recbole"))


class Params(SASRecParams):
    """Beside SASRec's own: steps: latent ones behind each place (0: SASRec); learning: `prl`, progressive, or `erl`, an
    ensemble of the steps; tau: temperature of the scores in the loss; alpha: by which a step earlier is hotter (`prl`);
    push: weight of the steps' KL divergence (`erl`; 0: their mean alone); noise: standard deviation of what disturbs
    the steps' inputs (`prl`; 0: no contrastive loss); quiet_epochs: before the noise begins."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=2, ge=0)
    learning: Literal["prl", "erl"] = "prl"
    tau: float = Field(default=1.0, gt=0)
    alpha: float = Field(default=5.0, ge=1)
    push: float = Field(default=0.05, ge=0)
    noise: float = Field(default=0.01, ge=0)
    quiet_epochs: int = Field(default=2, ge=0)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> Recommender:
    """Train at every position of the training lines; `workdir` stays empty."""
    # The first brings back what numpy 2 dropped, without which RecBole can't be imported.
    from baselines._recbole.training import train  # isort: skip
    from baselines._recbole.latent_steps import LatentSASRec, learner  # isort: skip

    settings = Params.model_validate(params)
    own = settings.model_dump(include={"tau", "alpha", "push", "noise", "quiet_epochs"})
    return train(
        "SASRec",
        split,
        seed,
        settings.model_dump(include=set(SASRecParams.model_fields)),
        learner(split, settings, **own),
        make=lambda config, dataset: LatentSASRec(config, dataset, settings.steps, settings.learning),
    )


def thinking(p: dict[str, Any]) -> str:
    """What is computed before a recommendation: see `benchmark.config.methods.thinking_of`."""
    return "latent, in a model of items" if p["steps"] else "nothing"


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`. A step costs as much as SASRec does beside the loss; with noise, 1.2 times that."""
    step = 1.2 if p["learning"] == "prl" and p["noise"] else 1.0
    return trained(s, [p], PER_CASE * (1 + step * p["steps"]))
