"""Fitting R2ec from a prepared dataset, and recommending with what was fitted."""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.contract import Cases, Learned, Recommender, Split
from benchmark.evaluate import validation_ndcg
from benchmark.io import atomic, last_checkpoint, read_json, write_json
from benchmark.provenance import derive_seed
from r2ec import backbone as backbones
from r2ec import sharded
from r2ec.attention import use_grouped_attention
from r2ec.controls import DONORS, Controls
from r2ec.frozen import frozen_states
from r2ec.item_table import ItemTable
from r2ec.model import R2ec, Rollouts
from r2ec.objective import scores
from r2ec.prompts import PromptBuilder
from r2ec.rec_head import RecHead
from r2ec.rollout import RolloutResult, TransformersEngine, pad_id, without_reasoning
from r2ec.schedule import processes
from r2ec.settings import EvaluationSettings, Params
from r2ec.start import sample, warm_start
from r2ec.trainer import METRIC, TABLE, WEIGHTS, RecPOTrainer


class R2ecRecommender(Recommender):
    """Writes a greedy reasoning per case and scores the catalogue by the state that has read it.

    Args: donors: cases whose reasonings `evaluation.reasoning: other` lends to other users.
    """

    def __init__(
        self, model: R2ec, table: ItemTable, prompts: PromptBuilder, params: Params, donors: Cases | None = None
    ) -> None:
        self.model, self.table, self.prompts, self.params = model, table, prompts, params
        rollouts, evaluation = params.rollouts.for_evaluation(), params.evaluation
        if evaluation.samples > 1:
            rollouts = params.rollouts.model_copy(update={"group_size": evaluation.samples})
        # Folded adapters are rounded to the weights' precision, another model than the one that was trained and encoded the items.
        rollouts = rollouts.model_copy(update={"merge_adapters": False})
        self.engine = TransformersEngine(model.backbone, prompts.tokenizer, rollouts)
        self.controls = None
        if evaluation.reasoning != "own":
            assert donors is not None
            self.controls = Controls(self.engine, prompts, evaluation, donors)
        self.found: dict[str, Any] = {}
        self.learned_from: Learned | None = None  # of a fit that is done
        self._texts: list[pd.DataFrame] = []
        self._written = 0

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        """Scores float32 [b, n_items], batch by batch."""
        self._texts, self._written = [], 0
        catalogue = self.model.catalogue(self.table.states)
        recpo = self.params.recpo
        for batch in cases.batches(self.params.evaluation_rows):
            states, texts, written = self.read(batch)
            self._texts.append(texts)
            self._written += written
            with torch.no_grad():
                users = self.model.head.user(states)
                found = scores(users, catalogue, tau=recpo.tau, normalize=recpo.normalize, prior=self.model.item_prior)
                yield found.numpy(force=True)

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

    def texts(self) -> pd.DataFrame:
        """case, prompt, reasoning, cut (`<answer>` had to be appended), of the cases scored last."""
        return pd.concat(self._texts, ignore_index=True)

    def tokens_written(self) -> int:
        return self._written

    def report(self) -> dict[str, Any]:
        return self.found

    def learned(self) -> Learned | None:
        """See `learned_from`; kept with the model."""
        return self.learned_from

    def save(self, folder: Path) -> None:
        """Adapter, rec head, item table and settings, whole or not at all; `load` gives the same ranks."""
        with atomic(folder) as temporary:
            temporary.mkdir()
            self.model.save(temporary / WEIGHTS)
            self.table.save(temporary / TABLE)
            head = self.model.head
            maps = "none" if head.user_map is None else "tied" if head.item_map is None else "free"
            rank_of_maps = None if head.user_map is None else len(head.user_map.weight)
            write_json(
                temporary / "settings.json",
                {
                    "params": self.params.model_dump(mode="json"),
                    "head": {"maps": maps, "rank": rank_of_maps},
                    "report": self.found,
                    "learned": None if self.learned_from is None else asdict(self.learned_from),
                },
            )

    @classmethod
    def load(cls, folder: Path, split: Split, evaluation: EvaluationSettings | None = None) -> "R2ecRecommender":
        """What `save` wrote, for the same dataset. Raises InputError where the table is of other prompts.

        evaluation: how it shall be read, in the place of what it was saved with.
        """
        about = read_json(folder / "settings.json")
        params = Params.model_validate(about["params"] | ({"evaluation": evaluation} if evaluation else {}))
        made = build(split, params, **about["head"])
        made.model.load(folder / WEIGHTS)
        made.table.load(folder / TABLE)
        made.found = about["report"]
        learned = about.get("learned")  # absent where the model is older than that
        made.learned_from = Learned(**learned) if learned else None
        return made


