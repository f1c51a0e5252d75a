"""Writes the measurements of `python -m r2ec.catalogue.speed` as tables (Markdown, CSV) and one plot."""

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from pydantic import BaseModel, ConfigDict

from benchmark.config.wording import many
from benchmark.output.markdown import table
from benchmark.output.plots import STYLE, save
from benchmark.storage.io import write_csv, write_text
from r2ec.catalogue.nearest import EFFORT, KINDS

COLOURS = {
    "exact": "#000000",
    "reward": "#d55e00",
    "hnsw": "#009e73",
    "ivf": "#e69f00",
    "ivf_pq": "#0072b2",
    "table": "#999999",
}


class Point(BaseModel):
    """One measurement. Times are medians where there are several runs; None: not measured in this step."""

    model_config = ConfigDict(frozen=True)

    items: int
    method: str  # table, exact, reward, sampled, or an index
    setting: str
    effort: int | None = None
    seconds: float | None = None  # of writing, refreshing, building or updating
    encoded: int | None = None  # rows that a refresh encoded
    alone_ms: float | None = None  # one user
    together_ms: float | None = None  # USERS users or rollouts
    recall: float | None = None  # of the TOP best items, scored from the table again
    recall_bare: float | None = None  # the same in the index's own order
    log_error: float | None = None  # median |log R_c estimated - log R_c|
    disk_mib: float | None = None
    peak_mib: float  # resident memory of the whole process at most


class Measured(BaseModel):
    """All measurements of one run, and where they were made."""

    model_config = ConfigDict(frozen=True)

    commit: str
    hardware: dict[str, str | int]
    threads: int
    width: int
    users: int
    top: int
    memory_gib: float
    points: list[Point]


