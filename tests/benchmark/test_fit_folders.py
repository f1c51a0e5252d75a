"""The folder of a fit: of these params, data and code, and the same for the same fit."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmark import provenance
from benchmark.jobs import tuning
from tests.support.stub_method import Fits, Job, stub_data, stub_fits


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    return stub_fits(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def job(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(data, tmp_path, monkeypatch)


def test_checkpoints_are_of_these_params_data_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"

    def folder(params: dict[str, Any], data: str = "hash", code: str = "code", category: str = "") -> Path:
        return tuning.checkpoint_folder(work, ModuleType("method"), params, data, code, 1, category)

    plain = folder({"a": 1, "b": [2]})
    assert plain.parent == work and folder({"b": [2], "a": 1}) == plain
    others = [folder({"a": 2, "b": [2]}), folder({"a": 1}), folder({"a": 1, "b": [2]}, data="other")]
    others += [folder({"a": 1, "b": [2]}, code="other"), folder({"a": 1, "b": [2]}, category="film")]
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "versions", lambda: {"torch": "another"})
        others.append(folder({"a": 1, "b": [2]}))
    assert len({plain, *others}) == 7


def test_other_weights_of_ones_own_model_are_another_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fetched_one = "resources/smollm2-135m-instruct"  # a pinned checksum of it is in the code
    for folder in ("own/deep", "resources/own", fetched_one):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model.safetensors").write_text("weights")

    def fit(name: str, **params: Any) -> Path:
        return tuning.checkpoint_folder(
            tmp_path, ModuleType("method"), {"backbone": {"name": name}} | params, "hash", "code"
        )

    def fits() -> list[Path]:
        return [fit("own"), fit("on/hub", encoder="own"), fit("resources/own"), fit(fetched_one)]

    before = fits()
    for folder in ("own/deep", "resources/own", fetched_one):
        (tmp_path / folder / "model.safetensors").write_text("others")
    assert [now != then for now, then in zip(fits(), before, strict=True)] == [True, True, True, False]


def test_a_machine_where_auto_is_another_dtype_resumes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that began in bfloat16 doesn't go on in float32 on a machine that shares its folder."""

    def folder(on: dict[str | None, str], **params: Any) -> Path:
        monkeypatch.setattr(tuning, "dtype_of_auto", on.__getitem__)
        return tuning.checkpoint_folder(tmp_path, ModuleType("method"), params, "hash", "code")

    new: dict[str | None, str] = dict.fromkeys(("cpu", "cuda", None), "bfloat16")
    old = dict.fromkeys(new, "float32")
    mixed = new | {"cpu": "float32"}  # an old processor with a new GPU
    for params in ({"dtype": "auto"}, {"backbone": {"dtype": "auto", "device": "cpu"}}):
        assert folder(new, **params) != folder(old, **params) == folder(old, **params)
    on_gpu, fixed = {"backbone": {"dtype": "auto", "device": "cuda"}}, {"backbone": {"dtype": "bfloat16"}}
    assert folder(mixed, **on_gpu) == folder(new, **on_gpu) != folder(old, **on_gpu)
    assert folder(new, **fixed, a=1) == folder(old, **fixed, a=1)
    both = on_gpu | {"teacher": {"dtype": "auto", "device": "cpu"}}
    assert len({folder(machine, **both) for machine in (new, old, mixed)}) == 3


def test_what_only_scoring_reads_shares_a_fit(tmp_path: Path) -> None:
    method = ModuleType("method")
    vars(method)["SCORING"] = ("reads",)

    def folder(**params: Any) -> Path:
        return tuning.checkpoint_folder(tmp_path, method, params, "hash", "code")

    assert folder(a=1, reads={"b": 2}) == folder(a=1, reads={"b": 3}) == folder(a=1)
    assert folder(a=2, reads={"b": 2}) != folder(a=1, reads={"b": 2})


def test_the_same_fit_gets_the_same_folder(job: Job, fits: Fits) -> None:
    job(params=json.dumps({"label": "a"}))
    job(params=json.dumps({"label": "a"}))
    job(params=json.dumps({"label": "b"}))
    one, two, three = (call["workdir"] for call in fits)
    assert one == two != three and one.parent == job.root / "work"
