"""Ablations from a small made-up results tree: tables, power and plots."""

import doctest
import io
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from benchmark.analysis import significance
from benchmark.analysis.significance import smallest_detectable
from benchmark.config.factors import Factor
from benchmark.metrics import METRICS
from benchmark.output import ablation_plots, ablations, claims, plots
from benchmark.output.ablation_plots import panels, plot_factor
from benchmark.output.ablations import CURVES, curve, order_of
from benchmark.output.page.ablations import claims as claims_of_page
from benchmark.output.page.ablations import part_of
from benchmark.statistics.ablations import against_base, curves, read_runs, statistics, tables_of
from benchmark.statistics.claims import CANT_TELL, SUPPORTS, judge, measure
from benchmark.statistics.files import FactorStatistics
from tests.support.factors import SKILL, claim, factor, hand_made, run, write_logs, write_runs
from tests.support.results_tree import write_dataset, write_method, write_results

MAIN = METRICS.index("NDCG@10")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("ablations") / "results")


def of(one_factor: Factor, results: Path) -> FactorStatistics:
    return statistics(one_factor, results)


def test_doctests() -> None:
    for module in (ablations, significance):
        assert doctest.testmod(module).attempted > 0 and doctest.testmod(module).failed == 0


# --- tables
# ------------------------------------------------------------------------------------------------------------


def test_the_numbers_of_a_factor_are_those_by_hand(tmp_path: Path) -> None:
    two_values = hand_made(tmp_path)
    frame, tests = tables_of(two_values, read_runs(two_values, tmp_path))
    assert frame["value"].tolist() == ["one", "two"] and frame["base"].tolist() == ["one", "one"]
    # NDCG@10 of the base: seed 1 (1 + 1/3)/4 = 1/3, seed 2 (1 + 1/2)/4 = 3/8
    assert frame.loc[0, "NDCG@10"] == pytest.approx(17 / 48, abs=1e-6)
    assert frame.loc[0, "NDCG@10_sd"] == pytest.approx((1 / 24) / np.sqrt(2), abs=1e-6)
    assert np.isnan(frame.loc[0, "NDCG@10_p_holm"]) and frame.loc[1, "NDCG@10_p_holm"] == 1.0
    hit5 = tests[tests.metric == "Hit@5"].iloc[0]
    assert (hit5["value"], hit5.base, hit5.family, hit5.family_size) == ("two", "one", "against the base", 6)
    # Base: user 0 has 3/4, user 1 has 0; differences 1/4 and 1. Two users: p = 1/2.
    assert (hit5["mean"], hit5.mean_base, hit5.difference, hit5.p, hit5.p_holm) == (1.0, 0.375, 0.625, 0.5, 1.0)
    # Drawing two of two users gives 1/4, 5/8, 5/8, 1: a standard deviation of sqrt(((3/8)^2 + (3/8)^2) / 4) = 0.26517.
    assert hit5.error == pytest.approx(np.sqrt(9 / 128), abs=0.005)
    # At 0.05 / 6, two-sided: z = 2.6383; and 0.8416 for a power of 80 %.
    assert hit5.detectable == pytest.approx((2.6383 + 0.8416) * hit5.error, rel=1e-4)


def test_the_family_is_all_values_by_all_metrics_of_a_dataset(results: Path) -> None:
    two_datasets = factor(datasets=["small", "other"])
    frame, tests = tables_of(two_datasets, read_runs(two_datasets, results))
    assert frame.groupby("dataset")["value"].apply(list).to_dict() == {
        "small": ["0", "0.05", "1"],
        "other": ["0", "0.05", "1"],
    }
    assert len(tests) == 2 * 2 * 6 and set(tests.family_size) == {12}
    for _, part in tests.groupby("dataset"):
        assert part.p_holm.to_numpy() == pytest.approx(significance.holm(part.p), rel=1e-3)
    worse = tests[(tests["value"] == "0") & (tests.metric == "NDCG@10") & (tests.dataset == "small")].iloc[0]
    assert worse.difference < 0 and worse.p_holm < 0.05


def test_an_unequal_number_of_seeds_than_the_methods_own(results: Path) -> None:
    """A factor reads as many seeds of the base as of its values."""
    two_seeds = factor(seeds=2)
    (collected,) = read_runs(two_seeds, results)
    assert collected.seeds == {"r2ec--beta=0": 2, "r2ec": 2, "r2ec--beta=1": 2}


def test_the_smallest_detectable_difference_is_that_by_hand() -> None:
    assert smallest_detectable(0.01, 1) == pytest.approx(0.01 * (1.959964 + 0.841621), rel=1e-6)
    assert smallest_detectable(0.01, 20) == pytest.approx(0.01 * (3.023341 + 0.841621), rel=1e-6)
    assert np.isnan(smallest_detectable(0.0, 1))


