"""The page: one file that says what its run shows, asks for nothing, and in which every text stays text."""

import doctest
import html
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from benchmark.analysis.collect import Collected, collect
from benchmark.analysis.comparisons import ALL_PAIRS
from benchmark.analysis.significance import FEW_USERS, smallest_detectable
from benchmark.data.settings import DatasetConfig
from benchmark.metrics import METRICS
from benchmark.output.page import __main__ as command
from benchmark.output.page import answer, cases, labels, paper, provenance
from benchmark.output.page import html as written
from benchmark.output.page.data import document
from benchmark.output.page.pairs import MAIN, by_slice, over_all, pairs_of
from benchmark.provenance import hardware
from benchmark.statistics import against
from benchmark.statistics.datasets import statistics
from tests.support.page import document_of, parts_of
from tests.support.page_results import EVIL, SKILL, TITLE, TWO_SEEDS, write_texts, write_uneven
from tests.support.results_tree import write_by_hand, write_results
from tests.support.statistics import write_statistics

NUMBERS = {name: number for number, name in enumerate(SKILL)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "results"
    write_results(folder, ["small", "other"], SKILL, seeds=2, n_cases=60)
    for dataset in ("small", "other"):
        items = pd.read_parquet(folder / f"data/{dataset}/items.parquet")
        items.assign(title=[TITLE, *items.title[1:]]).to_parquet(folder / f"data/{dataset}/items.parquet")
        write_texts(folder, dataset, "r2ec", EVIL)
        write_texts(folder, dataset, "r2ec_no_reasoning", "")
    write_statistics(folder, ["small", "other"], TWO_SEEDS, "r2ec")
    return folder


@pytest.fixture(scope="module")
def arguments(results: Path) -> list[str]:
    return ["page", "--results", str(results), "--datasets", "small", "other", "--methods", *SKILL, "--seeds", "2"]


@pytest.fixture(scope="module")
def page(results: Path, arguments: list[str]) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*arguments, "--reference", "r2ec"])
        command.main()
    return results / "report" / "index.html"


@pytest.fixture(scope="module")
def small(results: Path) -> Collected:
    return collect(results, "small", TWO_SEEDS)


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
    for module in (answer, cases, labels, provenance, written):
        results = doctest.testmod(module)
        assert results.attempted > 0 and results.failed == 0, module


