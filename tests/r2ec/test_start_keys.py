"""Keys of kept warm starts and states: they change with all that these depend on, and with nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.contract import Split
from benchmark.storage import stages
from benchmark.storage.io import sha256_of_json
from r2ec.method import Params
from r2ec.scoring.reader import Reader
from r2ec.warm_start import kept_states, start
from tests.support.tiny_fits import settings, split, write_backbone

Section = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="module")
def reader(backbone: Path) -> Reader:
    return Reader.build(split(), Params.model_validate(settings(backbone)))


def key(reader: Reader, data: Split, seed: int = 3) -> str:
    return sha256_of_json(start._depends_on(reader, data, seed))


def with_settings(reader: Reader, backbone: Path, changes: Section) -> Reader:
    """The same reader under other settings; the key reads no other part of it."""
    merged = settings(backbone, **{name: values for name, values in changes.items() if name != "backbone"})
    merged["backbone"] |= changes.get("backbone", {})
    return under(reader, Params.model_validate(merged))


def under(reader: Reader, params: Params) -> Reader:
    return Reader(reader.model, reader.table, reader.prompts, params, reader.donors)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": {"dtype": "bfloat16"}},
        {"lora": {"r": 8}},
        {"prompts": {"max_items": 3}},
        {"prompts": {"deltas": "released"}},
        {"prompts": {"wording": "released"}},
        {"rollouts": {"max_new_tokens": 4}},
        {"rollouts": {"repetition_penalty": 1.05}},
        {"recpo": {"reasoning": False}},
        {"recpo": {"tau": 0.2}},
        {"recpo": {"normalize": False}},
        {"recpo": {"prior": 0.5}},
        {"recpo": {"pooling": "mean"}},
        {"training": {"max_grad_norm": 0.5}},
        {"training": {"weight_decay": 0.1}},
        {"warm_start": {"rank": 4}},
        {"warm_start": {"adapters": {"steps": 3}}},
    ],
)
def test_a_setting_that_a_warm_start_reads_changes_its_key(reader: Reader, backbone: Path, changes: Section) -> None:
    assert key(with_settings(reader, backbone, changes), split()) != key(reader, split())


@pytest.mark.parametrize(
    "changes",
    [
        {"recpo": {"beta": 0.5, "refresh_steps": 7, "head_update": "all", "advantage": "rloo"}},
        {"rollouts": {"group_size": 2, "temperature": 0.5, "top_k": 5}},
        {"training": {"max_steps": 9, "learning_rate": 1e-4, "per_device_train_batch_size": 4}},
        {"evaluation": {"reasoning": "empty"}},
        {"warm_start": {"states": "elsewhere"}},
    ],
)
def test_settings_of_recpo_alone_share_a_warm_start(reader: Reader, backbone: Path, changes: Section) -> None:
    assert key(with_settings(reader, backbone, changes), split()) == key(reader, split())


def with_target(data: Split, part: str) -> Split:
    cases = getattr(data, part)
    target = cases.target.copy()
    target[0] = (target[0] + 1) % data.n_items
    return replace(data, **{part: replace(cases, target=target)})


def with_history(data: Split) -> Split:
    items = data.train.items.copy()
    items[0] = (items[0] + 1) % data.n_items
    return replace(data, train=replace(data.train, items=items))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: with_target(data, "train"),
        lambda data: with_target(data, "valid"),
        with_history,
        lambda data: replace(data, llm_rows=np.arange(50)),
        lambda data: replace(data, category="film"),
        lambda data: replace(data, category_plural="films"),
    ],
)
def test_data_that_a_warm_start_reads_changes_its_key(reader: Reader, change: Callable[[Split], Split]) -> None:
    assert key(reader, change(split())) != key(reader, split())
    assert key(reader, split(), seed=4) != key(reader, split())


def test_other_titles_rows_and_weights_change_the_key(reader: Reader, backbone: Path) -> None:
    data, known = split(), key(reader, split())
    params = reader.params
    renamed = data.items.assign(title=data.items["title"].where(data.items.index != 3, "Another thing"))
    assert key(Reader.build(replace(data, items=renamed), params), data) != known
    assert key(under(reader, params.model_copy(update={"evaluation_rows": 17})), data) != known
    items, states = (
        sha256_of_json(kept_states._encoder(params, stage)) for stage in (kept_states.ENCODING, kept_states.STATES)
    )
    assert items != states
    # The LM's own files, whatever the folder is called; both keys have them.
    config = backbone / "config.json"
    before = config.read_text()
    try:
        config.write_text(before + " ")
        assert key(reader, data) != known
        assert sha256_of_json(kept_states._encoder(params, kept_states.STATES)) != states
    finally:
        config.write_text(before)
    assert key(reader, data) == known


def test_versions_of_stages_and_packages_change_the_keys_that_follow(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage's version counts for itself and for all that follow; a package's for the stages that compute with it."""
    data, known = split(), key(reader, split())

    def keys() -> list[str]:
        encoders = [
            kept_states._encoder(reader.params, kept_states.ENCODING),
            kept_states._encoder(reader.params, kept_states.STATES),
        ]
        return [*map(sha256_of_json, encoders), key(reader, data)]

    before = keys()
    raised = replace(kept_states.ENCODING, version=kept_states.ENCODING.version + 1)
    states = replace(kept_states.STATES, after=(kept_states.WRITING, raised))
    with monkeypatch.context() as patch:
        patch.setattr(start, "WARM_START", replace(start.WARM_START, version=start.WARM_START.version + 1))
        assert [new != old for new, old in zip(keys(), before, strict=True)] == [False, False, True]
        patch.setattr(start, "WARM_START", replace(start.WARM_START, after=(states,)))
        patch.setattr(kept_states, "STATES", states)
        assert [new != old for new, old in zip(keys(), before, strict=True)] == [False, True, True]
        patch.setattr(kept_states, "ENCODING", raised)
        assert [new != old for new, old in zip(keys(), before, strict=True)] == [True, True, True]
    installed = stages.importlib.metadata.version
    for package, moved in {"peft": [True] * 3, "accelerate": [False, False, True], "scipy": [False] * 3}.items():
        with monkeypatch.context() as patch:
            patch.setattr(
                stages.importlib.metadata, "version", lambda name, p=package: "9" if name == p else installed(name)
            )
            assert [new != old for new, old in zip(keys(), before, strict=True)] == moved
    assert keys() == before and key(reader, data) == known


def test_what_is_scored_is_written_with_unfolded_adapters(backbone: Path) -> None:
    """Folded, they would be rounded to bf16: another model than the one that has encoded the items."""
    for evaluation in ({}, {"reasoning": "again"}, {"samples": 2}):
        reader = Reader.build(split(), Params.model_validate(settings(backbone, evaluation=evaluation)))
        assert reader.params.rollouts.merge_adapters and not reader.engine.settings.merge_adapters
        if reader.controls is not None:
            assert not reader.controls.engine.settings.merge_adapters
