"""Writes the measurements of `python -m r2ec.speed` as one table (Markdown, CSV, JSON) and one plot."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from pydantic import BaseModel, ConfigDict

from benchmark.output.markdown import plain, table
from benchmark.output.plots import save
from benchmark.storage.io import write_csv, write_json, write_text
from r2ec.speed.evaluation import Latency
from r2ec.speed.growth import Point, exponent
from r2ec.speed.limits import Limits
from r2ec.speed.work import Pair, Size

BLUE, GREY = "#0072b2", "#999999"


class Measured(BaseModel):
    """All measurements of one run, and where they were made."""

    model_config = ConfigDict(frozen=True)

    commit: str
    hardware: dict[str, str | int | float | None]
    dataset: str
    size: Size
    limits: Limits
    pairs: list[Pair]
    latency: list[Latency]
    growth: list[Point]


def write(measured: Measured, folder: Path) -> None:
    """speed.json, speed.csv, speed.md and, with growth, growth.png and growth.pdf, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "speed.json", measured.model_dump(mode="json"))
    write_text(folder / "speed.md", markdown(measured))
    write_csv(folder / "speed.csv", list(Pair.model_fields), (pair.model_dump() for pair in measured.pairs))
    if measured.growth:
        plot(measured.growth, folder)


def markdown(measured: Measured) -> str:
    """The tables, for the README and for reading."""
    limits, size = measured.limits, measured.size
    parts = [
        f"{measured.dataset}, {size.users} users, G = {size.group}, {size.items_in_prompt} items in the prompt, "
        f"{size.new_tokens} new tokens; medians of runs in turns; commit {measured.commit}.\n"
        f"Limits of this machine with {limits.threads} threads: {limits.bfloat16_gflops:.0f} GFLOP/s in bf16, "
        f"{limits.float32_gflops:.0f} in fp32, copies at {limits.copy_gbytes:.0f} GB/s.",
    ]
    if measured.pairs:
        head = [
            "part",
            "ours",
            "plain way",
            "ratio (lowest to highest)",
            "target",
            "share of the matmul limit",
            "check",
        ]
        parts.append(table(head, list(map(_pair, measured.pairs)), left=len(head)))
    if measured.latency:
        rows = [
            [plain(answers.method), f"{answers.alone_ms:.0f} ({answers.alone_ms_p95:.0f})", f"{answers.together:.1f}"]
            for answers in measured.latency
        ]
        parts.append(table(["answers", "one user, ms (95 %)", "users/s, 64 together"], rows))
    if measured.growth:
        rows = [
            [plain(part), plain(against), f"{exponent(_points(measured.growth, part, against)):.2f}"]
            for part, against in _curves(measured.growth)
        ]
        parts.append(table(["grows", "against", "exponent between the two largest (1: linear)"], rows, left=2))
    return "\n\n".join(parts) + "\n"


def _pair(pair: Pair) -> list[str]:
    """One row of the table of parts."""
    share = "" if pair.share_of_matmul is None else f"{pair.share_of_matmul:.0%}"
    target = "" if pair.target is None else f"{pair.target:g}"
    ratio = f"{pair.ratio:.2f} ({pair.lowest:.2f} to {pair.highest:.2f})"
    ours, plain_way = f"{pair.ours:.3g} {pair.unit}/s", f"{pair.plain:.3g}, {pair.plain_way}"
    return [plain(cell) for cell in (pair.part, ours, plain_way, ratio, target, share, pair.check)]


def _curves(growth: list[Point]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((point.part, point.against) for point in growth))


def _points(growth: list[Point], part: str, against: str) -> list[Point]:
    return [point for point in growth if (point.part, point.against) == (part, against)]


def plot(growth: list[Point], folder: Path) -> None:
    """Seconds and memory of each part, on logarithmic axes, beside a line of slope 1."""
    curves = _curves(growth)
    figure, axes = plt.subplots(
        2, len(curves), figsize=(3.2 * len(curves), 6), squeeze=False, layout="constrained", dpi=150
    )
    for column, (part, against) in enumerate(curves):
        points = _points(growth, part, against)
        values = [point.value for point in points]
        for row, (measure, name) in enumerate((("seconds", "seconds"), ("added_mib", "MiB added"))):
            axis, heights = axes[row, column], [getattr(point, measure) for point in points]
            axis.plot(values, heights, "o-", color=BLUE)
            axis.plot(values, [heights[0] * v / values[0] for v in values], ":", color=GREY)
            axis.set_xscale("log")
            if min(heights) > 0:
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # powers of ten alone may all lie outside
            # The measured values alone: the ticks between them of a short logarithmic axis would run into each other.
            axis.set_xticks(values, [f"{value:,}" for value in values], rotation=30)
            axis.xaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.grid(color="#e5e5e5", linewidth=0.8)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_xlabel(against)
            axis.set_ylabel(name)
            if row == 0:
                axis.set_title(part, loc="left", fontsize=11)
    figure.suptitle("Growth (dotted: linear from the first point)", x=0.01, ha="left", fontweight="bold")
    save(figure, folder, "growth")
    plt.close(figure)
