"""Tests of LLaRA: item tokens in prompts, the curriculum, a task that only item tokens solve, a killed fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from baselines import llara
from baselines._writers import item_tokens, llm_texts, step_training
from baselines._writers.item_tokens import ByHybridPrompt, Projector, is_hybrid, title_logps
from baselines.llara import Params, fit, item_vectors
from benchmark.contract import Cases, Recommender
from lm import backbone as backbones
from lm.chat import prompt_ids
from r2ec.model.network import R2ec
from tests.support.interrupting import interrupt
from tests.support.tiny_fits import backbone_in, split
from tests.support.tiny_tokenizers import tiny_tokenizer
from tests.support.worded import WORDS, N, planted_writer, worded_split

CASES = np.arange(7)


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    backbone = backbone_in(folder)
    return {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "sasrec": [{"epochs": 1}],
        "max_items": 3,
        "users_per_step": 4,
        "at_once": 2,
        "max_steps": 1,
        "hybrid_steps": 4,
        "save_steps": 2,
        "hybrid_rate": 1e-2,
        "projector_rate": 1e-2,
        "placeholder": "<bos>",
        "tunings": str(folder / "tunings"),
    } | changes


def scored(method: Recommender, cases: Cases) -> np.ndarray:
    return np.concatenate(list(method.score(replace(cases, target=None))))


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> ByHybridPrompt:
    folder = tmp_path_factory.mktemp("llara")
    return fit(split(), seed=1, params=settings(folder), workdir=folder / "work")


def test_each_title_is_followed_by_its_items_token(recommender: ByHybridPrompt) -> None:
    cases = split().valid.take(CASES)
    messages = recommender.builder.user_messages(recommender.request, cases)
    recommender.builder.mark = ""
    plain = [
        prompt_ids(recommender.tokenizer, message)
        for message in recommender.builder.user_messages(recommender.request, cases)
    ]
    recommender.builder.mark = "<bos>"
    vocabulary = len(recommender.tokenizer)
    for i, ids in enumerate(recommender.prompts(cases, messages)):
        shown = cases.history(i)[-3:].tolist()
        assert [token - vocabulary for token in ids if token >= vocabulary] == shown
        assert [token for token in ids if token < vocabulary] == plain[i]
        before = recommender.tokenizer.decode(ids[: next(at for at, token in enumerate(ids) if token >= vocabulary)])
        assert before.endswith(f"- Thing, number {split().items['title'][shown[0]].split()[-1]}")


def test_the_projector_begins_as_large_as_tokens_are() -> None:
    projector = Projector(torch.randn(50, 6), 32, 0.136)
    with torch.no_grad():
        tokens = projector(torch.arange(50))
    assert tokens.shape == (50, 32) and float(tokens.square().mean().sqrt()) == pytest.approx(0.136, rel=1e-5)
    assert float(tokens.std(dim=0).mean()) > 0.01  # items differ
    assert len(list(projector.parameters())) == 4 and not projector.items.requires_grad


def test_item_vectors_are_sasrecs_and_shuffled_they_are_anothers(recommender: ByHybridPrompt) -> None:
    class Fitted:
        net = nn.Module()

    Fitted.net.item_embedding = nn.Embedding(61, 4)
    weight = Fitted.net.item_embedding.weight[1:].detach()
    assert torch.equal(item_vectors(Fitted, 60, None), weight)
    shuffled = item_vectors(Fitted, 60, 3)
    assert not torch.equal(shuffled, weight) and torch.equal(shuffled.sort(dim=0).values, weight.sort(dim=0).values)


def test_hybrid_steps_come_with_probability_t_of_t() -> None:
    steps, seeds = 40, 300
    drawn = np.array([[is_hybrid(step, steps, seed) for step in range(steps)] for seed in range(seeds)])
    assert not drawn[:, 0].any()
    # (T - 1) / 2 in the mean; the variance of a step is p (1 - p).
    spread = (sum(t / steps * (1 - t / steps) for t in range(steps)) / seeds) ** 0.5
    assert drawn.sum(axis=1).mean() == pytest.approx((steps - 1) / 2, abs=5 * spread)
    assert drawn[:, 30:].mean() > drawn[:, :10].mean() + 0.5


def test_the_projector_learns_in_hybrid_steps_alone(recommender: ByHybridPrompt) -> None:
    net, cases = R2ec(recommender.model), split().valid.take(CASES[:3])
    prompts = recommender.prompts(cases, recommender.builder.user_messages(recommender.request, cases))
    logps_of_kind = []
    for vectors in (None, recommender.projector):
        recommender.model.zero_grad()
        recommender.projector.zero_grad()
        with recommender.soft.reading(vectors):
            logps = title_logps(net, prompts, [[5, 6], [7, 8, 9], [5]], 0)
            logps.sum().backward()
        logps_of_kind.append(logps.detach())
        moved = [
            parameter.grad is not None and bool(parameter.grad.any())
            for parameter in recommender.projector.parameters()
        ]
        assert moved == [vectors is not None] * 4
        assert any(
            parameter.grad is not None and bool(parameter.grad.any()) for parameter in recommender.model.parameters()
        )
    assert (logps_of_kind[0] != 0).tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert not torch.allclose(logps_of_kind[0], logps_of_kind[1])
    # As a plain forward of the same prompts with the placeholder in them says.
    ids = [token if token < recommender.soft.first else recommender.soft.placeholder for token in prompts[1]]
    with torch.no_grad():
        logits = recommender.model(torch.tensor([[*ids, 7, 8, 9]])).logits[0, len(ids) - 1 : -1].log_softmax(dim=-1)
    torch.testing.assert_close(
        logps_of_kind[0][1], logits[torch.arange(3), torch.tensor([7, 8, 9])], rtol=1e-3, atol=1e-4
    )


def test_the_report_has_each_hybrid_step_and_the_sasrec(recommender: ByHybridPrompt) -> None:
    report = recommender.report()
    assert [step["hybrid"] for step in report["hybrid"]] == [float(is_hybrid(step, 4, 1)) for step in range(4)]
    assert all(step["loss"] > 0 for step in report["hybrid"]) and len(report["losses"]) == 1
    assert report["sasrec"]["epochs"] == 1 and report["sasrec_tried"] == [] and recommender.learned() is None


class Vectors(Recommender):
    """Stands in for SASRec: each item has a random vector, by which it can be told from the others."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Module()
        self.net.item_embedding = nn.Embedding(N + 1, 8)

    def score(self, cases: Cases) -> Any:
        raise AssertionError("nobody asks it for scores")


