"""Plot ablations from their statistics: `python -m benchmark.output.ablation_plots`.

The workflow calls this for the section `ablations` of a config, and writes --factors itself. By hand: `snakemake
ablations`.

One figure per factor, {factor}.png and .pdf. Above, per dataset and metric: every value with its interval and every
seed, and its difference from the base with the paired interval. Below, where the runs logged their training: reward,
R_d, length of the reasonings and entropy by step. Values that are all numbers stand in their order on a horizontal
axis, others are rows. `python -m benchmark.statistics.ablations` comes first.
"""

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmark.analysis.significance import ALPHA, POWER
from benchmark.config.factors import Factor
from benchmark.config.wording import many
from benchmark.errors import command, command_line
from benchmark.output.ablations import CURVES, as_numbers, curve, order_of, why_nothing
from benchmark.output.arguments import ablations_arguments
from benchmark.output.plots import GREY, REFERENCE, STYLE, head_and_foot, new_figure, save
from benchmark.statistics.files import FactorStatistics

SHOWN = ["NDCG@10", "Hit@10"]
# Okabe and Ito's colours but black, the base's, and the palest.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]
UNSEEN = "#e9e9e9"
DASHES = ["-", "--", ":"]  # once every colour has been used


@dataclass(frozen=True)
class Points:
    """One panel: a point per value with its interval and its single seeds."""

    title: str
    labels: list[str]
    mean: np.ndarray  # float64 [values]
    low: np.ndarray  # float64 [values], NaN for none
    high: np.ndarray
    seeds: np.ndarray  # float64 [values, seeds]
    base: int  # place of the base
    filled: np.ndarray  # bool [values]; False: an open point
    unseen: np.ndarray | None  # float64 [values]: smallest detectable differences; None where points are no differences


def panels(factor: Factor, statistics: FactorStatistics, dataset: str, metric: str) -> tuple[Points, Points]:
    """Two panels of one dataset: the metric of each value, and its difference from the base."""
    labels = order_of(factor)
    base = labels.index(factor.base)
    seeds = statistics.seeds[(statistics.seeds.dataset == dataset) & (statistics.seeds.metric == metric)]
    by_seed = seeds.pivot(index="value", columns="seed", values="mean").loc[labels].to_numpy()
    values = statistics.values[statistics.values.dataset == dataset].set_index("value").loc[labels]
    low, high = (values[f"{metric}_{bound}"].to_numpy() for bound in ("low", "high"))
    every = np.ones(len(labels), dtype=bool)
    means = Points(metric, labels, by_seed.mean(axis=1), low, high, by_seed, base, every, None)

    tests = statistics.tests[(statistics.tests.dataset == dataset) & (statistics.tests.metric == metric)]
    tests = tests.set_index("value").reindex(labels)
    apart = by_seed - by_seed[base]
    differences = Points(
        f"{metric} minus the base's",
        labels,
        apart.mean(axis=1),
        tests.low.to_numpy(float),
        tests.high.to_numpy(float),
        apart,
        base,
        (tests.p_holm < ALPHA).to_numpy(bool),
        tests.detectable.to_numpy(float),
    )
    return means, differences


def draw_points(axes: Axes, points: Points, upright: bool) -> None:
    """One panel; `upright`: values on the horizontal axis, else one row each, the first on top."""
    count = len(points.labels)
    at = np.arange(count) if upright else np.arange(count)[::-1]

    def put(value: Any, place: Any, *form: str, **style: Any) -> None:
        axes.plot(*((place, value) if upright else (value, place)), *form, **style)

    axes.use_sticky_edges = False  # or the bars would touch the frame
    if points.unseen is not None:
        shown = np.flatnonzero(np.isfinite(points.unseen))
        start, length = -points.unseen[shown], 2 * points.unseen[shown]
        if upright:
            axes.bar(at[shown], length, width=0.62, bottom=start, color=UNSEEN, zorder=1)
        else:
            axes.barh(at[shown], length, height=0.62, left=start, color=UNSEEN, zorder=1)
    level = 0.0 if points.unseen is not None else float(points.mean[points.base])
    (axes.axhline if upright else axes.axvline)(level, color=GREY, linewidth=0.8, linestyle="--", zorder=1.5)
    for i, place in enumerate(at):
        base = i == points.base
        colour = "black" if base else REFERENCE
        if np.isfinite(points.low[i]):
            put([points.low[i], points.high[i]], [place, place], color=colour, linewidth=1.6, zorder=3)
        inside = colour if points.filled[i] else "white"
        style = {"color": colour, "markerfacecolor": inside, "markersize": 6 if base else 5.5, "zorder": 4}
        put(points.mean[i], place, "D" if base else "o", **style)
        if points.seeds.shape[1] == 1:
            continue  # it would repeat the point
        # Seeds beside the mean's line, so that neither hides the other.
        beside = np.full(points.seeds.shape[1], place + (0.2 if upright else -0.3))
        put(points.seeds[i], beside, "_" if upright else "|", color=colour, markersize=5, markeredgewidth=1, zorder=3)
    named = [f"{label} (base)" if i == points.base else label for i, label in enumerate(points.labels)]
    if upright:
        named = [name.replace(" (base)", "\n(base)") for name in named]
        axes.set_xticks(at, named)
        axes.set_xlim(-0.6, count - 0.4)
        axes.grid(visible=False, axis="x")
    else:
        axes.set_yticks(at, named)
        axes.set_ylim(-0.7, count - 0.3)
        axes.grid(visible=False, axis="y")
        axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="x" if upright else "y", length=0)
    axes.set_title(points.title)


