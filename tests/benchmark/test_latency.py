"""Seconds of an answer, held to a clock that the test moves; and the command on planted data."""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.config.read import read_config_file
from benchmark.config.schema import MethodConfig
from benchmark.contract import Cases, Recommender
from benchmark.errors import InputError
from benchmark.provenance import ROOT
from benchmark.speed import latency
from benchmark.speed.latency import markdown, measured, printed_in
from tests.support.planted import planted, planted_split, write_prepared

SPLIT, _ = planted_split()
BUDGETS = {
    "backbone",
    "lora",
    "max_items",
    "max_prompt_tokens",
    "max_new_tokens",
    "max_history",
    "candidates",
    "weight",
    "query",
    "ranking",
    "reasoning",
    "item_knowledge",
}


class Clock:
    """Stands still but where a recommender moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(Recommender):
    """Takes, of each call, 1 s and `per_case` s for each case; every further call takes `later` times as long."""

    def __init__(self, clock: Clock, per_case: list[float], later: float) -> None:
        self.clock, self.per_case, self.later = clock, per_case, later
        self.calls, self.asked = 0, list[int]()

    def score(self, cases: Cases) -> Iterator[np.ndarray]:
        self.calls += 1
        self.asked.append(len(cases))
        slower = self.later if self.calls > 5 else 1.0
        self.clock.now += 1 + slower * sum(self.per_case[int(case) % 3] for case in cases.case)
        yield np.zeros((len(cases), SPLIT.n_items))

    def tokens_written(self) -> int:
        return 4 * self.asked[-1]


def test_seconds_by_hand() -> None:
    cases = SPLIT.valid.take(np.arange(3))
    clock = Clock()
    per_case = [0.0, 0.0, 0.0]
    for case, seconds in zip(cases.case, (1.0, 2.0, 4.0), strict=True):
        per_case[int(case) % 3] = seconds
    method = Slow(clock, per_case, later=3.0)
    latencies, failed = measured({"r2ec": method}, cases, 3, clock)
    assert failed == {}
    found = latencies["r2ec"]
    # The first call warms up; a round is three queries and all of them together. From the sixth call on it is slower.
    assert method.asked == [1, *[1, 1, 1, 3] * 3]
    np.testing.assert_allclose(found.alone, [[2, 3, 5], [4, 7, 13], [4, 7, 13]])
    np.testing.assert_allclose(found.together, [8, 22, 22])
    row = found.row("r2ec")
    # Medians over the rounds are 4, 7 and 13.
    assert (row["alone_s"], row["alone_5_s"], row["alone_95_s"]) == (7, 4.3, 12.4)
    assert (row["batch_s"], row["tokens"]) == (7.333, 4)


def test_every_method_is_timed_in_every_round() -> None:
    clock, order = Clock(), list[str]()

    class Noted(Slow):
        def __init__(self, name: str) -> None:
            super().__init__(clock, [0.0] * 3, 1.0)
            self.name = name

        def score(self, cases: Cases) -> Iterator[np.ndarray]:
            order.append(self.name)
            return super().score(cases)

    measured({name: Noted(name) for name in "ab"}, SPLIT.valid.take(np.arange(1)), 2, clock)
    assert "".join(order) == "ab" + "aabb" * 2


@pytest.mark.parametrize("ends_at", [0, 1, 4, 6])
def test_a_method_that_fails_takes_no_further_part_and_the_others_have_their_seconds(ends_at: int) -> None:
    """Its calls: 0 warms up, 1 to 3 are the first round's queries, 4 all of them, 5 to 8 the second round."""
    clock, said = Clock(), list[str]()

    class Failing(Slow):
        def score(self, cases: Cases) -> Iterator[np.ndarray]:
            if self.calls == ends_at:
                self.asked.append(-1)
                raise ZeroDivisionError("no item is left")
            return super().score(cases)

    cases = SPLIT.valid.take(np.arange(3))
    bad, good = Failing(clock, [0.0] * 3, 1.0), Slow(clock, [0.0] * 3, 1.0)
    found, failed = measured({"bad": bad, "good": good}, cases, 2, clock, said.append)
    assert failed == {"bad": "ZeroDivisionError: no item is left"} and list(found) == ["good"]
    assert bad.asked == [*[1, 1, 1, 1, 3, 1, 1, 1, 3][:ends_at], -1] and len(good.asked) == 9
    np.testing.assert_allclose(found["good"].alone, np.ones((2, 3)))
    assert said.count("bad failed: ZeroDivisionError: no item is left") == 1


