"""Unequal numbers of seeds: a case's value is the mean over a method's own seeds, in numbers, tests and captions."""

import io
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmark.analysis.arguments import runs_arguments
from benchmark.analysis.collect import Collected, collect
from benchmark.analysis.comparisons import AGAINST_BEST, ALL_PAIRS, compare
from benchmark.analysis.summary import summarise
from benchmark.contract import Cases
from benchmark.data.store import write_cases
from benchmark.metrics import METRICS
from benchmark.output import plots
from benchmark.output.cells import cells
from benchmark.output.forms import csv, latex, markdown, show
from benchmark.output.page.data import document
from benchmark.statistics.datasets import statistics
from benchmark.statistics.files import DatasetStatistics
from tests.support.results_tree import sealed_again, write_dataset, write_method, write_results

SKILL = {"popularity": 0.0, "item_knn": 0.3, "sasrec": 0.8, "r2ec": 0.85, "r2ec_untrained": 0.1}
UNEQUAL = {"popularity": 3, "item_knn": 3, "sasrec": 3, "r2ec": 1, "r2ec_untrained": 1}
MAIN = METRICS.index("NDCG@10")


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    folder = tmp_path_factory.mktemp("seeds")
    write_results(folder, ["small"], SKILL, seeds=UNEQUAL)
    return collect(folder, "small", UNEQUAL)


@pytest.fixture(scope="module")
def unequal_statistics(unequal: Collected) -> DatasetStatistics:
    return statistics(unequal)


@pytest.fixture(scope="module")
def frame(unequal: Collected) -> pd.DataFrame:
    return summarise(unequal, compare(unequal))


def arrays(unequal_statistics: Collected) -> np.ndarray:
    """Per-case metrics of methods with equal numbers of seeds, [6, methods, seeds, n]."""
    return np.stack(unequal_statistics.values, axis=1)


def test_equal_numbers_give_plain_means_and_sums(tmp_path: Path) -> None:
    write_results(tmp_path, ["small"], SKILL, seeds=3)
    collected = collect(tmp_path, "small", dict.fromkeys(SKILL, 3))
    assert arrays(collected).shape == (6, 5, 3, 120)
    assert np.array_equal(collected.case_means, arrays(collected).mean(axis=2))
    totals, seeds = collected.case_totals()
    assert np.array_equal(totals, arrays(collected).sum(axis=2)) and seeds == 3


def test_totals_weigh_every_method_alike(unequal: Collected) -> None:
    totals, seeds = unequal.case_totals()
    assert seeds == 3
    assert totals / seeds == pytest.approx(unequal.case_means, abs=1e-12)
    assert np.array_equal(totals[0::2], np.rint(totals[0::2]))  # hits, for the exact test


def test_unequal_numbers_by_hand(tmp_path: Path) -> None:
    cases = write_dataset(tmp_path, "tiny", n_users=2, n_cases=4)
    cases = Cases(**{**vars(cases), "user": np.array([0, 0, 1, 1], dtype=np.int32)})
    write_cases(tmp_path / "data" / "tiny" / "test.parquet", cases, with_target=False)
    sealed_again(tmp_path / "data" / "tiny")
    write_method(tmp_path, "tiny", cases, "a", [[1, 7, 30, 31], [1, 3, 30, 31]])
    write_method(tmp_path, "tiny", cases, "b", [[30, 30, 30, 30]] * 3)
    write_method(tmp_path, "tiny", cases, "r2ec", [[1, 1, 1, 30]])
    collected = collect(tmp_path, "tiny", {"a": 2, "b": 3, "r2ec": 1})
    tests = compare(collected)
    rows = summarise(collected, tests).set_index("method")
    assert collected.case_totals()[1] == 6
    assert rows.seeds.to_dict() == {"a": 2, "b": 3, "r2ec": 1}
    # a: seed 1 (1 + 1/3)/4 = 1/3, seed 2 (1 + 1/2)/4 = 3/8; r2ec: 3 of 4 first
    assert rows["NDCG@10"].tolist() == pytest.approx([17 / 48, 0, 3 / 4], abs=1e-6)
    assert rows["NDCG@10_sd"][["a", "b"]].tolist() == pytest.approx([(1 / 24) / np.sqrt(2), 0], abs=1e-6)
    assert np.isnan(rows["NDCG@10_sd"]["r2ec"])
    # Hit@5, user 0 and 1: a 3/4 and 0, r2ec 1 and 1/2
    assert rows.loc["a", ["Hit@5", "Hit@5_low", "Hit@5_high"]].tolist() == [0.375, 0, 0.75]
    assert rows.loc["r2ec", ["Hit@5", "Hit@5_low", "Hit@5_high"]].tolist() == [0.75, 0.5, 1]

    pairs = tests[(tests.family == AGAINST_BEST) & (tests.method_a == "r2ec")].set_index("metric")
    hit5 = pairs.loc["Hit@5"]
    assert hit5[["seeds_a", "seeds_b", "mean_a", "mean_b"]].tolist() == [1, 2, 0.75, 0.375]
    assert hit5[["difference", "low", "high"]].tolist() == [0.375, 0.25, 0.5]
    # Hits as if both had two seeds: r2ec (4, 2), a (3, 0), so D = (1, 2); 2 of 4 sign vectors reach 3. Bare sums would
    # give r2ec (2, 1), D = (-1, 1) and p = 1.
    assert hit5.p == 0.5
    assert pairs.loc["NDCG@10"].p == pytest.approx(0.5, abs=0.02)  # better for both users


