"""Tests of SLIM: the fused network by hand, the teacher's rationales, the student, controls, what is kept."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from trl import SFTTrainer

from baselines import sasrec, slim
from baselines._knowledge import rationales, users
from baselines._knowledge.rationales import conversations, sampled_rollouts, target_ranks
from baselines._knowledge.users import ByKnowledge, Knowing, KnowledgeParams, none_first, trained_with
from baselines._recbole.fused_texts import FusedSASRec, fused_loss
from baselines._recbole.knowledge import ITEM, KNOWLEDGE, USER
from baselines._recbole.windows import Batch
from baselines._writers.llm_texts import Writer
from benchmark.contract import Cases, Recommender, Split
from benchmark.errors import InputError
from lm.chat import conversation_ids, prompt_ids
from lm.writing.engine import TransformersEngine
from tests.support.interrupting import interrupt
from tests.support.planted import N_ITEMS, as_split, planted, prepare_planted
from tests.support.tiny_encoders import encoder_in
from tests.support.tiny_fits import backbone_in, split
from tests.support.tiny_tokenizers import tiny_lm, tiny_tokenizer

CASES = np.arange(6)


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    backbone = backbone_in(folder)
    encoder = encoder_in(folder)
    return {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "encoder": str(encoder),
        "texts": str(folder / "texts"),
        "tunings": str(folder / "tunings"),
        "max_new_tokens": 4,
        "step_tokens": 3,
        "max_items": 3,
        "cases": 20,
        "taught": 6,
        "writer_steps": 2,
        "users_per_step": 4,
        "writer_rate": 1e-2,
        "epochs": 1,
    } | changes


def small() -> Split:
    return replace(split(), valid=split().valid.take(np.arange(12)))


def scored(method: Recommender, cases: Cases) -> np.ndarray:
    return np.concatenate(list(method.score(replace(cases, target=None))))


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> ByKnowledge:
    folder = tmp_path_factory.mktemp("slim")
    return slim.fit(small(), seed=1, params=settings(folder), workdir=folder / "work")


# The network


def network(ids: bool) -> FusedSASRec:
    """Return an untrained network of the planted catalogue's size, with item texts of width 5."""
    from baselines._recbole.training import Catalogue, _config, without_arguments

    with without_arguments():
        own = sasrec.Params().model_dump() | {"hidden_size": 8, "inner_size": 8}
        torch.manual_seed(0)
        return FusedSASRec(_config("SASRec", 4, 1, own), Catalogue(N_ITEMS, 3), torch.randn(N_ITEMS, 5), ids).eval()


@torch.no_grad()
def test_it_begins_as_sasrec_and_adds_texts_by_linear_layers() -> None:
    net, user_texts = network(ids=True), torch.randn(2, 5)
    history, lengths = torch.tensor([[5, 9, 0, 0], [7, 0, 0, 0]]), torch.tensor([2, 1])
    states, ids = net.forward(history, lengths), net.item_embedding.weight
    inputs = {"item_id_list": history, "item_length": lengths, KNOWLEDGE: user_texts}
    torch.testing.assert_close(net.full_sort_predict(inputs), states @ ids.T)
    for side in net.fused:
        torch.nn.init.normal_(side.weight)
        torch.nn.init.normal_(side.bias)
    texts = torch.cat([torch.zeros(1, 5), net.items[1:]]) @ net.of_text[ITEM].weight.T + net.of_text[ITEM].bias
    items = torch.cat([texts, ids], dim=1) @ net.fused[ITEM].weight.T + net.fused[ITEM].bias
    own = user_texts @ net.of_text[USER].weight.T + net.of_text[USER].bias
    users = torch.cat([own, states], dim=1) @ net.fused[USER].weight.T + net.fused[USER].bias
    torch.testing.assert_close(net.full_sort_predict(inputs), users @ items.T)