def test_the_smallest_detectable_effect_is_found_four_times_in_five() -> None:
    """A simulation: users with unequal numbers of cases, an effect of that size, the real test."""
    generator = np.random.default_rng(5)
    users, trials = 120, 250
    cases = generator.integers(1, 20, users).astype(float)
    noise = generator.normal(0, 0.1, (trials, users)) * np.sqrt(cases)
    # The error that the bootstrap would see of a ratio of sums, and the effect that it promises.
    error = np.sqrt((noise**2).sum(axis=1).mean()) / cases.sum()
    effect = smallest_detectable(error, family=4)
    sums = np.concatenate([noise + effect * cases, np.zeros((1, users))]).T
    pairs = [(trial, trials) for trial in range(trials)]
    p = significance.randomisation_test(sums, pairs, seed=1, flips=2047)
    assert 0.72 < (p < significance.ALPHA / 4).mean() < 0.88


def test_runs_without_any_difference_say_so(tmp_path: Path) -> None:
    cases = write_dataset(tmp_path, "tiny", n_users=8, n_cases=40)
    ranks = [list(range(1, 41))]
    for name in ("r2ec", "r2ec--x=1"):
        write_method(tmp_path, "tiny", cases, name, ranks)
    runs = {"a": "r2ec", "b": "r2ec--x=1"}
    equal_runs = factor(datasets=["tiny"], seeds=1, base="a", runs=runs, claims=[claim(value="b", against="a")])
    run(ablations, tmp_path, equal_runs)
    run(claims, tmp_path, equal_runs)
    text = (tmp_path / "ablations" / "beta.md").read_text()
    assert "unknown: no user differs" in text and "nan" not in text
    page = (tmp_path / "ablations" / "claims.md").read_text()
    assert "nothing can be said of what could have been seen" in page and CANT_TELL in page and "nan" not in page


def test_the_command_writes_byte_equal_files(results: Path, tmp_path: Path) -> None:
    contents = []
    for out in (tmp_path / "one", tmp_path / "two"):
        run(ablations, results, factor(), out=out)
        contents.append({path.name: path.read_bytes() for path in (out / "ablations").iterdir()})
    assert contents[0] == contents[1] and sorted(contents[0]) == ["beta.csv", "beta.md", "beta.tests.csv", "beta.tex"]
    text, tex = contents[0]["beta.md"].decode(), contents[0]["beta.tex"].decode()
    assert text.startswith("# weight of R\\_c\n") and "| value |" in text and "| 0.05 |" in text
    for words in (
        'the base, "0.05"',
        "family of 12 tests (2 values x 6 metrics)",
        "3 trainings of each row",
        "power of 80 %",
    ):
        assert words in text and words.replace("%", r"\%") in tex, words
    frame = FactorStatistics.read(results / "statistics" / "ablations", "beta").values
    assert frame["value"].tolist() == ["0", "0.05", "1"]  # still words
    assert len(pd.read_csv(io.BytesIO(contents[0]["beta.tests.csv"]))) == 12
    # Each mean of the first table is in all three forms.
    assert all(f"{mean:.4f}" in text and f"{mean:.4f}" in tex for mean in frame["NDCG@10"])