def test_a_printed_table_stands_beside_ours() -> None:
    def row(method: str, seconds: float) -> dict[str, Any]:
        times = {"alone_s": seconds, "alone_5_s": seconds / 2, "alone_95_s": seconds * 2, "batch_s": seconds / 4}
        return {"method": method, "queries": 2, "rounds": 3, "tokens": 16} | times

    rows, printed = (
        [row("sasrec", 0.002), row("r2ec", 0.5), row("mine", 1.0)],
        {"sasrec": 0.014, "r2ec": 1.67, "x": 5.0},
    )
    lines = markdown(rows, "r2ec", printed, "A machine.").splitlines()
    assert lines[0].endswith("| tokens written | times r2ec | printed: s | printed: times r2ec |")
    assert lines[2] == "| sasrec | 0.002 | 0.001 to 0.004 | 0.0005 | 16 | 0.004 | 0.014 | 0.0084 |"
    assert lines[3] == "| r2ec | 0.5 | 0.25 to 1 | 0.125 | 16 | 1 | 1.67 | 1 |"
    assert lines[4] == "| mine | 1 | 0.5 to 2 | 0.25 | 16 | 2 |  |  |" and lines[-1] == "A machine."
    assert lines[5] == "| x |  |  |  |  |  | 5 | 3 |"
    assert "| mine | 1 | 0.5 to 2 | 0.25 | 16 |\n" in markdown([row("mine", 1.0)], None, {}, "")
    lines = markdown(rows[1:2], "r2ec", printed, "", {"sasrec": "a|b", "mine": "c"}).splitlines()[2:6]
    assert lines[0].startswith("| r2ec | 0.5 | 0.25 to 1 |")
    assert lines[1] == r"| sasrec | failed: a\|b |  |  |  |  | 0.014 | 0.0084 |"
    assert lines[2] == "| mine | failed: c |  |  |  |  |  |  |" and lines[3] == "| x |  |  |  |  |  | 5 | 3 |"
    assert "| mine | 1 | 0.5 to 2 | 0.25 | 16 |  |\n" in markdown([row("mine", 1.0)], "r2ec", {}, "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("method,s\na,1\n", "has the columns ['method', 's']; give method and seconds"),
        ("method,seconds\na,1\nb,fast\n", "row 2: seconds is 'fast'; give a number above 0"),
        ("method,seconds\na,1\na,2\n", "row 2: 'a' stands there twice; give each method once"),
        ("method,seconds\na,inf\n", "row 1: seconds is 'inf'; give a number above 0"),
        ("", "can't be read (No columns to parse from file); give a CSV of method and seconds"),
    ],
)
def test_a_printed_table_that_is_none_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "printed.csv").write_text(text)
    with pytest.raises(InputError) as refused:
        printed_in(tmp_path / "printed.csv")
    assert str(refused.value) == f"{tmp_path / 'printed.csv'}: {sentence}"


