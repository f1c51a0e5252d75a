"""Plots: which case is in which slice, labels that don't cover each other, nothing cut off, the same bytes twice."""

import doctest
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmark.analysis import groups
from benchmark.analysis.collect import collect
from benchmark.analysis.groups import history_buckets, popularity_buckets
from benchmark.contract import Cases
from benchmark.metrics import METRICS
from benchmark.output import plots
from benchmark.output.plots import overlaps, place_labels, plot_cost, plot_metrics, plot_slices
from benchmark.statistics import datasets as command
from benchmark.statistics.datasets import statistics
from benchmark.statistics.files import DatasetStatistics
from tests.support.results_tree import write_results

SKILL = {"popularity": 0.0, "item_knn": 0.3, "sasrec": 0.8, "r2ec": 0.85}
TWO_SEEDS = dict.fromkeys(SKILL, 2)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(tmp_path / "results", ["small"], SKILL)
    return tmp_path / "results"


def test_doctests() -> None:
    assert doctest.testmod(groups).attempted > 0
    assert doctest.testmod(groups).failed == 0


def test_history_buckets_hold_every_case_once() -> None:
    for longest in (1, 2, 3, 20, 50):
        lengths = np.arange(1, longest + 1)
        rows = np.concatenate([rows for _, rows in history_buckets(lengths, longest)])
        assert sorted(rows) == list(range(longest))


def test_popularity_buckets_by_hand() -> None:
    # Training interactions: user 0 {0, 1, 2}, user 1 {0, 3}, user 2 {0, 1}; items 4 and 5 never.
    # Counts 3, 2, 1, 1, 0, 0 of 7: item 0 holds 3, items 0 and 1 hold 5 >= 3.5, so these two are the head.
    items = np.array([0, 1, 0, 0], dtype=np.int32)
    train = Cases(
        case=np.arange(3),
        user=np.array([0, 1, 2], dtype=np.int32),
        time=np.array([5, 6, 7]),
        offsets=np.array([0, 2, 3, 4]),
        items=items,
        ratings=np.ones(4, dtype=np.float32),
        times=np.array([1, 2, 3, 4]),
        target=np.array([2, 3, 1], dtype=np.int32),
    )
    target = np.array([5, 0, 1, 2, 3, 4])
    buckets = {name: rows.tolist() for name, rows in popularity_buckets(target, train, n_items=6)}
    assert buckets == {"cold target": [0, 5], "tail target": [3, 4], "head target": [1, 2]}


def test_half_of_the_interactions_exactly_is_enough_for_the_head() -> None:
    train = Cases(
        case=np.arange(2),
        user=np.array([0, 1], dtype=np.int32),
        time=np.array([5, 6]),
        offsets=np.array([0, 1, 2]),
        items=np.array([0, 0], dtype=np.int32),
        ratings=np.ones(2, dtype=np.float32),
        times=np.array([1, 2]),
        target=np.array([1, 2], dtype=np.int32),
    )
    buckets = dict(popularity_buckets(np.array([0, 1, 2]), train, n_items=3))  # counts 2, 1, 1: item 0 holds half
    assert buckets["head target"].tolist() == [0]
    assert buckets["tail target"].tolist() == [1, 2]


def of(results: Path, seeds: dict[str, int]) -> DatasetStatistics:
    return statistics(collect(results, "small", seeds))


def test_panels_show_means_and_every_seed(results: Path) -> None:
    figure = plot_metrics(of(results, TWO_SEEDS))
    collected = collect(results, "small", TWO_SEEDS)
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == METRICS[0::2] + METRICS[1::2]
    panel = figure.axes[4]  # NDCG@10
    drawn = [line.get_xdata() for line in panel.lines]
    means, seeds = drawn[0::2], drawn[1::2]
    values = np.array([of_method[METRICS.index("NDCG@10")].mean(axis=-1) for of_method in collected.values])
    assert np.array(seeds) == pytest.approx(values)
    assert np.array(means).ravel() == pytest.approx(values.mean(axis=1))


