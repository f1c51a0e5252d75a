"""SASRec's settings and fit, for sasrec.py and for the methods that build on its candidates or scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from baselines._recbole.settings import CausalParams, Dropout, Size, check_heads
from benchmark.contract import Recommender, Split
from benchmark.evaluate import validation_ndcg
from benchmark.workload import FitCost, Sizes, trained

PER_CASE = 1.6e-5  # seconds of a training case and epoch


class Params(CausalParams):
    """RecBole's names; the feed-forward block as in the SASRec paper (ReLU, as wide as the model)."""

    n_layers: Size = 2
    n_heads: Size = 2
    hidden_size: Size = 64
    inner_size: Size = 64
    hidden_act: Literal["relu", "gelu", "swish", "tanh", "sigmoid"] = "relu"
    hidden_dropout_prob: Dropout = 0.5
    attn_dropout_prob: Dropout = 0.5

    @model_validator(mode="after")
    def _heads_have_equal_parts(self) -> "Params":
        check_heads(self.hidden_size, self.n_heads)
        return self


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> Recommender:
    """Train at every position of the training lines; `workdir` stays empty."""
    # Imported late: torch and RecBole take five seconds, and the config is checked without them.
    from baselines._recbole.learners import fit_causal

    return fit_causal("SASRec", split, seed, Params.model_validate(params))


def fit_best(
    split: Split, settings: Sequence[Params], *, seed: int, workdir: Path
) -> tuple[Recommender, list[dict[str, Any]]]:
    """Fit SASRec by each setting and take the best NDCG@10 on the validation cases, the first among equals.

    The table's row SASRec chooses from its grid in the same way, so that methods that build on it have as good a one.
    Returns it and each setting's params and value; a single setting is not validated.
    """
    recommenders = [
        fit(split, seed=seed, params=setting.model_dump(), workdir=workdir / f"sasrec{number}")
        for number, setting in enumerate(settings)
    ]
    if len(recommenders) == 1:
        return recommenders[0], []
    values = [
        validation_ndcg(recommender, split.valid, split.n_items, f"SASRec, setting {number}")
        for number, recommender in enumerate(recommenders, 1)
    ]
    tried = [{"params": setting.model_dump(), "value": value} for setting, value in zip(settings, values, strict=True)]
    return recommenders[values.index(max(values))], tried


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, [p], PER_CASE)
