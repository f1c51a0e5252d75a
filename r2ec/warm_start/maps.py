"""The warm start: maps of the rec head, fitted on the frozen LM's states before RecPO begins.

States of a sample of training cases and of all items are encoded once; what follows is linear and takes a minute:

- `tied`, `free`: one map for both sides, or one each, by cross-entropy of the cases' targets over the catalogue.
- `taught`: first a teacher, which needs no state of a case and so learns from all training cases: it predicts a case's
  target from the decaying mean of its history's item states. Then both maps learn to give, from h_T, the teacher's
  probabilities of the whole catalogue.

Form and weight decay are chosen on validation NDCG@10. The standardised states without any map are among the choices,
so that the start is never worse than they are on validation. `r2ec/warm_start/adapters.py` has the LM's adapters learn
from the teacher, too.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from benchmark.contract import Cases
from benchmark.provenance import derive_seed
from r2ec.model.ranking import ndcg, scores, target_ranks
from r2ec.model.rec_head import RecHead
from r2ec.report import Choice, Form
from r2ec.settings import WarmStartSettings

PATIENCE = 8  # epochs without a better value on validation


@dataclass(frozen=True)
class Encoded:
    """n cases as the frozen LM sees them."""

    states: Tensor  # float32 [n, d]
    targets: Tensor  # int64 [n]
    history: Tensor  # int64 [n, L], right-aligned, -1 for none


@dataclass(frozen=True)
class Teacher:
    """Predicts from the decaying mean of a history's item states, mapped: it reads whole histories and no text."""

    data: "WarmStart"
    head: RecHead  # with maps of its own
    items: Tensor  # float32 [V, d], the frozen table, standardised

    def users(self, history: Tensor) -> Tensor:
        """int64 [n, L], right-aligned, -1 for none -> float32 [n, m]."""
        return self.head.map_user(mean_of_history(history, self.items, self.data.settings.history_decay))

    @torch.no_grad()
    def probabilities(self, history: Tensor) -> Tensor:
        """Probabilities of the whole catalogue, float32 [n, V], without a graph. history: as in `users`."""
        return self.data.scores(self.users(history), self.head.item(self.data.items)).softmax(dim=1)


@dataclass(frozen=True)
class Fitted:
    """The result of `fit_rec_head`."""

    head: RecHead  # the best on validation
    tried: list[Choice]  # the chosen one first
    taught: RecHead | None  # the best of form `taught`, chosen or not
    teacher: Teacher | None  # of `taught`


@dataclass(frozen=True)
class WarmStart:
    """Everything that a fit of the maps reads."""

    items: Tensor  # [V, d], the item table's states
    train: Encoded
    valid: Encoded
    cases: Cases  # all training cases, which the teacher learns from
    history_length: int
    settings: WarmStartSettings
    tau: float
    normalize: bool
    seed: int
    prior: Tensor | None = None  # float32 [V], see `ranking.scores`

    def scores(self, users: Tensor, items: Tensor) -> Tensor:
        """Mapped users [n, m] and items [V, m] -> scores over tau, float32 [n, V]."""
        return scores(users, items, tau=self.tau, normalize=self.normalize, prior=self.prior)

    def ndcg10(self, users: Tensor, items: Tensor) -> float:
        """Validation NDCG@10 of mapped users and items: the reward's own count of ranks, history masked."""
        ranks = target_ranks(
            users,
            items,
            self.valid.targets,
            self.valid.history,
            tau=self.tau,
            normalize=self.normalize,
            prior=self.prior,
        )
        return float(ndcg(ranks.rank, 10).mean())


def fit_rec_head(data: WarmStart) -> Fitted:
    """Fit every form with every weight decay."""
    forms: list[tuple[Form, float]] = [("none", 0.0)]
    forms += [(form, decay) for form in data.settings.forms for decay in data.settings.weight_decays]
    fits = [_fit(form, decay, data) for form, decay in forms]
    fits.sort(key=lambda fitted: -fitted[1].value)  # stable: of equal ones the first
    taught, teacher = next(((head, teacher) for head, _, teacher in fits if teacher is not None), (None, None))
    return Fitted(fits[0][0], [choice for _, choice, _ in fits], taught, teacher)


