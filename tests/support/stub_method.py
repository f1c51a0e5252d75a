"""A method whose validation quality a test sets, and the command of one run, in this process."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, ConfigDict

from benchmark.config import methods
from benchmark.contract import Cases, Recommender, Split
from benchmark.jobs import run
from benchmark.storage import ledger
from tests.support.planted import planted, write_prepared


class Params(BaseModel):
    """skill: share of the validation cases that the stub gets right; bad: what score() does wrong; found: what it finds
    on disk has cost others so many seconds when it scores, and twice as many when it fits."""

    model_config = ConfigDict(extra="forbid")
    skill: float = 0.5
    label: str = ""
    bad: str = ""
    found: float = 0.0
    section: dict[str, int] = {"a": 1, "b": 2}


class Stub(Recommender):
    """Knows the validation targets, as no honest method does, so that its validation quality can be set."""

    def __init__(self, split: Split, params: Params) -> None:
        assert split.valid.target is not None
        known = zip(split.valid.case, split.valid.target, strict=True)
        self.answers = dict(list(known)[: round(params.skill * len(split.valid))])
        self.n_items, self.params = split.n_items, params
        self.scored: list[np.ndarray] = []
        self.made_by = ledger.name()

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        assert cases.target is None  # neither validation nor test cases show theirs
        ledger.charge("another run", self.params.found)
        ledger.charge(self.made_by, 1e6)
        self.scored.append(cases.case)
        for batch in cases.batches(50):
            scores = np.tile(-np.arange(self.n_items, dtype=np.float32), (len(batch), 1))
            for row, case in enumerate(batch.case):
                if case in self.answers:
                    scores[row, self.answers[case]] = 1
            if self.params.bad == "nan":
                scores[0, 0] = np.nan
            if self.params.bad == "width":
                scores = scores[:, 1:]
            if self.params.bad == "short":
                scores = scores[1:]
            if self.params.bad == "crash":
                raise RuntimeError("a bug of the method")
            yield scores

    def texts(self) -> pd.DataFrame | None:
        if self.params.label != "writes":
            return None
        return pd.DataFrame({"case": self.scored[-1], "prompt": "say why", "reasoning": "because"})

    def tokens_written(self) -> int:
        return -1 if self.params.bad == "tokens" else 17

    def report(self) -> dict[str, Any]:
        return {"epochs": 3, "curve": [0.1, 0.2]}


class Fits(list[dict[str, Any]]):
    """What the stub's fit() was called with, and the recommenders that it gave."""


def stub_fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    """The stub becomes the one known method; its fits are in what this returns."""
    calls, module = Fits(), ModuleType("baselines.stub")

    def fit(split: Split, *, seed: int, params: dict[str, Any], workdir: Path) -> Stub:
        assert workdir.is_dir()
        stub = Stub(split, Params.model_validate(params))
        ledger.charge("another run", 2 * stub.params.found)
        calls.append({"seed": seed, "params": params, "workdir": workdir, "stub": stub})
        return stub

    module.fit, module.Params, module.__file__ = fit, Params, "baselines/stub.py"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "baselines.stub", module)
    monkeypatch.setattr(methods, "known_methods", lambda: ["stub"])
    return calls


def stub_data(folder: Path) -> Path:
    """A prepared dataset `toy` with 60 test and 40 validation cases, in the folder."""
    return write_prepared(folder / "toy", planted(n_users=60), test_cases=60, valid_cases=40)


class Job:
    """`python -m benchmark.jobs.run` in this process."""

    def __init__(self, data: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.data, self.root, self.monkeypatch = data, root, monkeypatch

    def __call__(self, seed: int = 1, **options: Any) -> Path:
        out = self.root / "runs" / "toy" / "stub" / f"seed{seed}"
        arguments = {
            "data": self.data,
            "method": "stub",
            "seed": seed,
            "work": self.root / "work",
            "out": out,
        } | options
        words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
        self.monkeypatch.setattr(sys, "argv", ["run", *words])
        run.main()
        return Path(arguments["out"])


def refused(job: Job, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    """The sentence with which the command ends with exit code 2."""
    with pytest.raises(SystemExit) as end:
        job(**options)
    assert end.value.code == 2
    message = capsys.readouterr().err.strip().split("\n")[-1]
    assert message.startswith("error: ")
    return message


SECTION = {"section": {"a": 1, "b": 2}}  # the default
GRID = json.dumps([{"skill": 0.2}, {"skill": 0.9, "label": "best"}, {"skill": 0.5}])
