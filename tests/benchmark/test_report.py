"""The page: one file, everything on it, every text escaped."""

import doctest
import html
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from benchmark.analysis.collect import collect
from benchmark.errors import InputError
from benchmark.output import plots
from benchmark.output.page import __main__ as report
from tests.support.results_tree import write_results

SKILL = {"popularity": 0.0, "sasrec": 0.8, "r2ec": 0.85}
TWO_SEEDS = dict.fromkeys(SKILL, 2)
EVIL = "He likes <script>alert('x')</script> & {{ 7 * 7 }} \"films\" </pre><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "results"
    write_results(folder, ["small", "other"], SKILL, seeds=2, n_cases=60)
    run = folder / "runs" / "small" / "r2ec" / "seed1"
    cases = pd.read_parquet(run / "rankings.parquet").case
    texts = pd.DataFrame(
        {"case": cases, "prompt": "prompt <b>1</b>", "reasoning": [f"{EVIL} {case}" for case in cases]}
    )
    texts.to_parquet(run / "texts.parquet")
    return folder


@pytest.fixture(scope="module")
def arguments(results: Path) -> list[str]:
    return ["report", "--results", str(results), "--datasets", "small", "other", "--methods", *SKILL, "--seeds", "2"]


@pytest.fixture(scope="module")
def page(results: Path, arguments: list[str]) -> str:
    (results / "plots").mkdir()
    for dataset in ("small", "other"):
        for name in plots.PLOTS:  # the real ones take seconds; test_plots.py looks at them
            (results / "plots" / f"{dataset}.{name}.png").write_bytes(b"\x89PNG " + name.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        report.main()
    return (results / "report" / "index.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Collects tags and checks that they close in order."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_doctests() -> None:
    assert doctest.testmod(report).attempted > 0
    assert doctest.testmod(report).failed == 0


def test_page_is_well_formed_and_needs_no_network(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    images = [attributes for tag, attributes in tags.seen if tag == "img"]
    assert len(images) == 6  # three plots for each of two datasets
    assert all(str(image["src"]).startswith("data:image/png;base64,") and image["alt"] for image in images)
    assert "script" not in {tag for tag, _ in tags.seen}
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    anchors = {attributes["id"] for _, attributes in tags.seen if attributes.get("id")}
    assert all(str(a["href"])[1:] in anchors for tag, a in tags.seen if tag == "a")
    assert "viewport" in page
    assert "@media print" in page


def test_a_note_stands_at_the_top(
    results: Path, arguments: list[str], page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [*arguments, "--note", "A look & <no> result.", "--out", str(results / "noted")])
    report.main()
    noted = (results / "noted" / "index.html").read_text(encoding="utf-8")
    told = '<p class="first">A look &amp; &lt;no&gt; result.</p>\n'
    assert noted.replace(told, "") == page and noted.index(told) < noted.index("<nav>")


def test_page_holds_tables_tests_counts_and_provenance(page: str, results: Path) -> None:
    words = html.unescape(page)
    found = collect(results, "small", TWO_SEEDS)
    assert f"{found.values[2][3].mean():.4f}" in words  # NDCG@10 of r2ec
    assert words.count("against the best baseline: 12 tests") == 2
    assert words.count("all pairs: 18 tests") == 2
    assert "cold_targets" in words and "hash-other" in words and "file: made-up" in words
    assert "0123456789abcdef0123456789abcdef01234567 (12 runs)" in words
    assert "numpy 2.4.6" in words and "processor made-up" in words
    assert words.count("<td>34</td>") == 6  # the seed value of every second seed
    assert "layers: 2" in words


def test_texts_are_escaped(page: str) -> None:
    assert EVIL not in page
    assert page.count(html.escape(EVIL, quote=False)[:20]) == report.N_EXAMPLES
    assert "{{ 7 * 7 }}" in page  # shown, not run
    assert "<b>1</b>" not in page
    assert "Title &lt;" in page
    assert page.count("What r2ec wrote") == 1  # only where it wrote


def test_examples_run_from_best_to_worst(results: Path) -> None:
    found = collect(results, "small", TWO_SEEDS)
    ranks = [example.rank for example in report.examples(found, "r2ec")]
    every = found.ranks[2][0]
    assert len(ranks) == report.N_EXAMPLES
    assert ranks == sorted(ranks)
    assert (ranks[0], ranks[-1]) == (every.min(), every.max())
    assert report.examples(found, "sasrec") == []


def test_same_page_twice(page: str, results: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(results / "again")])
    report.main()
    assert (results / "again" / "index.html").read_text(encoding="utf-8") == page


def test_missing_plots_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path, ["small"], SKILL, seeds=1, n_cases=60)
    argv = ["report", "--results", str(tmp_path), "--datasets", "small", "--methods", *SKILL, "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        report.main()
    assert stop.value.code == 2
    assert "small.metrics.png: missing; run `python -m benchmark.output.plots`" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (pd.DataFrame({"case": [220], "prompt": ["p"]}), "column 'reasoning' is missing"),
        (pd.DataFrame({"case": [7], "prompt": ["p"], "reasoning": ["r"]}), "case 7 is not in rankings.parquet"),
    ],
)
def test_broken_texts_are_refused(tmp_path: Path, texts: pd.DataFrame, message: str) -> None:
    write_results(tmp_path, ["small"], {"r2ec": 0.5}, seeds=1, n_cases=60)
    texts.to_parquet(tmp_path / "runs" / "small" / "r2ec" / "seed1" / "texts.parquet")
    with pytest.raises(InputError, match=message):
        report.examples(collect(tmp_path, "small", {"r2ec": 1}), "r2ec")
