"""The thinker of latent_r3.py and its two trainings: an attention layer over a prompt's states gives the thought."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from baselines._writers import llm_texts
from baselines._writers.item_tokens import padded
from baselines._writers.llm_texts import micro_batch
from baselines._writers.soft_tokens import SoftTokens
from baselines._writers.step_training import Group, Steps, run_steps
from baselines._writers.title_ranking import ByTitle
from baselines._writers.title_search import Search, title_tokens
from benchmark.contract import Cases
from benchmark.provenance import derive_seed
from lm.kernels.attention import use_grouped_attention
from lm.kernels.token_logps import token_logps
from lm.writing.rollouts import pad_id
from r2ec.model.network import fork

ROTARY_BASE = 1000.0


class Thinker(nn.Module):
    """LatentR3's layer: one head of attention from the state that has read a prompt's last token to all of its states.

    Query, key and value are as wide as the LM and have a bias, scores are divided by sqrt(d), rotary positions are
    those of Llama over the whole width with base 1000; there is no output projection. It computes in float32.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        powers = torch.arange(0, width, 2).float() / width
        self.register_buffer("frequencies", ROTARY_BASE**-powers, persistent=False)
        self.frequencies: Tensor

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Thoughts, float32 [n, d], of prompts that end in the last column.

        states: [n, q, d]. mask: bool [n, q], True at real tokens.
        """
        states = states.float()
        angles = torch.arange(states.shape[1], device=states.device)[:, None] * self.frequencies
        query = _rotated(self.query(states[:, -1:]), angles[-1:])
        keys = _rotated(self.key(states), angles)
        scores = (query @ keys.transpose(1, 2))[:, 0] / states.shape[2] ** 0.5
        shares = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
        thoughts: Tensor = (shares[:, None] @ self.value(states))[:, 0]
        return thoughts

    @torch.no_grad()
    def resize(self, thoughts: Tensor, size: float) -> None:
        """Scale the value layer so that its output `thoughts`, [n, d], would have the root mean square `size`."""
        scale = size / thoughts.square().mean().sqrt()
        self.value.weight.mul_(scale)
        self.value.bias.mul_(scale)


def _rotated(x: Tensor, angles: Tensor) -> Tensor:
    """x [n, q, d] turned by angles [q, d / 2], the first half of the width against the second."""
    cos, sin = (part.repeat(1, 2) for part in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Thinking(nn.Module):
    """An LM and its thinker, which read prompt, thought and title.

    Without a thinker the thought is the embedding of the token `placeholder`.
    """

    def __init__(self, model: nn.Module, thinker: Thinker | None, placeholder: int) -> None:
        super().__init__()
        self.model, self.thinker, self.placeholder = model, thinker, placeholder

    @property
    def causal_lm(self) -> PreTrainedModel:
        return llm_texts.causal_lm_of(self.model)  # type: ignore[arg-type]

    def read(self, prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor, DynamicCache]:
        """Thoughts, float32 [n, d], behind n prompts; where tokens are, bool [n, q]; and the cache of the prompts."""
        # Padded on the left: backwards, and back again.
        backwards = padded([list(prompt)[::-1] for prompt in prompts], pad)
        ids, mask = (torch.from_numpy(part[:, ::-1].copy()).to(self.causal_lm.device) for part in backwards)
        cache = DynamicCache(config=self.causal_lm.config)
        states = self._run({"input_ids": ids}, mask, cache)
        if self.thinker is not None:
            return self.thinker(states, mask), mask, cache
        token = self.causal_lm.get_input_embeddings()(ids.new_full((1,), self.placeholder))
        return token.float().expand(len(prompts), -1), mask, cache

    def title_logps(
        self, thoughts: Tensor, mask: Tensor, cache: DynamicCache, titles: Sequence[Sequence[int]], pad: int
    ) -> Tensor:
        """log pi of each token of each title behind prompt and thought, float32 [N, longest title], 0 behind its end.

        thoughts: [N, d], N a multiple of the prompts in mask and cache: those of a prompt stand together, as do the
        titles.
        """
        times = len(thoughts) // len(mask)
        numbers, real = padded(titles, pad)
        ids, real_tokens = torch.from_numpy(numbers).to(mask.device), torch.from_numpy(real).to(mask.device)
        embedded = self.causal_lm.get_input_embeddings()(ids)
        inputs = torch.cat([thoughts[:, None].to(embedded.dtype), embedded[:, :-1]], dim=1)
        seen = torch.cat([mask.repeat_interleave(times, dim=0), mask.new_ones(len(ids), 1), real_tokens[:, :-1]], dim=1)
        states = self._run({"inputs_embeds": inputs}, seen, fork(cache, times))
        head = self.causal_lm.get_output_embeddings()
        softcap = self.causal_lm.config.to_dict().get("final_logit_softcapping")
        logps, _ = token_logps(states[real_tokens], head, ids[real_tokens], 1.0, softcap)
        return logps.new_zeros(ids.shape).masked_scatter(real_tokens, logps)

    def _run(self, inputs: dict[str, Tensor], mask: Tensor, cache: DynamicCache) -> Tensor:
        """Last hidden states of the inputs behind the cache, [n, q, d]; mask [n, cached + q]."""
        width = next(iter(inputs.values())).shape[1]
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -width:]
        out = self.causal_lm.get_decoder()(
            **inputs, attention_mask=mask.long(), position_ids=positions, past_key_values=cache, use_cache=True
        )
        states: Tensor = out.last_hidden_state
        return states


class ByThought(ByTitle):
    """A tuned LLM as a recommender with one latent thought before its answer: prompts end in the thought's id."""

    thinking: Thinking
    soft: SoftTokens

    def prompts(self, cases: Cases, messages: list[str]) -> list[list[int]]:
        """Prompts with the id V + row behind each, V the vocabulary's size and row the case's place."""
        return [[*ids, self.soft.first + row] for row, ids in enumerate(super().prompts(cases, messages))]

    def search(self, cases: Cases, messages: list[str], beams: int) -> Search:
        bare = [ids[:-1] for ids in self.prompts(cases, messages)]
        with torch.no_grad():
            thoughts = self.thinking.read(bare, pad_id(self.tokenizer))[0]
            with self.soft.reading(lambda rows: thoughts[rows]):
                return super().search(cases, messages, beams)