def test_it_learns_what_only_item_tokens_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every title of a history is the same, so only the last item's token says which item comes next."""
    loaded = backbones.Backbone(planted_writer(), tiny_tokenizer("llama"))
    monkeypatch.setattr(backbones, "load", lambda settings: loaded)
    monkeypatch.setattr(backbones, "add_lora", lambda model, settings: model)
    monkeypatch.setattr(llara, "REQUEST", "My {several}:\n{history}")
    monkeypatch.setattr(llara, "fit_best", lambda split, tried, **_: (Vectors(), []))
    monkeypatch.setattr(llm_texts.MessageBuilder, "shown", lambda self, cases, i: ["a thing"])
    data = replace(worded_split(), items=worded_split().items.assign(title=WORDS))
    params = {"backbone": {"name": "planted"}, "beams": N, "tunings": str(tmp_path / "tunings"), "max_steps": 0}
    params |= {"users_per_step": 16, "at_once": 16, "save_steps": 1000, "placeholder": "<bos>"}
    params |= {"hybrid_steps": 80, "hybrid_rate": 0.02, "projector_rate": 0.02}
    method = fit(data, seed=1, params=params, workdir=tmp_path)
    cases = data.valid.take(np.arange(60))
    assert cases.target is not None
    hits = (scored(method, cases).argmax(axis=1) == cases.target).mean()
    losses = [step["loss"] for step in method.report()["hybrid"]]
    # Without the tokens every case is alike.
    monkeypatch.setattr(method, "projector", None)
    blind = (scored(method, cases).argmax(axis=1) == cases.target).mean()
    assert hits > 0.6 and blind < 0.25
    assert len(losses) == 80 and losses[-1] < 0.5 * losses[0]


def test_a_killed_fit_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in step 3, behind the checkpoint of step 2, then fitted again."""
    cases = split().valid.take(CASES)
    whole = fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "whole")
    expected = scored(whole, cases)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, step_training.StepTrainer, "training_step", call=6)  # two micro-batches a step
        fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    hybrid = tmp_path / "broken" / "hybrid"
    assert [path.name for path in hybrid.glob("checkpoint-*")] == ["checkpoint-2"]
    again = fit(split(), seed=3, params=settings(tmp_path), workdir=tmp_path / "broken")
    np.testing.assert_array_equal(scored(again, cases), expected)
    assert again.report() == whole.report()


def test_a_step_weighs_tokens_alike_whatever_its_micro_batches_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step's logged loss is the mean over the tokens of all of its titles."""
    losses = []
    for at_once in (4, 1):
        params = settings(tmp_path, at_once=at_once, hybrid_steps=2)
        params["tunings"] = str(tmp_path / f"tunings{at_once}")
        params["max_steps"] = 0
        recommender = fit(split(), seed=3, params=params, workdir=tmp_path / f"work{at_once}")
        losses.append([step["loss"] for step in recommender.report()["hybrid"]])
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def test_the_second_stage_draws_as_many_rows_as_its_steps_take() -> None:
    chosen = Params.model_validate({"backbone": {"name": "x"}, "hybrid_steps": 3, "users_per_step": 5})
    rows = llara.rows_of_second_stage(split(), chosen, 1)
    assert len(rows) == len(set(rows.tolist())) == 15 and item_tokens.padded([[1], [2, 3]], 0)[0].tolist() == [
        [1, 0],
        [2, 3],
    ]