def test_a_missing_run_is_refused(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(ablations, results, factor(seeds=4), out=tmp_path / "out")
    assert "seed4/run.json: missing" in capsys.readouterr().err and not (tmp_path / "out").exists()


# --- plots
# -------------------------------------------------------------------------------------------------------------


def test_numbers_are_ordered_and_words_are_not() -> None:
    assert order_of(factor(runs={"10": "a", "2": "b", "0.5": "c"}, base="2")) == ["0.5", "2", "10"]
    assert order_of(factor(runs={"10": "a", "none": "b", "2": "c"}, base="2")) == ["10", "none", "2"]


def test_panels_show_means_seeds_and_differences(results: Path) -> None:
    (collected,) = read_runs(factor(), results)
    means, differences = panels(factor(), of(factor(), results), "small", "NDCG@10")
    by_seed = np.stack([collected.values[i][MAIN].mean(axis=-1) for i in range(3)])
    assert means.labels == ["0", "0.05", "1"] and means.base == 1
    assert np.array_equal(means.seeds, by_seed) and means.mean == pytest.approx(by_seed.mean(axis=1))
    assert differences.seeds == pytest.approx(by_seed - by_seed[1])
    tests = against_base(collected, factor())
    by_value = tests[tests.metric == "NDCG@10"]
    assert differences.low[[0, 2]] == pytest.approx(by_value.low.to_numpy())
    assert np.isnan(differences.low[1]) and np.isnan(differences.unseen[1])  # type: ignore[index]
    assert differences.filled.tolist() == [True, False, bool(by_value.p_holm.iloc[1] < 0.05)]


def test_curves_have_the_steps_that_every_seed_logged(results: Path) -> None:
    (collected,) = read_runs(factor(), results)
    steps, values = curves(collected, "r2ec--beta=1", "length")
    assert steps.tolist() == [1, 2, 3, 4, 5, 6] and values.shape == (3, 6) and values[0, 0] == 15.9
    shown = curve(of(factor(), results), "small", "1", "length")
    assert np.array_equal(shown[0], steps) and np.array_equal(shown[1], values)
    (other,) = read_runs(factor(datasets=["other"]), results)
    assert curves(other, "r2ec", "reward")[0].size == 0
    assert curve(of(factor(datasets=["other"]), results), "other", "0.05", "reward")[0].size == 0


@pytest.mark.parametrize("words", [False, True])
def test_a_figure_has_points_differences_and_curves(results: Path, words: bool) -> None:
    names = ["w/o R_c", "R2ec, whole", "w/o R_d"] if words else ["0", "0.05", "1"]
    runs = dict(zip(names, factor().runs.values(), strict=True))
    plotted = factor(runs=runs, base=names[1], claims=[])
    with matplotlib.rc_context(plots.STYLE):  # type: ignore[arg-type]
        figure = plot_factor(plotted, of(plotted, results))
        figure.draw_without_rendering()
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles == [
            "NDCG@10",
            "NDCG@10 minus the base's",
            "Hit@10",
            "Hit@10 minus the base's",
            *CURVES.values(),
            "",
        ]
        assert all(len(axes.lines) == 3 for axes in figure.axes[4:8])
        assert all(len(axes.collections) == 3 for axes in figure.axes[4:8])  # bands of three seeds
        legend = figure.axes[8].get_legend()
        assert [text.get_text() for text in legend.get_texts()] == [names[0], f"{names[1]} (base)", names[2]]
        labels = figure.axes[0].get_xticklabels() if not words else figure.axes[0].get_yticklabels()
        assert [label.get_text() for label in labels] == (
            ["0", "0.05\n(base)", "1"] if not words else ["w/o R_c", "R2ec, whole (base)", "w/o R_d"]
        )
        tight = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= width and tight.y1 <= height
    text = figure.get_supxlabel().replace("\n", " ")
    assert "160 cases of" in text and "its 3 seeds" in text and "Bands: lowest to highest seed." in text


def test_no_log_no_curves(results: Path) -> None:
    plotted = factor(datasets=["other"])
    assert len(plot_factor(plotted, of(plotted, results)).axes) == 4
    # Nor where the runs only score the base's fit, whose log they carry.
    scored = factor(scored=["r2ec--beta=0", "r2ec--beta=1"])
    assert len(plot_factor(scored, of(scored, results)).axes) == 4


def test_a_value_without_a_log_is_named(tmp_path: Path) -> None:
    write_results(tmp_path, ["small"], SKILL, seeds=1, n_cases=60)
    write_logs(tmp_path, "small", {"r2ec": 4, "r2ec--beta=1": 4}, seeds=1)
    plotted = factor(seeds=1)
    figure = plot_factor(plotted, of(plotted, tmp_path))
    text = figure.get_supxlabel().replace("\n", " ")
    assert "No training log: 0." in text and "Bands" not in text and "; one seed. Black" in text
    # Points and level alone, each value's interval among them: a tick of the only seed would repeat its point.
    assert len(figure.axes[0].lines) == 1 + 2 * 3
    assert all(not axes.collections for axes in figure.axes[4:])


def test_the_plots_are_the_same_bytes_twice(results: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        run(ablation_plots, results, factor(), out=tmp_path / out)
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / out / "ablations").iterdir()} for out in ("one", "two")
    ]
    assert files[0] == files[1] and sorted(files[0]) == ["beta.pdf", "beta.png"]


# --- the page
# ----------------------------------------------------------------------------------------------------------


def test_the_page_holds_factors_and_claims(results: Path) -> None:
    statistics = of(factor(), results)
    shown = part_of(factor(), statistics)
    (dataset,) = shown["datasets"]
    assert [value["label"] for value in dataset["values"]] == ["0", "0.05", "1"]
    row = statistics.values.set_index("value").loc["1"]
    assert dataset["values"][2]["mean"] == [row[metric] for metric in METRICS]
    assert dataset["values"][1]["difference"] is None and len(dataset["curves"]) == 4
    claims = claims_of_page(judge(measure([factor()], results)))
    assert claims is not None and [row["says"] for row in claims["rows"]] == ["R_c <helps>"] * 2
    assert claims["rows"][0]["verdict"] == SUPPORTS
    assert claims_of_page(judge([])) is None
