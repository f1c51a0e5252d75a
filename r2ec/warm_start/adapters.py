"""The warm start's second part: the LM's adapters learn to predict from h_T what the teacher predicts of a history.

The frozen LM's h_T carries less of a history than its last title does (docs/log.md), whatever map is put on it. So
adapters and maps are trained together, on the divergence from the teacher's probabilities of the whole catalogue
(Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531). Each step writes the reasonings anew,
greedily and by the present model (its adapters folded, as in RecPO's rollouts), so that the adapters learn to read what
the model will write. It draws from all cases that an LLM may read, not only from the sample that the maps learned from.

During this training users are scored against the frozen table. Each step also encodes a few items anew and holds their
vectors near those of the table. At the end the table is encoded again, and the item map is fitted once more, so that
the new states get the vectors that the old ones had.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.contract import Cases, Split
from benchmark.errors import InputError
from benchmark.provenance import derive_seed
from lm.writing.engine import TransformersEngine
from r2ec.model.network import PolicyOutput
from r2ec.model.prompts import end_of_reasoning
from r2ec.model.ranking import scores
from r2ec.model.rec_head import RecHead
from r2ec.scoring.reader import Reader
from r2ec.settings import Params, TrainingSettings
from r2ec.training.loop import Batch, RolloutTrainer
from r2ec.warm_start.maps import Teacher, divergence

RIDGE = 0.01  # penalty of the item map's last fit, in units of the standardised states' variance


class TaughtTrainer(RolloutTrainer):
    """Trains a model's adapters and maps to give a teacher's probabilities from states that have read a reasoning.

    Args:
        teacher: its probabilities of the whole catalogue are the soft targets.
        tau, normalize: of the model's scores, as in `ranking.scores`.
        held_items: how many items each step encodes anew. held_weight: weight in the loss of how far they have moved.
        parts: the arguments of `RolloutTrainer`.
    """

    MEMORY_SETTINGS = (
        "warm_start.adapters.batch_size, warm_start.adapters.held_items, rollouts.max_new_tokens or "
        "prompts.max_prompt_tokens"
    )

    def __init__(
        self, *, teacher: Teacher, tau: float, normalize: bool, held_items: int, held_weight: float, **parts: Any
    ) -> None:
        super().__init__(**parts)
        self.teacher, self.tau, self.normalize = teacher, tau, normalize
        self.held_items, self.held_weight = held_items, held_weight

    def prepared(self, cases: Cases) -> Batch:
        """Rollouts without actions, as no token is rewarded, and the prompts of the items that are held."""
        rollouts = replace(self.write(cases, self.state.global_step), action_mask=None)
        held = self._held(self.state.global_step)
        return Batch(cases, rollouts, torch.from_numpy(held), self.table.batch(held) if len(held) else None)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The divergence of one batch of users, a `Batch`, and how far the held items have moved.

        Raises InputError where it is not finite any more.
        """
        batch: Batch = inputs
        out: PolicyOutput = model(batch.rollouts, items=batch.items)
        catalogue = self.net.head.item(self.table.states)
        item_scores = scores(out.users, catalogue, tau=self.tau, normalize=self.normalize, prior=self.net.item_prior)
        soft_targets = self.teacher.probabilities(torch.from_numpy(batch.cases.padded(-1, self.longest)))
        loss = divergence(item_scores, soft_targets.to(item_scores.device))
        if not bool(torch.isfinite(loss)):
            raise InputError(
                f"the divergence from the teacher is {float(loss.detach())} at step {self.state.global_step}; lower "
                "warm_start.adapters.learning_rate or head_learning_rate, or those of training under its "
                "objective teacher"
            )
        self.note(divergence=float(loss.detach()))
        if out.items is not None:
            moved = 1 - F.cosine_similarity(out.items, catalogue[batch.item_rows].detach(), dim=1).mean()
            self.note(held_items_moved=float(moved.detach()))
            loss = loss + self.held_weight * moved
        return loss

    def _held(self, step: int) -> np.ndarray:
        """Rows of the items that this step encodes anew; the same on every process."""
        random = np.random.default_rng(derive_seed(self.seed, "held items", step))
        return random.choice(len(self.table), min(self.held_items, len(self.table)), replace=False)


def taught_trainer(
    reader: Reader, split: Split, teacher: Teacher, *, training: TrainingSettings, seed: int, folder: Path, **calls: Any
) -> TaughtTrainer:
    """The trainer of a reader's model on the cases that an LLM may read, by the settings of the warm start's adapters.

    Args:
        training: steps and rates. seed: of the order of cases and of the items that are held.
        folder: of its checkpoints. calls: `validate` and `measure` of `RolloutTrainer`, where there are any.
    """
    params, own = reader.params, reader.params.warm_start.adapters
    tokenizer, written = reader.prompts.tokenizer, params.rollouts.for_evaluation()
    return TaughtTrainer(
        teacher=teacher,
        held_items=own.held_items,
        held_weight=own.held_weight,
        model=reader.model,
        table=reader.table,
        prompts=reader.prompts,
        engine=TransformersEngine(reader.model.backbone, tokenizer, written, end_of_reasoning(tokenizer)),
        cases=split.llm_train,
        reasoning=params.recpo.reasoning,
        tau=params.recpo.tau,
        normalize=params.recpo.normalize,
        training=training,
        seed=seed,
        folder=folder,
        **calls,
    )


def adapter_training(params: Params) -> TrainingSettings:
    """The Trainer's settings of this stage."""
    own = params.warm_start.adapters
    return params.training.model_copy(
        update={
            "max_steps": own.steps,
            "learning_rate": own.learning_rate,
            "head_learning_rate": own.head_learning_rate,
            "per_device_train_batch_size": own.batch_size,
            "gradient_accumulation_steps": 1,
            "warmup_steps": own.warmup_steps,
            "lr_scheduler_type": "cosine",
            "eval_steps": 0,
        }
    )


@torch.no_grad()
def refit_item_map(head: RecHead, old: Tensor, new: Tensor, normalize: bool) -> float:
    """Fit the item map so that the table's new states [V, d] get the vectors that the old ones had.

    head: its maps must be `free`; the item map is replaced by the ridge solution in closed form, drawn towards the map
    as it was. Returns the mean cosine between new and old vectors.
    """
    assert head.item_map is not None
    wanted = head.item(old)
    if normalize:
        wanted = F.normalize(wanted, dim=1)
    user_shift, user_scale = head.user_shift.clone(), head.user_scale.clone()
    head.standardize(new)
    head.user_shift.copy_(user_shift)
    head.user_scale.copy_(user_scale)
    states = ((new.float() - head.item_shift) / head.item_scale).double()
    weight = head.item_map.weight.double()
    # Scaled to the length of the wanted vectors, so that the ridge weighs the same whatever their length.
    current = states @ weight.T
    weight = weight * (wanted.double() * current).sum() / current.square().sum()
    residual = wanted.double() - states @ weight.T
    gram = states.T @ states + RIDGE * len(states) * torch.eye(
        states.shape[1], dtype=torch.float64, device=states.device
    )
    head.item_map.weight.copy_(weight + torch.linalg.solve(gram, states.T @ residual).T)
    return float(F.cosine_similarity(head.item(new), wanted, dim=1).mean())