def write(measured: Measured, folder: Path) -> None:
    """catalogue.csv and catalogue.md, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "catalogue.csv", list(Point.model_fields), (point.model_dump() for point in measured.points))
    write_text(folder / "catalogue.md", markdown(measured))


# Tables


def markdown(measured: Measured) -> str:
    """One table of what stands on disk, one of the searches, one of the reward."""
    peak = max(point.peak_mib for point in measured.points) / 1024
    about = (
        f"Made vectors (`r2ec/catalogue/speed.py` says how) x {measured.width} in bfloat16, "
        f"{many(measured.threads, 'thread')} of {measured.hardware['processor']}, commit {measured.commit}. Indexes "
        f"that take more than {measured.memory_gib:g} GiB to build are not built; "
        f"no process held more than {peak:.1f} GiB."
    )
    return "\n\n".join([about, _on_disk(measured), _searches(measured), _rewards(measured)]) + "\n"


def _on_disk(measured: Measured) -> str:
    rows = [
        [f"{p.items:,}", f"{p.method}, {p.setting}", _s(p.seconds), _n(p.encoded), _n(p.disk_mib), _n(p.peak_mib)]
        for p in measured.points
        if p.seconds is not None or p.setting.startswith("not built")
    ]
    return table(["items", "what", "s", "encoded", "MiB on disk", "peak MiB"], rows, left=2)


def _searches(measured: Measured) -> str:
    times = ["one user, ms", f"{measured.users} users, ms"]
    head = ["items", "search", *times, f"recall@{measured.top}", "in the index's order", "peak MiB"]
    rows = [
        [
            f"{p.items:,}",
            _words(p),
            _n(p.alone_ms, 1),
            _n(p.together_ms, 0 if p.method == "exact" else 1),
            _r(p.recall),
            _r(p.recall_bare),
            _n(p.peak_mib),
        ]
        for p in measured.points
        if p.alone_ms is not None
    ]
    return table(head, rows, left=2)


def _rewards(measured: Measured) -> str:
    head = ["items", "reward", f"{measured.users} rollouts, ms", "error of log R_c (median)", "peak MiB"]
    rows = [
        [
            f"{p.items:,}",
            "exact, rank and softmax" if p.method == "reward" else f"softmax from {p.setting}",
            _n(p.together_ms, 0),
            "0" if p.method == "reward" else _r(p.log_error),
            _n(p.peak_mib),
        ]
        for p in measured.points
        if p.method in ("reward", "sampled")
    ]
    return table(head, rows, left=2)


def _words(point: Point) -> str:
    return f"{point.method}, {point.setting}" if point.setting else point.method


def _n(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _s(value: float | None) -> str:
    return _n(value, 0 if value is not None and value >= 100 else 1)


def _r(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


# Plot


def plot(measured: Measured, folder: Path) -> None:
    """catalogue.png and catalogue.pdf: time, memory and building against the number of items; recall against time at
    the most items of each kind of index."""
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, ((time, quality), (memory, build)) = plt.subplots(2, 2, figsize=(9, 6.6), layout="constrained", dpi=150)
        searched = ["exact", "reward", *KINDS]
        _curves(time, measured, searched, lambda p: p.together_ms and p.together_ms / 1000)
        time.set(title=f"Search for {measured.users} users at once", ylabel="seconds", yscale="log")
        _curves(memory, measured, searched, lambda p: p.peak_mib / 1024)
        memory.axhline(measured.memory_gib, color=COLOURS["table"], linestyle=":", linewidth=1)
        memory.annotate(
            "limit", (0, measured.memory_gib), (4, -11), memory.get_yaxis_transform(), "offset points", fontsize=8
        )
        memory.set(title="Memory of the searching process", ylabel="GiB resident at most", ylim=(0, None))
        _curves(build, measured, ["table", *KINDS], lambda p: p.seconds, ("written", "built"))
        build.set(title="Writing the table, building an index", ylabel="seconds", yscale="log")
        for axes in (time, memory, build):
            axes.set(xscale="log", xlabel="items")
            axes.xaxis.set_major_formatter(FuncFormatter(_short))
            axes.xaxis.set_minor_formatter(NullFormatter())
        for axes in (time, build):
            _plain_numbers(axes.yaxis)
        _quality(quality, measured)
        names = {"exact": "exact search", "reward": "exact reward", "table": "table on disk"}
        shown = {line.get_label(): line for axes in (time, build) for line in axes.get_lines()}
        lines = [(shown[name], names.get(name, name)) for name in COLOURS if name in shown]
        figure.legend(*zip(*lines, strict=True), loc="outside lower center", ncols=len(lines), frameon=False)
        figure.suptitle(
            f"Generated vectors of width {measured.width} in bfloat16, {many(measured.threads, 'thread')}",
            x=0.01,
            ha="left",
            fontweight="bold",
        )
        save(figure, folder, "catalogue")
        plt.close(figure)


def _curves(
    axes: Axes,
    measured: Measured,
    methods: list[str],
    height: Callable[[Point], float | None],
    settings: tuple[str, ...] | None = None,
) -> None:
    """A line per method; by default over the points of its usual effort."""
    for method in methods:
        points = [
            p
            for p in measured.points
            if p.method == method and (p.setting in settings if settings else _is_usual(p)) and height(p) is not None
        ]
        if points:
            heights = [height(p) for p in points]
            items, colour = [p.items for p in points], COLOURS[method]
            axes.plot(items, heights, "o-", color=colour, markersize=4, label=method)  # type: ignore[arg-type]


def _is_usual(point: Point) -> bool:
    if point.method in KINDS:
        return point.effort == EFFORT[point.method]
    return point.setting == ""


def _quality(axes: Axes, measured: Measured) -> None:
    """Each index at its most items: every effort a point."""
    for kind in KINDS:
        points = [p for p in measured.points if p.method == kind and p.recall is not None]
        if not points:
            continue
        largest = max(p.items for p in points)
        points = [p for p in points if p.items == largest]
        x, y = [p.together_ms / measured.users for p in points if p.together_ms], [p.recall for p in points]
        label = f"{kind}, {_short(largest, 0)} items"
        axes.plot(x, y, "o-", color=COLOURS[kind], markersize=4, label=label)  # type: ignore[arg-type]
    axes.set(
        title="Recall against time of each index at its largest catalogue",
        xlabel=f"ms per user, {measured.users} together",
        ylabel=f"recall@{measured.top}",
        xscale="log",
        ylim=(None, 1.02),
    )
    _plain_numbers(axes.xaxis)
    if axes.get_lines():
        axes.legend(fontsize=8, loc="lower right")


def _plain_numbers(axis: Axis) -> None:
    """A logarithmic axis with 1, 2, 5, 10 and so on instead of powers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float, _: object) -> str:
    """10,000 as 10k, 10,000,000 as 10M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
