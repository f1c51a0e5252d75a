"""Results of which a page is made: titles and texts that hold markup, and datasets of unequal methods."""

from pathlib import Path

import pandas as pd

from benchmark.analysis.collect import collect
from benchmark.output.page import html as written
from benchmark.output.page.data import document
from benchmark.statistics import overall as statistics_overall
from benchmark.statistics.files import OVERALL_METHODS, OVERALL_TESTS, write_csv
from tests.support.results_tree import noted_again, write_results
from tests.support.statistics import write_statistics

SKILL = {"popularity": 0.0, "sasrec": 0.8, "r2ec": 0.85, "r2ec_no_reasoning": 0.3}
TWO_SEEDS = dict.fromkeys(SKILL, 2)

EVIL = "He likes <script>alert('x')</script> & {{ 7 * 7 }} \"films\" </pre><img src=x onerror=alert(1)>"
TITLE = "Title <script>document.title = 'taken over'</script>"


def write_texts(results: Path, dataset: str, method: str, text: str) -> None:
    """texts.parquet of seed 1: every third text is cut off, an empty one never."""
    run = results / "runs" / dataset / method / "seed1"
    numbers = pd.read_parquet(run / "rankings.parquet").case
    texts = [f"{text} {case}" if text else "" for case in numbers]
    cut = [bool(text) and i % 3 == 0 for i in range(len(numbers))]
    frame = pd.DataFrame({"case": numbers, "prompt": "prompt <b>1</b>", "reasoning": texts, "cut": cut})
    frame.to_parquet(run / "texts.parquet")
    noted_again(run)


def write_uneven(results: Path) -> Path:
    """A page of two datasets, the second of which has three of the four methods, in another order."""
    write_results(results, ["small", "other"], SKILL, seeds=2, n_cases=60)
    write_texts(results, "small", "r2ec", EVIL)
    write_texts(results, "small", "r2ec_no_reasoning", "")
    seeds = {"small": TWO_SEEDS, "other": dict.fromkeys(["r2ec", "popularity", "sasrec"], 2)}
    for name, own_seeds in seeds.items():
        write_statistics(results, [name], own_seeds)
    shared = dict.fromkeys(["popularity", "sasrec", "r2ec"], 2)
    means, tests = statistics_overall.overall([collect(results, name, shared) for name in seeds])
    write_csv(results / "statistics" / OVERALL_METHODS, means)
    write_csv(results / "statistics" / OVERALL_TESTS, tests)
    about, parts = document([collect(results, name, own_seeds) for name, own_seeds in seeds.items()], results)
    (results / "uneven.html").write_text(written.render(about, parts), encoding="utf-8")
    return results / "uneven.html"