@torch.no_grad()
def test_without_ids_texts_alone_decide() -> None:
    net, user_texts = network(ids=False), torch.randn(2, 5)
    inputs = {"item_id_list": torch.tensor([[5, 9, 0, 0], [7, 0, 0, 0]]), "item_length": torch.tensor([2, 1])}
    other_inputs = {"item_id_list": torch.tensor([[8, 2, 4, 0], [6, 3, 0, 0]]), "item_length": torch.tensor([3, 2])}
    item_scores = net.full_sort_predict(inputs | {KNOWLEDGE: user_texts})
    assert torch.equal(item_scores, net.full_sort_predict(other_inputs | {KNOWLEDGE: user_texts}))
    users, items = net.of_text[USER](user_texts), net.of_text[ITEM](net.items)
    torch.testing.assert_close(item_scores, net.layer(users[:, None])[:, 0] @ net.layer(items[:, None])[:, 0].T)


@pytest.mark.parametrize("ids", [True, False])
def test_the_loss_fuses_each_cases_own_text_or_a_learned_vector(ids: bool) -> None:
    """The loss equals a loop over cases. Two cases of one context have one history and share one text."""
    net, vectors = network(ids), none_first(torch.randn(2, 5))
    batch = Batch(
        items=torch.tensor([[5, 9, 3, 0], [7, 0, 0, 0]]),
        places=torch.tensor([0, 2, 4]),
        state_of=torch.tensor([0, 1, 1, 2]),
        target=torch.tensor([9, 4, 8, 6]),
        case=torch.tensor([11, 3, 7, 2]),
    )
    row_of = torch.zeros(12, dtype=torch.int64)
    row_of[[7, 2]] = torch.tensor([2, 1])
    with torch.no_grad():
        net.no_text += 0.3
        for side in net.fused if ids else ():
            torch.nn.init.normal_(side.weight)
        expected = []
        for history, row, target in (([5], 0, 9), ([5, 9, 3], 2, 4), ([5, 9, 3], 2, 8), ([7], 1, 6)):
            items = torch.tensor([history + [0] * (4 - len(history))])
            state = net.forward(items, torch.tensor([len(history)]))
            user_text = net.of_text[USER](vectors[row : row + 1]) if row else net.no_text[None]
            logits = net.user_vectors(user_text, state) @ net.item_vectors().T
            expected.append(F.cross_entropy(logits, torch.tensor([target])))
        torch.testing.assert_close(fused_loss(row_of, vectors)(net, batch), torch.stack(expected).mean())


def random_lines() -> Split:
    """Users take the items in an order that has nothing to do with them: only a text can tell the next one."""
    raw, draw = planted(n_users=60), np.random.default_rng(0)
    drawn = [draw.permutation(N_ITEMS)[:16] for _ in range(60)]
    raw.interactions["item_id"] = [f"i{item}" for item in np.concatenate(drawn)]
    return as_split(prepare_planted(raw))


