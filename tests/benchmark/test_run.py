"""One run: tuning on validation alone, what is recorded, and nothing written when something is wrong."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from benchmark import evaluate, provenance
from benchmark.config import methods
from benchmark.contract import Cases, Learned, Recommender, Split
from benchmark.data.store import read_split
from benchmark.errors import InputError
from benchmark.jobs import run, tuning
from benchmark.jobs.code import code_files, code_hash
from benchmark.jobs.records import LearnedFrom, RunRecord, read_run
from benchmark.jobs.tuning import check_report
from benchmark.metrics import ndcg
from benchmark.provenance import derive_seed
from benchmark.storage import ledger
from benchmark.storage.io import read_json, write_json
from tests.support.planted import planted, write_prepared
from tests.support.results_tree import sealed_again


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


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "toy", planted(n_users=60), test_cases=60, valid_cases=40)


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


@pytest.fixture
def job(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(data, tmp_path, monkeypatch)


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


# Tuning


def test_the_grid_is_tried_on_validation_and_the_best_kept(job: Job, fits: Fits) -> None:
    record = read_run(job(params=json.dumps({"label": "base"}), grid=GRID) / "run.json")
    assert record.tuning is not None
    assert [trial.params["skill"] for trial in record.tuning.trials] == [0.2, 0.9, 0.5]
    assert [trial.params["label"] for trial in record.tuning.trials] == ["base", "best", "base"]  # grid over params
    assert record.tuning.chosen == 1 and record.tuning.criterion == "valid NDCG@10"
    assert record.params == {"skill": 0.9, "label": "best", "bad": "", "found": 0.0} | SECTION
    # One seed for all, each in a folder of its own; the test cases are scored once, by the chosen fit.
    assert {call["seed"] for call in fits} == {derive_seed("toy", "stub", 1)}
    assert len({call["workdir"] for call in fits}) == 3
    assert [[len(cases) for cases in call["stub"].scored] for call in fits] == [[40], [40, 60] + [1] * 6, [40]]


def test_a_trial_names_one_setting_of_a_section(job: Job, fits: Fits) -> None:
    grid = json.dumps([{"skill": 0.9, "section": {"b": 3}}, {"skill": 0.1}])
    record = read_run(job(params=json.dumps({"section": {"a": 7, "b": 8}}), grid=grid) / "run.json")
    assert [call["params"]["section"] for call in fits] == [{"a": 7, "b": 3}, {"a": 7, "b": 8}]
    assert record.params["section"] == {"a": 7, "b": 3}


def test_the_criterion_is_ndcg_of_the_one_evaluator(job: Job, fits: Fits, data: Path) -> None:
    record = read_run(job(grid=GRID) / "run.json")
    assert record.tuning is not None
    split = read_split(data)
    assert split.valid.target is not None
    table = evaluate.rank(
        Stub(split, Params(skill=0.2)).score(replace(split.valid, target=None)),
        split.valid,
        split.valid.target,
        split.n_items,
        "stub",
    )
    expected = ndcg(table.column("rank").to_numpy(), 10).mean()
    assert record.tuning.trials[0].value == pytest.approx(expected, abs=1e-6)
    assert 0.2 < expected < 0.6  # a fifth is right, and some of the rest by chance


def test_of_equals_the_first_is_kept(job: Job, fits: Fits) -> None:
    grid = json.dumps([{"skill": 0.1}, {"label": "first"}, {"label": "second"}])
    record = read_run(job(grid=grid) / "run.json")
    assert record.tuning is not None and record.tuning.chosen == 1
    assert record.tuning.trials[1].value == record.tuning.trials[2].value
    assert record.params["label"] == "first"


UNDECIDED = "have the same valid NDCG@10, "


def test_a_grid_that_fit_never_reads_is_said(job: Job, fits: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    """The stub reads neither label nor section when it fits."""
    grid = json.dumps([{"label": label, "section": {"b": b}} for label, b in (("x", 1), ("y", 1), ("x", 2))])
    record = read_run(job(grid=grid) / "run.json")
    assert record.tuning is not None and record.tuning.undecided and record.tuning.chosen == 0
    value = f"{record.tuning.trials[0].value:g}"
    assert (
        f"stub: all 3 settings {UNDECIDED}{value}, so that nothing was chosen; look whether fit() reads what they "
        "differ in (label, section.b)\n"
    ) in capsys.readouterr().out
    # One that differs is enough, and a single setting chooses nothing.
    for others in ([{"label": "x"}, {"label": "y"}, {"skill": 0.9}], [{"label": "x"}]):
        tuning = read_run(job(grid=json.dumps(others)) / "run.json").tuning
        assert tuning is None or not tuning.undecided
        assert UNDECIDED not in capsys.readouterr().out


def test_a_grid_of_one_has_nothing_to_choose(job: Job, fits: Fits) -> None:
    grid = json.dumps([{"label": "only"}])
    for seed in (1, 2):
        record = read_run(job(seed=seed, grid=grid) / "run.json")
        assert record.tuning is None and record.params["label"] == "only"


def test_later_repetitions_take_the_tuned_setting(job: Job, fits: Fits) -> None:
    first = job(grid=GRID)
    record = read_run(job(seed=2, grid=GRID, tuned=first / "run.json") / "run.json")
    assert len(fits) == 4  # three settings in repetition 1, one fit in repetition 2
    assert record.params == {"skill": 0.9, "label": "best", "bad": "", "found": 0.0} | SECTION == fits[3]["params"]
    assert record.seed_value == fits[3]["seed"] == derive_seed("toy", "stub", 2) != fits[0]["seed"]
    assert record.tuning == read_run(first / "run.json").tuning


# An ablation's run


def test_a_variant_has_the_random_streams_of_its_base(job: Job, fits: Fits) -> None:
    overlay = json.dumps({"section": {"b": 7}})
    named = {"method": "stub--section.b=7", "module": "stub", "stream": "stub", "out": job.root / "variant"}
    out = job(params=json.dumps(SECTION), overlay=overlay, **named)
    record = read_run(out / "run.json")
    assert record.method == "stub--section.b=7" and record.params["section"] == {"a": 1, "b": 7}
    assert record.seed_value == fits[0]["seed"] == derive_seed("toy", "stub", 1)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_variant_takes_the_tuned_setting_of_its_base(job: Job, fits: Fits, seed: int) -> None:
    first = job(grid=GRID)
    named = {"method": "stub--section.b=7", "module": "stub", "stream": "stub", "out": job.root / "variant"}
    arguments = named | {"grid": GRID, "overlay": json.dumps({"section": {"b": 7}}), "tuned": first / "run.json"}
    record = read_run(job(seed=seed, **arguments) / "run.json")
    assert len(fits) == 4  # nothing is tuned again
    assert (
        record.params
        == {"skill": 0.9, "label": "best", "bad": "", "found": 0.0, "section": {"a": 1, "b": 7}}
        == fits[3]["params"]
    )
    assert (
        record.seed_value == derive_seed("toy", "stub", seed) and record.tuning == read_run(first / "run.json").tuning
    )


def test_a_variant_of_a_tuned_base_waits_for_it(job: Job, fits: Fits, capsys: pytest.CaptureFixture[str]) -> None:
    named = {"method": "variant", "module": "stub", "stream": "stub", "grid": GRID}
    assert "variant: repetition 1 needs --tuned, the run.json of repetition 1 of stub" in refused(job, capsys, **named)
    assert "methods.stub: unknown setting 'skil'" in refused(job, capsys, overlay='{"skil": 1}')
    assert "--overlay: expected settings, found []" in refused(job, capsys, overlay="[]")


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


# Checkpoints


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


def test_json_is_never_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
