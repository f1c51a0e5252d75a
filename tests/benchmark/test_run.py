"""One run: what is recorded, and nothing written when something is wrong."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock, Timeout

from benchmark.contract import Learned, Split
from benchmark.errors import InputError
from benchmark.jobs import run
from benchmark.jobs.code import code_files, code_hash
from benchmark.jobs.records import LearnedFrom, RunRecord, read_run
from benchmark.jobs.tuning import check_report
from benchmark.provenance import derive_seed
from benchmark.storage.io import read_json, write_json
from tests.support.results_tree import sealed_again
from tests.support.stub_method import GRID, SECTION, Fits, Job, Stub, refused, stub_data, stub_fits


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    return stub_fits(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def job(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(data, tmp_path, monkeypatch)


# What is recorded


def test_a_run_without_a_grid_ranks_and_records_once(job: Job, fits: Fits, data: Path) -> None:
    out = job(params=json.dumps({"skill": 0.7}))
    assert sorted(path.name for path in out.iterdir()) == ["rankings.parquet", "run.json"]
    record = read_run(out / "run.json")
    assert isinstance(record, RunRecord)
    assert (record.dataset, record.method, record.seed) == ("toy", "stub", 1)
    assert record.params == {"skill": 0.7, "label": "", "bad": "", "found": 0.0} | SECTION  # defaults included
    assert record.tuning is None and len(fits) == 1
    assert record.seed_value == fits[0]["seed"] == derive_seed("toy", "stub", 1)
    assert record.data_hash == read_json(data / "dataset.json")["split_hash"]
    assert record.code == code_hash(code_files("stub")) != ""
    assert record.n_cases == 60 and record.tokens_written == 17
    assert record.report == {"epochs": 3, "curve": [0.1, 0.2]}
    assert record.latency_ms_per_case == pytest.approx(record.seconds.score / 60 * 1000, abs=0.02)
    # Nothing was validated, and the test cases were scored once; then six of them alone, for the latency.
    assert [len(cases) for cases in fits[0]["stub"].scored] == [60] + [1] * 6
    assert record.latency_ms_alone > 0


def test_what_others_had_spent_is_recorded(job: Job, fits: Fits) -> None:
    """In fit and in ranking, not what its own fit had made; a trial's validation has its own."""
    record = read_run(job(grid=json.dumps([{"found": 0.0}, {"found": 100.0, "skill": 0.9}])) / "run.json")
    assert record.seconds.reused == 300
    assert 200 <= record.seconds.fit < 210 and 100 <= record.seconds.score < 110
    assert record.latency_ms_per_case == pytest.approx(record.seconds.score / record.n_cases * 1000, abs=0.02)
    assert record.tuning is not None
    assert record.tuning.trials[0].seconds < 10 and 300 <= record.tuning.trials[1].seconds < 310


