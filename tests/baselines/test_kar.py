"""Tests of KAR: adaptor and network by hand, which cases have knowledge, a task only texts solve, a killed fit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from baselines import kar
from baselines._knowledge import users
from baselines._knowledge.users import ByKnowledge, Knowing, Standard, none_first, sampled
from baselines._recbole import knowledge
from baselines._recbole.knowledge import ITEM, KNOWLEDGE, USER, HybridExperts, knowing_loss
from baselines._recbole.windows import Batch
from baselines._writers.llm_texts import Text, Writer
from baselines._writers.sentences import item_texts
from baselines.kar import fit
from benchmark.contract import Cases, Recommender, Split
from tests.support.interrupting import interrupt
from tests.support.planted import N_ITEMS, as_split, planted, prepare_planted
from tests.support.tiny_encoders import encoder_in
from tests.support.tiny_fits import backbone_in, split
from tests.support.tiny_tokenizers import tiny_tokenizer

CASES = np.arange(9)


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    backbone = backbone_in(folder)
    encoder = encoder_in(folder)
    return {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "encoder": str(encoder),
        "texts": str(folder / "texts"),
        "max_new_tokens": 3,
        "max_items": 3,
        "cases": 40,
        "epochs": 1,
        "item_knowledge": "attributes",
    } | changes


def scored(method: Recommender, cases: Cases) -> np.ndarray:
    return np.concatenate(list(method.score(replace(cases, target=None))))


def test_the_adaptor_by_hand() -> None:
    torch.manual_seed(0)
    adaptor = HybridExperts(width=4, out=3, size=5, shared=2, own=1, dropout=0.5).eval()
    vectors = torch.randn(6, 4)
    for side in (ITEM, USER):
        experts = [*adaptor.shared, *adaptor.own[side]]
        assert len(experts) == 3
        weights = torch.softmax(vectors @ adaptor.gates[side].weight.T + adaptor.gates[side].bias, dim=1)
        expected = torch.zeros(6, 3)
        for at, expert in enumerate(experts):
            first, last = expert[0], expert[3]
            hidden = torch.clamp(vectors @ first.weight.T + first.bias, min=0)
            expected += weights[:, at : at + 1] * (hidden @ last.weight.T + last.bias)
        torch.testing.assert_close(adaptor(vectors, side), expected)
    assert not torch.allclose(adaptor(vectors, ITEM), adaptor(vectors, USER))


def test_each_side_learns_the_shared_experts_and_its_own() -> None:
    adaptor = HybridExperts(width=4, out=3, size=5, shared=2, own=2, dropout=0.0)
    adaptor(torch.randn(6, 4), USER).sum().backward()

    def moved(part: torch.nn.Module) -> bool:
        return all(parameter.grad is not None for parameter in part.parameters())

    assert moved(adaptor.shared) and moved(adaptor.own[USER]) and moved(adaptor.gates[USER])
    for part in (adaptor.own[ITEM], adaptor.gates[ITEM]):
        assert all(parameter.grad is None for parameter in part.parameters())


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> ByKnowledge:
    folder = tmp_path_factory.mktemp("kar")
    return fit(split(), seed=1, params=settings(folder), workdir=folder / "work")


def test_knowledge_is_added_to_items_and_states(recommender: ByKnowledge) -> None:
    net, data = recommender.trained.net.eval(), split()
    adaptor = net.adaptor
    # Items: the id's vector plus the adaptor's, nothing for padding.
    items = Standard(recommender.knowledge.of_items(written=False)).known
    own = net.item_embedding.parametrizations.weight.original
    with torch.no_grad():
        table, known = net.item_embedding.weight, adaptor(items, ITEM)
    torch.testing.assert_close(table[1:], own[1:] + known)
    assert float(known.abs().max()) > 1e-3 and torch.equal(table[0], own[0])
    # Users: the state plus the adaptor's.
    users = recommender.standard(recommender.knowledge.of_cases(data.valid.take(CASES[:2])))
    history, lengths = torch.tensor([[5, 9, 0], [7, 0, 0]]), torch.tensor([2, 1])
    with torch.no_grad():
        user_scores = net.full_sort_predict({"item_id_list": history, "item_length": lengths, KNOWLEDGE: users})
        torch.testing.assert_close(user_scores, (net.forward(history, lengths) + adaptor(users, USER)) @ table.T)
    assert float((users[0] - users[1]).abs().max()) > 1e-4


def test_the_loss_adds_each_cases_own_text_or_a_learned_vector(recommender: ByKnowledge) -> None:
    """The loss equals a loop over cases. Two cases of one context have one history and share one text."""
    net = recommender.trained.net.eval()
    vectors = none_first(torch.randn(2, recommender.standard.known.shape[1]))
    batch = Batch(
        items=torch.tensor([[5, 9, 3], [7, 0, 0]]),
        places=torch.tensor([0, 2, 3]),
        state_of=torch.tensor([0, 1, 1, 2]),
        target=torch.tensor([9, 4, 8, 6]),
        case=torch.tensor([11, 3, 7, 2]),
    )
    row_of = torch.zeros(12, dtype=torch.int64)
    row_of[[7, 2]] = torch.tensor([2, 1])
    with torch.no_grad():
        net.no_text += 0.3
        expected = []
        for history, row, target in (([5], 0, 9), ([5, 9, 3], 2, 4), ([5, 9, 3], 2, 8), ([7], 1, 6)):
            items = torch.tensor([history + [0] * (3 - len(history))])
            state = net.forward(items, torch.tensor([len(history)]))
            state = state + (net.adaptor(vectors[row : row + 1], USER) if row else net.no_text)
            logits = state @ net.item_embedding.weight.T
            expected.append(torch.nn.functional.cross_entropy(logits, torch.tensor([target])))
        torch.testing.assert_close(knowing_loss(row_of, vectors)(net, batch), torch.stack(expected).mean())
        net.no_text -= 0.3


def test_scores_are_those_of_the_cases_own_texts(recommender: ByKnowledge) -> None:
    cases = split().valid.take(CASES)
    item_scores = scored(recommender, cases)
    texts = recommender.texts()
    assert texts["case"].tolist() == cases.case.tolist() and recommender.tokens_written() >= len(cases)
    assert "considering kind, theme" in texts["prompt"][0] and "Thing, number" in texts["prompt"][0]
    vectors = recommender.standard(recommender.knowledge.of_cases(cases))
    expected = scored(Knowing(recommender.trained, vectors), cases)
    np.testing.assert_allclose(item_scores, expected, rtol=1e-5, atol=1e-5)
    swapped = scored(Knowing(recommender.trained, vectors.roll(1, dims=0)), cases)
    assert np.abs(swapped - expected).max() > 1e-4


def test_only_the_sampled_training_cases_have_knowledge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampled case's row is that of its own text; every other case has row 0."""
    loss_arguments: list[Any] = []

    def stop(row_of: Any, vectors: Any) -> Any:
        loss_arguments.extend([row_of, vectors])
        raise KeyboardInterrupt

    monkeypatch.setattr(knowledge, "knowing_loss", stop)
    prompts_written: list[int] = []
    write = Writer.write
    monkeypatch.setattr(
        Writer, "write", lambda self, prompts, desc: prompts_written.append(len(prompts)) or write(self, prompts)
    )
    data = replace(split(), valid=split().valid.take(CASES))
    with pytest.raises(KeyboardInterrupt):
        fit(data, seed=1, params=settings(tmp_path), workdir=tmp_path / "work")
    assert prompts_written == [40, len(CASES)]  # attributes: nothing is written about items
    row_of, vectors = loss_arguments
    chosen = sampled(data, 40)
    assert chosen.tolist() == sorted(set(chosen.tolist())) and len(chosen) == 40
    assert row_of[chosen].tolist() == list(range(1, 41)) and int((row_of > 0).sum()) == 40
    assert len(row_of) == len(data.train) and len(vectors) == 41 and not vectors[0].any()
    assert sampled(data, 10**6).tolist() == list(range(len(data.train)))
    llm_rows = np.arange(5, 95, 3)  # those that an LLM may read
    assert set(sampled(replace(data, llm_rows=llm_rows), 20)) < set(llm_rows)
    assert sampled(replace(data, llm_rows=llm_rows), 10**6).tolist() == llm_rows.tolist()


