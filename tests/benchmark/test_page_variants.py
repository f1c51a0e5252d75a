"""Texts of ablations' runs among the page's reasonings: each beside its base, and none where there is no room."""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.analysis.collect import collect
from benchmark.config.factors import Factor
from benchmark.output.page import __main__ as command
from benchmark.output.page.data import document
from benchmark.statistics import ablations, claims
from tests.support.page import Opened, browser, document_of, parts_of
from tests.support.page_results import EVIL, write_texts
from tests.support.results_tree import noted_again, write_results
from tests.support.statistics import write_statistics

ROWS = {"popularity": 0.1, "r2ec": 0.8}
SEEDS = dict.fromkeys(ROWS, 2)
VARIANTS = {"r2ec--beta=0": 0.5, "r2ec--beta=1": 0.6}
FACTOR = Factor(
    name="beta",
    title="weight of R_c",
    datasets=["small"],
    seeds=2,
    base="0.05",
    runs={"0": "r2ec--beta=0", "0.05": "r2ec", "1": "r2ec--beta=1"},
    claims=[],
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """beta=1 has prompts of its own; beta=0 those of its base."""
    folder = tmp_path_factory.mktemp("variants") / "results"
    write_results(folder, ["small"], ROWS | VARIANTS, seeds=2, n_cases=60)
    for run in ("r2ec", *VARIANTS):
        write_texts(folder, "small", run, f"{run} says {EVIL}")
    path = folder / "runs/small/r2ec--beta=1/seed1/texts.parquet"
    pd.read_parquet(path).assign(prompt="another prompt").to_parquet(path)
    noted_again(path.parent)
    write_statistics(folder, ["small"], SEEDS, "r2ec")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", "--results", str(folder), "--factors", told()])
        ablations.main()
        claims.main()
    return folder


def told() -> str:
    return json.dumps([FACTOR.model_dump(mode="json")])


@pytest.fixture(scope="module")
def page(results: Path) -> Path:
    arguments = ["page", "--results", str(results), "--datasets", "small", "--methods", *ROWS, "--seeds", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*arguments, "--reference", "r2ec", "--factors", told()])
        command.main()
    return results / "report" / "index.html"


def test_their_texts_ranks_and_items_are_those_of_their_runs(page: Path, results: Path) -> None:
    about, parts = document_of(page), parts_of(page)
    assert [row["name"] for row in about["methods"]] == list(ROWS)
    assert [row["name"] for row in about["variants"]] == ["weight of R_c: 0", "weight of R_c: 1"]
    held = about["held"][0]
    assert [entry["method"] for entry in held["texts"]] == [1] and held["left_out"] == []
    assert [(entry["method"], entry.get("prompts")) for entry in held["variants"]] == [(2, 1), (3, None)]
    collected = collect(results, "small", dict.fromkeys(VARIANTS, 1))
    index, cases = parts["index/0"], parts["cases/0/0"]
    assert [index["ranks"][str(number)] for number in (2, 3)] == [ranks.tolist() for ranks in collected.ranks]
    assert parts["texts/0/2/0"][5].startswith("r2ec--beta=0 says ") and "prompts/0/2/0" not in parts
    assert set(parts["prompts/0/3/0"]) == {"another prompt"}
    top = pd.read_parquet(collected.run_folder("r2ec--beta=1", 1) / "rankings.parquet").top_items[7][:10]
    titles = pd.read_parquet(collected.folder / "items.parquet").title
    assert [index["titles"][place] for place in cases["top"]["3"][7]] == titles[top].tolist()


def test_methods_keep_their_cases_and_what_has_no_room_is_named(results: Path) -> None:
    collected = [collect(results, "small", SEEDS)]
    without, _ = document(collected, results, limit=130)
    about, parts = document(collected, results, [FACTOR], limit=130)  # of 60 cases: a row's texts and one run's
    assert about["held"][0]["shown"] == without["held"][0]["shown"] == 60
    assert [entry["method"] for entry in about["held"][0]["variants"]] == [2]
    assert about["held"][0]["left_out"] == [3] and "texts/0/3/0" not in parts


def test_they_are_chosen_and_read_beside_their_base(page: Path) -> None:
    with browser() as started:
        opened = Opened(started, page)
        opened.view("reasonings")
        choice = opened.tab.get_by_label("Written by")
        options: list[Any] = choice.locator("option").all_inner_texts()
        assert options == ["r2ec", "weight of R_c: 0", "weight of R_c: 1", "all runs of ablations"]
        choice.select_option(label="weight of R_c: 0")
        opened.tab.get_by_label("Beside it").select_option(label="r2ec")
        opened.tab.wait_for_selector("#reasonings:not([aria-busy])", state="attached")
        first = opened.tab.locator("article.case").first
        heads = first.locator("h4").all_inner_texts()
        assert heads == ["Taken before, newest first", "weight of R_c: 0", "Recommended", "r2ec", "Recommended"]
        assert "r2ec--beta=0 says He likes <script>" in first.locator(".written").first.inner_text()
        first.locator("details", has_text="Prompt as the model got it").first.locator("summary").click()
        opened.tab.wait_for_selector("article.case pre:not(:empty)")
        assert first.locator("pre").first.inner_text() == "prompt <b>1</b>"
        opened.tab.get_by_label("Written by").select_option(label="all runs of ablations")
        opened.tab.wait_for_selector("#reasonings:not([aria-busy])", state="attached")
        assert opened.tab.inner_text("main [role=status]").startswith("120 ")
        opened.close()
