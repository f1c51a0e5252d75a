"""The page's tables and figures in a real browser: sorted, filtered, chosen, explained, compared and copied.

Nothing is on the console, and no request is made.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.output.page.html import render
from benchmark.output.plots import overlaps
from tests.support.browsed_page import SKILL, write_page
from tests.support.page import Opened, browser, document_of


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as chromium_started:
        yield chromium_started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("browser") / "results")


@pytest.fixture(scope="module")
def three(page: Path) -> Path:
    """The page with a third dataset, four further methods, and a claim of each dataset; none of it has cases."""
    about = document_of(page)
    copies = range(len(about["methods"]), len(about["methods"]) + 4)
    about["methods"] += [{"name": f"further_method_{number}", "kind": "baseline"} for number in copies]
    tokens = about["costs"]["names"].index("tokens")
    for part in (*about["datasets"], about["overall"]):
        part["rows"][0]["costs"][tokens] = 32_000  # so that all of the main costs are shown
        part["rows"] += [part["rows"][1] | {"method": number, "p": [None] * 6} for number in copies]
    about["datasets"].append(about["datasets"][0] | {"name": "movielens-2016"})
    for rows in (about["provenance"][name] for name in ("rules", "settings")):
        for row in rows:
            row[-1].append(row[-1][0])
    for number, run in enumerate(about["provenance"]["runs"]):  # no column holds one value alone
        run |= {"dataset": "movielens-2016", "method": "r2ec_no_reasoning", "seed": 1_254_835_542 + number}
        run |= {"fit, s": 10_432 + number, "peak memory, MiB": 2_913 + number, "tokens written": 32_000 + number}
        run |= {"users learned from": 670 + number, "targets learned": 71_021 + number, "settings tried": 1 + number}
        run |= {"commit": f"9d4bd4c43a{'-dirty' if number % 2 else ''}", "finished, UTC": f"2026-11-28 02:{number:02}"}
    about["provenance"]["runs"][0] |= {"dataset": "complete-journey", "method": "r2ec"}
    where = [part["name"] for part in about["datasets"]]
    claim = {"claim": 0, "says": "A claim.", "title": "a factor", "factor": "f", "verdict": "supports", "missing": ""}
    claim |= {"metric": "NDCG@10", "seeds": 2, "difference": 0.1, "low": 0.0, "high": 0.2, "p_holm": 0.01}
    lines = [[f"Found on {name}.", "supports"] for name in where]
    about["claims"] = {
        "rule": "",
        "rows": [claim | {"dataset": name, "detectable": 0.1, "margin": None} for name in where],
        "sentences": [{"says": "A claim.", "expected": "Expected: more.", "lines": lines}],
    }
    path = page.with_name("three.html")
    path.write_text(render(about, {}), encoding="utf-8")
    return path


def test_the_leaderboard_sorts_by_what_is_clicked(started: Any, page: Path) -> None:
    opened = Opened(started, page, "#dataset=0")
    means = [row["mean"][3] for row in document_of(page)["datasets"][0]["rows"]]
    by_mean = [name for _, name in sorted(zip(means, SKILL, strict=True), reverse=True)]
    assert opened.cells("Leaderboard", 0) == by_mean
    table = opened.tab.locator('[role="region"][aria-label="Leaderboard"]')
    table.locator("thead").get_by_role("button", name="method").press("Enter")  # by the keyboard
    assert opened.cells("Leaderboard", 0) == sorted(SKILL)
    assert table.locator('th[aria-sort="ascending"]').inner_text() == "method"
    table.locator("thead").get_by_role("button", name="NDCG@10").click()
    table.locator("thead").get_by_role("button", name="NDCG@10").click()
    assert opened.cells("Leaderboard", 0) == by_mean[::-1]
    opened.close()


def test_the_leaderboard_filters_and_chooses(started: Any, page: Path) -> None:
    opened = Opened(started, page)
    about = document_of(page)
    opened.tab.get_by_label("Dataset").select_option(label="other")
    opened.tab.get_by_label("Metric").select_option("Hit")
    opened.tab.get_by_label("Cut-off").select_option("20")
    heads = opened.tab.locator('[aria-label="Leaderboard"] thead th').all_inner_texts()
    assert heads[1] == "Hit@20" and "trainings" in heads
    printed = {f"{row['mean'][4]:.4f}" for row in about["datasets"][1]["rows"]}
    cells = opened.tab.locator('[aria-label="Leaderboard"] tbody td:nth-child(2)').all_inner_texts()
    assert {re.search(r"\d\.\d{4}", text)[0] for text in cells} == printed  # type: ignore[index]
    opened.tab.get_by_label("Filter by name").fill("R2EC")
    assert set(opened.cells("Leaderboard", 0)) == {"r2ec", "r2ec_no_reasoning"}
    opened.tab.get_by_label("Filter by name").fill("nothing")
    assert opened.cells("Leaderboard", 0) == ["Nothing here has that."]
    # What is chosen stays in the address.
    again = Opened(started, page, "#" + opened.tab.url.partition("#")[2].replace("filter=nothing", "filter=knn"))
    assert again.cells("Leaderboard", 0) == ["item_knn"]
    again.close()
    opened.close()


def test_back_returns_to_the_view_before(started: Any, page: Path) -> None:
    opened = Opened(started, page)
    opened.view("leaderboard")
    opened.tab.get_by_label("Cut-off").select_option("20")
    opened.view("provenance")
    opened.tab.go_back()
    opened.tab.wait_for_function("document.documentElement.dataset.view === 'leaderboard'")
    assert opened.tab.get_by_label("Cut-off").input_value() == "20"
    opened.tab.go_forward()
    opened.tab.wait_for_function("document.documentElement.dataset.view === 'provenance'")
    assert opened.tab.locator("main h2").count() > 0
    opened.close()


def test_bars_of_a_column_begin_at_one_place(started: Any, page: Path) -> None:
    """Values of unlike width stand beside them, and still equal values have their points at equal places."""
    for width in (400, 1400):
        opened = Opened(started, page, width=width)
        columns = range(2, 5)  # over all datasets, and each of two
        for column in columns:
            bars = opened.tab.locator(f'[aria-label="Leaderboard"] tbody td:nth-child({column}) svg')
            places = bars.evaluate_all("bars => bars.map((bar) => Math.round(bar.getBoundingClientRect().left))")
            assert len(places) == len(SKILL) and len(set(places)) == 1, (width, column)
        opened.close()


def test_tables_of_three_datasets_fit_a_wide_screen(started: Any, three: Path) -> None:
    opened = Opened(started, three)
    for view in ("leaderboard", "ablations", "provenance"):
        opened.view(view)
        cut = "regions => regions.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.ariaLabel)"
        assert opened.tab.locator("main .wide").evaluate_all(cut) == [], view
    assert opened.tab.locator('[aria-label="Rules and counts"] thead th').count() == 4
    assert opened.tab.locator('[aria-label="Every run"] thead th').count() == 15
    opened.close()


def test_a_claim_of_several_datasets_is_said_once(started: Any, three: Path) -> None:
    opened = Opened(started, three, "#view=ablations")
    region = opened.tab.locator('[role="region"][aria-label="Exploratory claims"]')
    assert region.locator("tbody th").count() == 1 and region.locator("tbody tr").count() == 3
    assert region.locator("tbody th").get_attribute("rowspan") == "3"
    assert opened.cells("Exploratory claims", 1)[0] == "small"
    opened.tab.locator("summary", has_text="Each claim in sentences").click()
    assert opened.tab.inner_text("main").count("A claim.") == 2  # in the table and above its sentences
    assert opened.tab.inner_text("main").count("Expected: more.") == 1
    opened.close()


def test_a_line_to_a_number_ends_at_its_edge(started: Any, three: Path) -> None:
    """The numbers of equal points stand apart from them, joined by lines that don't cross the digits."""
    opened = Opened(started, three)
    box = "all => all.map((one) => one.getBBox()).map((box) => [box.x, box.y, box.x + box.width, box.y + box.height])"
    numbers = np.array(opened.tab.locator("figure text.number").evaluate_all(box))
    ends = "all => all.map((one) => ['x2', 'y2'].map((name) => Number(one.getAttribute(name))))"
    lines = np.array(opened.tab.locator("figure line.lead").evaluate_all(ends))
    assert len(numbers) == 9 and len(lines) >= 2
    inside = (lines[:, None] > numbers[None, :, :2] + 1) & (lines[:, None] < numbers[None, :, 2:] - 1)
    assert not inside.all(axis=-1).any()
    opened.close()