def _examples(recommender: ByThought, cases: Cases) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and titles of training cases, as token ids."""
    assert cases.target is not None
    of_item = title_tokens(recommender.tokenizer, recommender.builder.titles)
    prompts = [
        ids[:-1] for ids in recommender.prompts(cases, recommender.builder.user_messages(recommender.request, cases))
    ]
    return prompts, [of_item[target] for target in cases.target.tolist()]


def learn_to_think(
    recommender: ByThought, cases: Cases, steps: Steps, rate: float, thinker_rate: float, *, seed: int, folder: Path
) -> list[dict[str, float]]:
    """Stage 1: adapters and thinker learn the titles of these cases together.

    Returns for each step `loss`, the mean over the tokens of its titles and their ends.
    """
    model, pad = recommender.thinking, pad_id(recommender.tokenizer)
    if not torch.cuda.is_available():
        use_grouped_attention(model.causal_lm)
    prompts, titles = _examples(recommender, cases)

    def loss(step: int, rows: list[int], of_step: list[int]) -> tuple[Tensor, dict[str, float]]:
        own = [titles[row] for row in rows]
        logps = model.title_logps(*model.read([prompts[row] for row in rows], pad), own, pad)
        return -logps.sum() / sum(len(titles[row]) for row in of_step), {}

    thinker = [] if model.thinker is None else list(model.thinker.parameters())
    adapters = [parameter for parameter in model.model.parameters() if parameter.requires_grad]
    groups = [Group(adapters, rate)]
    groups += [Group(thinker, thinker_rate)] if thinker else []
    return run_steps(model, loss, groups, steps, seed=seed, folder=folder, name="thoughts")


def noises(seed: int, step: int, prompts: int, thoughts: int, width: int) -> Tensor:
    """Standard normal, float32 [prompts, thoughts, width], 0 for the first thought of each prompt."""
    drawn = np.random.default_rng(derive_seed(seed, "noise", step)).standard_normal(
        (prompts, thoughts, width), np.float32
    )
    drawn[:, 0] = 0
    return torch.from_numpy(drawn)


def advantages(rewards: Tensor) -> Tensor:
    """Rewards [prompts, thoughts] minus the mean reward of the first thoughts, which have no noise; over their norm.

    >>> out = advantages(torch.tensor([[-2.0, -1.0], [-4.0, -7.0]]))  # minus -3: 1, 2, -1, -4, whose norm is sqrt(22)
    >>> [[round(value, 4) for value in row] for row in out.tolist()]
    [[0.2132, 0.4264], [-0.2132, -0.8528]]
    """
    centred = rewards - rewards[:, 0].mean()
    return centred / (centred.norm() + 1e-6)


def reinforce(
    recommender: ByThought,
    cases: Cases,
    steps: Steps,
    rate: float,
    *,
    times: int,
    noise: float,
    seed: int,
    folder: Path,
) -> list[dict[str, float]]:
    """Stage 2: the thinker alone learns from noised thoughts, by how likely each makes the true title.

    times: thoughts of a prompt. noise: see `latent_r3.Params`. Returns for each step `loss`, `perplexity` of titles
    behind thoughts without noise, `noised`: behind the others, `better`: share of the others with a lower perplexity.
    """
    model = recommender.thinking
    assert model.thinker is not None
    frozen = [parameter for parameter in model.model.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    loss = _Reinforced(recommender, cases, steps, times, noise, seed).loss
    try:
        groups = [Group(list(model.thinker.parameters()), rate)]
        return run_steps(model, loss, groups, steps, seed=seed, folder=folder, name="reinforced thoughts")
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


class _Reinforced:
    """The loss of stage 2.

    No text is generated. A thought's reward is minus the perplexity of the title. The loss is minus its advantage times
    the ratio of each title token's likelihood to itself, the mean over tokens, so that the gradient is that of the
    log-likelihood. Advantages are those of the whole step; a step of several micro-batches reads its thoughts once
    more beforehand.
    """

    def __init__(self, recommender: ByThought, cases: Cases, steps: Steps, times: int, noise: float, seed: int) -> None:
        self.model, self.pad = recommender.thinking, pad_id(recommender.tokenizer)
        self.prompts, self.titles = _examples(recommender, cases)
        self.steps, self.times, self.noise, self.seed = steps, times, noise, seed
        # Perplexities of the present step, where it has several micro-batches.
        self.known: dict[int, Tensor] = {}

    def loss(self, step: int, rows: list[int], of_step: list[int]) -> tuple[Tensor, dict[str, float]]:
        """The loss of the rows of one micro-batch, and what is logged of them. of_step: the rows of the whole step."""
        logps = self._logps(step, rows, of_step)
        own = self._perplexities(logps, rows)
        whole = own if rows == of_step else self._of_the_step(step, of_step)
        advantage = advantages(-whole)[[row - of_step[0] for row in rows]].flatten()
        lengths = self._lengths(rows, logps).repeat_interleave(self.times)
        real = torch.arange(logps.shape[1], device=logps.device) < lengths[:, None]
        ratio = (logps - logps.detach()).exp() * real
        tokens = self.times * sum(len(self.titles[row]) for row in of_step)
        objective = -(advantage[:, None] * ratio).sum() / tokens
        better = (own[:, 1:] < own[:, :1]).float().mean()
        logged = {"perplexity": float(own[:, 0].mean()), "noised": float(own[:, 1:].mean())}
        return objective, logged | {"better": float(better)}

    def _logps(self, step: int, rows: list[int], of_step: list[int]) -> Tensor:
        """log pi of the titles of these rows, each behind each of its thoughts, [rows * times, longest title]."""
        thoughts, mask, cache = self.model.read([self.prompts[row] for row in rows], self.pad)
        sizes = thoughts.detach().square().mean(dim=1).sqrt()
        drawn = noises(self.seed, step, len(of_step), self.times, thoughts.shape[1])
        drawn = drawn[[row - of_step[0] for row in rows]]
        noised = thoughts[:, None] + self.noise * sizes[:, None, None] * drawn.to(thoughts.device)
        own = [self.titles[row] for row in rows for _ in range(self.times)]
        return self.model.title_logps(noised.flatten(0, 1), mask, cache, own, self.pad)

    def _perplexities(self, logps: Tensor, rows: list[int]) -> Tensor:
        """[rows, times]."""
        return (-logps.detach().sum(dim=1).view(-1, self.times) / self._lengths(rows, logps)[:, None]).exp()

    def _of_the_step(self, step: int, of_step: list[int]) -> Tensor:
        """The perplexities of all rows of a step, [rows, times], read once."""
        if step not in self.known:
            self.known.clear()
            size = micro_batch(self.steps.rows, self.steps.at_once)
            parts = [of_step[first : first + size] for first in range(0, len(of_step), size)]
            with torch.no_grad():
                self.known[step] = torch.cat(
                    [self._perplexities(self._logps(step, part, of_step), part) for part in parts]
                )
        return self.known[step]

    def _lengths(self, rows: list[int], like: Tensor) -> Tensor:
        """Tokens of the titles of these rows, int64 [rows]."""
        return torch.tensor([len(self.titles[row]) for row in rows], device=like.device)