def test_seeds_of_one_method_weigh_no_more_than_one(tmp_path: Path) -> None:
    """Three identical seeds say what one says."""
    names = ["popularity", "item_knn", "r2ec"]
    write_results(tmp_path, ["small"], {name: SKILL[name] for name in names}, seeds=1)
    single_seed = collect(tmp_path, "small", dict.fromkeys(names, 1))
    again = [single_seed.ranks[1][0].tolist()] * 3
    target = Cases(**{**vars(single_seed.cases), "target": single_seed.target})
    write_method(tmp_path, "small", target, "again", again)
    three = collect(tmp_path, "small", {"popularity": 1, "again": 3, "r2ec": 1})
    assert (single_seed.best_baseline, three.best_baseline) == ("item_knn", "again")

    apart = ["seeds_a", "seeds_b", "seeds", "item_knn_sd"]
    tests = compare(three).replace("again", "item_knn").drop(columns=apart[:2])
    pd.testing.assert_frame_equal(tests, compare(single_seed).drop(columns=apart[:2]), rtol=0, atol=1e-12)
    assert (tests.p[tests.family == ALL_PAIRS] < 0.5).any()
    columns = [name for metric in METRICS for name in (metric, f"{metric}_low", f"{metric}_high", f"{metric}_p_holm")]
    rows = [summarise(collected, compare(collected)) for collected in (three, single_seed)]
    pd.testing.assert_frame_equal(rows[0][columns], rows[1][columns], rtol=0, atol=1e-12)
    assert rows[0].loc[1, [f"{metric}_sd" for metric in METRICS]].tolist() == [0.0] * 6

    both = collect(tmp_path, "small", {"popularity": 1, "item_knn": 1, "again": 3, "r2ec": 1})
    assert both.best_baseline == "item_knn"  # equally good: the one listed first
    tests = compare(both)
    same = tests[(tests.family == ALL_PAIRS) & (tests.method_a == "item_knn") & (tests.method_b == "again")]
    assert (same.difference == 0).all() and (same.p == 1).all() and len(same) == 6


# --- what is shown
# -----------------------------------------------------------------------------------------------------


def test_every_form_says_how_many_seeds(unequal: Collected, frame: pd.DataFrame) -> None:
    plain = io.StringIO()
    show(frame, Console(file=plain, width=110))
    words = "1 training of r2ec and r2ec_untrained, 3 of each other row;"
    assert words in markdown(frame)
    assert words.replace("_", r"\_") in latex(frame)
    for text in (markdown(frame), latex(frame), " ".join(plain.getvalue().split())):
        assert "mean over the method's own seeds" in text
        assert ("one seed has no sd." in text) == (("±" in text) or ("\\pm" in text))  # where there are any, it is said
        assert text.replace(r"\_", "_").count(words) == 1
    read = pd.read_csv(io.StringIO(csv(frame))).set_index("method")
    assert read.seeds.to_dict() == UNEQUAL
    assert read["NDCG@10_sd"].isna().to_dict() == {name: number == 1 for name, number in UNEQUAL.items()}
    assert [row[MAIN].sd != "" for row in cells(frame)] == [True, True, True, False, False]
    lines = markdown(frame).splitlines()[2:7]
    assert [line.count("±") for line in lines] == [6, 6, 6, 0, 0]