def test_marks_of_any_column_are_explained(started: Any, page: Path) -> None:
    opened = Opened(started, page)  # over all datasets, where the marks are in the datasets' columns
    assert opened.tab.locator('[aria-label="Leaderboard"] .dagger').count() > 0
    notes = opened.tab.locator("main > div > .notes").first.inner_text()
    assert "† differs from the best baseline" in notes and "±: sd over trainings" in notes
    opened.close()


def test_captions_and_names_can_be_read_on_a_narrow_screen(started: Any, page: Path) -> None:
    opened = Opened(started, page, width=400)
    for view in ("leaderboard", "pair"):
        opened.view(view)
        for region in opened.tab.locator('main [role="region"]:has(caption)').all():
            sides = "element => [element.getBoundingClientRect().left, element.getBoundingClientRect().right]"
            left, right = region.evaluate(sides)
            inside = region.locator("caption span").evaluate(sides)
            assert left <= inside[0] and inside[1] <= right
    opened.view("leaderboard")
    cut = "names => names.filter((name) => name.scrollWidth > name.clientWidth).length"
    assert opened.tab.locator("tbody th.text").evaluate_all(cut) == 0
    assert opened.cells("Leaderboard", 0) and "r2ec_no_reasoning" in opened.cells("Leaderboard", 0)
    opened.close()