def random_lines() -> Split:
    """Users take the items in an order that has nothing to do with them: only a text can tell the next one."""
    raw, draw = planted(n_users=80), np.random.default_rng(0)
    drawn = [draw.permutation(N_ITEMS)[:16] for _ in range(80)]
    raw.interactions["item_id"] = [f"i{item}" for item in np.concatenate(drawn)]
    return as_split(prepare_planted(raw))


def test_a_text_that_names_the_target_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the LLM writes of a user the target's own text, and of an item its text again."""
    data = random_lines()
    names = item_texts(data.items, tiny_tokenizer("llama"))
    text_of: dict[tuple[int, ...], str] = {}

    def write(self: Writer, prompts: Sequence[Sequence[int]], desc: str) -> list[Text]:
        if desc == "writing about items":
            return [Text(name, 1, False, 0.5) for name in names]
        return [Text(text_of[tuple(prompt)], 2, False, 0.5) for prompt in prompts]

    monkeypatch.setattr(Writer, "write", write)
    chosen = settings(tmp_path, item_knowledge="written", max_items=20, cases=10**6, epochs=20, patience=20)
    chosen |= {"learning_rate": 0.01, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2, "train_batch_size": 64}
    writer = Writer(kar.Params.model_validate(chosen).backbone, 3, tmp_path / "texts")
    knowledge_of = users.Knowledge(data, kar.Params.model_validate(chosen), writer, None)  # type: ignore[arg-type]
    monkeypatch.setattr(knowledge_of, "_write", lambda messages, desc: messages)
    monkeypatch.setattr(knowledge_of, "encoder", SimpleNamespace(encode=lambda messages, desc: messages))
    for cases in (data.train, data.valid):
        assert cases.target is not None
        for message, target in zip(knowledge_of.of_cases(cases), cases.target.tolist(), strict=True):
            text_of[tuple(writer.prompt(message))] = names[target]
    method = fit(data, seed=1, params=chosen, workdir=tmp_path / "work")
    scores = scored(method, data.valid)
    target = data.valid.target
    assert target is not None
    hits = (scores.argmax(axis=1) == target).mean()
    # The same network that is told of no user finds the target by luck: one in 60.
    none = torch.zeros(len(data.valid), method.standard.known.shape[1])
    blind = (scored(Knowing(method.trained, none), data.valid).argmax(axis=1) == target).mean()
    assert hits > 0.7 and blind < 0.1
    assert method.report()["writing_seconds"] == (len(data.train) + len(data.valid)) * 0.5 + 30


def test_a_killed_fit_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the second epoch, then fitted again: no text is written again."""
    cases = split().valid.take(CASES)
    params = settings(tmp_path, epochs=2)
    whole = fit(split(), seed=3, params=params, workdir=tmp_path / "whole")
    expected = scored(whole, cases)
    elsewhere = params | {"texts": str(tmp_path / "others")}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, users, "validation_ndcg", call=2)
        fit(split(), seed=3, params=elsewhere, workdir=tmp_path / "broken")
    monkeypatch.setattr(Writer, "_generate", lambda self, prompts: pytest.fail("written twice"))
    again = fit(split(), seed=3, params=elsewhere, workdir=tmp_path / "broken")
    np.testing.assert_array_equal(scored(again, cases), expected)
    curve = "valid_ndcg@10_by_epoch"
    assert again.report()[curve] == whole.report()[curve] and len(whole.report()[curve]) == 2


def test_vectors_are_standardised_by_those_of_the_fit() -> None:
    standard = Standard(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert standard.known.tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    assert standard(torch.tensor([[4.0, 5.0]])).tolist() == [[2.0, 0.0]]
