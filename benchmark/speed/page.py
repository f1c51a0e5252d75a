"""Measure how fast a page of 50,000 reasonings opens and is searched in headless Chromium.

The run is made up: one dataset, two methods that write, and 25,000 cases with texts of about 100 words. Promise: the
first reasonings can be read within 2 s of opening the file, and a search of all of them shows its first hits within 200
ms. `make browser` installs what `python -m benchmark.speed.page` needs; without it, it says so and measures nothing.
"""

import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark import provenance
from benchmark.analysis.arguments import STATISTICS
from benchmark.analysis.collect import Collected
from benchmark.contract import Cases
from benchmark.data.store import write_cases
from benchmark.jobs.records import LearnedFrom, Phases, RunRecord
from benchmark.output.page.data import document
from benchmark.output.page.html import render
from benchmark.statistics.datasets import statistics as statistics_of

METHODS = ("trained", "untrained")
CASES, ITEMS, USERS, WORDS, TEXT = 25_000, 5_000, 4_000, 8_000, 100
LONGEST = 20  # items in a history
OPENINGS, SEARCHES = 5, ("wabe", "film", "wa wo", "nothinghasthis")


def made_cases(number: int, seed: int, users: int = USERS, shortest: int = LONGEST) -> Cases:
    """Cases with histories of `shortest` to LONGEST items of the first half of the catalogue; targets of the second."""
    generator = np.random.default_rng(seed)
    lengths = np.random.default_rng([seed, 1]).integers(shortest, LONGEST + 1, number)
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    # Of the last item of every history this is 1.
    from_end = np.repeat(offsets[1:], lengths) - np.arange(offsets[-1])
    time_of = 1_400_000_000 + 1000 * np.arange(number)
    return Cases(
        case=np.arange(number, dtype=np.int64),
        user=generator.integers(0, users, number).astype(np.int32),
        time=time_of,
        offsets=offsets,
        items=generator.integers(0, ITEMS // 2, offsets[-1]).astype(np.int32),
        ratings=generator.integers(1, 6, offsets[-1]).astype(np.float32),
        times=np.repeat(time_of, lengths) - 10_000 * from_end,
        target=generator.integers(ITEMS // 2, ITEMS, number).astype(np.int32),
    )


def made_texts(number: int, seed: int) -> list[str]:
    """Texts of TEXT made-up words, common ones far more often, as in a language."""
    generator = np.random.default_rng(seed)
    syllables = np.array([a + b for a in "bdfgklmnprstvw" for b in "aeiou"])
    vocabulary = ["film", *("".join(syllables[generator.integers(0, len(syllables), 3)]) for _ in range(WORDS - 1))]
    drawn = np.minimum(generator.zipf(1.3, (number, TEXT)), WORDS) - 1
    return [" ".join(vocabulary[place] for place in row) for row in drawn]


def record(method: str, cases: int) -> RunRecord:
    """A run's record with placeholders for its numbers."""
    return RunRecord(
        dataset="made-up",
        method=method,
        kind="reference",
        seed=1,
        seed_value=1,
        params={},
        tuning=None,
        commit="unknown",
        versions=provenance.versions(),
        hardware=provenance.hardware(),
        data_hash="none",
        learned=LearnedFrom(users=1, targets=1, positions=1),
        n_cases=cases,
        seconds=Phases(fit=1, score=1),
        latency_ms_per_case=1,
        peak_memory_mib=1,
        latency_ms_alone=1,
        tokens_written=1,
        report={},
        finished_at=datetime(2025, 1, 1, tzinfo=UTC),
    )


def write_items(data: Path) -> None:
    """The catalogue: items.parquet of a prepared dataset."""
    titles = [f"Title {number} of the made-up things" for number in range(ITEMS)]
    pd.DataFrame({"item_id": range(ITEMS), "title": titles}).to_parquet(data / "items.parquet")


def made_run(folder: Path, cases: int) -> Collected:
    """The files that a page reads of a run, below `folder`, and the run collected from them."""
    data, runs = folder / "data", folder / "runs"
    data.mkdir()
    test = made_cases(cases, seed=1)
    write_cases(data / "train.parquet", made_cases(1000, seed=2), with_target=True, llm_rows=np.arange(1000))
    write_items(data)
    generator = np.random.default_rng(3)
    ranks = []
    for number, method in enumerate(METHODS):
        run = runs / method / "seed1"
        run.mkdir(parents=True)
        ranks.append(generator.integers(1, ITEMS - 20, (1, cases)).astype(np.int32))
        top = generator.integers(0, ITEMS, (cases, 20)).astype(np.int32).tolist()
        pq.write_table(pa.table({"top_items": pa.array(top, pa.list_(pa.int32()))}), run / "rankings.parquet")
        texts = made_texts(cases, seed=10 + number)
        frame = pd.DataFrame({"case": test.case, "prompt": "a prompt " * 60, "reasoning": texts, "cut": False})
        frame.to_parquet(run / "texts.parquet")
    assert test.target is not None
    counts = {"items": ITEMS, "interactions": 1, "interactions_hidden": 0, "cold_targets_test": 0}
    about: dict[str, Any] = {"counts": counts, "settings": {"history_length": LONGEST}, "split_hash": "none"}
    records = {(method, 1): record(method, cases) for method in METHODS}
    return Collected("made-up", data, runs, about, test, test.target, dict.fromkeys(METHODS, 1), ranks, records)


SEARCH = """async (word) => {
  const field = document.querySelector('input[type="search"]'), list = document.getElementById("reasonings");
  const began = performance.now();
  field.value = word;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  while (list.hasAttribute("aria-busy")) await new Promise((resolve) => setTimeout(resolve));
  return performance.now() - began;
}"""

SEARCHED = """async () => {
  const said = document.querySelector("main [role=status]");
  while (said.textContent.includes("not searched yet")) await new Promise((resolve) => setTimeout(resolve, 10));
}"""


def measure(page: Path, chromium: str) -> tuple[list[float], float, list[float]]:
    """Seconds until the first reasonings are shown, seconds until all can be searched, milliseconds of each search."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened = []
        for _ in range(OPENINGS):
            tab = browser.new_context().new_page()
            began = time.perf_counter()
            tab.goto(f"{page.as_uri()}#view=reasonings&row=all&beside=none", wait_until="commit")
            tab.wait_for_selector("main .case")
            opened.append(time.perf_counter() - began)
            last = tab
        began = time.perf_counter()
        last.fill('input[type="search"]', SEARCHES[0])
        last.evaluate(SEARCHED)
        searched = time.perf_counter() - began
        milliseconds = [last.evaluate(SEARCH, word) for word in SEARCHES for _ in range(OPENINGS)]
        browser.close()
    return opened, searched, milliseconds


def main() -> None:
    chromium = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    try:
        import playwright  # noqa: F401
    except ImportError:
        chromium = None
    if chromium is None:
        print("page: no Chromium or no Playwright, so nothing is measured; `make browser` installs them")
        return
    with tempfile.TemporaryDirectory(prefix="r2ec-bench-page-") as temporary:
        folder = Path(temporary)
        run = made_run(folder, CASES)
        statistics_of(run).write(folder / STATISTICS, run.dataset)
        began = time.perf_counter()
        text = render(*document([run], folder))
        making = time.perf_counter() - began
        page = folder / "index.html"
        page.write_text(text, encoding="utf-8")
        opened, searched, milliseconds = measure(page, chromium)
    print(
        f"page: {CASES * len(METHODS):,} reasonings of {TEXT} words in {len(text) / 1e6:.0f} MB, made in {making:.0f} "
        f"s; opens in {statistics.median(opened):.2f} s (at most {max(opened):.2f}), has searched all {searched:.1f} s "
        f"later, then searches in {statistics.median(milliseconds):.0f} ms (at most {max(milliseconds):.0f})"
    )


if __name__ == "__main__":
    main()
