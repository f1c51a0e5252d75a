"""A page as its readers get it: what a test looks for in the HTML, and Chromium to open it with."""

import base64
import gzip
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
WHY = "; `make browser` installs it"


def document_of(page: Path) -> dict[str, Any]:
    """The document within a page."""
    text = page.read_text(encoding="utf-8")
    match = re.search(r'<script type="application/json" id="document">(.*?)</script>', text, flags=re.S)
    assert match
    return json.loads(match[1])


def parts_of(page: Path) -> dict[str, Any]:
    """The unpacked parts of a page by name."""
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r'<script type="text/plain" data-part="([^"]+)">([^<]*)</script>', text)
    return {name: json.loads(gzip.decompress(base64.b64decode(packed))) for name, packed in scripts}


def chromium() -> str:
    """The path of Chromium; a test without it, or without Playwright, is skipped and says so."""
    pytest.importorskip("playwright.sync_api", reason=f"no Playwright{WHY}")
    browser = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no Chromium on the PATH{WHY}")
    return browser


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium.

    It needs no network, and runs without its sandbox where that is not allowed, as for root in a container.
    """
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def axe() -> str:
    """The script of axe-core, as axe-playwright-python brings it."""
    package = pytest.importorskip("axe_playwright_python", reason=f"no axe{WHY}")
    return (Path(package.__path__[0]) / "axe.min.js").read_text(encoding="utf-8")


class Opened:
    """A page opened from disk, with all that went wrong: messages of the console, errors, requests beyond the file
    itself."""

    def __init__(self, started: Any, page: Path, address: str = "", width: int = 1400, scheme: str = "light") -> None:
        context = started.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.file = page.resolve().as_uri()
        self.tab = context.new_page()
        self.tab.on("console", lambda message: self.messages.append(message.text))
        self.tab.on("pageerror", lambda error: self.messages.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.set_default_timeout(60_000)
        self.tab.goto(self.file + address)
        self.tab.wait_for_selector("html[data-ready]")

    def view(self, name: str) -> None:
        """Go to a view by its link."""
        self.tab.click(f'nav a[data-view="{name}"]')
        self.tab.wait_for_selector("main [aria-busy]", state="detached")

    def cells(self, region: str, column: int) -> list[str]:
        """The text of one column (from 0) of the table in the region of this name."""
        rows = self.tab.locator(f'[role="region"][aria-label="{region}"] tbody tr')
        return [text.split("\n")[0] for text in rows.locator(f"> :nth-child({column + 1})").all_inner_texts()]

    def close(self) -> None:
        """Check that nothing was printed on the console and nothing requested, and close the page."""
        self.tab.context.close()
        assert self.messages == []
        assert {url.partition("#")[0] for url in self.requests} == {self.file}


def picture(page: Path, out: Path, address: str = "") -> None:
    """A png of the upper part of a page, as the README shows it."""
    with browser() as started:
        opened = Opened(started, page, address, width=1400)
        opened.tab.wait_for_selector("main table")
        opened.tab.screenshot(path=out)
        opened.close()


if __name__ == "__main__":  # python -m tests.support.page results/report/index.html docs/page.png [#view=reasonings]
    picture(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
