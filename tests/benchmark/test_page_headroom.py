"""What choosing among reasonings could gain, on the page: which measures it shows, and how they are read."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.analysis.arguments import headroom_files
from benchmark.analysis.collect import Collected, collect
from benchmark.errors import InputError
from benchmark.output.page.headroom import Term, part_of, rows_of
from benchmark.storage.io import read_json, write_json
from tests.support.browsed_page import write_page
from tests.support.page import Opened, browser
from tests.support.page_headroom import measured, write_headroom
from tests.support.results_tree import write_results


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(tmp_path / "results", ["small"], {"popularity": 0.1, "r2ec": 0.8}, seeds=1, n_cases=20)
    return tmp_path / "results"


def shown(results: Path) -> list[Collected]:
    return [collect(results, "small", {"popularity": 1, "r2ec": 1})]


def test_a_measure_of_a_run_on_the_page_is_shown(results: Path) -> None:
    assert part_of(shown(results), results) is None
    write_headroom(results, measured(results, "small", "r2ec"), "any name")
    found = part_of(shown(results), results)
    assert found is not None and found["left_out"] == [] and len(found["datasets"]) == 1
    part = found["datasets"][0]
    assert part["name"] == "small" and part["headroom"]["within"] == {"NDCG@1000": 0.11, "log rank": 0.0412}
    assert [row["gain"] for row in part["headroom"]["oracle"]] == [0, -1, -2]
    assert part["gradients"]["terms"][0]["scale_high"] is None
    headroom_files(results)[0].unlink()
    alone = part_of(shown(results), results)
    assert alone is not None and (alone["datasets"][0]["headroom"] is None) != (
        alone["datasets"][0]["gradients"] is None
    )


def test_a_measure_of_anything_else_is_left_out_with_the_reason(results: Path) -> None:
    run = measured(results, "small", "r2ec")
    for name, other in {
        "a": None,
        "b": run.model_copy(update={"sha256": "0" * 64}),
        "c": run.model_copy(update={"dataset": "other"}),
        "d": run.model_copy(update={"seed": 2}),
    }.items():
        write_headroom(results, other, name)
    found = part_of(shown(results), results)
    assert found is not None and found["datasets"] == []
    reasons = [
        "it names no run; measure with --run",
        "r2ec on small, seed 1, was fitted again since; measure again",
        "this page has no run r2ec on other, seed 1",
        "this page has no run r2ec on small, seed 2",
    ]
    names = ("gradients", "headroom")
    expected = [
        f"headroom/{x}/{name}.json is left out: {why}."
        for x, why in zip("abcd", reasons, strict=True)
        for name in names
    ]
    assert found["left_out"] == expected


def test_runs_of_one_dataset_stand_apart_and_a_second_measure_is_named(results: Path) -> None:
    for name, method in {"a": "r2ec", "b": "popularity", "c": "r2ec"}.items():
        write_headroom(results, measured(results, "small", method), name)
    found = part_of(shown(results), results)
    assert found is not None
    assert [part["name"] for part in found["datasets"]] == ["small, popularity, seed 1", "small, r2ec, seed 1"]
    assert [part["headroom"]["run"]["method"] for part in found["datasets"]] == ["popularity", "r2ec"]
    assert [part["gradients"]["run"]["method"] for part in found["datasets"]] == ["popularity", "r2ec"]
    assert found["left_out"] == [
        f"headroom/c/{name}.json is left out: another measure of the same run is shown."
        for name in ("gradients", "headroom")
    ]


def test_a_file_that_is_no_measure_is_named(results: Path) -> None:
    path, _ = write_headroom(results, measured(results, "small", "r2ec"), "small")
    value = read_json(path)
    write_json(path, value | {"cases": "many"})
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}: cases: .*; measure again, or delete it"):
        part_of(shown(results), results)


def test_rows_without_a_number_hold_none() -> None:
    frame = pd.DataFrame(
        [
            {name: 1.5 for name in Term.model_fields}
            | {"term": "items", "norm": 2.0, "low": np.nan, "scale_high": np.inf}
        ]
    )
    (row,) = rows_of(frame, Term)
    assert row.low is None and row.scale_high is None and row.steps == 1.5 and row.term == "items"


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as chromium_started:
        yield chromium_started


def test_the_view_shows_each_statistic_and_no_markup(started: Any, tmp_path: Path) -> None:
    page = write_page(tmp_path / "results")
    opened = Opened(started, page, "#view=headroom")
    tab = opened.tab
    assert tab.locator("h2").inner_text() == "What choosing among reasonings could gain"
    assert "small, r2ec, seed 1, commit 0123456789: 40 validation cases of 30 users, 4 sampled reasonings" in (
        tab.locator("main").inner_text()
    )
    label = "Choices without the target"
    assert opened.cells(label, 0) == ["surest", "learned from <b>words</b>", "best of the user's case before"]
    intervals = tab.locator(f'[role="region"][aria-label="{label}"] td:nth-of-type(1) small').all_inner_texts()
    assert intervals == ["[−0.2500, +0.0500]", "no case differs", "[−0.2500, +0.0500]"]
    assert opened.cells(label, 4) == ["0.04", "", "0.2"]
    assert "Change of log rank over a random reasoning. Less is better." in tab.locator("main").inner_text()
    tab.get_by_label("Statistic").select_option("NDCG@10")
    assert "Change of NDCG@10 over a random reasoning. More is better." in tab.locator("main").inner_text()
    assert "statistic=NDCG%4010" in tab.url
    oracle = "An oracle that knows the target"
    assert opened.cells(oracle, 1)[:2] == ["+0.0000 [−0.1000, +0.1000]", "−1.0000 [−1.1000, −0.9000]"]
    assert opened.cells(oracle, 3) == ["5.0000", "4.0000", "3.0000"]
    assert opened.cells("Signal and noise of the gradient", 1) == ["0.4 % [-0.1 %, 0.9 %]"]
    assert opened.cells("Signal and noise of the gradient", 2) == ["3,620 [1,762, no end]"]
    tab.get_by_label("Dataset").select_option("other")
    assert "headroom/old/headroom.json is left out: it names no run" in tab.locator("main").inner_text()
    opened.close()