def test_page_is_well_formed_and_needs_no_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert not [tag for tag, attributes in tags.seen if "src" in attributes or tag in ("img", "link", "iframe")]
    assert all(str(attributes["href"]).startswith("#") for tag, attributes in tags.seen if tag == "a")
    policy = next(str(a["content"]) for tag, a in tags.seen if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe-eval" not in policy
    # One script runs; the others are data.
    kinds = [attributes.get("type") for tag, attributes in tags.seen if tag == "script"]
    assert kinds.count(None) == 1 and set(kinds) == {None, "application/json", "text/plain"}
    assert "sourceMappingURL" not in text and "@media print" in text and "viewport" in text


def test_every_text_stays_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert EVIL not in text and TITLE not in text and "<b>1</b>" not in text
    assert "{{ 7 * 7 }}" not in text.replace(written.script(), "")  # packed with the texts, which nothing runs
    parts = parts_of(page)
    assert parts["texts/0/2/0"][0].startswith(EVIL) and TITLE in parts["index/0"]["titles"]


def test_a_title_that_holds_markup_is_escaped(
    results: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", [*arguments, "--note", "A look & <no> </script> result.", "--out", str(results / "noted")]
    )
    command.main()
    text = (results / "noted" / "index.html").read_text(encoding="utf-8")
    assert '<p class="first">A look &amp; &lt;no&gt; &lt;/script&gt; result.</p>\n' in text
    assert document_of(results / "noted" / "index.html")["note"] == "A look & <no> </script> result."


def test_the_same_runs_give_the_same_bytes(
    page: Path, results: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [*arguments, "--reference", "r2ec", "--out", str(results / "again")])
    command.main()
    assert (results / "again" / "index.html").read_bytes() == page.read_bytes()


def test_the_leaderboard_holds_the_tables_numbers(page: Path, small: Collected) -> None:
    about = document_of(page)
    rows = about["datasets"][0]["rows"]
    for number, row in enumerate(rows):
        assert row["mean"] == [round(float(values.mean()), 6) for values in small.values[number]]
        assert row["low"][MAIN] < row["mean"][MAIN] < row["high"][MAIN] and row["seeds"] == 2
    assert rows[1]["sd"][MAIN] == round(float(small.values[1][MAIN].mean(axis=-1).std(ddof=1)), 6)
    assert about["datasets"][0]["best_baseline"] == "sasrec" and rows[1]["p"] == [None] * 6
    assert any("family of 18 tests" in note for note in about["datasets"][0]["notes"])


def test_trainings_that_rank_alike_have_no_deviation(page: Path, small: Collected) -> None:
    assert (small.ranks[0][0] == small.ranks[0][1]).all()  # popularity
    rows = document_of(page)["datasets"][0]["rows"]
    assert rows[0]["equal"] and rows[0]["sd"] == [None] * 6
    assert not rows[1]["equal"] and None not in rows[1]["sd"]


def test_pairs_are_those_of_the_tests(small: Collected) -> None:
    tests = statistics(small).tests
    pairs = pairs_of(tests[tests.family == ALL_PAIRS], small.methods, NUMBERS)
    assert [(pair["a"], pair["b"]) for pair in pairs] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    row = tests[(tests.family == ALL_PAIRS) & (tests.method_a == "sasrec") & (tests.method_b == "r2ec_no_reasoning")]
    row = row[row.metric == "NDCG@10"].iloc[0]
    pair = pairs[4]
    assert [pair[name][MAIN] for name in ("difference", "low", "high", "p", "p_holm")] == [
        row.difference, row.low, row.high, row.p, row.p_holm,
    ]  # fmt: skip
    # The interval of a nearly normal difference is 3.92 standard errors wide.
    error = (row.high - row.low) / 3.92
    assert pair["detectable"][MAIN] == pytest.approx(smallest_detectable(error, 36), rel=0.05)


def test_over_all_datasets_the_reference_is_as_against_the_others(results: Path) -> None:
    collected = [collect(results, name, TWO_SEEDS) for name in ("small", "other")]
    means, pairs = over_all(results / "statistics", collected[0].methods, NUMBERS)
    frame = against.against(collected, "r2ec")
    frame = frame[frame.dataset == against.EVERY].set_index("method")
    pair = pairs[3]  # sasrec - r2ec
    assert pair["difference"][MAIN] == pytest.approx(-frame.difference["sasrec"], abs=1e-6)
    assert [pair["low"][MAIN], pair["high"][MAIN]] == pytest.approx(
        [-frame.high["sasrec"], -frame.low["sasrec"]], abs=1e-6
    )
    assert means["mean"][MAIN, 1] == pytest.approx(frame["mean"]["sasrec"])
    # Hit has no test here, as McNemar's is of one dataset.
    assert [p is None for p in pair["p_holm"]] == [metric.startswith("Hit") for metric in METRICS]


def test_slices_say_no_more_than_they_know(small: Collected, tmp_path: Path) -> None:
    slices = by_slice(statistics(small), small.methods)
    few = [slice["users"] < FEW_USERS for slice in slices["slices"]]
    assert True in few and all(slice["cases"] for slice in slices["slices"])
    for known, differences in zip(few, slices["differences"], strict=True):
        assert all((low is None and high is None) if known else True for _, low, high in differences)
    # Two methods that rank alike: whatever the slice, nothing is known of how they differ.
    same = replace(small, ranks=[small.ranks[0], small.ranks[0], *small.ranks[2:]])
    assert {tuple(differences[0]) for differences in by_slice(statistics(same), same.methods)["differences"]} == {
        (0.0, None, None)
    }
    write_by_hand(tmp_path, "popularity", "r2ec")
    hand = by_slice(statistics(collect(tmp_path, "tiny", {"popularity": 2, "r2ec": 2})), ["popularity", "r2ec"])
    assert sum(slice["cases"] for slice in hand["slices"] if slice["group"] == "length of the history") == 4


def test_the_answer_is_made_from_the_run(page: Path) -> None:
    about = document_of(page)["answer"]
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert f"<h1>{about['title']}</h1>" in text and all(
        f"<li>{sentence}</li>" in text for sentence in about["said"] + about["more"]
    )
    assert about["title"].startswith("r2ec ranks best on both datasets; over them sasrec can't be told apart from it")
    scope, reasoning, whole = about["said"]
    assert (
        scope.startswith("4 methods on small (60 test cases of ")
        and "Trainings per dataset: 2 of each method; 16 runs" in scope
    )
    assert reasoning.startswith("With a reasoning against none, NDCG@10 of r2ec minus r2ec_no_reasoning: all ")
    assert "all datasets +0." in reasoning and "r2ec ranks better" in reasoning
    # Dataset by dataset it is folded away.
    assert "r2ec_no_reasoning: small +0." in about["more"][0] and "; other +0." in about["more"][0]
    assert whole.startswith("Over all datasets: r2ec has the highest NDCG@10")
    assert "would often have been missed" in whole


def test_the_cases_are_those_of_the_runs(page: Path, small: Collected) -> None:
    held, parts = document_of(page)["held"][0], parts_of(page)
    part = parts["index/0"] | parts["cases/0/0"]
    assert (held["shown"], held["of"]) == (60, 60) and part["case"] == small.cases.case.tolist()
    assert part["ranks"]["2"] == small.ranks[2].tolist()
    titles = pd.read_parquet(small.folder / "items.parquet").title
    assert [part["titles"][place] for place in part["target"]] == titles[small.target].tolist()
    places, ratings, seconds = part["history"][5]
    assert [part["titles"][place] for place in places] == titles[small.cases.history(5)].tolist()
    assert set(ratings) == {4.0} and set(seconds) == {500}
    top = pd.read_parquet(small.run_folder("r2ec", 1) / "rankings.parquet").top_items[7][:10]
    assert [part["titles"][place] for place in part["top"]["2"][7]] == titles[top].tolist()
    assert part["candidates"][7] == 60 - len(set(small.cases.history(7).tolist()))
    wrote, silent = held["texts"]
    assert (wrote["method"], wrote["wrote"], wrote["cut"]) == (2, True, list(range(0, 60, 3)))
    assert (silent["method"], silent["wrote"], silent["cut"], silent["repeats"]) == (3, False, [], [])
    assert document_of(page)["spoken"] == [[2, 3]]


def test_a_page_of_too_many_texts_holds_a_sample_and_says_so(results: Path) -> None:
    collected = [collect(results, name, TWO_SEEDS) for name in ("small", "other")]
    about, parts = document(collected, results, limit=80)
    assert [(held["shown"], held["of"]) for held in about["held"]] == [(20, 60), (20, 60)]
    assert len(parts["texts/1/2/0"]) == 20 and len(set(parts["index/1"]["case"])) == 20
    texts = pd.read_parquet(collected[1].run_folder("r2ec", 1) / "texts.parquet").set_index("case")
    assert parts["texts/1/2/0"] == texts.reasoning[parts["index/1"]["case"]].tolist()
    assert about["datasets"][0]["cases"] == 60  # means and tests are of all cases
    again, same = document(collected, results, limit=80)
    assert same == parts and again == about


def test_datasets_may_have_unequal_methods(tmp_path: Path) -> None:
    page = write_uneven(tmp_path)
    about, parts = document_of(page), parts_of(page)
    assert [method["name"] for method in about["methods"]] == list(SKILL)
    assert [[row["method"] for row in part["rows"]] for part in about["datasets"]] == [[0, 1, 2, 3], [2, 0, 1]]
    assert [row["method"] for row in about["overall"]["rows"]] == [0, 1, 2]
    other = collect(tmp_path, "other", dict.fromkeys(["r2ec", "popularity", "sasrec"], 2))
    assert parts["index/1"]["ranks"] == {
        "2": other.ranks[0].tolist(),
        "0": other.ranks[1].tolist(),
        "1": other.ranks[2].tolist(),
    }
    assert [(method["a"], method["b"]) for method in about["datasets"][1]["pairs"]] == [(2, 0), (2, 1), (0, 1)]
    sasrec = about["datasets"][1]["rows"][2]["mean"][MAIN] - about["datasets"][1]["rows"][0]["mean"][MAIN]
    assert about["datasets"][1]["pairs"][1]["difference"][MAIN] == pytest.approx(-sasrec, abs=2e-6)
    # What only one dataset can tell is told of that one.
    assert about["spoken"] == [[2, 3]]
    reasoning = about["answer"]["said"][1]
    assert "r2ec minus r2ec_no_reasoning: small +" in reasoning and "other" not in reasoning


def test_provenance_holds_counts_commit_and_every_run(page: Path) -> None:
    about = document_of(page)["provenance"]
    shared = dict(about["shared"])
    assert shared["Commit"] == [["0123456789abcdef0123456789abcdef01234567", 16]]
    assert shared["Versions of packages"] == [["python 3.11.0, numpy 2.4.6", 16]]
    assert shared["Machine"] == [["made-up, 2 cores, 8 GiB of memory, no GPU", 16]]
    assert ["test targets never seen in training", [3, 3]] in about["rules"]
    assert ["the word for an item in prompts, such as movie", "category", ["movie", "movie"]] in about["settings"]
    assert ["hash of the split", "hash-other"] in about["datasets"][1]["facts"]
    assert len(about["runs"]) == 16 and [run["seed"] for run in about["runs"][:2]] == [17, 34]
    assert {run["settings"] for run in about["runs"]} == {"layers: 2"}


def test_no_name_of_a_record_is_shown_without_words(page: Path) -> None:
    about = document_of(page)["provenance"]
    assert not [words for words, _ in about["rules"] if "_" in words]
    assert not [head for run in about["runs"] for head in run if "_" in head]
    assert all(field.description for field in DatasetConfig.model_fields.values())
    assert "memory_gib" in hardware() and "_" not in labels.machine(hardware() | {"processor": "x", "processes": 2})


def test_what_a_source_counts_has_words_and_its_window_too(small: Collected) -> None:
    source = {"window": ["2023-08-01", "2023-10-01"], "counts": {"items_repeated": 3, "new_rule": 4}}
    options = {"options": {"preset": "paper"}, "rating_scale": None, "leaky_popularity": False}
    other = replace(small, about=small.about | {"source": source, "settings": small.about["settings"] | options})
    told = provenance.provenance([small, other])
    assert told["read"] == [
        ["first day read, and the day before which the last one lies", [None, "2023-08-01, 2023-10-01"]],
        ["further lines of an item that stays", [None, 3]],
        ["new rule", [None, 4]],
    ]
    by_name = {name: values for _, name, values in told["settings"]}
    assert by_name["options.preset"] == [None, "paper"] and by_name["history_length"] == ["20", "20"]
    # As a config writes them: "none" would be another setting than null.
    assert by_name["rating_scale"] == [None, "null"] and by_name["leaky_popularity"] == [None, "false"]


def test_only_the_papers_own_data_have_its_figures(small: Collected) -> None:
    assert paper.of_row(small, "sasrec") is None
    settings = {"source": "amazon_2023", "options": {"category": "Video_Games", "preset": "released"}}
    games = replace(small, about=small.about | {"settings": settings})
    assert paper.of_row(games, "sasrec") == [0.0129, 0.008, 0.0206, 0.0105, 0.0326, 0.0135]
    assert paper.of_row(games, "popularity") is None
    settings["options"] = {"category": "Video_Games"}
    assert paper.of_row(games, "sasrec") is None
