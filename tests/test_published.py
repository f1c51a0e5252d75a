"""What is published can be computed again by hand, as results/README.md says."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmark.config.methods import ROOT

PUBLISHED = ROOT / "results" / "published" / "default" / "statistics"
MORE = """
    if dataset["name"] == "ml-100k":
        numbers = {method["name"]: str(number) for number, method in enumerate(document["methods"])}
        first, second = (np.array(index["ranks"][numbers[name]])[0] for name in ("r2ec", "r2ec_no_reasoning"))
        print("pair", *index["user"])
        gains = [np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0) for ranks in (first, second)]
        print("pair", *(gains[0] - gains[1]))
"""


@pytest.fixture(scope="module")
def printed() -> list[list[str]]:
    """What the lines of results/README.md print, and beside it one pair of methods, case by case; words by line."""
    page = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert len(code) == 1
    done = subprocess.run([sys.executable, "-c", code[0] + MORE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_the_lines_of_the_readme_give_the_published_means(printed: list[list[str]]) -> None:
    by_hand = {(dataset, method): means for dataset, method, *means in printed if dataset != "pair"}
    files = sorted(PUBLISHED.glob("*.methods.csv"))
    assert files
    means = pd.concat([pd.read_csv(file) for file in files]).set_index(["dataset", "method"])[["NDCG@10", "Hit@10"]]
    assert set(by_hand) == set(means.index)
    for row, values in by_hand.items():
        assert list(map(float, values)) == pytest.approx(means.loc[row].tolist(), abs=6e-5)


def test_a_published_interval_and_test_by_hand(printed: list[list[str]]) -> None:
    users, differences = (line[1:] for line in printed if line[0] == "pair")
    user = np.unique(users, return_inverse=True)[1]
    sums, cases = np.bincount(user, np.array(differences, float)), np.bincount(user)
    rng = np.random.default_rng(7)
    drawn = rng.integers(0, len(sums), (9_999, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / cases[drawn].sum(axis=1), [0.025, 0.975])
    flipped = abs(rng.choice([-1.0, 1.0], (9_999, len(sums))) @ sums)
    p = (1 + (flipped >= abs(sums.sum()) - 1e-12).sum()) / 10_000
    tests = pd.read_csv(PUBLISHED / "ml-100k.tests.csv")
    chosen = (tests.family == "all pairs") & (tests.metric == "NDCG@10")
    (row,) = tests[chosen & (tests.method_a == "r2ec") & (tests.method_b == "r2ec_no_reasoning")].itertuples()
    # Two bootstraps of 9,999 differ by some hundredths of the interval, two p near .1 by less than .015.
    assert [low, high] == pytest.approx([row.low, row.high], abs=0.06 * (row.high - row.low))
    assert p == pytest.approx(row.p, abs=0.015)
