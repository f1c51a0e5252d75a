"""Parts of the page for which no whole run is needed: titles, libraries, the paper's figures, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.analysis.collect import collect
from benchmark.errors import InputError
from benchmark.metrics import METRICS
from benchmark.output.page import answer, cases, paper
from benchmark.output.page import html as written
from benchmark.output.page.data import document
from benchmark.provenance import ROOT
from tests.support.results_tree import noted_again, write_results
from tests.support.statistics import write_statistics


def test_the_libraries_are_those_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in written.LIBRARIES:
        assert len(written.library.__wrapped__(name)) > 10_000
        assert (ROOT / "benchmark/output/page/vendor" / f"{name.partition('.')[0]}.LICENSE").is_file()
    before = written.asset
    monkeypatch.setattr(written, "asset", lambda name: before(name) + ("//" if name.endswith("d3.min.js") else ""))
    with pytest.raises(InputError, match=r"vendor/d3\.min\.js: isn't the file of vendor/versions\.txt"):
        written.library.__wrapped__("d3.min.js")


@pytest.mark.parametrize(
    ("p", "means", "title"),
    [
        ([0.5, 0.01, 0.01], [0.3, 0.2, 0.1], "a ranks best on x; b can't be told apart from it"),
        ([0.01, 0.01, 0.01], [0.3, 0.2, 0.1], "a ranks best on x and differs from every other method"),
        ([0.5, 0.01, 0.05], [0.1, 0.2, 0.3], "c ranks best on x; b can't be told apart from it"),
        ([0.5, 0.05, 0.01], [0.3, 0.2, 0.1], "No method on x can be told apart from the best, a"),
    ],
)
def test_titles_by_hand(p: list[float], means: list[float], title: str) -> None:
    """p of a - b, a - c, b - c."""

    def six(value: float) -> list[float]:
        return [value] * 6

    numbers = {"difference": six(0.1), "low": six(-0.1), "high": six(0.3), "detectable": six(0.2)}
    pairs = [
        {"a": a, "b": b, "p_holm": six(value)} | numbers
        for (a, b), value in zip([(0, 1), (0, 2), (1, 2)], p, strict=True)
    ]
    rows = [{"method": i, "mean": six(mean), "low": six(mean), "high": six(mean)} for i, mean in enumerate(means)]
    assert answer.title_of([{"name": "x", "rows": rows, "pairs": pairs}], None, ["a", "b", "c"]) == title


def test_the_papers_figures_are_those_of_its_tables() -> None:
    """paper.csv holds the rows of docs/paper-table.csv that a row of config/paper.yaml is."""
    table = pd.read_csv(ROOT / "docs/paper-table.csv").set_index(["method", "dataset"])
    rows = pd.read_csv(ROOT / "benchmark/output/page/paper.csv", comment="#")
    assert len(rows) == 48 and len(paper.printed()) == 48
    for row in rows.to_dict("records"):
        of_table = table.loc[(row["printed_as"], row["category"].replace("_", " "))]
        np.testing.assert_array_equal([row[metric] for metric in METRICS], of_table[METRICS].to_numpy(float))
    config = (ROOT / "config/paper.yaml").read_text()
    config_rows = set(re.findall(r"^  ([a-z][\w.]*):$", config, flags=re.M))
    assert {"gru4rec", "caser", "sasrec", "tiger", "r2ec_qwen2.5_3b", "r2ec_gemma2_2b"} <= config_rows & set(rows.row)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (pd.DataFrame({"case": [220], "prompt": ["p"]}), "column 'reasoning' is missing"),
        (pd.DataFrame({"case": [7], "prompt": ["p"], "reasoning": ["r"]}), "case 7 is not in rankings.parquet"),
        (pd.DataFrame({"case": [220], "prompt": ["p"], "reasoning": ["r"]}), "case 221 of rankings.parquet is missing"),
    ],
)
def test_broken_texts_are_refused(tmp_path: Path, texts: pd.DataFrame, message: str) -> None:
    write_results(tmp_path, ["small"], {"r2ec": 0.5}, seeds=1, n_cases=60)
    run = tmp_path / "runs" / "small" / "r2ec" / "seed1"
    texts.to_parquet(run / "texts.parquet")
    noted_again(run)
    with pytest.raises(InputError, match=message):
        cases.read_texts(collect(tmp_path, "small", {"r2ec": 1}), "r2ec")


def test_a_single_method_has_a_page(tmp_path: Path) -> None:
    write_results(tmp_path, ["small"], {"popularity": 0.5}, seeds=1, n_cases=60)
    write_statistics(tmp_path, ["small"], {"popularity": 1})
    about, _ = document([collect(tmp_path, "small", {"popularity": 1})], tmp_path)
    assert about["answer"]["title"] == "popularity on small" and about["datasets"][0]["pairs"] == []
    assert about["overall"] is None and about["against"] is None and about["claims"] is None


def test_statistics_of_other_rows_are_refused(tmp_path: Path) -> None:
    write_results(tmp_path, ["small"], {"popularity": 0.5, "sasrec": 0.8}, seeds=1, n_cases=60)
    write_statistics(tmp_path, ["small"], {"popularity": 1})
    both = collect(tmp_path, "small", {"popularity": 1, "sasrec": 1})
    with pytest.raises(InputError, match="small: the statistics are of popularity, but sasrec has runs, too"):
        document([both], tmp_path)
