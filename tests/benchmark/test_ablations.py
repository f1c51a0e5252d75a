"""Ablations from a small made-up results tree: tables, power, claims and plots."""

import doctest
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest

from benchmark.analysis import significance
from benchmark.analysis.collect import collect
from benchmark.analysis.comparisons import Comparison
from benchmark.analysis.significance import smallest_detectable
from benchmark.config.factors import Factor
from benchmark.config.schema import ClaimConfig
from benchmark.metrics import METRICS
from benchmark.output import ablation_plots, ablations, claims, plots
from benchmark.output.ablation_plots import panels, plot_factor
from benchmark.output.ablations import CURVES, curve, order_of
from benchmark.output.claims import sentences
from benchmark.output.page.ablations import claims as claims_of_page
from benchmark.output.page.ablations import part_of
from benchmark.statistics import ablations as measured
from benchmark.statistics import claims as judged
from benchmark.statistics.ablations import against_base, curves, read_runs, statistics, tables_of
from benchmark.statistics.claims import CANT_TELL, CONTRADICTS, SUPPORTS, judge, measure, verdict
from benchmark.statistics.files import FactorStatistics, read_csv
from benchmark.storage.checksums import seal
from benchmark.storage.io import read_json, write_json
from tests.support.results_tree import write_by_hand, write_dataset, write_method, write_results

MAIN = METRICS.index("NDCG@10")
SKILL = {"r2ec": 0.8, "r2ec--beta=0": 0.1, "r2ec--beta=1": 0.75}


def claim(**changes: Any) -> ClaimConfig:
    return ClaimConfig.model_validate({"says": "R_c <helps>", "value": "0.05", "against": "0"} | changes)


def factor(**changes: Any) -> Factor:
    entry = {
        "name": "beta",
        "title": "weight of R_c",
        "datasets": ["small"],
        "seeds": 3,
        "base": "0.05",
        "runs": {"0": "r2ec--beta=0", "0.05": "r2ec", "1": "r2ec--beta=1"},
        "claims": [claim(), claim(value="1", against="0.05", expect="equal", margin=0.5)],
    }
    return Factor.model_validate(entry | changes)


def log_of(run: str, seed: int, steps: int) -> list[dict[str, float]]:
    """A training log as R2ec reports it."""
    start = len(run) % 7 / 10 + seed / 50
    return [
        {
            "step": float(step),
            "loss": 1.0,
            "reward": start + step / 100,
            "reward_ndcg": start + step / 90,
            "length": 16 - step / 10,
            "entropy": 2 + start - step / 30,
        }
        for step in range(1, steps + 1)
    ]


def write_logs(results: Path, dataset: str, runs: dict[str, int], seeds: int = 3) -> None:
    """Put logs of so many steps into the run.json of these runs."""
    for run, steps in runs.items():
        for seed in range(1, seeds + 1):
            path = results / "runs" / dataset / run / f"seed{seed}" / "run.json"
            write_json(path, seal(read_json(path) | {"report": {"recpo_log": log_of(run, seed, steps)}}))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablations") / "results"
    write_results(folder, ["small", "other"], SKILL, seeds=3, n_users=40, n_cases=160)
    write_logs(folder, "small", {"r2ec": 12, "r2ec--beta=0": 12, "r2ec--beta=1": 6})
    return folder


def run(command: Any, results: Path, *factors: Factor, out: Path | None = None) -> None:
    """Make the statistics of these factors, then run the command, which writes to out/ablations."""
    factors_json = json.dumps([entry.model_dump(mode="json") for entry in factors])
    argv = ["x", "--results", str(results)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*argv, "--factors", factors_json])
        (judged if command is claims else measured).main()
        factor_arguments = [] if command is claims else ["--factors", factors_json]
        patch.setattr(sys, "argv", [*argv, *factor_arguments, *(["--out", str(out)] if out else [])])
        command.main()


def of(one_factor: Factor, results: Path) -> FactorStatistics:
    return statistics(one_factor, results)


def test_doctests() -> None:
    for module in (ablations, significance):
        assert doctest.testmod(module).attempted > 0 and doctest.testmod(module).failed == 0


# --- tables
# ------------------------------------------------------------------------------------------------------------


def hand_made(results: Path) -> Factor:
    """The runs of `write_by_hand` as a factor's two values."""
    write_by_hand(results, "r2ec", "r2ec--x=1")
    runs = {"one": "r2ec", "two": "r2ec--x=1"}
    claims = [claim(value="two", against="one", metric="Hit@5")]
    return factor(name="x", datasets=["tiny"], seeds=2, base="one", runs=runs, claims=claims)


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


# --- claims
# ------------------------------------------------------------------------------------------------------------


def found_(difference: float, low: float, high: float, against: float = 0.1) -> Comparison:
    return Comparison("NDCG@10", "a", "b", against + difference, against, low, high, 0.001, 0.01, "test")


UP, DOWN, EQUAL = claim(), claim(expect="lower"), claim(expect="equal", margin=0.1)
BETTER, WORSE, NEAR = found_(0.02, 0.011, 0.029), found_(-0.02, -0.029, -0.011), found_(0.004, -0.001, 0.009)