def with_groups(statistics: DatasetStatistics, **groups_: tuple[int, bool]) -> DatasetStatistics:
    """The statistics with other groups of targets.

    groups_: by name the number of cases, and whether there is an interval.
    """
    whole = statistics.intervals[statistics.intervals.by == "all"]
    main = whole[whole.metric == "NDCG@10"]
    main_seeds = statistics.seeds[(statistics.seeds.by == "all") & (statistics.seeds.metric == "NDCG@10")]
    intervals, seeds = [whole], [main_seeds.iloc[:0]]
    for name, (n_cases, bounds) in groups_.items():
        own = main.assign(by="target", group=name, n_cases=n_cases, n_users=n_cases)
        intervals.append(own if bounds else own.assign(low=np.nan, high=np.nan))
        seeds += [main_seeds.assign(by="target", group=name)] if n_cases else []
    return replace(statistics, intervals=pd.concat(intervals), seeds=pd.concat(seeds))


def test_a_slice_without_cases_says_so(results: Path) -> None:
    statistics = with_groups(of(results, TWO_SEEDS), nobody=(0, False), one=(1, False))
    panel, one = plots.panels_of(statistics, "target")
    assert panel.title == "nobody\n0 cases, 0 users"
    figure = Figure()
    plots.draw_panels(figure, statistics.methods, [[panel]], "NDCG@10")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no cases"]
    assert np.isnan(one.low).all()  # one user gives a point, but no interval over users
    assert [len(seeds) for seeds in one.seeds] == [2, 2, 2, 2]