def test_a_fit_holds_the_lock_of_its_folder(job: Job, fits: Fits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that differ in scoring alone share it, and may begin at once."""
    stub = sys.modules["baselines.stub"]
    fit = stub.fit

    def alone(split: Split, *, workdir: Path, **given: Any) -> Stub:
        with pytest.raises(Timeout):
            FileLock(workdir.with_name(f".{workdir.name}.lock")).acquire(timeout=0)
        made: Stub = fit(split, workdir=workdir, **given)
        return made

    monkeypatch.setattr(stub, "fit", alone)
    job(params=json.dumps({"skill": 0.7}))
    assert len(fits) == 1


def test_a_file_that_is_replaced_while_the_run_uses_it_ends_the_run(
    job: Job, fits: Fits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else its record would say that the run was made from what the file holds at its end."""
    model, stub, replaces = tmp_path / "model.safetensors", sys.modules["baselines.stub"], list[bool]()
    model.write_text("one")
    fit = stub.fit

    def fit_meanwhile(split: Split, **given: Any) -> Stub:
        if replaces:
            model.write_text("two")
        made: Stub = fit(split, **given)
        return made

    monkeypatch.setattr(run, "named_files", lambda params: [model])
    monkeypatch.setattr(stub, "fit", fit_meanwhile)
    assert job(seed=2).exists()
    replaces.append(True)
    message = refused(job, capsys)
    assert message == f"error: {model}: has changed while the run used it; leave it alone and start the run again"
    assert not (tmp_path / "runs/toy/stub/seed1").exists()


def test_rankings_are_the_evaluators(job: Job, fits: Fits, data: Path) -> None:
    out = job()
    rankings = pq.read_table(out / "rankings.parquet")
    test = pd.read_parquet(data / "test.parquet")
    targets = pd.read_parquet(data / "test_targets.parquet")
    assert rankings.column("case").to_pylist() == test["case"].tolist() == targets["case"].tolist()
    assert rankings.column("target").to_pylist() == targets["target"].tolist()
    # The stub prefers low item numbers, so the rank of a test target counts the lower ones outside the history.
    expected = [
        1 + sum(item not in set(history) for item in range(target))
        for history, target in zip(test["history"], targets["target"], strict=True)
    ]
    assert rankings.column("rank").to_pylist() == expected


def test_texts_are_kept_beside_their_outcome(job: Job, fits: Fits, data: Path) -> None:
    out = job(params=json.dumps({"label": "writes"}))
    texts, rankings = pq.read_table(out / "texts.parquet"), pq.read_table(out / "rankings.parquet")
    assert texts.column_names == ["case", "prompt", "reasoning", "target", "rank", "top_items"]
    assert texts.column("case").to_pylist() == pd.read_parquet(data / "test.parquet")["case"].tolist()
    for column in ("case", "target", "rank", "top_items"):
        assert texts.column(column).to_pylist() == rankings.column(column).to_pylist()
        assert texts.schema.field(column).type == rankings.schema.field(column).type


def test_texts_find_their_case_in_any_order() -> None:
    rankings = pa.table({"case": [3, 5, 9], "target": [0, 1, 2], "rank": [7, 1, 4], "top_items": [[1], [1, 0], []]})
    prompts = {"prompt": ["nine", "three", "five"], "reasoning": ["9", "3", "5"]}
    written = pd.DataFrame({"case": [9, 3, 5], "rank": [0, 0, 0]} | prompts)
    table = run.texts_with_ranks(written, rankings, "stub")
    assert table.to_pydict() == {
        "case": [3, 5, 9],
        "prompt": ["three", "five", "nine"],
        "reasoning": ["3", "5", "9"],
        "target": [0, 1, 2],
        "rank": [7, 1, 4],  # the evaluator's
        "top_items": [[1], [1, 0], []],
    }


@pytest.mark.parametrize("cases", [[3, 5], [3, 5, 5], [3, 5, 5, 9], [3, 5, 8], None])
def test_texts_of_other_cases_are_refused(cases: list[int] | None) -> None:
    rankings = pa.table({"case": [3, 5, 9], "target": [0, 1, 2], "rank": [7, 1, 4], "top_items": [[1], [1], [1]]})
    written = pd.DataFrame({"reasoning": ["because"]} if cases is None else {"case": cases, "reasoning": "because"})
    with pytest.raises(InputError, match=r"^stub: texts\(\) holds other cases than were ranked; give one row per case"):
        run.texts_with_ranks(written, rankings, "stub")


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (["because"], r"texts\(\) gave list; return a pandas DataFrame, or None"),
        (pd.DataFrame({"case": [3, "x"], "reasoning": "because"}), "holds other cases than were ranked"),
        (
            pd.DataFrame({"case": [3, 5], "prompt": "p", "reasoning": ["a", 1]}),
            r"holds what parquet can't \(.*\); give text and numbers",
        ),
        (
            pd.DataFrame({"case": [3, 5], "reasoning": "because"}),
            r"^stub: texts\(\) has no column 'prompt'; give case, prompt and reasoning",
        ),
        (
            pd.DataFrame({"case": [3, 5], "prompt": "p", "reasoning": ["a", "\ud800"]}),
            r"holds what parquet can't \(.*surrogate",
        ),
    ],
)
def test_texts_that_are_none_are_one_sentence(written: Any, sentence: str) -> None:
    rankings = pa.table({"case": [3, 5], "target": [0, 1], "rank": [7, 1], "top_items": [[1], [1]]})
    with pytest.raises(InputError, match=sentence) as caught:
        run.texts_with_ranks(written, rankings, "stub")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [(1, 2), "\ud800", {"x": {1: 2}}, 10**5000, float("nan"), {1}, b"x"],
    ids=["tuple", "half a pair", "number as a name", "digits", "nan", "set", "bytes"],  # pytest can't print some
)
def test_a_report_holds_what_its_record_can_be_read_with(value: Any) -> None:
    check_report({"losses": [1.5, None], "by": {"x": True}}, "stub")
    with pytest.raises(InputError, match=r"^stub: report\(\) holds 'seen', which run.json can't: ") as caught:
        check_report({"fine": 1, "seen": value}, "stub")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"report\(\) holds 1, which run.json can't: Input should be a valid string"):
        check_report({1: "x"}, "stub")


def test_a_row_under_another_name_than_its_module(job: Job, fits: Fits) -> None:
    record = read_run(job(method="stub-small", module="stub", out=job.root / "x") / "run.json")
    assert record.method == "stub-small" and record.seed_value == derive_seed("toy", "stub-small", 1)


