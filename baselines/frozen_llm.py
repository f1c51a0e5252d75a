"""The frozen LLM as a recommender: R2ec's user state and item table by the untrained backbone.

A control: how well the LLM's states rank without any training, with or without a reasoning. Scores are cosines of the
state that has read the user's prompt (`reasoning: false`: with an opened `<answer>`; true: after a greedy reasoning)
and the states of the items' prompts, as in R2ec (You et al., NeurIPS 2025) before its first step. LLM states share a
large common part that carries nothing about items (Mu and Viswanath, "All-but-the-Top", ICLR 2018): `standardize`
subtracts each side's mean and divides by its spread, the user's from training cases.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Cases, Learned, Split
from benchmark.storage.stages import Stage
from benchmark.workload import Sizes, Work, prompt_tokens
from lm.settings import BackboneSettings, RolloutSettings
from r2ec.settings import PromptSettings
from r2ec.workload import encoded_cases, encoded_items

if TYPE_CHECKING:
    from torch import Tensor

    from r2ec.model.rec_head import RecHead
    from r2ec.scoring.recommender import R2ecRecommender

FIT = Stage("frozen_llm", 1)


class Params(BaseModel):
    """reasoning: write one first; standardize: on how many training cases' states (0: bare cosines).

    Where `standardize` names several numbers, the fit takes the one with the best NDCG@10 on `valid_cases` validation
    cases. states: folder of kept states (shared with R2ec's warm start); evaluation_rows: users read together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneSettings
    prompts: PromptSettings = PromptSettings()
    rollouts: RolloutSettings = RolloutSettings()
    reasoning: bool = False
    standardize: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    valid_cases: int = Field(default=500, ge=1)
    states: str = "results/states"
    evaluation_rows: int = Field(default=64, ge=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "R2ecRecommender":
    """Encode the item table, and some cases where states are standardised. Nothing is trained."""
    settings = Params.model_validate(params)
    from r2ec.model.rec_head import RecHead
    from r2ec.scoring.reader import Reader, sample
    from r2ec.scoring.recommender import R2ecRecommender
    from r2ec.settings import Params as R2ecParams
    from r2ec.warm_start.kept_states import frozen_states

    reader = Reader.build(
        split,
        R2ecParams(
            backbone=settings.backbone,
            prompts=settings.prompts,
            rollouts=settings.rollouts,
            recpo={"reasoning": settings.reasoning},
            training={"max_steps": 0},
            warm_start={"states": settings.states},
            evaluation_rows=settings.evaluation_rows,
        ),
    )
    parts = {}
    if len(settings.standardize) > 1:
        parts["valid"] = sample(split.valid, settings.valid_cases, split.name)
    for count in filter(None, settings.standardize):
        parts[f"train {count}"] = sample(split.llm_train, count, split.name)
    states = frozen_states(reader, parts)

    def standardized(count: int) -> "RecHead":
        head = RecHead(reader.model.dim)
        if count:
            head.standardize(states["items"], states[f"train {count}"])
        return head

    tried = []
    if len(settings.standardize) > 1:
        tried = [(ndcg10(standardized(count), states, parts["valid"]), count) for count in settings.standardize]
        print(f"frozen LLM: valid NDCG@10 {', '.join(f'{value:.4f} ({count})' for value, count in tried)}", flush=True)
    chosen = max(tried, key=lambda pair: pair[0])[1] if tried else settings.standardize[0]  # ties: the first
    reader.model.head = standardized(chosen).to(settings.backbone.device)
    report = {"standardize": chosen, "tried": [{"standardize": count, "value": value} for value, count in tried]}
    nothing = split.llm_train.take(np.array([], dtype=np.int64))
    return R2ecRecommender(reader, report, Learned.of_fit(nothing, read=parts.get(f"train {chosen}")))


def ndcg10(head: "RecHead", states: dict[str, "Tensor"], cases: Cases) -> float:
    """NDCG@10 of cosines on the validation cases, whose states are `states["valid"]`, history masked."""
    import torch

    from r2ec.model.ranking import ndcg, target_ranks

    assert cases.target is not None
    ranks = target_ranks(
        head.user(states["valid"]),
        head.item(states["items"]),
        torch.from_numpy(cases.target.astype("int64")),
        torch.from_numpy(cases.padded(-1, int((cases.offsets[1:] - cases.offsets[:-1]).max()))),
        tau=1.0,
        normalize=True,
    )
    return float(ndcg(ranks.rank, 10).mean())


def thinking(p: dict[str, Any]) -> str:
    """What is computed before a recommendation: see `benchmark.config.methods.thinking_of`."""
    return "written" if p["reasoning"] else "nothing"


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """The frozen states, and a reasoning per test case, if there is one."""
    prompt = prompt_tokens(s, p["prompts"]["max_items"], p["prompts"]["max_prompt_tokens"])
    length = p["rollouts"]["max_new_tokens"] if p["reasoning"] else 0
    cases = min(max(p["standardize"]), s.train_llm)
    cases += min(p["valid_cases"], s.valid) if len(p["standardize"]) > 1 else 0
    return [
        encoded_items(s, p),
        *([encoded_cases(p, cases, prompt, length)] if cases else []),
        Work(read=s.test * prompt, written=s.test * length, rows=p["evaluation_rows"]),
    ]
