"""An import fetches the models of the runs that it takes: behind it, their arrival would have those runs made again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark.transfer import workflow


def test_models_are_fetched_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workflow, "check_cache", lambda: None)
    monkeypatch.setattr(workflow, "snakemake", lambda *arguments, **_: asked.append(arguments))
    workflow.prepare(["toy"], ["resources/lm/manifest.json"], Path("x.yaml"))
    ((_, what, *targets),) = asked
    assert targets == ["--", "results/data/toy/dataset.json", "resources/lm/manifest.json"]
    assert what == "toy, resources/lm/manifest.json: could not be prepared"


def test_the_models_are_those_of_the_runs_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.transfer import import_runs

    runs = {("toy", "r2ec", "1"): None, ("toy", "sasrec", "1"): None}
    plan = SimpleNamespace(embedded=lambda run: ["lm.json"] if run == "r2ec" else [])
    asked: list[Any] = []

    def prepared(*arguments: Any) -> None:
        asked.extend(arguments)
        raise KeyboardInterrupt  # what comes behind is tested in tests/workflow/test_export.py

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(import_runs, "plan_in", lambda *_: plan)
    monkeypatch.setattr(import_runs, "in_folder", lambda *_: runs)
    monkeypatch.setattr(import_runs, "prepare", prepared)
    monkeypatch.setattr("sys.argv", ["import", "x.yaml", str(tmp_path), "--directory", str(tmp_path / "run")])
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        import_runs.main()
    assert asked == [["toy"], ["lm.json"], (Path("x.yaml")).resolve()]