def combined(
    result: RolloutResult, states: Tensor, reasonings: list[str], evaluation: EvaluationSettings
) -> tuple[Tensor, list[str], np.ndarray]:
    """One h_T [b, d], text and `cut` per case from its several samples [b * samples]: their mean, or the most likely one's.

    Most likely: the highest sum of log-probabilities of its sampled tokens, at the sampling temperature.
    """
    count = evaluation.samples
    cut = result.cut.numpy(force=True).reshape(-1, count)
    texts = [reasonings[i : i + count] for i in range(0, len(reasonings), count)]
    grouped = states.reshape(-1, count, states.shape[-1])
    if evaluation.combine == "mean":
        return grouped.mean(dim=1), ["\n\n".join(some) for some in texts], np.asarray(cut.all(axis=1))
    assert result.log_probs is not None
    best = result.log_probs.sum(dim=1).reshape(-1, count).argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    chosen = best.numpy(force=True)
    kept = [some[i] for some, i in zip(texts, chosen, strict=True)]
    return grouped[rows, best], kept, np.take_along_axis(cut, chosen[:, None], axis=1)[:, 0]


def build(split: Split, params: Params, maps: Any = "none", rank: int | None = None) -> R2ecRecommender:
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
    return R2ecRecommender(model, table, prompts, params, donors=sample(split.valid, DONORS, split.name))


def fit_r2ec(split: Split, seed: int, params: Params, workdir: Path) -> R2ecRecommender:
    """Warm start, RecPO, last encoding of the table; each is on disk in `workdir` when the next begins.

    Several processes may call it together, as torchrun starts them: they share the users of each step, and what is
    written is written by the first of them.
    """
    processes(params)  # before the backbone is loaded: each process has a GPU of its own from here on
    done = workdir / "model"
    made = None if done.exists() else _fit(split, seed, params, workdir)
    if made is None or params.evaluation != made.params.evaluation:
        made = R2ecRecommender.load(done, split, params.evaluation)
    made.found["model"] = str(done)  # for `python -m r2ec.recommend --run`; not saved with it, a folder may move
    return made