def test_the_page_says_how_many_seeds_and_lists_every_run(
    unequal: Collected, unequal_statistics: DatasetStatistics
) -> None:
    results = unequal.folder.parents[1]
    unequal_statistics.write(results / "statistics", "small")
    page, _ = document([unequal], results)
    words = "1 training of r2ec and r2ec_untrained, 3 of each other row;"
    assert sum(words in note for note in page["datasets"][0]["notes"]) == 1
    assert (
        "Trainings: 1 of r2ec and r2ec_untrained, 3 of each other method; 11 runs in all." in page["answer"]["said"][0]
    )
    assert ["0123456789abcdef0123456789abcdef01234567", 11] in page["provenance"]["shared"][0][1]
    listed = [(run["method"], run["training"]) for run in page["provenance"]["runs"]]
    assert listed == [(name, seed) for name, number in UNEQUAL.items() for seed in range(1, number + 1)]


def test_plots_show_each_methods_own_seeds(unequal: Collected, unequal_statistics: DatasetStatistics) -> None:
    figure = plots.plot_metrics(unequal_statistics)
    drawn = [line.get_xdata() for line in figure.axes[4].lines]
    means, seeds = drawn[0::2], drawn[1::2]
    assert [len(x) for x in seeds] == list(UNEQUAL.values())
    for mean, own_seeds, values in zip(means, seeds, unequal.values, strict=True):
        assert own_seeds == pytest.approx(values[MAIN].mean(axis=-1))
        assert mean == pytest.approx(np.mean(own_seeds))
    words = "Ticks below a point: its trainings, 1 of r2ec and r2ec_untrained, 3 of each other method."
    for plot in (plots.plot_metrics, plots.plot_slices):
        assert words in plot(unequal_statistics).get_supxlabel().replace("\n", " ")
    cost = plots.plot_cost(unequal_statistics)
    words = "Means over trainings, 1 of r2ec and r2ec_untrained, 3 of each other method."
    assert words in cost.get_supxlabel().replace("\n", " ")
    points = [line for line in cost.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_ydata()[0] for line in points] == pytest.approx(unequal.case_means[MAIN].mean(axis=-1))
    # 11 x (0.1 + 20 x skill) seconds, as results_tree writes it for every seed
    assert [line.get_xdata()[0] for line in points] == pytest.approx([11 * (0.1 + 20 * s) for s in SKILL.values()])


def test_a_slice_of_unequal_seeds(unequal: Collected, unequal_statistics: DatasetStatistics) -> None:
    panel = plots.panels_of(unequal_statistics, "history")[1]
    rows = np.flatnonzero((np.diff(unequal.cases.offsets) >= 5) & (np.diff(unequal.cases.offsets) < 10))
    assert panel.title.startswith(f"history of 5-9\n{len(rows)} cases")
    assert [len(seeds) for seeds in panel.seeds] == list(UNEQUAL.values())
    assert panel.seeds[3][0] == pytest.approx(unequal.values[3][MAIN, 0, rows].mean())
    assert all(low <= seeds.mean() <= high for low, seeds, high in zip(panel.low, panel.seeds, panel.high, strict=True))


def test_seeds_are_given_once_for_all_or_by_method() -> None:
    base = ["--datasets", "d", "--methods", "a", "b", "r2ec", "--seeds"]
    assert runs_arguments(ArgumentParser(), [*base, "3", "3", "1"]).seeds == {"a": 3, "b": 3, "r2ec": 1}
    assert runs_arguments(ArgumentParser(), [*base, "2"]).seeds == {"a": 2, "b": 2, "r2ec": 2}