def test_groups_of_no_case_and_of_one_user(results: Path) -> None:
    """What the statistics say of them, for groups that lie in the data."""
    collected = collect(results, "small", TWO_SEEDS)
    first = collected.cases.user == collected.cases.user[0]
    for name, rows, n_users in (("nobody", np.array([], dtype=int), 0), ("one", np.flatnonzero(first), 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(groups, "groups_of", lambda _, name=name, rows=rows: [("target", name, rows)])
            whole = np.zeros((6, 4))
            measured = groups.measured(collected, (whole, whole))
        by_target = measured.intervals[measured.intervals.by == "target"]
        assert (
            set(by_target.n_cases) == {len(rows)} and set(by_target.n_users) == {n_users} and by_target.low.isna().all()
        )
        assert by_target["mean"].isna().all() == (n_users == 0)
        assert (measured.seeds.group == name).sum() == 8 * n_users and len(measured.pairs) == 6 * n_users
        if n_users:
            assert measured.pairs.low.isna().all() and measured.pairs.difference.notna().all()


def test_differences_of_pairs_in_a_group_by_hand(results: Path) -> None:
    collected, pairs = collect(results, "small", TWO_SEEDS), of(results, TWO_SEEDS).pairs
    lengths = np.diff(collected.cases.offsets)
    values = collected.case_means[METRICS.index("NDCG@10")][:, (lengths >= 10) & (lengths < 20)]
    row = pairs[(pairs.group == "history of 10-19") & (pairs.method_a == "item_knn") & (pairs.method_b == "r2ec")].iloc[
        0
    ]
    assert row.difference == pytest.approx(values[1].mean() - values[3].mean())
    assert row.low < row.difference < row.high < 0


def test_slices_split_all_cases_twice(results: Path) -> None:
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in plot_slices(of(results, TWO_SEEDS)).axes]
    counts = {title.split("\n")[0]: int(title.split("\n")[1].split()[0]) for title in titles if title}
    assert sum(n for name, n in counts.items() if name.startswith("history")) == 120
    assert sum(n for name, n in counts.items() if name.endswith("target")) == 120
    assert all(n > 0 for n in counts.values())


@pytest.mark.parametrize("seed", range(2))
def test_twenty_crowded_labels_do_not_overlap(seed: int) -> None:
    generator = np.random.default_rng(seed)
    figure = Figure(figsize=(8, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    x, y = np.exp(generator.normal(3, 1, 20)), generator.normal(0.1, 0.01, 20)
    axes.set_xlim(x.min() / 3, x.max() * 3)
    axes.set_ylim(0, 0.2)
    names = [f"method_{i}_{'x' * (i % 9)}" for i in range(20)]
    boxes = place_labels(figure, axes, x, y, names, np.column_stack([y - 0.003, y + 0.003]))
    shared = overlaps(boxes, boxes)
    assert (shared - np.diag(np.diag(shared)) == 0).all()
    points = axes.transData.transform(np.column_stack([x, y]))
    assert (overlaps(boxes, np.hstack([points - 3, points + 3])) == 0).all()
    # What was promised is what is drawn: the texts lie in their boxes, inside the axes.
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    by_name = {text.get_text(): text.get_window_extent() for text in axes.texts}
    for name, box in zip(names, boxes, strict=True):
        assert by_name[name].extents == pytest.approx(box, abs=2)
        assert frame.x0 <= box[0] < box[2] <= frame.x1
        assert frame.y0 <= box[1] < box[3] <= frame.y1


def test_a_name_rather_covers_an_interval_than_a_name() -> None:
    figure = Figure(figsize=(4, 3), dpi=150, layout="constrained")
    axes = figure.subplots()
    x = np.linspace(0, 1, 60)
    y = np.where(x < 0.5, 0.02, 0.03)
    axes.set(xlim=(-0.3, 1.3), ylim=(0, 0.05))
    # Intervals leave no place in the panel free; names are short enough to stand beside each other.
    boxes = place_labels(figure, axes, x, y, [f"m{i}" for i in range(60)], np.tile([0.0, 0.05], (60, 1)))
    shared = overlaps(boxes, boxes)
    assert (shared - np.diag(np.diag(shared)) == 0).all()
    frame = axes.get_window_extent()
    assert (boxes[:, :2] > [frame.x0, frame.y0]).all() and (boxes[:, 2:] < [frame.x1, frame.y1]).all()


def crossings() -> int:
    """How many lines to names cross another name, of twenty crowded points."""
    generator = np.random.default_rng(0)
    figure = Figure(figsize=(8, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    x, y = generator.normal(3, 1, 20), generator.normal(0.1, 0.01, 20)
    axes.set(xlim=(-2, 8), ylim=(0, 0.2))
    boxes = place_labels(
        figure, axes, x, y, [f"method_{i}_{'x' * (i % 9)}" for i in range(20)], np.column_stack([y, y])
    )
    count = 0
    for line in axes.lines:
        point, end = axes.transData.transform(np.column_stack(line.get_data()))
        along = point + np.linspace(0, 1, 60)[:, None] * (end - point)
        own = ((boxes[:, :2] - 1 <= end) & (end <= boxes[:, 2:] + 1)).all(axis=1)  # the line ends at its own box
        count += bool(overlaps(np.hstack([along - 0.4, along + 0.4]), boxes[~own]).any())
    return count


def test_lines_to_names_go_round_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    box = np.array([10.0, 0.0, 14.0, 4.0])
    between, beside = np.array([[4.0, 1.0, 6.0, 3.0]]), np.array([[4.0, 3.0, 6.0, 5.0]])
    assert plots._crosses(np.array([0.0, 2.0]), box, between) and not plots._crosses(np.array([0.0, 2.0]), box, beside)
    with_care = crossings()
    monkeypatch.setattr(plots, "_crosses", lambda *_: False)
    assert with_care < crossings()


def test_overlaps_by_hand() -> None:
    a = np.array([[0.0, 0.0, 2.0, 2.0]])
    assert overlaps(a, np.array([[1, 1, 3, 3], [2, 0, 3, 1], [5, 5, 6, 6]], dtype=float)).tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize(("n_methods", "every"), [(1, 1), (20, 1), (20, 3)])
def test_nothing_is_cut_off(tmp_path: Path, n_methods: int, every: int) -> None:
    skill = {f"method_with_a_long_name_{i}": i / 20 for i in range(n_methods)}
    seeds = {method: 1 + i % every for i, method in enumerate(skill)}  # of 20 methods, 13 are named for another number
    write_results(tmp_path, ["small"], skill, seeds=seeds, n_cases=60)
    statistics = of(tmp_path, seeds)
    with matplotlib.rc_context(plots.STYLE):  # type: ignore[arg-type]
        for plot in (plot_metrics, plot_slices, plot_cost):
            figure = plot(statistics)
            figure.draw_without_rendering()
            tight = figure.get_tightbbox()
            width, height = figure.get_size_inches()
            assert tight.x0 >= 0 and tight.y0 >= 0 and tight.x1 <= width and tight.y1 <= height, plot.__name__
            if plot is not plot_cost:  # rows of method names keep apart
                heights = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
                assert all(b.y1 <= a.y0 for a, b in pairwise(heights))


def test_command_writes_the_same_bytes_twice(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = ["plots", "--results", str(results), "--datasets", "small"]
    monkeypatch.setattr(sys, "argv", [*base, "--methods", *SKILL, "--seeds", "2"])
    command.main()
    contents = []
    for out in ("one", "two"):
        monkeypatch.setattr(sys, "argv", [*base, "--out", str(results / out)])
        plots.main()
        contents.append({path.name: path.read_bytes() for path in (results / out).iterdir()})
    assert sorted(contents[0]) == sorted(
        f"small.{n}.{kind}" for n in ("metrics", "slices", "cost") for kind in ("png", "pdf")
    )
    assert contents[0] == contents[1]
    assert all(b"CreationDate" not in data for data in contents[0].values())


def test_statistics_refuse_a_missing_run_and_plots_missing_statistics(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["plots", "--results", str(results), "--datasets", "small"]
    for main, more, message in (
        (command.main, ["--methods", *SKILL, "--seeds", "3"], "popularity/seed3/run.json: missing"),
        (plots.main, [], "statistics/small.methods.csv: missing; make the statistics of these runs first"),
    ):
        monkeypatch.setattr(sys, "argv", [*base, *more])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        assert not (results / "plots").exists() and not (results / "statistics").exists()


def test_colours_are_of_kinds_and_the_legend_names_the_references(results: Path) -> None:
    statistics = of(results, TWO_SEEDS)
    legend = plot_metrics(statistics).get_supxlabel()
    assert legend.startswith("Blue: baselines, orange: r2ec. Points")
    other = replace(
        statistics, methods=statistics.methods.assign(kind=["reference", "baseline", "baseline", "reference"])
    )
    figure = plot_cost(other)
    assert figure.get_supxlabel().startswith("Blue: baselines, orange: popularity and r2ec. Points")
    points = [line.get_color() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert points == [plots.REFERENCE, plots.BASELINE, plots.BASELINE, plots.REFERENCE]
    alike = replace(statistics, methods=statistics.methods.assign(kind="baseline"))
    assert plot_metrics(alike).get_supxlabel().startswith("Points")


def test_a_single_seed_has_no_ticks_and_an_empty_slice_no_scale(results: Path) -> None:
    statistics = of(results, dict.fromkeys(TWO_SEEDS, 1))
    figure = plot_metrics(statistics)
    assert [len(axes.lines) for axes in figure.axes] == [len(TWO_SEEDS)] * 6  # a point for each method and no more
    assert "One seed: " in figure.get_supxlabel() and "Ticks" not in figure.get_supxlabel()
    empty = Figure()
    nine_users, nobody = plots.panels_of(with_groups(statistics, a=(9, True), b=(0, False)), "target")
    plots.draw_panels(empty, statistics.methods, [[nine_users, nobody]], "NDCG@10")
    assert len(empty.axes[0].get_xticks()) > 1 and len(empty.axes[1].get_xticks()) == 0