def _fit(split: Split, seed: int, params: Params, workdir: Path) -> R2ecRecommender:
    """Fits and saves; whatever is written meanwhile is the model's own, so that `evaluation` plays no part."""
    params = params.model_copy(update={"evaluation": EvaluationSettings()})
    if writes_by_vllm(params):
        from r2ec.rollout_vllm import require_vllm

        require_vllm()  # before the hours that come first
    torch.manual_seed(derive_seed(seed, "adapters"))
    made = build(split, params)
    if params.warm_start.cases:
        warm_start(made, split, seed, workdir)
    rows = np.array([], dtype=np.int64)
    if params.training.max_steps != 0:
        rows = train(made, split, seed, workdir / "recpo")
    made.learned_from = learned_from(made, split, rows)
    made.model.eval()
    with sharded.whole(made.model):
        if params.training.max_steps != 0:
            made.table.refresh(made.model)
        elif not made.table.encoded and not params.recpo.cls_head:
            with processes(params).main_process_first():
                frozen_states(made, {})
        if torch.device(params.backbone.device).type == "cuda":
            made.found["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
        if processes(params).is_main_process:
            made.save(workdir / "model")
    processes(params).wait_for_everyone()
    if params.training.fsdp:  # one process alone goes on, which has but a piece of each weight
        del made
        made = R2ecRecommender.load(workdir / "model", split)
    return made


def writes_by_vllm(params: Params) -> bool:
    """Whether vLLM writes the rollouts of the training."""
    return params.rollouts.backend == "vllm" and params.recpo.reasoning and params.training.max_steps != 0


def train(made: R2ecRecommender, split: Split, seed: int, folder: Path) -> np.ndarray:
    """RecPO, from the last checkpoint in `folder` if there is one. Returns the rows of `split.llm_train` that it learned from."""
    some = sample(split.valid, made.params.training.eval_cases, split.name)
    trainer = trainer_of(made, split, some, seed, folder)
    last = last_checkpoint(folder)
    if last is not None:
        made.table.load(last / TABLE)  # DeepSpeed reads its own weights from a checkpoint, and nothing else
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    made.found |= {"recpo_steps": trainer.state.global_step, "recpo_seconds": round(time.monotonic() - started, 1)}
    made.found["recpo_log"] = trainer.logged("reward", METRIC)
    # With validation the best step's weights stay.
    return trainer.order.until(trainer.state.best_global_step or trainer.state.global_step)


def learned_from(made: R2ecRecommender, split: Split, rows: np.ndarray) -> Learned:
    """What has taught this model: rows of `split.llm_train` by RecPO, and by the warm start's form that was kept its sample of
    these, or, through the teacher, all of `split.train`. The prior counts them, too."""
    params, llm = made.params, split.llm_train
    form = made.found["warm_start"][0]["form"] if params.warm_start.cases else None
    if form in ("taught", "adapters"):
        return Learned.of(split.train)
    encoded = sample(llm, params.warm_start.cases, split.name)  # for its mean and spread, where no map was kept
    trained = np.isin(np.arange(len(llm)), rows)
    if form in ("tied", "free"):
        trained |= np.isin(llm.case, encoded.case)
    counted = split.train if params.recpo.prior else None
    return Learned.of_fit(llm.take(np.flatnonzero(trained)), counted, read=encoded if form == "none" else None)


def trainer_of(made: R2ecRecommender, split: Split, some: Cases, seed: int, folder: Path) -> RecPOTrainer:
    """RecPO of `made` on the training cases that an LLM may read; validated on `some`, its checkpoints in `folder`."""
    params = made.params

    def validate() -> float:
        made.table.refresh(made.model)
        return validation_ndcg(made, some, split.n_items, "r2ec")

    trainer = RecPOTrainer(
        model=made.model,
        table=made.table,
        prompts=made.prompts,
        engine=TransformersEngine(made.model.backbone, made.prompts.tokenizer, params.rollouts),
        cases=split.llm_train,
        validate=validate,
        recpo=params.recpo,
        training=params.training,
        seed=seed,
        folder=folder,
    )
    if writes_by_vllm(params):
        from r2ec.rollout_vllm import VllmEngine, folder_of

        made.model.causal_lm.name_or_path = folder_of(params.backbone)
        trainer.engine = VllmEngine.start(
            made.model.backbone,
            trainer.accelerator,
            made.prompts.tokenizer,
            params.rollouts,
            params.vllm,
            max_model_length=params.prompts.max_prompt_tokens + params.rollouts.max_new_tokens,
        )
    return trainer


def log_frequencies(split: Split) -> Tensor:
    """log(1 + how many users have the item in their training histories or as a target) minus its mean, float32 [V]."""
    counts = np.bincount(split.train.interactions()[1], minlength=split.n_items)
    found = np.log1p(counts)
    return torch.from_numpy((found - found.mean()).astype(np.float32))