def test_the_reference_is_held_against_the_others_on_the_chosen_dataset(started: Any, page: Path) -> None:
    opened = Opened(started, page)
    for dataset in ("all datasets", "small"):
        opened.tab.get_by_label("Dataset").select_option(label=dataset)
        region = opened.tab.locator('[role="region"][aria-label="r2ec against each of the others"]')
        assert region.locator("caption").inner_text().startswith(f"{dataset}: NDCG@10 of r2ec minus that of each.")
        assert region.locator("tbody tr").count() == len(SKILL) - 1
    opened.close()


def test_two_methods_are_compared_in_sentences_on_one_scale(started: Any, page: Path) -> None:
    opened = Opened(started, page, "#view=pair&a=3&b=2")
    pair = next(p for p in document_of(page)["datasets"][0]["pairs"] if (p["a"], p["b"]) == (2, 3))  # sasrec - r2ec
    sentence = opened.tab.locator("main .said li").nth(1).inner_text()
    assert sentence.startswith("small: not told apart. NDCG@10 of r2ec minus sasrec is ")
    assert f"A true difference of {pair['detectable'][3]:.4f} would have been found in 80 % of such runs" in sentence
    scales = set(re.findall(r"Bars run from \S+ to \S+", opened.tab.inner_text("main")))
    assert len(scales) == 1
    opened.close()


def test_numbers_of_the_cost_figure_cover_no_point(started: Any, page: Path) -> None:
    for width in (400, 1400):
        opened = Opened(started, page, width=width)
        boxes = """all => all.map((one) => one.getBoundingClientRect())
            .map((box) => [box.x, box.y, box.right, box.bottom])"""
        numbers = opened.tab.locator("figure text.number").evaluate_all(boxes)
        points = opened.tab.locator('figure svg path[fill^="var(--"]').evaluate_all(boxes)
        assert len(numbers) == len(points) == len(SKILL)
        own = overlaps(np.array(numbers), np.array(numbers))
        assert (own == np.diag(np.diag(own))).all() and (overlaps(np.array(numbers), np.array(points)) == 0).all()
        opened.close()


def test_equal_trainings_show_no_deviation_and_others_do(started: Any, page: Path) -> None:
    opened = Opened(started, page, "#dataset=0")
    rows = dict(
        zip(
            opened.cells("Leaderboard", 0),
            opened.tab.locator('[aria-label="Leaderboard"] tbody tr').all_inner_texts(),
            strict=True,
        )
    )
    assert "±" not in rows["popularity"] and "all equal" in rows["popularity"] and "±" in rows["sasrec"]
    assert "± 0.0000" not in opened.tab.inner_text("body")
    opened.close()


def test_a_mark_tells_its_test_on_tap_and_goes_by_escape(started: Any, page: Path) -> None:
    opened = Opened(started, page, "#dataset=0")
    mark = opened.tab.locator(".dagger").first
    mark.click()
    tip = opened.tab.locator("#tip")
    assert (
        tip.is_visible() and "minus sasrec, the best baseline" in tip.inner_text() and "after Holm" in tip.inner_text()
    )
    mark.press("Escape")
    assert not tip.is_visible()
    opened.close()


def test_the_table_is_copied_as_it_stands(started: Any, page: Path) -> None:
    opened = Opened(started, page, "#dataset=0&filter=r2ec")
    opened.tab.context.grant_permissions(["clipboard-read", "clipboard-write"])

    def copied(form: str) -> str:
        opened.tab.locator(".buttons").first.get_by_role("button", name=form).click()
        opened.tab.wait_for_selector(f"#status:text('Copied as {form}')", state="attached")
        return str(opened.tab.evaluate("navigator.clipboard.readText()"))

    markdown = copied("Markdown").splitlines()
    assert markdown[0].startswith("| method | NDCG@10 | trainings |") and len(markdown) == 4
    assert "r2ec\\_no\\_reasoning" in markdown[3]
    latex = copied("LaTeX")
    assert latex.startswith("% needs booktabs\n\\begin{tabular}{lr") and "r2ec\\_no\\_reasoning & " in latex
    rows = list(csv.reader(io.StringIO(copied("CSV"))))
    assert [row[0] for row in rows] == ["method", "r2ec", "r2ec_no_reasoning"] and len({len(row) for row in rows}) == 1
    opened.close()


def test_two_methods_are_held_against_each_other(started: Any, page: Path) -> None:
    opened = Opened(started, page)
    opened.view("pair")
    assert opened.tab.inner_text("h2") == "r2ec minus r2ec_no_reasoning"
    opened.tab.get_by_label("minus").select_option(label="sasrec")
    opened.tab.wait_for_selector("main [aria-busy]", state="detached")
    pair = next(p for p in document_of(page)["datasets"][0]["pairs"] if (p["a"], p["b"]) == (2, 3))  # sasrec - r2ec
    row = opened.tab.locator('[aria-label="Over all cases"] tbody tr').nth(1).inner_text()
    sign = "−" if pair["difference"][3] > 0 else "+"
    assert row.startswith("small") and f"{sign}{abs(pair['difference'][3]):.4f}" in row
    assert opened.tab.locator("article.case").count() > 0
    assert "too few users" in opened.tab.inner_text("main")
    opened.tab.get_by_role("button", name="Swap").click()
    assert opened.tab.inner_text("h2") == "sasrec minus r2ec"
    opened.close()
