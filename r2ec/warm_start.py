"""The warm start: maps of the rec head, fitted on the frozen LM's states before RecPO begins.

States of a sample of training cases and of all items are encoded once; linear maps are then trained with the whole
catalogue as candidates, which takes seconds. Form and weight decay of the maps are chosen on validation NDCG@10, the
standardised states without any map among the choices, so that the start is never worse than that on validation.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.provenance import derive_seed
from r2ec.objective import scores
from r2ec.rec_head import RecHead
from r2ec.reward import recpo_rewards
from r2ec.settings import WarmStartSettings


@dataclass(frozen=True)
class Encoded:
    """n cases as the frozen LM sees them."""

    states: Tensor  # float32 [n, d]
    targets: Tensor  # int64 [n]
    history: Tensor  # int64 [n, L], -1 for none


@dataclass(frozen=True)
class Choice:
    """One form of the maps that was tried."""

    maps: Literal["none", "tied", "free"]
    weight_decay: float
    epochs: int  # after which validation was best
    value: float  # validation NDCG@10


def fit_rec_head(
    items: Tensor, train: Encoded, valid: Encoded, settings: WarmStartSettings, tau: float, normalize: bool, seed: int
) -> tuple[RecHead, list[Choice]]:
    """The best rec head on validation and all that was tried, the chosen one first.

    items: [V, d], the item table's states.
    """
    best, best_head, tried = None, None, []
    forms: list[tuple[Literal["none", "tied", "free"], float]] = [("none", 0.0)]
    forms += [(maps, decay) for maps in settings.maps for decay in settings.weight_decays]
    for maps, decay in forms:
        head, choice = _fit(maps, decay, items, train, valid, settings, tau, normalize, seed)
        tried.append(choice)
        if best is None or choice.value > best.value:
            best, best_head = choice, head
    assert best is not None and best_head is not None
    return best_head, [best, *(choice for choice in tried if choice is not best)]


def _fit(
    maps: Literal["none", "tied", "free"],
    decay: float,
    items: Tensor,
    train: Encoded,
    valid: Encoded,
    settings: WarmStartSettings,
    tau: float,
    normalize: bool,
    seed: int,
) -> tuple[RecHead, Choice]:
    """Train one form by cross-entropy over the catalogue; the weights of its best epoch on validation are kept."""
    head = RecHead(items.shape[1], maps, None if maps == "none" else settings.rank)
    head.standardize(items, train.states)
    if maps != "none":
        _start_from_components(head, items)
    best_value, best_epoch = ndcg10(head, items, valid, tau, normalize), 0
    best_weights = {name: value.clone() for name, value in head.state_dict().items()}
    if maps == "none":
        return head, Choice(maps, decay, 0, best_value)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=decay)
    generator = torch.Generator().manual_seed(derive_seed(seed, "warm start", maps, decay))
    for epoch in range(1, settings.epochs + 1):
        for rows in torch.randperm(len(train.targets), generator=generator).split(settings.batch_size):
            found = scores(head.user(train.states[rows]), head.item(items), tau=tau, normalize=normalize)
            loss = F.cross_entropy(found, train.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        value = ndcg10(head, items, valid, tau, normalize)
        if value > best_value:
            best_value, best_epoch = value, epoch
            best_weights = {name: weight.clone() for name, weight in head.state_dict().items()}
        elif epoch - best_epoch >= 8:
            break
    head.load_state_dict(best_weights)
    return head, Choice(maps, decay, best_epoch, best_value)


@torch.no_grad()
def _start_from_components(head: RecHead, items: Tensor) -> None:
    """Begin the maps with the leading principal directions of the standardised table, not with arbitrary coordinates."""
    standardized = (items.float() - head.item_shift) / head.item_scale
    _, _, directions = torch.linalg.svd(standardized, full_matrices=False)
    for layer in (head.user_map, head.item_map):
        if layer is not None:
            layer.weight.copy_(directions[: len(layer.weight)])


@torch.no_grad()
def ndcg10(head: RecHead, items: Tensor, cases: Encoded, tau: float, normalize: bool) -> float:
    """Validation NDCG@10: the reward's own count of ranks, history masked."""
    found = recpo_rewards(
        head.user(cases.states),
        head.item(items),
        cases.targets,
        cases.history,
        tau=tau,
        normalize=normalize,
        beta=0,
        k=10,
    )
    return float(found.ndcg.mean())
