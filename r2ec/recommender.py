"""Fitting R2ec from a prepared dataset, and recommending with what was fitted."""

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from benchmark.contract import Cases, Recommender, Split
from benchmark.evaluate import validation_ndcg
from benchmark.io import atomic, read_json, write_json
from benchmark.provenance import derive_seed
from r2ec import backbone as backbones
from r2ec.attention import use_grouped_attention
from r2ec.item_table import ItemTable
from r2ec.model import R2ec, Rollouts
from r2ec.objective import scores
from r2ec.prompts import PromptBuilder
from r2ec.rec_head import RecHead
from r2ec.rollout import TransformersEngine, pad_id, without_reasoning
from r2ec.settings import Params
from r2ec.trainer import METRIC, TABLE, WEIGHTS, RecPOTrainer, last_checkpoint
from r2ec.warm_start import Choice, Encoded, WarmStart, fit_rec_head, steps_of


class R2ecRecommender(Recommender):
    """Writes a greedy reasoning per case and scores the catalogue by the state that has read it."""

    def __init__(self, model: R2ec, table: ItemTable, prompts: PromptBuilder, params: Params) -> None:
        self.model, self.table, self.prompts, self.params = model, table, prompts, params
        self.engine = TransformersEngine(model.backbone, prompts.tokenizer, params.rollouts.for_evaluation())
        self.found: dict[str, Any] = {}
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
                yield scores(users, catalogue, tau=recpo.tau, normalize=recpo.normalize).numpy(force=True)

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
        last = recpo.pooling == "last"
        result = self.engine.generate(prompts, cases=cases.case, seed=0, final_states=last)
        states = result.states if last else self._forward(replace(result.rollouts, action_mask=None))
        assert states is not None
        texts = self._texts_of(cases, prompts, result.texts(tokenizer), result.cut.numpy(force=True))
        return states, texts, result.sampled_tokens

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
                },
            )

    @classmethod
    def load(cls, folder: Path, split: Split) -> "R2ecRecommender":
        """What `save` wrote, for the same dataset. Raises InputError where the table is of other prompts."""
        about = read_json(folder / "settings.json")
        params = Params.model_validate(about["params"])
        made = build(split, params, **about["head"])
        made.model.load(folder / WEIGHTS)
        made.table.load(folder / TABLE)
        made.found = about["report"]
        return made


def build(split: Split, params: Params, maps: Any = "none", rank: int | None = None) -> R2ecRecommender:
    """An untrained R2ec for this dataset, with rec head maps of this form; its item table is not encoded yet."""
    loaded = backbones.load(params.backbone)
    adapted = backbones.add_lora(loaded.model, params.lora)
    recpo = params.recpo
    model = R2ec(
        adapted,
        pooling=recpo.pooling,
        special_token=loaded.tokenizer.eos_token_id if recpo.pooling == "special" else None,
        head=RecHead(adapted.config.hidden_size, maps, rank),
        cls_items=split.n_items if recpo.cls_head else None,
    ).to(params.backbone.device)
    if torch.device(params.backbone.device).type == "cpu":
        use_grouped_attention(model.causal_lm)
    prompts = PromptBuilder.for_split(loaded.tokenizer, split, params.prompts)
    table = ItemTable(prompts.item_prompts(), model.dim, device=params.backbone.device)
    return R2ecRecommender(model, table, prompts, params)


def fit_r2ec(split: Split, seed: int, params: Params, workdir: Path) -> R2ecRecommender:
    """Warm start, RecPO, last encoding of the table; each is on disk in `workdir` when the next begins."""
    done = workdir / "model"
    if done.exists():
        return _at(R2ecRecommender.load(done, split), done)
    torch.manual_seed(derive_seed(seed, "adapters"))
    made = build(split, params)
    if params.warm_start.cases:
        warm_start(made, split, seed, workdir)
    if params.training.max_steps != 0:
        some = sample(split.valid, params.training.eval_cases, split.name)
        trainer = trainer_of(made, split, some, seed, workdir / "recpo")
        last = last_checkpoint(workdir / "recpo")
        started = time.monotonic()
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        history = [entry for entry in trainer.state.log_history if "reward" in entry or METRIC in entry]
        made.found |= {"recpo_steps": trainer.state.global_step, "recpo_seconds": round(time.monotonic() - started, 1)}
        made.found["recpo_log"] = [{k: round(float(v), 6) for k, v in entry.items()} for entry in history]
    made.model.eval()
    if params.training.max_steps != 0 or not made.table.encoded:
        made.table.refresh(made.model)
    made.save(done)
    return _at(made, done)


