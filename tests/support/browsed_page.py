"""The page that tests open in a browser: two datasets, five methods, texts of two of them, measures of one."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmark.output.page import __main__ as command
from tests.support.page_headroom import measured, write_headroom
from tests.support.page_results import EVIL, TITLE, write_texts
from tests.support.results_tree import noted_again, write_results
from tests.support.statistics import write_statistics

SKILL = {"popularity": 0.0, "item_knn": 0.5, "sasrec": 0.8, "r2ec": 0.85, "r2ec_no_reasoning": 0.3}


def write_page(results: Path) -> Path:
    """Two datasets, five methods; what r2ec writes holds markup, numbers, and a word for every seventh case."""
    write_results(results, ["small", "other"], SKILL, seeds=2, n_cases=60)
    for dataset in ("small", "other"):
        items = pd.read_parquet(results / f"data/{dataset}/items.parquet")
        items.assign(title=[TITLE, *items.title[1:]]).to_parquet(results / f"data/{dataset}/items.parquet")
        write_texts(results, dataset, "r2ec", EVIL)
        write_texts(results, dataset, "r2ec_no_reasoning", "")
        path = results / f"runs/{dataset}/r2ec/seed1/texts.parquet"
        texts = pd.read_parquet(path)
        seventh = [f"{text} Zebra" if i % 7 == 0 else text for i, text in enumerate(texts.reasoning)]
        texts.assign(reasoning=seventh).to_parquet(path)
        noted_again(path.parent)
    for dataset in ("small", "other"):
        write_headroom(results, measured(results, dataset, "r2ec"), dataset)
    write_headroom(results, None, "old")
    write_statistics(results, ["small", "other"], dict.fromkeys(SKILL, 2), "r2ec")
    arguments = ["page", "--results", str(results), "--datasets", "small", "other", "--methods", *SKILL, "--seeds", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*arguments, "--reference", "r2ec"])
        command.main()
    return results / "report" / "index.html"
