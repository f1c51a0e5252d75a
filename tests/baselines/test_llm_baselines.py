"""Tests of what the LLM baselines share: texts written once, embeddings by hand, a planted task for each method."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from baselines._writers import llm_texts
from baselines._writers.llm_texts import Text, Writer
from baselines._writers.sentences import SentenceEncoder, fetch_minilm, item_texts
from baselines.frozen_llm import fit as fit_frozen
from baselines.profile_retrieval import REQUEST
from baselines.profile_retrieval import fit as fit_profiles
from benchmark.errors import InputError
from benchmark.evaluate import validation_ndcg
from benchmark.storage import ledger
from lm import backbone as backbones
from lm.chat import turn_end_ids
from lm.settings import BackboneSettings, LoraSettings
from lm.writing import engine
from lm.writing.engine import WRITING
from tests.support.tiny_encoders import write_encoder
from tests.support.tiny_fits import split, write_backbone
from tests.support.tiny_tokenizers import tiny_tokenizer


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> BackboneSettings:
    return BackboneSettings(name=str(write_backbone(tmp_path_factory.mktemp("llm"))), dtype="float32")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def counted(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that each later call of the LLM extends by its number of prompts."""
    calls: list[int] = []
    generate = writer._generate

    def count(prompts: list[Sequence[int]]) -> list[Text]:
        calls.append(len(prompts))
        return generate(prompts)

    monkeypatch.setattr(writer, "_generate", count)
    return calls


def prompts_of(writer: Writer, count: int) -> list[list[int]]:
    return [writer.prompt(f"number {i} " * (1 + i % 3)) for i in range(count)]


@pytest.mark.parametrize(("rows", "most", "size"), [(12, 8, 6), (7, 4, 1), (16, 16, 16), (4, 100, 4)])
def test_micro_batches_divide_a_step(rows: int, most: int, size: int) -> None:
    assert llm_texts.micro_batch(rows, most) == size


def test_a_text_is_what_generate_writes(llm: BackboneSettings, tmp_path: Path) -> None:
    writer = Writer(llm, 7, tmp_path)
    prompts = prompts_of(writer, 5)
    model, tokenizer = writer._loaded.model, writer.tokenizer
    for prompt, text in zip(prompts, writer.write(prompts), strict=True):
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=7, do_sample=False)[0, len(prompt) :].tolist()
        ends = [i for i, token in enumerate(ids) if token in turn_end_ids(tokenizer)]
        length = ends[0] + 1 if ends else 7
        assert (text.tokens, text.cut) == (length, not ends)
        assert text.text == tokenizer.decode(ids[: length - bool(ends)], skip_special_tokens=True).strip()