def trainer_of(made: R2ecRecommender, split: Split, some: Cases, seed: int, folder: Path) -> RecPOTrainer:
    """RecPO of `made` on the split's training cases; validated on `some`, its checkpoints in `folder`."""
    params = made.params

    def validate() -> float:
        made.table.refresh(made.model)
        return validation_ndcg(made, some, split.n_items, "r2ec")

    return RecPOTrainer(
        model=made.model,
        table=made.table,
        prompts=made.prompts,
        engine=TransformersEngine(made.model.backbone, made.prompts.tokenizer, params.rollouts),
        cases=split.train,
        validate=validate,
        recpo=params.recpo,
        training=params.training,
        seed=seed,
        folder=folder,
    )


def _at(made: R2ecRecommender, folder: Path) -> R2ecRecommender:
    """Report where the finished model lies, for `python -m r2ec.recommend --run`; not saved with it, a folder may move."""
    made.found["model"] = str(folder)
    return made


def warm_start(made: R2ecRecommender, split: Split, seed: int, workdir: Path) -> None:
    """Give `made` the rec head that `fit_rec_head` finds on frozen states; encodes once, also over a killed run."""
    params = made.params
    settings = params.warm_start
    path = workdir / "warm_start_states.safetensors"
    parts = {
        "train": sample(split.train, settings.cases, split.name),
        "valid": sample(split.valid, settings.valid_cases, split.name),
    }
    if not path.exists():
        made.table.refresh(made.model)
        states = {"items": made.table.states.float().cpu()}
        for part, cases in parts.items():
            batches = cases.batches(params.evaluation_rows)
            bar = tqdm(batches, total=-(-len(cases) // params.evaluation_rows), desc=f"warm start, {part}", delay=5)
            states[part] = torch.cat([made.read(batch)[0].float().cpu() for batch in bar])
        with atomic(path) as temporary:
            save_file(states, temporary)
    states = load_file(path)
    made.table.states.copy_(states["items"])

    def encoded(part: str) -> Encoded:
        return Encoded(states[part], *_targets_and_history(parts[part], split.history_length))

    targets, history = _targets_and_history(split.train, split.history_length)
    data = WarmStart(
        items=states["items"],
        train=encoded("train"),
        valid=encoded("valid"),
        steps=steps_of(history, targets, torch.from_numpy(split.train.user.astype(np.int64))),
        settings=settings,
        tau=params.recpo.tau,
        normalize=params.recpo.normalize,
        seed=seed,
    )
    head, tried = fit_rec_head(data)
    made.model.head = head.to(params.backbone.device)
    made.found["warm_start"] = [asdict(choice) for choice in tried]
    print(f"warm start: {_line(tried[0])}; tried {len(tried)}", flush=True)


def _targets_and_history(cases: Cases, length: int) -> tuple[Tensor, Tensor]:
    """int64 [n] and int64 [n, length], right-aligned, -1 for none."""
    assert cases.target is not None
    return torch.from_numpy(cases.target.astype(np.int64)), torch.from_numpy(cases.padded(-1, length))


def _line(choice: Choice) -> str:
    return f"{choice.form}, weight decay {choice.weight_decay:g}, valid NDCG@10 {choice.value:.4f}"


def sample(cases: Cases, size: int, name: str) -> Cases:
    """The first `size` cases of a seeded order, in time order; the same for every repetition."""
    order = np.random.default_rng(derive_seed(name, "r2ec sample", len(cases))).permutation(len(cases))
    return cases.take(np.sort(order[:size]))
