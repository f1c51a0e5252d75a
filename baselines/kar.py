"""KAR: a frozen LLM writes what it knows of users and items, experts adapt it, and SASRec adds it to its vectors.

Xi et al., "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models", RecSys 2024
(arXiv 2306.10933; github.com/YunjiaXi/Open-World-Knowledge-Augmented-Recommendation). Kept: reasoning on the user's
preferences and facts of each item along the same factors, written once and kept; a text encoder; the hybrid-expert
adaptor, in which each side's gate mixes shared experts and its own; a conventional recommender trained together with
the adaptor.
Different: that recommender is SASRec over the whole catalogue (theirs predict clicks and rerank), so item knowledge is
added to the item's vector and user knowledge to the last state, in the place of two more input fields; an expert ends
in a linear layer, since what is added must be able to be negative; knowledge vectors are standardised; all-MiniLM-L6-v2
in the place of BERT or ChatGLM; the factors come from the config and not from an LLM; a text per case, not one per
user. To save time, only a sample of the training cases has user knowledge: the others train with a learned vector in
its place, while validation and test cases always have theirs. Item knowledge may be the catalogue's attributes alone.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from baselines._knowledge.users import Knowledge, KnowledgeParams, frozen_writer, trained_with
from benchmark.contract import Split
from benchmark.storage.stages import Stage
from benchmark.workload import STATES, FitCost, Sizes, Work, named, texts_of, trained

if TYPE_CHECKING:
    from torch import Tensor

    from baselines._knowledge.users import ByKnowledge
    from baselines._recbole.training import Maker

FIT = Stage("kar", 1, packages=("torch", "transformers", "peft", "tokenizers", "recbole"))


class Params(KnowledgeParams):
    """item_knowledge: what is encoded of an item, a written text or its attributes; shared_experts, own_experts,
    expert_size, expert_dropout: of the adaptor; the others: see KnowledgeParams."""

    item_knowledge: Literal["written", "attributes"] = "written"
    shared_experts: int = Field(default=2, ge=1)
    own_experts: int = Field(default=2, ge=1)
    expert_size: int = Field(default=32, ge=1)
    expert_dropout: float = Field(default=0.1, ge=0, lt=1)


def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> "ByKnowledge":
    """Write, encode, train. A killed fit keeps its texts and trains anew."""
    settings = Params.model_validate(params)
    # Imported first: it sets what RecBole needs.
    from baselines._recbole import knowledge as networks
    from baselines._writers.sentences import sentence_encoder

    adaptor = (settings.expert_size, settings.shared_experts, settings.own_experts, settings.expert_dropout)

    def make(items: "Tensor") -> "Maker":
        return lambda config, dataset: networks.KnowingSASRec(config, dataset, items, *adaptor)

    return trained_with(
        Knowledge(split, settings, frozen_writer(settings), sentence_encoder(settings.encoder)),
        written_items=settings.item_knowledge == "written",
        make=make,
        loss=networks.knowing_loss,
        seed=seed,
        name="KAR",
    )


def thinking(p: dict[str, Any]) -> str:
    """What is computed before a recommendation: see `benchmark.config.methods.thinking_of`."""
    return "written"


def work(s: Sizes, p: dict[str, Any], k: int) -> list[Work]:
    """A text per case that has one, and per item where items have one; all are kept, for every setting and seed."""
    of_fit = texts_of(s, p, min(p["cases"], s.train_llm) + s.valid)
    if p["item_knowledge"] == "written":
        of_fit = replace(
            of_fit, read=of_fit.read + s.items * s.item, written=of_fit.written + s.items * p["max_new_tokens"]
        )
    read = ("backbone", "max_items", "max_prompt_tokens", "max_new_tokens", "factors", "cases", "item_knowledge")
    name = named(STATES, "kar", [p[setting] for setting in read])
    return [replace(of_fit, kept=(*name, "fit")), replace(texts_of(s, p, s.test), kept=(*name, "scored"))]


def fit_cost(s: Sizes, p: dict[str, Any]) -> FitCost:
    """See `benchmark.workload`."""
    return trained(s, [p], 2.5e-5)
