"""One method against each of the others: differences, families and the mean over datasets, by hand and by loops."""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from benchmark.analysis import significance
from benchmark.analysis.collect import Collected, collect
from benchmark.analysis.comparisons import compare
from benchmark.errors import InputError
from benchmark.metrics import METRICS
from benchmark.output import against as shown
from benchmark.output import plots
from benchmark.statistics import against, overall
from benchmark.statistics import datasets as statistics
from benchmark.statistics.against import COSTS, EVERY, MAIN
from tests.support.results_tree import write_by_hand, write_results

SKILL = {"popularity": 0.0, "sasrec": 0.75, "r2ec": 0.8, "kar": 0.8}
SEEDS = {"popularity": 1, "sasrec": 2, "r2ec": 2, "kar": 1}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("against") / "results"
    write_results(folder, ["small", "other"], SKILL, seeds=SEEDS, n_cases=150)
    return folder


@pytest.fixture(scope="module")
def collected(results: Path) -> list[Collected]:
    return [collect(results, dataset, SEEDS) for dataset in ("small", "other")]


def test_differences_by_hand(tmp_path: Path) -> None:
    write_by_hand(tmp_path, "sasrec", "r2ec")
    frame = against.against([collect(tmp_path, "tiny", {"sasrec": 2, "r2ec": 2})], "r2ec")
    assert frame.dataset.tolist() == ["tiny"]  # one dataset: no mean over several
    row = frame.iloc[0]
    # Seed means of NDCG@10: (1 + 1/3)/4 and (1 + 1/2)/4; r2ec is always first.
    assert row["mean"] == pytest.approx((4 / 3 + 3 / 2) / 8) and row.mean_reference == 1
    assert row.difference == pytest.approx(1 - (4 / 3 + 3 / 2) / 8) and row.family_size == 1
    # Users 0 and 1 both lose: of four sign patterns two are as extreme.
    assert row.p == pytest.approx(0.5, abs=0.02) and row.p_holm == row.p
    assert row.n_cases == 4 and row.n_users == 2 and row.fit_s == row.fit_s_reference == 10


def test_each_dataset_is_as_in_the_tables(collected: list[Collected]) -> None:
    frame = against.against(collected, "r2ec")
    assert frame.groupby("dataset", sort=False).method.apply(list).tolist() == [["popularity", "sasrec", "kar"]] * 3
    for results in collected:
        part = frame[frame.dataset == results.dataset].set_index("method")
        tests = compare(results)
        pairs = tests[(tests.family == "all pairs") & (tests.metric == MAIN)]
        for method, row in part.iterrows():
            pair = pairs[(pairs[["method_a", "method_b"]].isin([method, "r2ec"])).all(axis=1)].iloc[0]
            sign = 1 if pair.method_a == "r2ec" else -1
            assert row.difference == pytest.approx(sign * pair.difference, abs=1e-6)
            bounds = sorted([sign * pair.low, sign * pair.high])
            assert [row.low, row.high] == pytest.approx(bounds, abs=1e-6)
            assert row.p == pytest.approx(pair.p, abs=0.02)
        np.testing.assert_allclose(part.p_holm, significance.holm(part.p))
        assert (part.family_size == 3).all() and (part.p_holm >= part.p).all()


def test_the_mean_over_datasets_is_that_of_plain_loops(collected: list[Collected]) -> None:
    frame = against.against(collected, "r2ec").set_index(["dataset", "method"])
    main = METRICS.index(MAIN)
    generator = np.random.default_rng(0)
    for method in ("popularity", "sasrec", "kar"):
        row = frame.loc[(EVERY, method)]
        parts = [frame.loc[(results.dataset, method)] for results in collected]
        for column in ("mean", "mean_reference", "difference", *COSTS):
            assert row[column] == pytest.approx(np.mean([part[column] for part in parts]))
        by_user, drawn = [], np.zeros(2000)
        for results in collected:
            a, b = (results.case_means[main][results.methods.index(name)] for name in ("r2ec", method))
            users = np.unique(results.cases.user)
            sums = np.array([(a - b)[results.cases.user == user].sum() for user in users])
            counts = np.array([(results.cases.user == user).sum() for user in users])
            by_user += (sums / len(results.cases) / 2).tolist()
            for i in range(len(drawn)):
                pick = generator.integers(len(users), size=len(users))
                drawn[i] += sums[pick].sum() / counts[pick].sum() / 2
        signs = generator.choice([-1, 1], size=(4000, len(by_user)))
        p = np.mean(np.abs(signs @ np.array(by_user)) >= abs(sum(by_user)) - 1e-12)
        assert row.p == pytest.approx(p, abs=0.03)
        assert [row.low, row.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.1 * np.ptp(drawn))
        assert row.detectable == pytest.approx(significance.smallest_detectable(drawn.std(ddof=1), 3), rel=0.1)
        assert row.n_cases == 300 and row.n_users == sum(results.n_users for results in collected)
    assert frame.loc[(EVERY, "popularity")].p_holm < 0.05 < frame.loc[(EVERY, "kar")].p_holm