def test_no_text_is_written_twice(llm: BackboneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(llm, 4, tmp_path)
    prompts = prompts_of(writer, 6)
    calls = counted(writer, monkeypatch)
    first = writer.write([*prompts[:4], prompts[0]])
    assert calls == [4] and first[0] == first[4]
    again = Writer(llm, 4, tmp_path)
    calls = counted(again, monkeypatch)
    assert again.write(prompts[:4]) == first[:4] and calls == []
    assert again.write(prompts)[:4] == first[:4]  # the batch is written as a whole, what was there stays
    assert calls == [6]
    assert Writer(llm, 5, tmp_path).path != writer.path  # another limit, other texts


def test_a_kept_text_is_charged_to_each_fit_that_reads_it(llm: BackboneSettings, tmp_path: Path) -> None:
    writer = Writer(llm, 4, tmp_path)
    prompts = prompts_of(writer, 6)
    with ledger.account() as first:
        texts = writer.write(prompts[:4])
        writer.write(prompts[:3])  # its own
    with ledger.account() as second:
        Writer(llm, 4, tmp_path).write([*prompts[1:]] * 150)  # more than are looked up at once
    assert first.reused == 0
    assert second.reused == pytest.approx(sum(text.seconds for text in texts[1:])) and second.reused > 0


def test_other_weights_write_into_another_file(llm: BackboneSettings, tmp_path: Path) -> None:
    copy = write_backbone(tmp_path / "other")
    before = Writer(BackboneSettings(name=str(copy), dtype="float32"), 4, tmp_path).path
    assert before == Writer(llm, 4, tmp_path).path  # the same files elsewhere are the same LLM
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert Writer(BackboneSettings(name=str(copy), dtype="float32"), 4, tmp_path).path != before
    assert Writer(llm.model_copy(update={"dtype": "bfloat16"}), 4, tmp_path).path != before


def test_another_version_writes_into_another_file(
    llm: BackboneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Writer(llm, 4, tmp_path).path
    writing = replace(WRITING, version=WRITING.version + 1)
    for stage in (
        replace(llm_texts.TEXTS, version=llm_texts.TEXTS.version + 1),
        replace(llm_texts.TEXTS, after=(writing,)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(llm_texts, "TEXTS", stage)
            assert Writer(llm, 4, tmp_path).path != before
    assert Writer(llm, 4, tmp_path).path == before


def test_a_tuned_llm_writes_by_its_adapters_as_they_were_trained(
    llm: BackboneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = backbones.load(llm)
    model = backbones.add_lora(loaded.model, LoraSettings())
    folded: list[bool] = []

    def merged_adapters(model: Any, merge: bool = True) -> Any:
        folded.append(merge)
        return backbones.merged_adapters(model, merge)

    monkeypatch.setattr(engine, "merged_adapters", merged_adapters)
    recommender = llm_texts.ByText(
        split(),
        model,
        loaded.tokenizer,
        request="{history}",
        scores_of=lambda texts: np.zeros((len(texts), split().n_items)),
        max_items=2,
        max_prompt_tokens=400,
        max_new_tokens=3,
        report={},
    )
    list(recommender.score(replace(split().valid.take(np.arange(3)), target=None)))
    assert folded == [False]


def test_a_killed_writer_keeps_its_batches(
    llm: BackboneSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_texts, "ROWS_AT_ONCE", 2)
    writer = Writer(llm, 3, tmp_path)
    prompts = prompts_of(writer, 6)
    expected = Writer(llm, 3, tmp_path / "unbroken").write(prompts)
    generate, left = writer._generate, [2]

    def killed(part: list[Sequence[int]]) -> list[Text]:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return generate(part)

    monkeypatch.setattr(writer, "_generate", killed)
    with pytest.raises(KeyboardInterrupt):
        writer.write(prompts)
    again = Writer(llm, 3, tmp_path)
    calls = counted(again, monkeypatch)
    texts = again.write(prompts)
    assert calls == [2]
    assert [text.text for text in texts] == [text.text for text in expected]


def test_embeddings_are_means_of_single_texts(encoder: Path) -> None:
    """A text's embedding doesn't depend on the other texts of its batch."""
    reader = SentenceEncoder(encoder)
    texts = ["Thing, number 3", "red", "Thing, number 12 colour blue red green red", "x" * 2000]
    vectors = reader.encode(texts)
    for text, row in zip(texts, vectors, strict=True):
        ids = reader.tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = reader.model(**ids).last_hidden_state[0].mean(dim=0)
        torch.testing.assert_close(row, F.normalize(mean, dim=0), rtol=1e-4, atol=1e-5)


def test_a_long_text_is_read_to_its_end(encoder: Path) -> None:
    reader = SentenceEncoder(encoder)
    words = np.array(["red", "green", "blue", "Thing"])[np.random.default_rng(0).integers(0, 4, 700)]
    long, another_end = " ".join(words), " ".join([*words[:-1], "colour"])
    first, last = reader.tokenizer.cls_token_id, reader.tokenizer.sep_token_id
    ids = reader.tokenizer(long, add_special_tokens=False)["input_ids"]
    states = []
    for start in range(0, len(ids), 254):  # with its first and last token, 256
        with torch.no_grad():
            part = torch.tensor([[first, *ids[start : start + 254], last]])
            states.append(reader.model(part).last_hidden_state[0])
    vectors = reader.encode(["red", long, another_end])
    assert len(states) == 3
    torch.testing.assert_close(vectors[1], F.normalize(torch.cat(states).mean(dim=0), dim=0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(vectors[1], vectors[2], rtol=1e-4, atol=1e-5)


def test_the_embedded_encoder_knows_what_words_mean() -> None:
    reader = SentenceEncoder(fetch_minilm("resources/all-minilm-l6-v2"))
    vectors = reader.encode(["a film about space travel", "rockets and astronauts", "boiled potatoes with butter"])
    assert vectors.shape == (3, 384)
    assert float(vectors[0] @ vectors[1]) > float(vectors[0] @ vectors[2]) + 0.2


def test_a_missing_encoder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        SentenceEncoder(tmp_path)


def test_an_encoder_that_lacks_a_weight_it_reads_is_refused(tmp_path: Path) -> None:
    """transformers would draw it at random. The pooler is read by nobody."""
    folder = write_encoder(tmp_path / "encoder")
    weights = load_file(folder / "model.safetensors")
    without_pooler = {name: weight for name, weight in weights.items() if not name.startswith("pooler.")}
    assert len(without_pooler) == len(weights) - 2
    before = SentenceEncoder(folder).embed(["Thing 10"])
    save_file(without_pooler, folder / "model.safetensors", metadata={"format": "pt"})
    torch.testing.assert_close(SentenceEncoder(folder).embed(["Thing 10"]), before, rtol=0, atol=0)
    del without_pooler["encoder.layer.0.output.dense.weight"]
    save_file(without_pooler, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError, match=r"encoder: 1 of its weights aren't in its files, first encoder\.layer\.0\.out"
    ):
        SentenceEncoder(folder)


def test_item_texts_by_hand() -> None:
    items = pd.DataFrame(
        {"item_id": ["a", "b"], "title": ["One", "Two"], "store_name": ["Shop", None], "price": [1.0, 2.0]}
    )
    assert item_texts(items, tiny_tokenizer("llama")) == ["One. store name: Shop", "Two"]


def profiles(llm: BackboneSettings, encoder: Path, folder: Path, **changes: object) -> object:
    params = {"backbone": llm.model_dump(), "encoder": str(encoder), "texts": str(folder), "max_new_tokens": 4}
    return fit_profiles(split(), seed=1, params=params | changes, workdir=folder / "work").inner


def test_a_profile_that_names_the_target_finds_it(
    llm: BackboneSettings, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The LLM is planted: it writes the target's own text, so every target is on rank 1."""
    data = split()
    cases, names = data.valid.take(np.arange(30)), item_texts(data.items, tiny_tokenizer("llama"))
    assert cases.target is not None
    method = profiles(llm, encoder, tmp_path)
    messages = method.builder.user_messages(REQUEST, cases)  # type: ignore[attr-defined]
    case_of = {tuple(method.writer.prompt(message)): i for i, message in enumerate(messages)}  # type: ignore[attr-defined]
    monkeypatch.setattr(
        method.writer,  # type: ignore[attr-defined]
        "_generate",
        lambda prompts: [Text(names[cases.target[case_of[tuple(p)]]], 3, False, 0.5) for p in prompts],
    )
    scores = np.concatenate(list(method.score(replace(cases, target=None))))  # type: ignore[attr-defined]
    same_prompt = len(case_of) < 30  # equal histories would share a text
    assert not same_prompt
    assert (scores.argmax(axis=1) == cases.target).all()
    assert method.tokens_written() == 90 and method.report() == {"writing_seconds": 15.0}  # type: ignore[attr-defined]
    texts = method.texts()  # type: ignore[attr-defined]
    assert texts["case"].tolist() == cases.case.tolist() and texts["reasoning"][0] == names[cases.target[0]]
    assert not texts["cut"].any() and "Thing, number" in texts["prompt"][0]


def test_titles_may_stand_before_the_profile(llm: BackboneSettings, encoder: Path, tmp_path: Path) -> None:
    cases = replace(split().valid.take(np.arange(4)), target=None)
    profile_only = profiles(llm, encoder, tmp_path)
    with_titles = profiles(llm, encoder, tmp_path, query="titles and profile", max_items=2)
    cosines = np.concatenate(list(with_titles.score(cases)))  # type: ignore[attr-defined]
    titles = split().items["title"]
    queries = [
        "; ".join([titles[v] for v in cases.history(i)[-2:].tolist()] + [with_titles._written[i].text])  # type: ignore
        for i in range(4)
    ]
    expected = with_titles.encoder.encode(queries) @ with_titles.items.T  # type: ignore[attr-defined]
    np.testing.assert_allclose(cosines, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(cosines, np.concatenate(list(profile_only.score(cases))))  # type: ignore[attr-defined]


@pytest.mark.parametrize("reasoning", [False, True])
@pytest.mark.parametrize("standardize", [0, 40])
def test_the_frozen_llm_by_hand(llm: BackboneSettings, reasoning: bool, standardize: int, tmp_path: Path) -> None:
    """Scores are cosines of states; standardised, each state is first centred and scaled by its side's statistics."""
    data = split()
    params = {
        "backbone": llm.model_dump(),
        "prompts": {"max_items": 3, "max_prompt_tokens": 400},
        "rollouts": {"max_new_tokens": 4},
        "reasoning": reasoning,
        "standardize": [standardize],
        "states": str(tmp_path / "states"),
    }
    recommender = fit_frozen(data, seed=1, params=params, workdir=tmp_path)
    cases = replace(data.valid.take(np.arange(6)), target=None)
    item_scores = np.concatenate(list(recommender.score(cases)))
    states, texts, written = recommender.reader.read(cases)
    users, items = states.double().numpy(), recommender.reader.table.states.double().numpy()
    if standardize:
        from r2ec.scoring.reader import sample

        seen = recommender.reader.read(sample(data.train, standardize, data.name))[0].double().numpy()
        users = (users - seen.mean(0)) / seen.std(0, ddof=1)
        items = (items - items.mean(0)) / items.std(0, ddof=1)
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (users, items)]
    tau = recommender.reader.params.recpo.tau
    np.testing.assert_allclose(item_scores * tau, unit[0] @ unit[1].T, atol=1e-3)
    assert (written > 0) == reasoning and (texts["reasoning"] != "").all() == reasoning


def test_the_frozen_llm_chooses_on_validation_cases(llm: BackboneSettings, tmp_path: Path) -> None:
    data = split()
    params = {
        "backbone": llm.model_dump(),
        "prompts": {"max_items": 3, "max_prompt_tokens": 400},
        "states": str(tmp_path / "states"),
        "valid_cases": 60,
    }
    chosen = fit_frozen(data, seed=1, params=params | {"standardize": [0, 30, 90]}, workdir=tmp_path)
    tried = {choice["standardize"]: choice["value"] for choice in chosen.report()["tried"]}
    from r2ec.scoring.reader import sample

    valid = sample(data.valid, 60, data.name)
    for count, value in tried.items():
        single = fit_frozen(data, seed=1, params=params | {"standardize": [count]}, workdir=tmp_path)
        assert validation_ndcg(single, valid, data.n_items, "frozen") == pytest.approx(value, abs=1e-6)
    assert len(set(tried.values())) > 1
    assert tried[chosen.report()["standardize"]] == max(tried.values())


def test_latency_is_measured_on_texts_written_anew(llm: BackboneSettings, tmp_path: Path) -> None:
    writer = Writer(llm, 3, tmp_path)
    prompts = prompts_of(writer, 2)
    kept = writer.write(prompts)
    anew = writer.without_cache().write(prompts)
    assert [text.text for text in anew] == [text.text for text in kept]
    assert [text.seconds for text in anew] != [text.seconds for text in kept]
    fresh = Writer(llm, 3, tmp_path / "none").without_cache()
    fresh.write(prompts)
    assert not fresh.path.exists()


def test_texts_survive_in_a_plain_file(llm: BackboneSettings, tmp_path: Path) -> None:
    writer = Writer(llm, 3, tmp_path)
    writer.write(prompts_of(writer, 2))
    with sqlite3.connect(writer.path) as store:
        assert store.execute("SELECT count(*), max(tokens) FROM texts").fetchone()[0] == 2