def test_the_papers_seconds_can_be_read() -> None:
    of_paper = re.search(r"^METHODS \?= (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert of_paper is not None
    rows = read_config_file(ROOT / "config/latency.yaml").methods
    names = of_paper[1].split()
    assert set(printed_in(ROOT / "docs/paper-latency.csv")) - set(rows) == {"r2ec with vLLM"}
    assert set(printed_in(ROOT / "docs/paper-latency.csv")) & set(rows) == set(names) == set(list(rows)[:5])


def test_every_row_of_the_pipelines_can_be_timed_with_its_text_budget() -> None:
    """What an answer costs goes by these settings; only how long a row is fitted may differ."""
    timed, pipelines = (read_config_file(ROOT / f"config/{name}.yaml") for name in ("latency", "decoupled"))
    assert timed.methods.keys() == pipelines.methods.keys()
    for name in pipelines.methods:
        own, theirs = pipelines.method(name), timed.method(name)
        assert theirs.module == own.module
        assert dict(budgets(theirs.params)) == dict(budgets(own.params)), name


def budgets(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if name in BUDGETS:
            yield name, value
        elif isinstance(value, Mapping):
            yield from budgets(value)


def test_some_rows_of_a_config_are_timed_in_its_order(tmp_path: Path) -> None:
    methods = {"a": None, "b": MethodConfig(), "c": None}
    assert list(latency.chosen(methods, ["c", "a"], tmp_path)) == ["a", "c"]
    assert latency.chosen(methods, None, tmp_path) == methods
    with pytest.raises(InputError, match=r"--methods d: .* has no such row; give some of a, b, c"):
        latency.chosen(methods, ["a", "d"], tmp_path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_prepared(tmp_path / "run/results/data/planted", planted())
    (tmp_path / "fast.yaml").write_text(
        "datasets: {planted: {source: files, category: thing, options: {folder: x}}}\n"
        "methods: {popularity: , item_knn: {params: {decay: 0.5}}}\nnote: Only a try.\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["latency", "fast.yaml", "--directory", "run", *arguments])
    latency.main()


def test_the_command_writes_the_table_and_says_where(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "--queries", "7", "--rounds", "2")
    said = capsys.readouterr().out
    with (run / "run/results/latency/latency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["queries"], row["rounds"]) for row in rows] == [
        ("popularity", "7", "2"),
        ("item_knn", "7", "2"),
    ]
    assert all(0 < float(row["alone_5_s"]) <= float(row["alone_s"]) <= float(row["alone_95_s"]) for row in rows)
    text = (run / "run/results/latency/latency.md").read_text()
    assert text in said and "7 test cases of planted, 2 rounds" in text and text.endswith("Only a try.\n")
    assert "round 2 of 2: item_knn, s per query: " in said
    assert said.endswith(f"Table: {run / 'run/results/latency/latency.md'}\n")


def test_a_fit_that_fails_is_a_row_and_one_that_no_method_survives_is_a_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = ["item_knn"]

    def fitted(name: str, *others: Any) -> Recommender:
        if name in bad:
            raise ValueError("=no history") if name == "item_knn" else InputError("x is 0; give 1")
        return whole(name, *others)

    whole = latency.fitted
    monkeypatch.setattr(latency, "fitted", fitted)
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "--queries", "2", "--rounds", "1")
    assert ended.value.code == 1
    with (run / "run/results/latency/latency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["queries"], row["failed"]) for row in rows] == [
        ("popularity", "2", ""),
        ("item_knn", "", "ValueError: =no history"),
    ]
    text = (run / "run/results/latency/latency.md").read_text()
    assert r"| item\_knn | failed: ValueError: =no history |  |  |  |" in text
    shown = capsys.readouterr()
    assert text in shown.out and "item_knn failed: ValueError: =no history" in shown.err
    bad.append("popularity")
    monkeypatch.chdir(run)
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "--queries", "2")
    assert ended.value.code == 2
    assert "error: no method could be timed; popularity failed: x is 0; give 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--queries", "0"), "--queries 0 --rounds 3: give numbers of at least 1"),
        (("--queries", "99999"), "test cases; give --queries"),
        (("--directory", "nowhere"), "--directory nowhere: no such folder; run the config there first"),
    ],
)
def test_a_number_that_can_not_be_is_one_sentence(
    arguments: tuple[str, ...],
    sentence: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *arguments)
    assert ended.value.code == 2 and sentence in capsys.readouterr().err
    assert not (run / "run/results/latency/latency.csv").exists()