@pytest.mark.parametrize(
    ("claim_tested", "comparison", "by_seed", "p_holm", "expected"),
    [
        (UP, BETTER, [0.02], 0.01, SUPPORTS),
        (UP, BETTER, [0.02], 0.05, CANT_TELL),  # 0.05 is not below 0.05
        (UP, WORSE, [-0.02], 0.01, CONTRADICTS),
        (UP, BETTER, [0.05, -0.01], 0.01, CANT_TELL),  # one seed says the opposite
        (UP, WORSE, [-0.05, -0.01], 0.01, CONTRADICTS),
        (DOWN, WORSE, [-0.02], 0.01, SUPPORTS),
        (DOWN, BETTER, [0.02], 0.01, CONTRADICTS),
        (EQUAL, NEAR, [0.01, -0.002], 0.9, SUPPORTS),  # the interval lies within 10 % of 0.1
        (EQUAL, NEAR, [0.004], 0.01, SUPPORTS),  # different, but by less than the margin
        (EQUAL, BETTER, [0.02], 0.01, CONTRADICTS),
        (EQUAL, BETTER, [0.02], 0.9, CANT_TELL),  # a large p alone supports nothing
        (EQUAL, found_(0.0, -0.02, 0.02), [0.0], 1.0, CANT_TELL),
        (EQUAL, found_(0.0, -0.011, 0.005), [0.0], 1.0, CANT_TELL),  # beyond the margin on one side
        (EQUAL, found_(0.011, 0.003, 0.019), [0.011], 0.01, CANT_TELL),  # not 0, which may still be within the margin
        (EQUAL, found_(-0.011, -0.019, -0.003), [-0.011], 0.01, CANT_TELL),
    ],
)
def test_verdicts_follow_the_rule(
    claim_tested: ClaimConfig, comparison: Comparison, by_seed: list[float], p_holm: float, expected: str
) -> None:
    assert verdict(claim_tested, comparison, np.array(by_seed), p_holm) == expected


def test_the_numbers_of_claims_are_those_by_hand(tmp_path: Path) -> None:
    two_values = hand_made(tmp_path)
    (row,) = judge(measure([two_values], tmp_path)).to_dict("records")
    assert (row["verdict"], row["p"], row["p_holm"], row["family_size"]) == (CANT_TELL, 0.5, 0.5, 1)
    assert (row["mean"], row["mean_against"], row["difference"]) == (1.0, 0.375, 0.625)
    # Hit@5 of the base 1/4 and 2/4, of the other 1
    assert row["by_seed"] == "+0.750000 +0.500000"
    assert row["detectable"] == pytest.approx((1.959964 + 0.841621) * row["error"])
    text = sentences(row)
    assert "1.0000 against 0.3750, a difference of +0.6250 (+167%)" in text
    assert "By seed: +0.7500, +0.5000 (sd 0.1768)" in text and "2 seeds" in text


def test_holm_is_over_all_claims_of_the_page(results: Path) -> None:
    both = [factor(), factor(name="again", datasets=["small", "other"], claims=[claim(against="1")])]
    frame = judge(measure(both, results))
    assert frame[["factor", "dataset"]].apply(tuple, axis=1).tolist() == [
        ("beta", "small"),
        ("beta", "small"),
        ("again", "small"),
        ("again", "other"),
    ]
    assert frame.p_holm.to_numpy() == pytest.approx(significance.holm(frame.p)) and set(frame.family_size) == {4}
    first = frame.iloc[0]
    assert first.verdict == SUPPORTS and first.difference > 0  # planted
    # Every number is the tables' own.
    tests = against_base(collect(results, "small", factor().seeds_of_runs), factor())
    same = tests[(tests.method_a == "r2ec--beta=0") & (tests.metric == "NDCG@10")].iloc[0]
    assert (-first.difference, -first.high, -first.low) == pytest.approx(
        (same.difference, same.low, same.high), abs=1e-6
    )
    shown = claims_of_page(frame)
    assert shown is not None and [row["claim"] for row in shown["rows"]] == [0, 1, 2, 2]
    last = shown["sentences"][2]  # of two datasets: what it says is said once
    assert len(shown["sentences"]) == 3 and last["expected"].startswith("Expected: NDCG@10 of ")
    assert ["small" in last["lines"][0][0], "other" in last["lines"][1][0]] == [True, True]
    assert not any("Expected" in text for text, _ in last["lines"])
    failed = claims_of_page(frame.assign(why="0 failed", verdict="not judged"))
    assert failed is not None
    assert failed["sentences"][2]["lines"] == [["Nothing can be said on small and other: 0 failed.", "not judged"]]


def test_the_page_of_claims_has_a_sentence_for_each(results: Path, tmp_path: Path) -> None:
    run(claims, results, factor(), out=tmp_path)
    text = (tmp_path / "ablations" / "claims.md").read_text()
    rows = read_csv(results / "statistics" / "ablations" / "claims.csv")
    assert rows["value"].tolist() == ["0.05", "1"] and rows["verdict"].iloc[0] == SUPPORTS
    assert "1. R\\_c \\<helps\\> | **supports** |" in text and "## 1. weight of R\\_c: supports" in text
    assert claims.RULE in text and "The smallest difference that would have been found:" in text
    # The sentences from the file are those from memory.
    assert [sentences(row) for row in rows.to_dict("records")] == [
        sentences(row) for row in judge(measure([factor()], results)).to_dict("records")
    ]


def test_no_claims_no_verdicts(results: Path, tmp_path: Path) -> None:
    run(claims, results, factor(claims=[]), out=tmp_path)
    assert (
        "No factor of the config has claims that are judged here." in (tmp_path / "ablations" / "claims.md").read_text()
    )


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
