"""The second stage of llara.py: a projector turns item vectors into tokens, which stand behind a history's titles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines._writers import llm_texts
from baselines._writers.soft_tokens import SoftTokens
from baselines._writers.step_training import Group, Steps, run_steps
from baselines._writers.title_ranking import ByTitle
from baselines._writers.title_search import Search, title_tokens
from benchmark.contract import Cases
from benchmark.provenance import derive_seed
from lm.kernels.attention import use_grouped_attention
from lm.writing.rollouts import pack_rollouts, pad_id
from r2ec.model.network import R2ec


@dataclass(frozen=True)
class Training:
    """Settings of the second stage: steps, learning rates of adapters and projector, and the projector's decay."""

    steps: Steps
    learning_rate: float
    projector_rate: float
    projector_decay: float


class Projector(nn.Module):
    """LLaRA's projector: Linear, GELU, Linear, from frozen item vectors, float32 [n_items, d], to an LM's inputs.

    size: root mean square of its output for the catalogue at the start, to which its last layer is scaled. By torch's
    initialisation it would be far from the size of a token.
    """

    def __init__(self, items: Tensor, width: int, size: float) -> None:
        super().__init__()
        self.register_buffer("items", items, persistent=False)
        self.items: Tensor
        self.first, self.last = nn.Linear(items.shape[1], width), nn.Linear(width, width)
        with torch.no_grad():
            scale = size / self.forward(torch.arange(len(items))).square().mean().sqrt()
            self.last.weight.mul_(scale)
            self.last.bias.mul_(scale)

    def forward(self, rows: Tensor) -> Tensor:
        """Items, int64 [n] -> [n, width]."""
        projected: Tensor = self.last(nn.functional.gelu(self.first(self.items[rows])))
        return projected


def is_hybrid(step: int, steps: int, seed: int) -> bool:
    """Whether a step's prompts hold item tokens, with probability step / steps; the same for all its micro-batches."""
    return bool(np.random.default_rng(derive_seed(seed, "curriculum", step)).random() < step / steps)


class ByHybridPrompt(ByTitle):
    """A tuned LLM as a recommender, in whose prompts each title of the history is followed by its item's token."""

    projector: Projector
    soft: SoftTokens

    def prompts(self, cases: Cases, messages: list[str]) -> list[list[int]]:
        """Prompts with ids V + item, V the vocabulary's size, where the messages have a placeholder."""
        prompts = super().prompts(cases, messages)
        for i, ids in enumerate(prompts):
            places = [at for at, token in enumerate(ids) if token == self.soft.placeholder]
            for at, item in zip(places, cases.history(i)[-len(places) :].tolist(), strict=True):
                ids[at] = self.soft.first + item
        return prompts

    def search(self, cases: Cases, messages: list[str], beams: int) -> Search:
        with torch.no_grad(), self.soft.reading(self.projector):
            return super().search(cases, messages, beams)


class _Trained(nn.Module):
    """The modules that the training changes: adapters and projector."""

    def __init__(self, net: R2ec, projector: Projector) -> None:
        super().__init__()
        self.net, self.projector = net, projector


def learn_item_tokens(
    recommender: ByHybridPrompt, cases: Cases, settings: Training, *, seed: int, folder: Path
) -> list[dict[str, float]]:
    """Train adapters and projector on the titles of these cases; text-only steps give way to hybrid ones.

    Returns for each step `loss`, the mean over the tokens of its titles and their ends, and `hybrid`, 1 or 0.
    """
    assert cases.target is not None
    if not torch.cuda.is_available():
        use_grouped_attention(llm_texts.causal_lm_of(recommender.model))
    model = _Trained(R2ec(recommender.model), recommender.projector)
    prompts = recommender.prompts(cases, recommender.builder.user_messages(recommender.request, cases))
    of_item = title_tokens(recommender.tokenizer, recommender.builder.titles)
    titles = [of_item[target] for target in cases.target.tolist()]
    pad = pad_id(recommender.tokenizer)

    def loss(step: int, rows: list[int], of_step: list[int]) -> tuple[Tensor, dict[str, float]]:
        hybrid = is_hybrid(step, settings.steps.count, seed)
        with recommender.soft.reading(recommender.projector if hybrid else None):
            logps = title_logps(model.net, [prompts[row] for row in rows], [titles[row] for row in rows], pad)
        return -logps.sum() / sum(len(titles[row]) for row in of_step), {"hybrid": float(hybrid)}

    groups = [
        Group(
            [parameter for parameter in recommender.model.parameters() if parameter.requires_grad],
            settings.learning_rate,
        ),
        Group(list(recommender.projector.parameters()), settings.projector_rate, settings.projector_decay),
    ]
    return run_steps(model, loss, groups, settings.steps, seed=seed, folder=folder, name="item tokens")


def title_logps(net: R2ec, prompts: Sequence[Sequence[int]], titles: Sequence[Sequence[int]], pad: int) -> Tensor:
    """log pi of each token of each title behind its prompt, float32 [n, longest title], 0 behind a title's end."""
    ids, mask = padded(titles, pad)
    logps = net(pack_rollouts(prompts, ids, mask, mask, pad, net.causal_lm.device)).token_logps
    assert isinstance(logps, Tensor)
    return logps


def padded(titles: Sequence[Sequence[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Titles as one array, int64 [n, longest], `pad` behind their ends, and where they are, bool."""
    lengths = np.array([len(title) for title in titles])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids: Any = np.full(mask.shape, pad, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(title, dtype=np.int64) for title in titles])
    return ids, mask
