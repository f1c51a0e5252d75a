"""Tests of the title tuning that methods share: trained once, loaded bit for bit, charged to each, waited for."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl import SFTTrainer

from baselines import bigrec, d3, s_dpo, sp_rec, title_sft
from baselines._writers import title_tuning
from baselines._writers.kept_adapters import kept_adapters
from baselines._writers.title_search import title_tokens
from benchmark.contract import Recommender
from benchmark.storage import ledger
from benchmark.storage.io import locked, read_json
from tests.support.tiny_fits import backbone_in, split
from tests.support.tiny_tokenizers import tiny_tokenizer


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    backbone = backbone_in(folder)
    return {
        "backbone": {"name": str(backbone), "dtype": "float32"},
        "max_items": 3,
        "users_per_step": 4,
        "at_once": 2,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "tunings": str(folder / "tunings"),
    } | changes


def scored(method: Recommender, count: int = 7) -> np.ndarray:
    cases = replace(split().valid.take(np.arange(count)), target=None)
    return np.concatenate(list(method.score(cases)))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that each later training of titles extends by its number of steps."""
    taken: list[int] = []
    train = SFTTrainer.train

    def count(self: SFTTrainer, *arguments: Any, **named: Any) -> Any:
        taken.append(self.args.max_steps)
        return train(self, *arguments, **named)

    monkeypatch.setattr(SFTTrainer, "train", count)
    return taken


def test_rows_of_one_seed_begin_with_one_tuning(tmp_path: Path, trainings: list[int]) -> None:
    own = settings(tmp_path)
    first = title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "a")
    again = title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "b")
    mixed = d3.fit(split(), seed=1, params=own | {"alpha": 1.0}, workdir=tmp_path / "c")
    preferring = s_dpo.fit(split(), seed=1, params=own | {"preference_steps": 0}, workdir=tmp_path / "d")
    playing = sp_rec.fit(split(), seed=1, params=own | {"iterations": 0, "ranking": "beams"}, workdir=tmp_path / "e")
    assert trainings == [3] and not (tmp_path / "b" / "tuning").exists()
    # To the last bit, whether it was made or found: D3 with alpha 1, S-DPO and SPRec without their second stage are
    # this row.
    for recommender in (again, mixed, preferring, playing):
        np.testing.assert_array_equal(scored(recommender), scored(first))
        assert recommender.report()["losses"] == first.report()["losses"] and len(first.report()["losses"]) == 3
        assert recommender.learned() == first.learned()
    grounded = bigrec.fit(split(), seed=1, params=own | {"max_new_tokens": 3}, workdir=tmp_path / "f")
    assert trainings == [3] and grounded.report()["losses"] == first.report()["losses"]


@pytest.mark.parametrize(
    "changes", [{"learning_rate": 2e-2}, {"max_steps": 2}, {"max_items": 2}, {"lora": {"r": 2}}, {"at_once": 4}]
)
def test_other_settings_are_another_tuning(tmp_path: Path, trainings: list[int], changes: dict[str, Any]) -> None:
    title_sft.fit(split(), seed=1, params=settings(tmp_path), workdir=tmp_path / "a")
    title_sft.fit(split(), seed=1, params=settings(tmp_path, **changes), workdir=tmp_path / "b")
    assert len(trainings) == 2 and len(list((tmp_path / "tunings").glob("*.safetensors"))) == 2


def test_a_tuning_ends_with_its_epochs(tmp_path: Path, trainings: list[int]) -> None:
    """As many epochs as have 8.5 cases are two steps of 4; they are the tuning of a row that takes two steps."""
    own = settings(tmp_path, max_steps=1000, max_epochs=8.5 / len(split().llm_train))
    ended = title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "a")
    learned = ended.learned()
    assert len(ended.report()["losses"]) == 2 and trainings == [2]
    assert learned is not None and learned.targets == 8
    short = title_sft.fit(split(), seed=1, params=settings(tmp_path, max_steps=2), workdir=tmp_path / "b")
    assert trainings == [2] and short.report() == ended.report()


