"""Tests of LatentR3: the thought by its formula, log-probabilities and gradients, which weights each stage trains."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines._writers.latent_thought import ByThought, Thinker, Thinking, advantages, noises
from baselines.latent_r3 import fit, rows_of_stages
from benchmark.contract import Cases
from tests.support.tiny_fits import backbone_in, split
from tests.support.tiny_models import FAMILIES
from tests.support.tiny_tokenizers import tiny_lm

CASES = np.arange(5)
PROMPTS = [[5, 6, 7, 8, 9, 10], [5, 6, 9], [11, 12, 13, 14]]
TITLES = [[20, 21, 2], [22, 2], [23, 24, 25, 2]]


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    backbone = backbone_in(folder)
    return {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "max_items": 3,
        "users_per_step": 4,
        "at_once": 2,
        "max_steps": 1,
        "thought_steps": 3,
        "rl_steps": 3,
        "rl_rate": 1e-2,
        "thoughts": 3,
        "save_steps": 2,
        "placeholder": "<bos>",
        "tunings": str(folder / "tunings"),
    } | changes


def scored(method: ByThought, cases: Cases) -> np.ndarray:
    return np.concatenate(list(method.score(replace(cases, target=None))))


def test_the_thought_is_one_head_of_attention_over_the_whole_prompt() -> None:
    """The thought equals a loop over tokens with the rotation written out; padding on the left changes nothing."""
    torch.manual_seed(0)
    thinker, states = Thinker(6), torch.randn(1, 4, 6)

    def turned(x: torch.Tensor, at: int) -> torch.Tensor:
        out = torch.empty(6)
        for i in range(3):
            angle = torch.tensor(at * 1000.0 ** (-2 * i / 6))
            a, b = x[i], x[i + 3]
            out[i], out[i + 3] = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
        return out

    with torch.no_grad():
        query = turned(thinker.query(states[0, 3]), 3)
        scores = torch.stack([query @ turned(thinker.key(states[0, at]), at) for at in range(4)]) / 6**0.5
        expected = scores.softmax(dim=0) @ thinker.value(states[0])
        torch.testing.assert_close(thinker(states, torch.ones(1, 4, dtype=torch.bool))[0], expected)
        padded = torch.cat([torch.full((1, 3, 6), 9.0), states], dim=1)
        mask = torch.tensor([[False] * 3 + [True] * 4])
        torch.testing.assert_close(thinker(padded, mask)[0], expected)
        thinker.resize(expected[None], 0.25)
        resized = thinker(states, torch.ones(1, 4, dtype=torch.bool))
    assert float(resized.square().mean().sqrt()) == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_titles_behind_thoughts_are_as_likely_as_a_plain_forward_says(family: str) -> None:
    model = tiny_lm(family)
    thinking = Thinking(model, Thinker(model.config.hidden_size), 7)
    with torch.no_grad():
        thoughts, mask, cache = thinking.read(PROMPTS, 0)
        twice = thoughts.repeat_interleave(2, dim=0)
        twice[1::2] += 0.5
        logps = thinking.title_logps(twice, mask, cache, [title for title in TITLES for _ in range(2)], 0)
        for row in range(6):
            prompt, title = PROMPTS[row // 2], TITLES[row // 2]
            embedding = model.get_input_embeddings()
            parts = [embedding(torch.tensor(prompt)), twice[row : row + 1], embedding(torch.tensor(title))]
            logits = model(inputs_embeds=torch.cat(parts)[None]).logits[0, len(prompt) : -1].log_softmax(dim=-1)
            expected = logits[torch.arange(len(title)), torch.tensor(title)]
            torch.testing.assert_close(logps[row, : len(title)], expected, rtol=1e-3, atol=1e-3)
            assert not logps[row, len(title) :].any()


def test_gradients_by_a_thought_are_finite_differences() -> None:
    model = tiny_lm("llama").double().requires_grad_(False)
    thinking = Thinking(model, None, 7)
    thoughts, mask, cache = thinking.read(PROMPTS[:1], 0)
    direction = torch.randn(thoughts.shape, generator=torch.Generator().manual_seed(1)).double()

    def value(step: float) -> torch.Tensor:
        at = (thoughts.double() + step * direction).requires_grad_()
        ids, width = torch.tensor([[*PROMPTS[0]]]), len(PROMPTS[0])
        embedding = model.get_input_embeddings()
        inputs = torch.cat([embedding(ids), at[:, None], embedding(torch.tensor([TITLES[0]]))], dim=1)
        logits = model(inputs_embeds=inputs).logits[0, width:-1].log_softmax(dim=-1)
        total: torch.Tensor = logits[torch.arange(3), torch.tensor(TITLES[0])].sum()
        return total

    difference = float(value(1e-3).detach() - value(-1e-3).detach()) / 2e-3
    input_thoughts = thoughts.double().requires_grad_()
    thinking.title_logps(input_thoughts, mask, cache, TITLES[:1], 0).sum().backward()
    assert input_thoughts.grad is not None and float((input_thoughts.grad * direction).sum()) == pytest.approx(
        difference, rel=1e-2
    )


def test_advantages_by_hand() -> None:
    values = advantages(torch.tensor([[-2.0, -1.0], [-4.0, -7.0]]))
    torch.testing.assert_close(values, torch.tensor([[1.0, 2.0], [-1.0, -4.0]]) / 22**0.5)
    # Without noise all thoughts of a prompt are equal: each has the prompt's own reward less the mean of the prompts'.
    torch.testing.assert_close(
        advantages(torch.tensor([[-1.0, -1.0], [-3.0, -3.0]])), torch.tensor([[0.5, 0.5], [-0.5, -0.5]])
    )


def test_the_first_thought_has_no_noise_and_steps_have_their_own() -> None:
    drawn = noises(1, 0, 50, 3, 40)
    assert not drawn[:, 0].any() and float(drawn[:, 1:].std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(drawn, noises(1, 0, 50, 3, 40)) and not torch.equal(drawn, noises(1, 1, 50, 3, 40))


def test_stage_two_moves_the_thinker_alone(tmp_path: Path) -> None:
    data, cases = split(), split().valid.take(CASES)
    first = fit(data, seed=1, params=settings(tmp_path, rl_steps=0), workdir=tmp_path / "first")
    both = fit(data, seed=1, params=settings(tmp_path), workdir=tmp_path / "both")
    for (name, one), other in zip(first.model.named_parameters(), both.model.named_parameters(), strict=True):
        assert torch.equal(one, other[1]), name
    assert first.thinking.thinker is not None and both.thinking.thinker is not None
    pairs = zip(first.thinking.thinker.parameters(), both.thinking.thinker.parameters(), strict=True)
    assert sum(not torch.equal(one, other) for one, other in pairs) >= 4
    assert first.report()["reinforced"] == [] and len(both.report()["reinforced"]) == 3
    assert [len(both.report()[name]) for name in ("losses", "thoughts")] == [1, 3]
    assert all(step["perplexity"] > 1 and 0 <= step["better"] <= 1 for step in both.report()["reinforced"])
    # A thought of its own in each prompt: another thinker ranks otherwise.
    other = copy.copy(both)
    other.thinking = Thinking(both.model, None, both.thinking.placeholder)
    assert not np.array_equal(scored(both, cases), scored(other, cases))


def test_a_position_without_content_has_no_stage_two(tmp_path: Path) -> None:
    recommender = fit(split(), seed=1, params=settings(tmp_path, thought="token"), workdir=tmp_path / "work")
    assert recommender.report()["reinforced"] == [] and len(recommender.report()["thoughts"]) == 3
    assert recommender.thinking.thinker is None and np.isfinite(scored(recommender, split().valid.take(CASES))).any()


def test_each_stage_has_rows_of_its_own() -> None:
    from baselines.latent_r3 import Params

    chosen = Params.model_validate({"backbone": {"name": "x"}, "users_per_step": 5, "thought_steps": 3, "rl_steps": 2})
    first, second = rows_of_stages(split(), chosen, 1)
    assert (len(first), len(second)) == (15, 10) and not set(first.tolist()) & set(second.tolist())


def test_it_learns_to_make_a_title_likelier_by_thoughts_alone(tmp_path: Path) -> None:
    """The LM stays as it is; with noise as its only teacher the thinker makes the title of a prompt likelier.

    Of several prompts it favours those that are easy already: the baseline is that of all.
    """
    params = settings(tmp_path, max_steps=0, thought_steps=0, rl_steps=12, thoughts=8, noise=0.3, users_per_step=1)
    one_case = replace(split(), llm_rows=np.arange(7, 8))
    perplexities = [
        step["perplexity"] for step in fit(one_case, seed=1, params=params, workdir=tmp_path).report()["reinforced"]
    ]
    assert np.mean(perplexities[-5:]) < 0.9 * np.mean(perplexities[:3])


def test_advantages_are_of_the_step_whatever_its_micro_batches_are(tmp_path: Path) -> None:
    recommenders = [
        fit(split(), seed=1, params=settings(tmp_path, rl_at_once=at_once), workdir=tmp_path / f"work{at_once}")
        for at_once in (4, 2)
    ]
    parameters = [recommender.thinking.thinker.parameters() for recommender in recommenders]  # type: ignore[union-attr]
    for whole_step, in_micro_batches in zip(*parameters, strict=True):
        torch.testing.assert_close(whole_step, in_micro_batches, rtol=1e-3, atol=1e-4)
    losses = [[step["loss"] for step in recommender.report()["reinforced"]] for recommender in recommenders]
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)
