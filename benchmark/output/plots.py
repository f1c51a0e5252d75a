"""Plot finished runs from their statistics: `python -m benchmark.output.plots`.

    python -m benchmark.output.plots --datasets ml-100k

Per dataset, as png and pdf (without dates, so that the same runs give the same bytes):

    {dataset}.metrics   every metric with its interval and every seed
    {dataset}.slices    NDCG@10 by length of the history and by popularity of the target
    {dataset}.cost      seconds of one run against NDCG@10

Methods are rows, not colours, so that twenty of them stay readable. `python -m benchmark.statistics.datasets` comes
first.
"""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmark.analysis.groups import ALL, HISTORY, TARGET
from benchmark.config.wording import names_in_words
from benchmark.errors import command, command_line
from benchmark.output.arguments import methods_arguments
from benchmark.output.captions import number_of_each
from benchmark.statistics.files import DatasetStatistics
from benchmark.storage.io import atomic

BASELINE, REFERENCE, GREY = "#0072B2", "#D55E00", "#6b6b6b"  # Okabe and Ito's colour-blind-safe palette
COLOURS = {"baseline": BASELINE, "reference": REFERENCE}  # by a method's kind
STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same letters
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "pdf.fonttype": 42,
    "svg.hashsalt": "r2ec-bench",
}
MAIN = "NDCG@10"
LETTERS = 15.5  # letters that fit in an inch of the note below a figure
RINGS, ANGLES = range(8, 220, 6), np.deg2rad(np.arange(0, 360, 15))  # places tried for a label: points, radians
CROWDED = 100  # how much more it takes to cover a name or a point than to cover as much of a thin interval


@dataclass(frozen=True)
class Panel:
    """One column of points: a mean with its interval and the single seeds, for every method."""

    title: str
    seeds: list[np.ndarray]  # per method float64 [its seeds]; empty where there are no cases
    low: np.ndarray  # float64 [methods]; NaN where there are too few users for an interval
    high: np.ndarray


def panels_of(statistics: DatasetStatistics, by: str) -> list[Panel]:
    """A panel per metric over all cases, or NDCG@10 per group of cases, as the statistics order them."""
    methods = statistics.methods.method.tolist()
    panels = []
    intervals, seed_means = (frame[frame.by == by] for frame in (statistics.intervals, statistics.seeds))
    for (group, metric), part in intervals.groupby(["group", "metric"], sort=False):
        title = str(metric) if by == ALL else f"{group}\n{part.n_cases.iloc[0]:,} cases, {part.n_users.iloc[0]:,} users"
        seeds = seed_means[(seed_means.group == group) & (seed_means.metric == metric)]
        by_method = {method: means.to_numpy() for method, means in seeds.groupby("method")["mean"]}
        bounds = part.set_index("method").loc[methods]
        single = [by_method.get(method, np.empty(0)) for method in methods]
        panels.append(Panel(title, single, bounds.low.to_numpy(), bounds.high.to_numpy()))
    return panels


def draw_panels(figure: Figure, methods: pd.DataFrame, rows: list[list[Panel]], xlabel: str) -> None:
    """Draw rows of panels with the methods on a shared vertical axis, the first on top; each panel has a scale."""
    names = methods.method.tolist()
    width = max(len(row) for row in rows)
    grid = figure.subplots(len(rows), width, squeeze=False, sharey=True)
    at = np.arange(len(methods))[::-1]
    colours = [COLOURS[kind] for kind in methods.kind]
    for axes_row, panels in zip(grid, rows, strict=True):
        for axes in axes_row[len(panels) :]:
            axes.set_visible(False)
        for axes, panel in zip(axes_row, panels, strict=False):
            _draw_panel(axes, panel, at, colours)
            axes.set_title(panel.title)
            axes.tick_params(axis="y", length=0)
            if not len(axes.lines):
                continue  # no cases, so no scale
            highest = np.nanmax(np.r_[panel.high, *panel.seeds, 0])
            axes.set_xlim(0, highest * 1.05 if highest > 0 else 1)
            axes.locator_params(axis="x", nbins=4)
            axes.set_xlabel(xlabel)
        axes_row[0].set_yticks(at, names)
        axes_row[0].set_ylim(-0.7, len(methods) - 0.3)


