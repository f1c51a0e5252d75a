"""Reading the page in a real browser: its reasonings, what axe finds, colours, paper, keyboard and addresses.

Nothing is on the console, and no request is made.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.storage.io import read_json
from tests.support.browsed_page import write_page
from tests.support.page import Opened, axe, browser, document_of
from tests.support.page_results import EVIL, TITLE, write_uneven

VIEWS = ("leaderboard", "pair", "headroom", "reasonings", "provenance")


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as chromium_started:
        yield chromium_started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("browser") / "results")


def shown(opened: Opened) -> int:
    """How many reasonings the page says it has, once it has drawn them."""
    opened.tab.wait_for_selector("#reasonings:not([aria-busy])", state="attached")
    return int(opened.tab.inner_text("main [role=status]").split(" ")[0].replace(",", ""))


def test_reasonings_are_read_beside_their_controls_filtered_and_searched(started: Any, page: Path) -> None:
    opened = Opened(started, page)
    opened.view("reasonings")
    assert shown(opened) == 60 and opened.tab.locator("article.case").count() == 10
    first = opened.tab.locator("article.case").first
    heads = first.locator("h4").all_inner_texts()
    assert heads == ["Taken before, newest first", "r2ec", "Recommended", "r2ec_no_reasoning", "Recommended"]
    assert EVIL in first.locator(".written").inner_text() and "Writes no reasoning." in first.inner_text()
    assert (
        first.locator("ol").first.locator("li").count() == 10
        and "4" in first.locator(".history td").nth(1).inner_text()
    )
    opened.tab.get_by_label("Search").fill("zebra")
    opened.tab.wait_for_selector("mark")
    assert shown(opened) == 9  # of 60 every seventh
    assert set(opened.tab.locator("mark").all_inner_texts()) == {"Zebra"}
    opened.tab.get_by_label("Search").fill("zebra nowhere")
    assert shown(opened) == 0
    opened.tab.get_by_label("Search").fill("")
    opened.tab.get_by_label("Cut off").select_option("yes")
    assert shown(opened) == 20
    opened.tab.get_by_label("Outcome").select_option("miss")
    tags = opened.tab.locator("article.case").all_inner_texts()
    assert 0 < shown(opened) < 20 and all("miss: rank" in text and "cut off" in text for text in tags)
    opened.tab.get_by_label("Outcome").select_option("all")
    opened.tab.get_by_label("Cut off").select_option("")
    opened.tab.get_by_label("Dataset").select_option("all")
    assert shown(opened) == 120
    opened.tab.get_by_role("button", name="Next").click()
    opened.tab.wait_for_selector(".buttons:has-text('page 2 of 12')")
    opened.tab.locator("details:has-text('Prompt') summary").first.click()
    opened.tab.wait_for_selector("pre:has-text('prompt <b>1</b>')")
    opened.close()


def test_no_text_takes_the_page_over(started: Any, page: Path) -> None:
    opened = Opened(started, page, "#view=reasonings&rdata=all")
    shown(opened)
    assert opened.tab.title() == document_of(page)["answer"]["title"]
    assert opened.tab.locator("main script, main img, main b").count() == 0
    assert TITLE in opened.tab.inner_text("main") or opened.tab.locator("text=Title <script>").count() > 0
    # Even a script that got in wouldn't run.
    opened.tab.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), { textContent: 'document.title = 1' }))"
    )
    assert opened.tab.title() == document_of(page)["answer"]["title"]
    assert len(opened.messages) == 1 and "Content Security Policy" in opened.messages.pop()
    opened.close()


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_axe_finds_nothing(started: Any, page: Path, width: int, scheme: str) -> None:
    script = axe()
    opened = Opened(started, page, width=width, scheme=scheme)
    for view in VIEWS:
        opened.view(view)
        opened.tab.evaluate(script)
        violations = opened.tab.evaluate("axe.run()")["violations"]
        assert [(violation["id"], violation["nodes"][0]["html"]) for violation in violations] == [], view
    opened.close()


@pytest.mark.parametrize("width", [400, 800, 1600])
def test_nothing_is_cut_off(started: Any, page: Path, width: int) -> None:
    opened = Opened(started, page, width=width)
    for view in VIEWS:
        opened.view(view)
        beyond = opened.tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert beyond == 0, view
    opened.close()


def test_colours_follow_the_system_and_the_button(started: Any, page: Path) -> None:
    opened = Opened(started, page, scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = opened.tab.evaluate(ground)
    opened.tab.get_by_role("button", name="Light colours").click()
    light = opened.tab.evaluate(ground)
    assert (dark, light) == ("rgb(20, 23, 26)", "rgb(255, 255, 255)")
    opened.tab.reload()
    opened.tab.wait_for_selector("html[data-ready]")
    assert opened.tab.evaluate(ground) == light
    opened.tab.get_by_role("button", name="Dark colours").click()
    opened.tab.emulate_media(media="print")
    assert opened.tab.evaluate(ground) == light and not opened.tab.locator("nav").is_visible()
    opened.close()


def test_on_paper_no_table_is_cut_off_and_cases_have_columns(started: Any, page: Path) -> None:
    opened = Opened(started, page, width=1046)  # A4 on its side, less the margins, in CSS's pixels
    opened.tab.emulate_media(media="print")
    for view in ("leaderboard", "provenance"):
        opened.tab.evaluate("view => { location.hash = `view=${view}` }", view)
        opened.tab.wait_for_selector(f"html[data-view={view}]")
        widths = opened.tab.locator("main table").evaluate_all("tables => tables.map((table) => table.scrollWidth)")
        assert widths and max(widths) <= 1046, view
    opened.tab.set_viewport_size({"width": 700, "height": 900})  # rules for narrow screens are none for paper
    opened.tab.evaluate("location.hash = 'view=reasonings'")
    shown(opened)
    columns = "element => getComputedStyle(element).gridTemplateColumns.split(' ').length"
    assert opened.tab.locator(".case .columns").first.evaluate(columns) == 3
    opened.close()


def test_the_focus_stays_where_the_keyboard_was(started: Any, page: Path) -> None:
    opened = Opened(started, page, "#view=pair")
    opened.tab.get_by_role("button", name="Swap").press("Enter")
    assert opened.tab.evaluate("document.activeElement.textContent") == "Swap"
    opened.view("reasonings")
    shown(opened)
    opened.tab.get_by_role("button", name="Next").press("Enter")
    opened.tab.wait_for_selector(".buttons:has-text('page 2 of 6')")
    assert opened.tab.evaluate("document.activeElement.id") == "reasonings"
    opened.tab.keyboard.press("Tab")  # goes on within the cases of the new page
    assert opened.tab.evaluate("document.activeElement.closest('#reasonings') !== null")
    opened.close()


def test_views_are_reached_by_the_keyboard_and_by_their_address(started: Any, page: Path) -> None:
    opened = Opened(started, page)
    opened.tab.keyboard.press("Tab")
    assert opened.tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    opened.tab.locator('nav a[data-view="provenance"]').press("Enter")
    assert opened.tab.evaluate("document.activeElement.textContent") == "Provenance"
    assert opened.tab.locator("nav a[aria-current]").all_inner_texts() == ["Provenance"]
    assert opened.tab.locator("nav a").all_inner_texts() == [
        "Leaderboard",
        "Two methods",
        "Headroom",
        "Reasonings",
        "Provenance",
    ]
    other = Opened(started, page, "#" + opened.tab.url.partition("#")[2])
    assert other.tab.inner_text("h2") == "Provenance"
    other.close()
    opened.close()


def test_datasets_may_have_unequal_methods(started: Any, tmp_path: Path) -> None:
    page = write_uneven(tmp_path)
    opened = Opened(started, page)
    assert set(opened.cells("Leaderboard", 0)) == {"popularity", "sasrec", "r2ec"}  # what all datasets have
    opened.tab.get_by_label("Dataset").select_option(label="small")
    assert set(opened.cells("Leaderboard", 0)) == {"popularity", "sasrec", "r2ec", "r2ec_no_reasoning"}
    opened.view("pair")
    assert opened.cells("Over all cases", 0) == ["small"]
    opened.tab.get_by_label("Dataset").select_option(label="other")
    opened.tab.wait_for_selector("text=Only one of them has a result on other.")
    opened.tab.get_by_label("minus").select_option(label="popularity")
    assert opened.cells("Over all cases", 0) == ["all datasets", "small", "other"]
    rows = document_of(page)["datasets"][1]["rows"]
    difference = rows[0]["mean"][3] - rows[1]["mean"][3]
    assert opened.cells("Over all cases", 1)[2].startswith(f"+{difference:.4f}")
    opened.view("reasonings")
    assert shown(opened) == 60
    opened.close()


def test_the_counts_of_the_data_are_read_in_words(started: Any, page: Path) -> None:
    counts = read_json(page.parents[1] / "data/small/dataset.json")["counts"]
    opened = Opened(started, page, "#view=provenance")
    rows = opened.tab.locator('[aria-label="Rules and counts"] tbody tr').all_inner_texts()
    assert f"test cases ranked\t{counts['test']}\t{counts['test']}" in rows
    opened.close()