def _fit(form: Form, decay: float, data: WarmStart) -> tuple[RecHead, Choice, Teacher | None]:
    """Train one form; the weights of its best epoch on validation are kept.

    Best by NDCG@10; for `taught`, by the divergence from the teacher's probabilities.
    """
    maps = "free" if form == "taught" else form
    head = RecHead(data.items.shape[1], maps, None if form == "none" else data.settings.rank)
    head.standardize(data.items, data.train.states)
    _start_from_components(head, data.items)

    def ndcg10() -> float:
        return data.ndcg10(head.user(data.valid.states), head.item(data.items))

    if form == "none":
        return head, Choice(form, decay, 0, ndcg10()), None
    teacher, of_teacher = None, None
    if form == "taught":
        teacher, of_teacher = _teach(head, decay, data)
        soft_targets = {
            part: teacher.probabilities(cases.history) for part, cases in (("train", data.train), ("valid", data.valid))
        }

        def loss(rows: Tensor) -> Tensor:
            item_scores = data.scores(head.user(data.train.states[rows]), head.item(data.items))
            return divergence(item_scores, soft_targets["train"][rows])

        def value() -> float:
            # NDCG of some hundred cases is so noisy that its best epoch can be one of the first, with nothing learned.
            return -float(
                divergence(data.scores(head.user(data.valid.states), head.item(data.items)), soft_targets["valid"])
            )
    else:
        value = ndcg10

        def loss(rows: Tensor) -> Tensor:
            item_scores = data.scores(head.user(data.train.states[rows]), head.item(data.items))
            return F.cross_entropy(item_scores, data.train.targets[rows])

    settings = data.settings
    epochs = _train(
        head, loss, value, len(data.train.targets), settings.batch_size, settings.epochs, decay, data, form
    )[0]
    return head, Choice(form, decay, epochs, _without_graph(ndcg10), of_teacher), teacher


def _teach(head: RecHead, decay: float, data: WarmStart) -> tuple[Teacher, float]:
    """Fit the teacher on all training cases, its maps in the head's place; returns it and its validation NDCG@10.

    The head is left with the teacher's maps.
    """
    settings = data.settings
    with torch.no_grad():
        items = (data.items.float() - head.item_shift) / head.item_scale
    learner = Teacher(data, head, items)

    def loss(rows: Tensor) -> Tensor:
        cases = data.cases.take(rows.numpy())
        assert cases.target is not None
        users = learner.users(torch.from_numpy(cases.padded(-1, data.history_length)))
        targets = torch.from_numpy(cases.target.astype(np.int64))
        return F.cross_entropy(data.scores(users, head.item(data.items)), targets)

    def value() -> float:
        return data.ndcg10(learner.users(data.valid.history), head.item(data.items))

    rows = len(data.cases)
    _, best = _train(head, loss, value, rows, 2 * settings.batch_size, settings.teacher_epochs, decay, data, "teacher")
    return replace(learner, head=copy.deepcopy(head)), best


def divergence(scores: Tensor, soft_targets: Tensor) -> Tensor:
    """KL(soft_targets || softmax(scores)) in nats, the mean over rows. Scores and probabilities: float32 [n, V]."""
    return F.kl_div(scores.log_softmax(dim=1), soft_targets, reduction="batchmean")


def _train(
    head: RecHead,
    loss: Callable[[Tensor], Tensor],
    value: Callable[[], float],
    rows: int,
    batch: int,
    epochs: int,
    decay: float,
    data: WarmStart,
    name: str,
) -> tuple[int, float]:
    """AdamW on the head's maps; the weights of the best epoch stay. Returns that epoch and its value."""
    best_epoch, best = 0, _without_graph(value)
    best_weights = {key: weight.clone() for key, weight in head.state_dict().items()}
    optimizer = torch.optim.AdamW(head.parameters(), lr=data.settings.learning_rate, weight_decay=decay)
    generator = torch.Generator().manual_seed(derive_seed(data.seed, "warm start", name, decay))
    for epoch in tqdm(range(1, epochs + 1), desc=f"warm start, {name}", unit="epoch", delay=5, leave=False):
        for part in torch.randperm(rows, generator=generator).split(batch):
            optimizer.zero_grad()
            loss(part).backward()
            optimizer.step()
        present = _without_graph(value)
        if present > best:
            best_epoch, best = epoch, present
            best_weights = {key: weight.clone() for key, weight in head.state_dict().items()}
        elif epoch - best_epoch >= PATIENCE:
            break
    head.load_state_dict(best_weights)
    return best_epoch, best


@torch.no_grad()
def _without_graph(value: Callable[[], float]) -> float:
    return value()


@torch.no_grad()
def _start_from_components(head: RecHead, items: Tensor) -> None:
    """Begin the maps with the leading principal directions of the standardised table."""
    layers = [layer for layer in (head.user_map, head.item_map) if layer is not None]
    if not layers:
        return
    standardized = (items.float() - head.item_shift) / head.item_scale
    _, _, directions = torch.linalg.svd(standardized, full_matrices=False)
    for layer in layers:
        layer.weight[: len(directions)] = directions[: len(layer.weight)]


def mean_of_history(history: Tensor, items: Tensor, decay: float) -> Tensor:
    """The mean of the history's item vectors, the newest weighing 1, the one before it `decay`, and so on.

    history: int64 [n, L], right-aligned, -1 for none, at least one item each; items [V, d]. Returns float32 [n, d].
    """
    age = torch.arange(history.shape[1] - 1, -1, -1, device=history.device)
    weights = (decay ** age.float())[None] * (history >= 0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return F.embedding_bag(history.clamp(min=0), items, per_sample_weights=weights, mode="sum")