def test_another_seed_or_version_or_other_texts_are_another_tuning(
    tmp_path: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = settings(tmp_path, max_steps=1)
    title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "a")
    title_sft.fit(split(), seed=2, params=own, workdir=tmp_path / "b")
    renamed = split()
    items = renamed.items.assign(title=[f"{title} again" for title in renamed.items["title"]])
    title_sft.fit(replace(renamed, items=items), seed=1, params=own, workdir=tmp_path / "c")
    raised = replace(title_tuning.TITLES, version=title_tuning.TITLES.version + 1)
    monkeypatch.setattr(title_tuning, "TITLES", raised)
    title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "d")
    assert trainings == [1, 1, 1, 1]
    # What only ranks, and where the backbone lies, change nothing.
    elsewhere = settings(tmp_path / "other", max_steps=1, tunings=own["tunings"], beams=3, evaluation_rows=2)
    title_sft.fit(split(), seed=1, params=elsewhere, workdir=tmp_path / "e")
    assert len(trainings) == 4


def test_a_kept_tuning_is_charged_to_each_fit_that_loads_it(tmp_path: Path) -> None:
    own = settings(tmp_path)
    with ledger.account() as first:
        title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "a")
        title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "b")  # its own
    with ledger.account() as second:
        title_sft.fit(split(), seed=1, params=own, workdir=tmp_path / "c")
    (note,) = (tmp_path / "tunings").glob("*.spent.json")
    assert first.reused == 0 and second.reused == read_json(note)["seconds"] > 0


def test_a_waiting_fit_is_charged_the_tuning_and_not_the_wait(tmp_path: Path) -> None:
    """Another job writes the adapters meanwhile, and notes that this took it 100 s."""
    model = torch.nn.Linear(2, 2)
    report = kept_adapters(tmp_path, {"a": 1}, model, lambda: ["made"])  # type: ignore[arg-type]
    (path,) = tmp_path.glob("*.safetensors")
    path.rename(tmp_path / "later")
    started = threading.Event()

    def other_job() -> None:
        with locked(path):
            started.set()
            time.sleep(1.0)
            (tmp_path / "later").rename(path)
            path.with_name(f"{path.name}.spent.json").write_text('{"by": "another", "seconds": 100}')

    thread = threading.Thread(target=other_job)
    thread.start()
    started.wait()
    with ledger.account() as now:
        report_again = kept_adapters(tmp_path, {"a": 1}, model, lambda: 1 / 0)  # type: ignore[arg-type]
    thread.join()
    assert report_again == report == ["made"]
    assert now.reused == 100 and 100 <= now.cost().seconds < 100.9


def test_a_training_that_fails_leaves_nothing(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ZeroDivisionError):
        kept_adapters(tmp_path, {"a": 1}, model, lambda: 1 / 0)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("*.safetensors"))
    before = model.weight.detach().clone()
    assert kept_adapters(tmp_path, {"a": 1}, model, lambda: {"losses": [0.5]}) == {"losses": [0.5]}  # type: ignore[arg-type]
    loaded = torch.nn.Linear(2, 2)
    kept_adapters(tmp_path, {"a": 1}, loaded, lambda: 1 / 0)  # type: ignore[arg-type]
    assert torch.equal(loaded.weight, before) and torch.equal(loaded.bias, model.bias)


def test_a_title_ends_with_its_turn_and_spells_no_end() -> None:
    tokenizer = tiny_tokenizer("llama")
    plain, spelled = title_tokens(tokenizer, ["Up", "Up<|im_end|>"])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert plain == [*tokenizer("Up", add_special_tokens=False)["input_ids"], end]
    assert spelled.count(end) == 1 and spelled[-1] == end and len(spelled) > len(plain)
    gemma = tiny_tokenizer("gemma2")
    assert title_tokens(gemma, ["Up"])[0][-1] == gemma.convert_tokens_to_ids("<end_of_turn>")


def test_all_tuned_methods_share_request_and_stream() -> None:
    for module in (bigrec, d3, s_dpo, sp_rec, title_sft):
        assert module.REQUEST is title_tuning.REQUEST and module.STREAM is title_tuning.STREAM