def test_a_methods_stream_is_that_of_all_its_rows(job: Job, fits: Fits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of other names, an ablation's run and another method of that stream have one seed in each repetition."""
    monkeypatch.setattr(sys.modules["baselines.stub"], "STREAM", "shared", raising=False)
    job()
    job(method="stub-small", module="stub", out=job.root / "x")
    job(method="stub--section.b=7", module="stub", stream="stub", out=job.root / "y")
    job(seed=2)
    expected = [derive_seed("toy", "shared", seed) for seed in (1, 1, 1, 2)]
    assert [call["seed"] for call in fits] == expected and expected[0] != expected[3]


# Nothing is written when something is wrong


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("nan", "stub: a score in row 0 of a batch is nan"),
        ("width", "stub: scores have shape (50, 59), expected [cases, 60]"),
        ("short", "stub: score() gave 58 rows for 60 cases"),
        ("tokens", "stub: tokens_written: expected at least 0, found -1; mend what the method gives for it"),
    ],
)
def test_wrong_scores_write_nothing(
    bad: str, message: str, job: Job, fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(job, capsys, params=json.dumps({"bad": bad}))
    assert not list(job.root.glob("runs/**/*"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"users": 3},
            "learned() gave {'users': 3}; return Learned(users, targets, positions) of benchmark.contract, or",
        ),
        ({}, "learned() gave {}; return Learned"),
        (0, "learned() gave 0; return Learned"),
        ("x" * 500, f"learned() gave '{'x' * 99}; return Learned"),
        (Learned(-1, 2, 3), "learned() gave users: expected at least 0, found -1; return the numbers that the fit"),
        (Learned(1, 2, 3.5), "learned() gave positions: expected a whole number, found 3.5; return"),  # type: ignore[arg-type]
    ],
)
def test_what_a_fit_learned_from_is_a_learned(
    given: Any, said: str, job: Job, fits: Fits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Stub, "learned", lambda self: given)
    assert f"error: stub: {said}" in refused(job, capsys)
    assert fits[0]["stub"].scored == []  # before the ranking, which may take hours


def test_what_a_fit_says_it_learned_from_is_recorded(job: Job, fits: Fits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stub, "learned", lambda self: Learned(np.int64(1), 2, 3))  # type: ignore[arg-type]
    assert read_run(job() / "run.json").learned == LearnedFrom(users=1, targets=2, positions=3)


def test_an_uncached_recommender_is_one(
    job: Job, fits: Fits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Stub, "uncached", lambda self: None)
    assert "error: stub: uncached() gave NoneType; return a Recommender, such as itself" in refused(job, capsys)


def test_an_earlier_run_survives_a_failed_one(job: Job, fits: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    before = (job() / "run.json").read_text()
    refused(job, capsys, params=json.dumps({"bad": "nan"}))
    assert (job.root / "runs" / "toy" / "stub" / "seed1" / "run.json").read_text() == before


def test_a_crash_is_no_input_error(job: Job, fits: Fits) -> None:
    with pytest.raises(RuntimeError, match="a bug of the method"):
        job(params=json.dumps({"bad": "crash"}))
    assert not list(job.root.glob("runs/**/*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 0}, "--seed is 0; repetitions are counted from 1"),
        ({"params": '{"skil": 1}'}, "methods.stub: unknown setting 'skil'; did you mean 'skill'? Known: skill"),
        ({"grid": '[{}, {"skil": 1}]'}, "methods.stub: unknown setting 'skil'; did you mean 'skill'? Known: skill"),
        ({"params": '{"skill": "much"}'}, "methods.stub: skill: expected a number, found 'much'"),
        ({"params": "{"}, "--params: not JSON"),
        ({"grid": "{}"}, "--grid: expected a list of settings, found {}"),
        ({"params": "[]"}, "--params: expected settings, found []"),
        ({"method": "stubb"}, "--method: no method 'stubb'; did you mean 'stub'? Known: stub"),
        ({"module": "stubb"}, "--method: no method 'stubb'; did you mean 'stub'? Known: stub"),
        ({"seed": 2, "grid": GRID}, "stub: repetition 2 needs --tuned, the run.json of repetition 1"),
        ({"seed": 2, "grid": GRID, "tuned": "gone.json"}, "gone.json: missing"),
        ({"data": "gone"}, "gone/dataset.json: missing; prepare the dataset first"),
    ],
)
def test_bad_arguments_are_refused(
    options: dict[str, Any], message: str, job: Job, fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(job, capsys, **options)
    assert not fits and not list(job.root.iterdir())


def test_the_setting_of_another_method_is_refused(job: Job, fits: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    other = job(method="other", module="stub", grid=GRID, out=job.root / "other")
    message = refused(job, capsys, seed=2, grid=GRID, tuned=other / "run.json")
    assert "is seed 1 of other; --tuned takes seed 1 of stub" in message


def test_foreign_test_targets_are_refused(
    job: Job, fits: Fits, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in data.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    targets = pd.read_parquet(copy / "test_targets.parquet")
    targets.assign(case=targets["case"] + 1).to_parquet(copy / "test_targets.parquet")
    assert "test_targets.parquet: damaged or replaced" in refused(job, capsys, data=copy)
    sealed_again(copy)
    message = refused(job, capsys, data=copy)
    assert "test_targets.parquet and test.parquet hold different cases; prepare the dataset again" in message
    assert not (tmp_path / "runs").exists()


def test_json_is_never_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
