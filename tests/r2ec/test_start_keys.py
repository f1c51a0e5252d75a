"""What a kept warm start and kept states depend on: a change of any of it makes them anew, a change of anything else
doesn't."""

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
def made(backbone: Path) -> Reader:
    return Reader.build(split(), Params.model_validate(settings(backbone)))


def key(made: Reader, data: Split, seed: int = 3) -> str:
    return sha256_of_json(start._depends_on(made, data, seed))


def with_settings(made: Reader, backbone: Path, changes: Section) -> Reader:
    """The same parts under other settings, of which alone the key reads."""
    given = settings(backbone, **{name: values for name, values in changes.items() if name != "backbone"})
    given["backbone"] |= changes.get("backbone", {})
    return under(made, Params.model_validate(given))


def under(made: Reader, params: Params) -> Reader:
    return Reader(made.model, made.table, made.prompts, params, made.donors)


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
def test_settings_that_a_warm_start_reads(made: Reader, backbone: Path, changes: Section) -> None:
    assert key(with_settings(made, backbone, changes), split()) != key(made, split())


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
def test_settings_of_recpo_alone_share_a_warm_start(made: Reader, backbone: Path, changes: Section) -> None:
    assert key(with_settings(made, backbone, changes), split()) == key(made, split())


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
def test_data_that_a_warm_start_reads(made: Reader, change: Callable[[Split], Split]) -> None:
    assert key(made, change(split())) != key(made, split())
    assert key(made, split(), seed=4) != key(made, split())


def test_other_titles_rows_and_weights(made: Reader, backbone: Path) -> None:
    data, known = split(), key(made, split())
    params = made.params
    renamed = data.items.assign(title=data.items["title"].where(data.items.index != 3, "Another thing"))
    assert key(Reader.build(replace(data, items=renamed), params), data) != known
    assert key(under(made, params.model_copy(update={"evaluation_rows": 17})), data) != known
    items, states = (
        sha256_of_json(kept_states._encoder(params, stage)) for stage in (kept_states.ENCODING, kept_states.STATES)
    )
    assert items != states
    # The LM's own files, whatever the folder is called; both keys have them.
    config = backbone / "config.json"
    before = config.read_text()
    try:
        config.write_text(before + " ")
        assert key(made, data) != known
        assert sha256_of_json(kept_states._encoder(params, kept_states.STATES)) != states
    finally:
        config.write_text(before)
    assert key(made, data) == known


def test_other_versions_of_stages_and_packages(made: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage's version counts for itself and for all that follow; a package's for the stages that compute with it."""
    data, known = split(), key(made, split())

    def keys() -> list[str]:
        found = [
            kept_states._encoder(made.params, kept_states.ENCODING),
            kept_states._encoder(made.params, kept_states.STATES),
        ]
        return [*map(sha256_of_json, found), key(made, data)]

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
    assert keys() == before and key(made, data) == known


def test_what_is_scored_is_written_with_unfolded_adapters(backbone: Path) -> None:
    """Folded, they would be rounded to bf16: another model than the one that has encoded the items."""
    for evaluation in ({}, {"reasoning": "again"}, {"samples": 2}):
        made = Reader.build(split(), Params.model_validate(settings(backbone, evaluation=evaluation)))
        assert made.params.rollouts.merge_adapters and not made.engine.settings.merge_adapters
        if made.controls is not None:
            assert not made.controls.engine.settings.merge_adapters
