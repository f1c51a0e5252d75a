"""KAR: the adaptor and the network by hand, who has knowledge, what only knowledge can tell, a killed fit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from baselines import _recbole_training, kar
from baselines._knowledge import ITEM, USER, HybridExperts
from baselines._llm import Text, Writer
from baselines._recbole_training import Interaction
from baselines._sentences import item_texts
from baselines.kar import KAR, Standard, fit, sampled
from benchmark.contract import Cases, Recommender, Split
from tests.tiny_encoders import write_encoder
from tests.tiny_fits import split, write_backbone
from tests.tiny_tokenizers import tiny_tokenizer

CASES = np.arange(9)


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    backbone = folder / "llm" if (folder / "llm").exists() else write_backbone(folder / "llm")
    encoder = folder / "encoder" if (folder / "encoder").exists() else write_encoder(folder / "encoder")
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
def made(tmp_path_factory: pytest.TempPathFactory) -> KAR:
    folder = tmp_path_factory.mktemp("kar")
    return fit(split(), seed=1, params=settings(folder), workdir=folder / "work")


def test_knowledge_is_added_to_items_and_states(made: KAR) -> None:
    net, trained, data = made.trained.net.eval(), made.trained, split()
    adaptor = net.adaptor
    # Items: the id's vector plus the adaptor's, in RecBole's order, nothing for padding.
    items = Standard(made.knowledge.of_items()).known
    own = net.item_embedding.parametrizations.weight.original
    with torch.no_grad():
        table, known = net.item_embedding.weight, adaptor(items, ITEM)
    torch.testing.assert_close(table[torch.from_numpy(trained.inner)], own[trained.inner] + known)
    assert float(known.abs().max()) > 1e-3 and torch.equal(table[0], own[0])
    # Users: the state plus the adaptor's, or the learned vector for row 0.
    users = made.standard(made.knowledge.of_cases(data.valid.take(CASES[:2])))
    net.users = kar.none_first(users)
    history = torch.tensor([[5, 9, 0], [7, 0, 0], [5, 9, 0]])
    fields = {"item_id_list": history, "item_length": torch.tensor([2, 1, 2]), "row": torch.tensor([2.0, 1.0, 0.0])}
    with torch.no_grad():
        found = net.full_sort_predict(Interaction(fields))
        states = net.forward(history, fields["item_length"])
        users = torch.stack([*adaptor(users, USER).flip(0), net.nothing])
        torch.testing.assert_close(found, (states + users) @ table.T)
    assert net.nothing.abs().max() > 0 and not torch.allclose(found[0], found[2])
    assert float((users[0] - users[1]).abs().max()) > 1e-4


def test_scores_are_those_of_the_cases_own_texts(made: KAR) -> None:
    cases = split().valid.take(CASES)
    found = scored(made, cases)
    texts = made.texts()
    assert texts["case"].tolist() == cases.case.tolist() and made.tokens_written() >= len(cases)
    assert "considering kind, theme" in texts["prompt"][0] and "Thing, number" in texts["prompt"][0]
    made.trained.net.users = kar.none_first(made.standard(made.knowledge.of_cases(cases)))
    expected = made.trained.scores_of(cases, 1 + CASES)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    others = made.trained.scores_of(cases, 1 + np.roll(CASES, 1))
    assert np.abs(others - expected).max() > 1e-4


def test_a_sample_of_the_training_cases_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each known case's row is that of its own text; of the others it is 0; validation cases are all known."""
    given: dict[str, Any] = {}

    def train(*arguments: Any) -> Any:
        given["rows"] = arguments[-1]
        raise KeyboardInterrupt

    monkeypatch.setattr(_recbole_training, "train", train)
    asked: list[int] = []
    write = Writer.write
    monkeypatch.setattr(Writer, "write", lambda self, prompts, desc: asked.append(len(prompts)) or write(self, prompts))
    data = replace(split(), valid=split().valid.take(CASES))
    with pytest.raises(KeyboardInterrupt):
        fit(data, seed=1, params=settings(tmp_path), workdir=tmp_path / "work")
    assert asked == [40, len(CASES)]  # attributes: nothing is written about items
    train_rows, valid_rows = given["rows"]
    chosen = sampled(data, 40)
    assert chosen.tolist() == sorted(set(chosen.tolist())) and len(chosen) == 40
    assert train_rows[chosen].tolist() == list(range(1, 41)) and (train_rows > 0).sum() == 40
    assert valid_rows.tolist() == list(range(41, 41 + len(CASES)))
    assert sampled(data, 10**6).tolist() == list(range(len(data.train)))


