"""Reader: an LM with rec head, item table and prompts. It writes and reads a reasoning per case, saves and loads."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.contract import Cases, Learned, Split
from benchmark.storage.checksums import check_kept, write_sums
from benchmark.storage.io import atomic, read_json, write_json
from lm import backbone as backbones
from lm.kernels.attention import use_grouped_attention
from lm.writing.engine import TransformersEngine
from lm.writing.rollouts import RolloutResult, Rollouts, pad_id, without_reasoning
from r2ec.model.item_table import TABLE, ItemTable
from r2ec.model.network import WEIGHTS, R2ec
from r2ec.model.prompts import PromptBuilder, end_of_reasoning
from r2ec.model.rec_head import RecHead
from r2ec.scoring.controls import DONORS, Controls
from r2ec.settings import EvaluationSettings, Params

SETTINGS = "settings.json"  # in a model's folder: its settings, and what its fit has reported


class Reader:
    """Writes a greedy reasoning per case and gives the state that has read it.

    Args: donors: cases whose reasonings `evaluation.reasoning: other` lends to other users.
    """

    def __init__(
        self, model: R2ec, table: ItemTable, prompts: PromptBuilder, params: Params, donors: Cases | None = None
    ) -> None:
        self.model, self.table, self.prompts, self.params, self.donors = model, table, prompts, params, donors
        rollouts, evaluation = params.rollouts.for_evaluation(), params.evaluation
        if evaluation.samples > 1:
            rollouts = params.rollouts.model_copy(update={"group_size": evaluation.samples})
        # Folded adapters are rounded to the weights' precision: another model than was trained and encoded the items.
        rollouts = rollouts.model_copy(update={"merge_adapters": False})
        self.engine = TransformersEngine(
            model.backbone, prompts.tokenizer, rollouts, end_of_reasoning(prompts.tokenizer)
        )
        self.controls = None
        if evaluation.reasoning != "own":
            assert donors is not None
            self.controls = Controls(self.engine, prompts, evaluation, donors)

    @classmethod
    def build(cls, split: Split, params: Params, maps: Any = "none", rank: int | None = None) -> Self:
        """An untrained R2ec for this dataset, with rec head maps of this form; its item table is not encoded yet."""
        loaded = backbones.load(params.backbone)
        adapted = backbones.add_lora(loaded.model, params.lora)
        recpo, training = params.recpo, params.training
        model = R2ec(
            adapted,
            pooling=recpo.pooling,
            special_token=loaded.tokenizer.eos_token_id if recpo.pooling == "special" else None,
            head=RecHead(adapted.config.hidden_size, maps, rank),
            cls_items=split.n_items if recpo.cls_head else None,
            # FSDP gathers a layer when gradients reach its output; those of a shared prompt reach its keys and values.
            share_prefix=not (training.activation_checkpointing or training.fsdp),
            item_prior=log_frequencies(split) * recpo.prior if recpo.prior else None,
        ).to(params.backbone.device)
        if torch.device(params.backbone.device).type == "cpu":
            use_grouped_attention(model.causal_lm)
        if training.activation_checkpointing:
            model.causal_lm.activation_checkpointing_enable()
        prompts = PromptBuilder.for_split(loaded.tokenizer, split, params.prompts)
        written = (params.rollouts.max_new_tokens if recpo.reasoning else 0) + len(prompts.answer_ids)
        backbones.check_reads(loaded.model, params.prompts.max_prompt_tokens, written, "prompts.max_prompt_tokens")
        table = ItemTable(prompts.item_prompts(), model.dim, device=params.backbone.device)
        return cls(model, table, prompts, params, donors=sample(split.valid, DONORS, split.name))

    @torch.no_grad()
    def read(self, cases: Cases) -> tuple[Tensor, pd.DataFrame, int]:
        """Write a reasoning for each case, none if the model was trained without, and read it.

        Returns h_T before the rec head's maps, float32 [b, d]; the texts (case, prompt, reasoning, cut); and how many
        tokens were sampled.
        """
        recpo, tokenizer = self.params.recpo, self.prompts.tokenizer
        prompts = self.prompts.user_prompts(cases, open_answer=not recpo.reasoning)
        if not recpo.reasoning:
            rollouts = without_reasoning(prompts, pad_id(tokenizer), self.table.states.device)
            return (
                self._forward(rollouts),
                self._texts_of(cases, prompts, [""] * len(cases), np.zeros(len(cases), bool)),
                0,
            )
        if self.controls is not None:
            read, reasonings, cut, sampled = self.controls.write(cases, prompts)
            return self._forward(read), self._texts_of(cases, prompts, reasonings, cut), sampled
        last = recpo.pooling == "last"
        result = self.engine.generate(prompts, cases=cases.case, seed=0, final_states=last)
        states = result.states if last else self._forward(replace(result.rollouts, action_mask=None))
        assert states is not None
        reasonings, cut = result.texts(tokenizer), result.cut.numpy(force=True)
        if self.params.evaluation.samples > 1:
            states, reasonings, cut = combined(result, states, reasonings, self.params.evaluation)
        return states, self._texts_of(cases, prompts, reasonings, cut), result.sampled_tokens

    def _forward(self, rollouts: Rollouts) -> Tensor:
        was_training = self.model.training
        self.model.eval()
        states: Tensor = self.model(rollouts).states
        self.model.train(was_training)
        return states

    def _texts_of(self, cases: Cases, prompts: list[list[int]], reasonings: list[str], cut: np.ndarray) -> pd.DataFrame:
        texts = [self.prompts.text(prompt) for prompt in prompts]
        return pd.DataFrame({"case": cases.case, "prompt": texts, "reasoning": reasonings, "cut": cut})

    def save(self, folder: Path, report: dict[str, Any], learned: Learned | None = None) -> None:
        """Adapter, rec head, item table and settings, whole or not at all; `load` gives the same ranks.

        report, learned: of its fit; both are kept with it.
        """
        with atomic(folder) as temporary:
            temporary.mkdir()
            self.model.save(temporary / WEIGHTS)
            self.table.save(temporary / TABLE)
            head = self.model.head
            maps = "none" if head.user_map is None else "tied" if head.item_map is None else "free"
            rank_of_maps = None if head.user_map is None else len(head.user_map.weight)
            write_json(
                temporary / SETTINGS,
                {
                    "params": self.params.model_dump(mode="json"),
                    "head": {"maps": maps, "rank": rank_of_maps},
                    "report": report,
                    "learned": None if learned is None else asdict(learned),
                },
            )
            write_sums(temporary)

    @classmethod
    def load(cls, folder: Path, split: Split, evaluation: EvaluationSettings | None = None) -> Self:
        """What `save` wrote, for the same dataset. Raises InputError where it is damaged or of other item prompts.

        evaluation: which reasonings are read, in the place of the settings that it was saved with.
        """
        check_kept(folder)
        about = read_json(folder / SETTINGS)
        params = Params.model_validate(about["params"] | ({"evaluation": evaluation} if evaluation else {}))
        reader = cls.build(split, params, **about["head"])
        reader.model.load(folder / WEIGHTS)
        reader.table.load(folder / TABLE)
        return reader


def combined(
    result: RolloutResult, states: Tensor, reasonings: list[str], evaluation: EvaluationSettings
) -> tuple[Tensor, list[str], np.ndarray]:
    """One h_T [b, d], text and `cut` per case from its samples [b * samples]: their mean, or the most likely one's.

    Most likely: the highest sum of log-probabilities of its sampled tokens, at the sampling temperature.
    """
    count = evaluation.samples
    cut = result.cut.numpy(force=True).reshape(-1, count)
    texts = [reasonings[i : i + count] for i in range(0, len(reasonings), count)]
    grouped = states.reshape(-1, count, states.shape[-1])
    if evaluation.combine == "mean":
        return grouped.mean(dim=1), ["\n\n".join(samples) for samples in texts], np.asarray(cut.all(axis=1))
    assert result.log_probs is not None
    best = result.log_probs.sum(dim=1).reshape(-1, count).argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    chosen = best.numpy(force=True)
    kept = [samples[i] for samples, i in zip(texts, chosen, strict=True)]
    return grouped[rows, best], kept, np.take_along_axis(cut, chosen[:, None], axis=1)[:, 0]


def log_frequencies(split: Split) -> Tensor:
    """log(1 + how many users have the item in their training histories or as a target) minus its mean, float32 [V]."""
    counts = np.bincount(split.train.interactions()[1], minlength=split.n_items)
    frequencies = np.log1p(counts)
    return torch.from_numpy((frequencies - frequencies.mean()).astype(np.float32))


def sample(cases: Cases, size: int, name: str) -> Cases:
    """The first `size` cases of a seeded order, in time order; the same for every repetition."""
    return cases.sample(size, name, "r2ec sample")