def styles(labels: list[str], base: str) -> dict[str, dict[str, Any]]:
    """Colour and dashes by label: black for the base; shades in order for numbers, unlike colours for words."""
    others = [label for label in labels if label != base]
    style_of = {base: {"color": "black", "linewidth": 1.8, "zorder": 3}}
    ordered = as_numbers(labels) is not None
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, max(2, len(others))))
    for i, label in enumerate(others):
        colour = shades[i] if ordered else COLOURS[i % len(COLOURS)]
        dashes = "-" if ordered else DASHES[i // len(COLOURS) % len(DASHES)]
        style_of[label] = {"color": colour, "linewidth": 1.3, "linestyle": dashes}
    return style_of


def draw_curves(row: np.ndarray, factor: Factor, statistics: FactorStatistics, dataset: str) -> list[str]:
    """Draw a panel per entry of CURVES, and the legend in the last of these axes.

    Returns the labels whose runs logged nothing.
    """
    labels = [label for label in order_of(factor) if factor.runs[label] not in factor.scored]
    style = styles(labels, factor.base)
    drawn: dict[str, Any] = {}
    for axes, (key, title) in zip(row, CURVES.items(), strict=False):
        for label in labels:
            steps, values = curve(statistics, dataset, label, key)
            if not len(steps):
                continue
            (drawn[label],) = axes.plot(steps, values.mean(axis=0), **style[label])
            if len(values) > 1:
                low, high = values.min(axis=0), values.max(axis=0)
                axes.fill_between(steps, low, high, color=style[label]["color"], alpha=0.15, linewidth=0)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    row[-1].axis("off")
    shown = [label for label in labels if label in drawn]
    names = [f"{label} (base)" if label == factor.base else label for label in shown]
    row[-1].legend([drawn[label] for label in shown], names, loc="upper left", frameon=False, fontsize=8)
    return [label for label in labels if label not in drawn]


def has_curves(factor: Factor, statistics: FactorStatistics, dataset: str) -> bool:
    """Whether any run but the base's logged a training of its own."""
    own = [label for label, run in factor.runs.items() if label != factor.base and run not in factor.scored]
    return bool(((statistics.curves.dataset == dataset) & statistics.curves.value.isin(own)).any())


def plot_factor(factor: Factor, statistics: FactorStatistics) -> Figure:
    """The whole figure of a factor."""
    upright = as_numbers(list(factor.runs)) is not None
    height = 2.5 if upright else 0.55 + 0.27 * max(3, len(factor.runs))
    parts = []
    for dataset in factor.datasets:
        parts.append(("points", dataset, height * len(SHOWN)))
        if has_curves(factor, statistics, dataset):
            parts.append(("curves", dataset, 2.4))
    figure = new_figure(10, 1.1 + sum(part[2] for part in parts))
    grid = figure.add_gridspec(len(parts), 1, height_ratios=[part[2] for part in parts])
    silent: list[str] = []
    for i, (kind, dataset, _) in enumerate(parts):
        name = f"{dataset}: " if len(factor.datasets) > 1 else ""
        if kind == "points":
            cells = grid[i].subgridspec(len(SHOWN), 2)
            rows = cells.subplots(squeeze=False, sharey=False if upright else "row")
            for pair, metric in zip(rows, SHOWN, strict=True):
                for axes, points in zip(pair, panels(factor, statistics, dataset, metric), strict=True):
                    draw_points(axes, points, upright)
        else:
            widths = [1.0] * len(CURVES) + [0.7]
            rows = grid[i].subgridspec(1, len(widths), width_ratios=widths).subplots(squeeze=False)
            silent += [label for label in draw_curves(rows[0], factor, statistics, dataset) if label not in silent]
        rows[0, 0].set_title(name + rows[0, 0].get_title(loc="left"))
    head_and_foot(figure, factor.title, legend_in_words(factor, statistics, silent))
    return figure


def nothing_left(factor: Factor, statistics: FactorStatistics) -> Figure:
    """What stands in the place of the figure of a factor whose base, or every other value, has failed."""
    figure = new_figure(10, 1.5)
    head_and_foot(figure, factor.title, [why_nothing(statistics)])
    return figure


def legend_in_words(factor: Factor, statistics: FactorStatistics, silent: list[str]) -> list[str]:
    """The sentences below the plot: what it shows and what its marks mean."""
    measured = "; ".join(
        f"{row['dataset']}: {many(row['n_cases'], 'case')} of {many(row['n_users'], 'user')}"
        for _, row in statistics.values.drop_duplicates("dataset").iterrows()
    )
    seeds = f"ticks beside a point: its {factor.seeds} seeds" if factor.seeds > 1 else "one seed"
    words = [
        f"{measured}. Points: mean; lines: 95 % bootstrap interval over users; {seeds}. Black: the base.",
        f"Right: a filled point differs from the base at p < {ALPHA} after Holm's correction; a difference within the "
        f"grey bar would have been found with a power of less than {100 * POWER:.0f} %.",
    ]
    if any(has_curves(factor, statistics, dataset) for dataset in factor.datasets):
        bands = " Bands: lowest to highest seed." if factor.seeds > 1 else ""
        none = f" No training log: {', '.join(silent)}." if silent else ""
        words.append(f"Training: mean over a step's rollouts, of training users.{bands}{none}")
    return words


@command
def main() -> None:
    args = ablations_arguments(command_line("benchmark.output.ablation_plots", __doc__), out="plots")
    everything = []
    for factor in args.factors:
        statistics = FactorStatistics.read(args.statistics, factor.name)
        everything.append((factor.without(set(statistics.failed["value"])), statistics))
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        for factor, statistics in everything:
            figure = plot_factor(factor, statistics) if len(statistics.values) else nothing_left(factor, statistics)
            save(figure, args.out, factor.name)


if __name__ == "__main__":
    main()