def test_rows_reach_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training case comes with the row that it was given, in whatever order RecBole shuffles them."""
    from baselines._knowledge import KnowingSASRec

    seen: list[tuple[int, int]] = []
    loss = KnowingSASRec.calculate_loss

    def watched(self: Any, interaction: Any) -> Any:
        numbers = self.numbers[interaction["item_id"]]
        seen.extend(zip(numbers.tolist(), interaction["row"].long().tolist(), strict=True))
        return loss(self, interaction)

    monkeypatch.setattr(KnowingSASRec, "calculate_loss", watched)
    begin = KnowingSASRec.__init__

    def numbered(self: Any, config: Any, dataset: Any, *others: Any) -> None:
        begin(self, config, dataset, *others)
        tokens = dataset.field2id_token["item_id"]
        self.numbers = torch.tensor([-1, *(int(token) for token in tokens[1:])])

    monkeypatch.setattr(KnowingSASRec, "__init__", numbered)
    data = split()
    fit(data, seed=1, params=settings(tmp_path), workdir=tmp_path / "work")
    assert data.train.target is not None
    rows = np.zeros(len(data.train), dtype=int)
    rows[sampled(data, 40)] = 1 + np.arange(40)
    assert sorted(seen) == sorted(zip(data.train.target.tolist(), rows.tolist(), strict=True))


def random_targets() -> Split:
    """The planted histories with targets that have nothing to do with them: only a text can tell."""
    data = split()
    draw = np.random.default_rng(0)
    parts = {}
    for name, cases in (("train", data.train.take(np.arange(500, 1300))), ("valid", data.valid)):
        free = [np.setdiff1d(np.arange(data.n_items), cases.history(i)) for i in range(len(cases))]
        parts[name] = replace(cases, target=np.array([draw.choice(some) for some in free], dtype=np.int32))
    return replace(data, **parts)


def test_a_text_that_names_the_target_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the LLM writes of a user the target's own text, and of an item its text again."""
    data = random_targets()
    names = item_texts(data.items, tiny_tokenizer("llama"))
    made: dict[tuple[int, ...], str] = {}

    def write(self: Writer, prompts: Sequence[Sequence[int]], desc: str) -> list[Text]:
        if desc == "writing about items":
            return [Text(name, 1, False, 0.5) for name in names]
        return [Text(made[tuple(prompt)], 2, False, 0.5) for prompt in prompts]

    monkeypatch.setattr(Writer, "write", write)
    chosen = settings(tmp_path, item_knowledge="written", max_items=20, cases=600, epochs=20, patience=20)
    chosen |= {"learning_rate": 0.01, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2, "train_batch_size": 64}
    writer = Writer(kar.Params.model_validate(chosen).backbone, 3, tmp_path / "texts")
    about = kar.Knowledge(data, kar.Params.model_validate(chosen), writer, None)  # type: ignore[arg-type]
    monkeypatch.setattr(about, "_write", lambda messages, desc: messages)
    monkeypatch.setattr(about, "encoder", SimpleNamespace(encode=lambda messages, desc: messages))
    for cases in (data.train, data.valid):
        assert cases.target is not None
        for message, target in zip(about.of_cases(cases), cases.target.tolist(), strict=True):
            made[tuple(writer.prompt(message))] = names[target]
    method = fit(data, seed=1, params=chosen, workdir=tmp_path / "work")
    scores = scored(method, data.valid)
    target = data.valid.target
    assert target is not None
    hits = (scores.argmax(axis=1) == target).mean()
    # The same network that is told of no user finds the target by luck: one in 60.
    blind = (method.trained.scores_of(data.valid, np.zeros(len(data.valid), int)).argmax(axis=1) == target).mean()
    assert hits > 0.7 and blind < 0.1
    assert method.report()["writing_seconds"] == (600 + len(data.valid)) * 0.5 + 30


def test_a_killed_fit_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the second epoch, then fitted again: no text is written again."""
    from recbole.trainer import Trainer

    cases = split().valid.take(CASES)
    params = settings(tmp_path, epochs=2)
    whole = fit(split(), seed=3, params=params, workdir=tmp_path / "whole")
    expected = scored(whole, cases)
    epoch, calls = Trainer._train_epoch, [0]

    def killed(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return epoch(*arguments, **named)

    elsewhere = params | {"texts": str(tmp_path / "others")}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_train_epoch", killed)
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