@pytest.mark.parametrize("ids", [True, False])
def test_a_text_that_names_the_target_finds_it(ids: bool) -> None:
    """In the planted data the vector of a user's text is that of the target."""
    data, names = random_lines(), torch.randn(N_ITEMS, 24, generator=torch.Generator().manual_seed(0))
    chosen = KnowledgeParams.model_validate(
        {"backbone": {"name": "none"}, "cases": 10**6, "epochs": 12, "patience": 12, "learning_rate": 0.01}
        | {"hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2, "train_batch_size": 64}
    )

    def of_cases(cases: Cases) -> torch.Tensor:
        assert cases.target is not None
        return names[torch.from_numpy(cases.target.astype(np.int64))]

    knowledge = SimpleNamespace(
        split=data, settings=chosen, of_items=lambda written: names, of_cases=of_cases, seconds=0.0
    )
    method = trained_with(
        knowledge,  # type: ignore[arg-type]
        written_items=False,
        make=lambda items: lambda config, dataset: FusedSASRec(config, dataset, items, ids),
        loss=fused_loss,
        seed=1,
        name="SLIM",
    )
    target = data.valid.target
    texts = method.standard(of_cases(data.valid))
    hits = (scored(Knowing(method.trained, texts), data.valid).argmax(axis=1) == target).mean()
    # The same network that is told of no user finds the target by luck: one in 60.
    blind = (scored(Knowing(method.trained, torch.zeros_like(texts)), data.valid).argmax(axis=1) == target).mean()
    assert hits > 0.7 and blind < 0.1


# Rationales


def test_one_turn_is_a_prompt_and_more_are_a_conversation() -> None:
    tokenizer = tiny_tokenizer("llama")
    assert conversation_ids(tokenizer, ["Thing 11"]) == prompt_ids(tokenizer, "Thing 11")
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"))
    conversation = "".join(f"<|im_start|>{role}\n{message}<|im_end|>\n" for role, message in turns)
    text = tokenizer.decode(conversation_ids(tokenizer, ["a", "b", "c"]))
    assert text.endswith(f"{conversation}<|im_start|>assistant\n")  # behind the template's own system prompt


def test_a_question_follows_the_answers_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, list[str]]] = []
    tokenizer = tiny_tokenizer("llama")
    generate = TransformersEngine.generate

    def watch(self: TransformersEngine, prompts: Sequence[Sequence[int]], **named: Any) -> Any:
        calls.append((self.settings.group_size, [str(tokenizer.decode(list(prompt))) for prompt in prompts]))
        return generate(self, prompts, **named)

    monkeypatch.setattr(TransformersEngine, "generate", watch)
    model = tiny_lm("llama")
    writing = sampled_rollouts(2, 3, 1.0)
    written = conversations(model, tokenizer, ["first", "second"], ["Which kinds?", "Which things?"], writing, seed=5)
    assert [len(answers) for answers in written] == [3] * 4 and written[0] != written[1]
    assert [(group, len(prompts)) for group, prompts in calls] == [(2, 2), (1, 4), (1, 4)]
    for i, prompt in enumerate(calls[2][1]):
        parts = [("first", "second")[i // 2], written[i][0], "Which kinds?", written[i][1], "Which things?"]
        places = [prompt.index(part) for part in parts if part]
        assert places == sorted(places) and written[i][2] not in ("Which kinds?", "Which things?")
    assert conversations(model, tokenizer, ["first", "second"], ["Which kinds?"], writing, seed=5) == [
        answers[:2] for answers in written
    ]


def test_ranks_of_targets_by_hand() -> None:
    """Five items on a line; item 4 is in the history, and the target's equal stands before it."""
    items = torch.tensor([[3.0], [2.0], [2.0], [1.0], [9.0]])
    cases = split().train.take(np.arange(1))
    case = replace(cases, offsets=np.array([0, 1]), items=np.array([4], np.int32), target=np.array([2], np.int32))
    vectors = torch.tensor([[[1.0], [-1.0]]])
    assert target_ranks(vectors, items, case).tolist() == [[3, 3]]
    case = replace(case, target=np.array([3], np.int32))
    assert target_ranks(vectors, items, case).tolist() == [[4, 1]]


def test_the_rationale_that_ranks_the_target_best_is_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = slim.Params.model_validate(settings(tmp_path, rationales=3, taught=2))
    cases = small().llm_train.take(np.arange(2))
    monkeypatch.setattr(slim, "teachers", lambda *_: [["a", "b", "c"], ["d", "e", "f"]])
    monkeypatch.setattr(rationales, "target_ranks", lambda *_: np.array([[7, 1, 1], [3, 7, 15]]))
    encoder = SimpleNamespace(encode=lambda texts, desc: torch.zeros(len(texts), 2), tokenizer=tiny_tokenizer("llama"))
    best, report = slim.chosen_rationales(small(), chosen, cases, encoder, 1)  # type: ignore[arg-type]
    assert best == ["b", "d"]
    # 1 / log2(1 + rank): 1/3, 1, 1 and 1/2, 1/3, 1/4.
    assert report == {"ndcg_of_taught": 0.75, "ndcg_of_all": round((7 / 3 + 13 / 12) / 6, 4)}


def test_the_student_learns_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slim, "chosen_rationales", lambda split, settings, cases, *_: (["movie"] * len(cases), {}))
    chosen = slim.Params.model_validate(settings(tmp_path, writer_steps=20, writer_rate=3e-2))
    student, report = slim.distilled(small(), chosen, None, 1, tmp_path / "work")  # type: ignore[arg-type]
    assert report["losses"][-1] < 0.3 * report["losses"][0]
    messages = student.builder(small(), 3, 400).user_messages(slim.USER_REQUEST, small().valid.take(np.arange(1)))
    frozen = Writer(chosen.backbone, 4, tmp_path / "texts")
    text, before = (writer.write([writer.prompt(messages[0])])[0].text for writer in (student, frozen))
    assert text == "movie" and "movie" not in before


def test_scores_are_those_of_the_students_texts(recommender: ByKnowledge) -> None:
    cases = small().valid.take(CASES)
    item_scores, texts = scored(recommender, cases), recommender.texts()
    assert texts["case"].tolist() == cases.case.tolist() and recommender.tokens_written() >= len(cases)
    assert set(recommender.report()) >= {"losses", "ndcg_of_taught", "ndcg_of_all", "writing_seconds", "best_epoch"}
    assert (
        recommender.report()["ndcg_of_taught"] >= recommender.report()["ndcg_of_all"]
        and len(recommender.report()["losses"]) == 2
    )
    np.testing.assert_array_equal(scored(recommender.uncached(), cases), item_scores)


# Controls, and what is kept


def test_what_is_written_of_another_user_can_be_read(tmp_path: Path) -> None:
    params = settings(tmp_path, whose="others", distilled=False)
    method = slim.fit(small(), seed=1, params=params, workdir=tmp_path / "work")
    cases, knowledge = small().valid.take(CASES), method.knowledge
    assert isinstance(knowledge, slim.OfOthers)
    others = knowledge.others(cases)
    assert (others.user != cases.user).all() and others.case.tolist() == knowledge.others(cases).case.tolist()
    assert len(set(others.case.tolist())) > 2
    scored(method, cases)
    own = knowledge.builder.user_messages(
        users.considering(slim.USER_REQUEST, knowledge.settings), small().valid.take(CASES)
    )
    assert method.texts()["prompt"].tolist() != own and method.texts()["case"].tolist() == cases.case.tolist()
    one_user = replace(small(), train=small().train.take(np.flatnonzero(small().train.user == cases.user[0])))
    with pytest.raises(InputError, match=r"^case \d+: all \d+ texts are about its own user; raise cases$"):
        slim.OfOthers(one_user, knowledge.settings, knowledge.writer, knowledge.encoder).others(cases)


def test_the_undistilled_control_has_the_frozen_llms_texts(tmp_path: Path) -> None:
    method = slim.fit(small(), seed=1, params=settings(tmp_path, distilled=False), workdir=tmp_path / "work")
    assert "losses" not in method.report() and not (tmp_path / "work").exists()
    cases = small().valid.take(CASES)
    scored(method, cases)
    frozen = Writer(method.knowledge.settings.backbone, 4, tmp_path / "texts")
    expected = [text.text for text in frozen.write([frozen.prompt(prompt) for prompt in method.texts()["prompt"]])]
    assert method.texts()["reasoning"].tolist() == expected


def test_another_rate_of_sasrec_tunes_and_writes_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slim.fit(small(), seed=1, params=settings(tmp_path), workdir=tmp_path / "a")
    monkeypatch.setattr(Writer, "_generate", lambda self, prompts: pytest.fail("written twice"))
    monkeypatch.setattr(rationales, "conversations", lambda *_, **__: pytest.fail("asked twice"))
    monkeypatch.setattr(SFTTrainer, "train", lambda *_, **__: pytest.fail("tuned twice"))
    slim.fit(small(), seed=1, params=settings(tmp_path, learning_rate=0.01), workdir=tmp_path / "b")


def test_a_killed_fit_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the second step of the tuning, then fitted again with what it had written."""
    cases, params = small().valid.take(CASES), settings(tmp_path, save_steps=1)
    whole = slim.fit(small(), seed=3, params=params, workdir=tmp_path / "whole")
    elsewhere = params | {"texts": str(tmp_path / "others"), "tunings": str(tmp_path / "other tunings")}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, SFTTrainer, "training_step", call=2)
        slim.fit(small(), seed=3, params=elsewhere, workdir=tmp_path / "broken")
    monkeypatch.setattr(rationales, "conversations", lambda *_, **__: pytest.fail("asked twice"))
    resumed = slim.fit(small(), seed=3, params=elsewhere, workdir=tmp_path / "broken")
    np.testing.assert_array_equal(scored(resumed, cases), scored(whole, cases))
    assert resumed.report()["losses"] == whole.report()["losses"]