def test_the_files_say_what_was_measured(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [str(number) for number in SEEDS.values()]
    arguments = ["x", "--results", str(results), "--datasets", "small", "other"]
    runs = ["--methods", *SKILL, "--seeds", *seeds]
    monkeypatch.setattr(sys, "argv", [*arguments, *runs])
    statistics.main()
    monkeypatch.setattr(sys, "argv", [*arguments, *runs, "--reference", "r2ec"])
    against.main()
    monkeypatch.setattr(sys, "argv", arguments)
    shown.main()
    text = (results / "tables" / "against.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 3 * 4 and sum("**r2ec**" in row for row in rows) == 3
    assert "small: 150 cases of " in text and "Holm's correction over the 3 methods" in text and EVERY in rows[-1]
    assert (results / "tables" / "against.csv").read_text().count("\n") == 10
    assert (results / "plots" / "against.png").read_bytes()[:4] == b"\x89PNG"
    before = (results / "plots" / "against.pdf").read_bytes()
    shown.main()
    assert (results / "plots" / "against.pdf").read_bytes() == before


def test_the_plot_marks_what_is_significant(collected: list[Collected]) -> None:
    frame = against.against(collected, "r2ec")
    with matplotlib.rc_context(plots.STYLE):  # type: ignore[arg-type]
        figure = shown.plot(frame)
    assert [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes] == ["small", "other", EVERY]
    for axes, (_, part) in zip(figure.axes, frame.groupby("dataset", sort=False), strict=True):
        points = [line for line in axes.lines if line.get_marker() == "o"]
        filled = {round(float(line.get_xdata()[0]), 9): line.get_markerfacecolor() != "white" for line in points}  # type: ignore[index]
        assert filled == {round(row.difference, 9): row.p_holm < 0.05 for row in part.itertuples()}
    assert len({axes.get_xlim() for axes in figure.axes}) == 1  # one scale, as the panels are compared
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["popularity", "sasrec", "kar"]


def of_two_methods(results: Path) -> list[str]:
    """A command line about two methods on one dataset."""
    own = ["--results", str(results), "--datasets", "small"]
    return ["against", *own, "--methods", "popularity", "sasrec", "--seeds", "1"]


@pytest.mark.parametrize(
    ("reference", "message"),
    [("r2c", r"--reference: no method 'r2c'\. Known: popularity, sasrec")],
)
def test_a_wrong_reference_is_one_sentence(
    reference: str, message: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [*of_two_methods(results), "--reference", reference])
    with pytest.raises(InputError, match=message):
        against.main.__wrapped__()  # type: ignore[attr-defined]


def test_a_note_stands_above_the_table(collected: list[Collected]) -> None:
    frame = against.against(collected, "r2ec")
    plain, noted = shown.markdown(frame), shown.markdown(frame, "A look, not a result.")
    head, table = plain.split("\n\n", 1)
    assert noted == f"{head}\n\nA look, not a result.\n\n{table}"


def test_over_all_datasets_every_pair_is_as_against_the_reference(collected: list[Collected]) -> None:
    means, tests = overall.overall(collected)
    frame = against.against(collected, "r2ec")
    frame = frame[frame.dataset == EVERY].set_index("method")
    by_method = means[means.metric == MAIN].set_index("method")
    assert by_method["mean"].drop("r2ec").to_dict() == pytest.approx(frame["mean"].to_dict())
    assert ((by_method.low < by_method["mean"]) & (by_method["mean"] < by_method.high)).all()
    pairs = tests[tests.metric == MAIN].set_index(["method_a", "method_b"])
    for method, row in frame.iterrows():
        pair, sign = (
            (pairs.loc[("r2ec", method)], 1) if ("r2ec", method) in pairs.index else (pairs.loc[(method, "r2ec")], -1)
        )
        assert sign * pair.difference == pytest.approx(row.difference)
        assert sorted([sign * pair.low, sign * pair.high]) == pytest.approx([row.low, row.high])
        assert pair.p == pytest.approx(row.p, abs=0.02)
    assert len(tests) == 6 * 6 and tests.p.notna().sum() == 3 * 6  # NDCG alone is tested
    tested = tests[tests.p.notna()]
    assert set(tested.family_size) == {18} and tested.p_holm.to_numpy() == pytest.approx(significance.holm(tested.p))
    assert tests.detectable.to_numpy() == pytest.approx(
        [significance.smallest_detectable(error, 18) for error in tests.error]
    )


def test_a_single_dataset_is_no_mean_over_datasets(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", of_two_methods(results))
    with pytest.raises(InputError, match="give at least two of both"):
        overall.main.__wrapped__()  # type: ignore[attr-defined]