def _draw_panel(axes: Axes, panel: Panel, at: np.ndarray, colours: list[str]) -> None:
    if not np.concatenate(panel.seeds).size:
        axes.text(0.5, 0.5, "no cases", transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set_xticks([])
        return
    ticks = any(len(seeds) > 1 for seeds in panel.seeds)  # of a single one it would repeat the point
    for y, seeds, low, high, colour in zip(at, panel.seeds, panel.low, panel.high, colours, strict=True):
        if not np.isnan(low):
            axes.hlines(y, low, high, color=colour, linewidth=1.6)
        axes.plot(seeds.mean(), y, "o", color=colour, markersize=5)
        if not ticks:
            continue
        # Seeds below the mean's line, so that neither hides the other.
        axes.plot(
            seeds, np.full(len(seeds), y - 0.28), "|", color=colour, markersize=5, markeredgewidth=0.9, clip_on=False
        )


def _trainings(methods: pd.DataFrame) -> str:
    return number_of_each(methods.method.tolist(), methods.seeds.tolist(), "method")


def _what_ticks_are(methods: pd.DataFrame) -> str:
    if methods.seeds.max() == 1:
        return "One seed: the lines do not say how much another training would move a point."
    return f"Ticks below a point: its trainings, {_trainings(methods)}."


def plot_metrics(statistics: DatasetStatistics) -> Figure:
    """Points with intervals, one panel per metric: Hit above, NDCG below."""
    panels = panels_of(statistics, ALL)
    figure = new_figure(10, 1.6 + 2 * _height(statistics.methods))
    draw_panels(figure, statistics.methods, [panels[0::2], panels[1::2]], xlabel="")
    _title(figure, statistics.methods, "metrics by method", _what_ticks_are(statistics.methods))
    return figure


def plot_slices(statistics: DatasetStatistics) -> Figure:
    """NDCG@10 by history length and by target popularity. Values differ much between groups."""
    rows = [panels_of(statistics, HISTORY), panels_of(statistics, TARGET)]
    figure = new_figure(10, 1.9 + 2 * _height(statistics.methods))
    draw_panels(figure, statistics.methods, rows, xlabel=MAIN)
    rule = (
        f"{_what_ticks_are(statistics.methods)} Head: the most popular items that hold half of the training "
        "interactions; cold: never seen in training; tail: the rest. Each panel has a scale of its own."
    )
    _title(figure, statistics.methods, f"{MAIN} by history length and by popularity of the target", rule)
    return figure


def plot_cost(statistics: DatasetStatistics) -> Figure:
    """Seconds of one run (fit + score, mean over seeds, log scale) against NDCG@10 with its interval."""
    part = statistics.intervals[(statistics.intervals.by == ALL) & (statistics.intervals.metric == MAIN)]
    quality, low, high = (part[column].to_numpy() for column in ("mean", "low", "high"))
    seconds = np.maximum((statistics.costs.fit_s + statistics.costs.score_s).to_numpy(), 1e-3)  # a log axis has no 0
    figure = new_figure(8, 5.2)
    axes = figure.subplots()
    axes.set_xscale("log")
    for i, kind in enumerate(statistics.methods.kind):
        axes.vlines(seconds[i], low[i], high[i], color=COLOURS[kind], linewidth=1, alpha=0.45)
        axes.plot(seconds[i], quality[i], "o", color=COLOURS[kind], markersize=6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(seconds.min() / 2.5, seconds.max() * 2.5)
    axes.set_ylim(0, max(high.max() * 1.1, 1e-3))
    axes.set_xlabel("fit + score, seconds per run, tuning excluded (log scale)")
    axes.set_ylabel(MAIN)
    _title(
        figure, statistics.methods, "cost against quality", f"Means over trainings, {_trainings(statistics.methods)}."
    )
    place_labels(figure, axes, seconds, quality, statistics.methods.method.tolist(), np.column_stack([low, high]))
    return figure


def place_labels(
    figure: Figure, axes: Axes, x: np.ndarray, y: np.ndarray, names: list[str], lines: np.ndarray
) -> np.ndarray:
    """Write a name beside each point so that no name covers a name, a point or a point's interval.

    `x`, `y` float [n] and `lines` float [n, 2] (low and high of the interval at x) are in data units. Places on growing
    rings are tried. The nearest free one inside the axes is taken, or else the least covered, where to cover a name or
    a point counts CROWDED times as much as an interval. A thin line joins a name to its point where it had to move
    away. No such line crosses a name or a point where another place is as free.
    Returns the names' boxes, float64 [n, 4] (x0, y0, x1, y1) in pixels.
    """
    figure.draw_without_rendering()  # fixes the layout, so that pixels mean something
    frame = axes.get_window_extent()
    pixels = figure.dpi / 72  # per point
    inside = frame.padded(-2 * pixels)  # a name on the axis would be struck through
    points = axes.transData.transform(np.column_stack([x, y]))
    ends = axes.transData.transform(np.column_stack([np.repeat(x, 2), lines.ravel()]))[:, 1].reshape(-1, 2)
    dots = np.hstack([points - 4 * pixels, points + 4 * pixels])
    bars = np.column_stack([points[:, 0] - pixels, ends[:, 0], points[:, 0] + pixels, ends[:, 1]])
    occupied, weights = np.vstack([dots, bars]), np.repeat([CROWDED, 1], len(names))
    solid = dots  # what no line to a name may cross: points and names; intervals are thin
    boxes = np.empty((len(names), 4))
    for i in np.argsort(-points[:, 1], kind="stable"):
        label = axes.annotate(names[i], (x[i], y[i]), xytext=(0, 0), textcoords="offset points", fontsize=8.5)
        drawn = label.get_window_extent()
        places = _places(points[i], drawn.width, drawn.height, pixels)
        low, high = (places[:, :2] < inside.min).any(axis=1), (places[:, 2:] > inside.max).any(axis=1)
        covered = overlaps(places, occupied) @ weights + (low | high) * frame.width * frame.height * CROWDED
        free = np.flatnonzero(covered == covered.min())  # the nearest first
        others = np.delete(solid, i, axis=0)  # all but the point itself
        best = int(next((place for place in free if not _crosses(points[i], places[place], others)), free[0]))
        boxes[i] = places[best]
        label.set_position(((boxes[i, 0] - drawn.x0) / pixels, (boxes[i, 1] - drawn.y0) / pixels))
        taken = boxes[i][None] + np.array([-1, -1, 1, 1]) * pixels  # a point of air around a name
        solid = np.vstack([solid, taken])
        if best >= len(ANGLES):
            taken = np.vstack([taken, _line(points[i], boxes[i])])
            end = axes.transData.inverted().transform(np.clip(points[i], boxes[i, :2], boxes[i, 2:]))
            axes.plot([x[i], end[0]], [y[i], end[1]], color=GREY, linewidth=0.6, zorder=1)
        occupied, weights = np.vstack([occupied, taken]), np.append(weights, np.full(len(taken), CROWDED))
    return boxes


def _places(point: np.ndarray, width: float, height: float, pixels: float) -> np.ndarray:
    """Boxes on rings around a point, nearest first: float64 [rings * angles, 4]."""
    radius, angle = (part.ravel() for part in np.meshgrid(np.array(RINGS) * pixels, ANGLES, indexing="ij"))
    left = point[0] + radius * np.cos(angle) - width * (1 - np.cos(angle)) / 2
    bottom = point[1] + radius * np.sin(angle) - height * (1 - np.sin(angle)) / 2
    return np.column_stack([left, bottom, left + width, bottom + height])


def _line(point: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The line from a point to the nearest place of a box, as 40 boxes of a pixel: float64 [40, 4]."""
    shares = np.linspace(0, 1, 40)[:, None]
    along = point + shares * (np.clip(point, box[:2], box[2:]) - point)
    return np.hstack([along - 0.5, along + 0.5])


def _crosses(point: np.ndarray, box: np.ndarray, others: np.ndarray) -> bool:
    """Whether the line from a point to a box crosses one of the other boxes [n, 4]."""
    return bool(overlaps(_line(point, box), others).any())


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Shared areas of boxes [m, 4] and [n, 4] (x0, y0, x1, y1): float64 [m, n]."""
    size = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    area: np.ndarray = np.maximum(size, 0).prod(axis=2)
    return area


def _height(methods: pd.DataFrame) -> float:
    return 0.5 + 0.24 * max(4, len(methods))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    return figure


def _title(figure: Figure, methods: pd.DataFrame, title: str, rule: str) -> None:
    """Write a heading above the figure, and below it what its marks mean."""
    first = methods.iloc[0]
    references = methods.method[methods.kind == "reference"].tolist()
    several = 0 < len(references) < len(methods)
    colours = f"Blue: baselines, orange: {names_in_words(references)}. " if several else ""
    text = (
        f"{colours}Points: mean; lines: 95 % bootstrap interval over {first.n_users:,} users ({first.n_cases:,} cases)."
    )
    head_and_foot(figure, f"{first.dataset}: {title}", [text, rule])


def head_and_foot(figure: Figure, title: str, rules: list[str]) -> None:
    """Write a heading above the figure and sentences below it, each on lines of its own."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    width = int(LETTERS * figure.get_figwidth())
    text = "\n".join(textwrap.fill(rule, width=width) for rule in rules)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=GREY)


def save(figure: Figure, out: Path, name: str) -> None:
    """Write png and pdf without dates or versions in their metadata."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, so that both files show the same and time is saved
    # The solver's last digits depend on addresses in memory, and with them the colour of a pixel here and there.
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position().bounds, 9).tolist())
    with atomic(out / f"{name}.png") as path:
        figure.savefig(path, format="png", metadata={"Software": None})
    with atomic(out / f"{name}.pdf") as path:
        figure.savefig(path, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})


PLOTS = {"metrics": plot_metrics, "slices": plot_slices, "cost": plot_cost}  # by the name of their files


@command
def main() -> None:
    args = methods_arguments(command_line("benchmark.output.plots", __doc__), out="plots")
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        for dataset in args.datasets:
            statistics = DatasetStatistics.read(args.statistics, dataset)
            for name, plot in PLOTS.items():
                save(plot(statistics), args.out, f"{dataset}.{name}")


if __name__ == "__main__":
    main()
