"""Show what each method computes before it recommends, beside its quality and cost.

    python -m benchmark.output.thinking --datasets ml-100k --thinking '{"sasrec": "nothing", "r2ec": "written"}'

The folder gets `thinking` as .csv and .md, and that of the plots a plot, from the statistics that
`python -m benchmark.statistics.datasets` and, for several datasets, `benchmark.statistics.overall` have written. Each
method's file says what it computes (`benchmark.config.methods.thinking_of`).
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from benchmark.config.methods import THINKING
from benchmark.errors import InputError, command, command_line
from benchmark.output.arguments import add_thinking, methods_arguments
from benchmark.output.costs import number, on_seconds_of
from benchmark.output.forms import csv
from benchmark.output.markdown import plain, running, table
from benchmark.output.plots import BASELINE, GREY, MAIN, REFERENCE, STYLE, head_and_foot, new_figure, place_labels, save
from benchmark.statistics.files import OVERALL_METHODS, DatasetStatistics, read_csv
from benchmark.statistics.thinking import NOTE, left_out, thinking
from benchmark.storage.io import write_text

COLOURS = dict(zip(THINKING, (GREY, "#009E73", BASELINE, REFERENCE), strict=True))
MARKS = dict(zip(THINKING, "os^D", strict=True))


def names_of(frame: pd.DataFrame) -> list[str]:
    """The datasets, which are columns of the frame."""
    columns = frame.columns.tolist()
    return columns[2 : columns.index("mean")]


def markdown(frame: pd.DataFrame, below: Sequence[str] = ()) -> str:
    """The table in GitHub's Markdown; `below` are further notes."""
    names = names_of(frame)
    head = ["before it recommends", "method", *map(plain, names)]
    head += [
        f"{MAIN}, mean",
        "95 % interval",
        "seconds per case, alone",
        "seconds per case, in batches",
        "tokens per case",
    ]
    body = [
        [
            row["thinking"],
            plain(row["method"]),
            *(f"{row[name]:.4f}" for name in names),
            f"{row['mean']:.4f}",
            f"[{row['low']:.4f}, {row['high']:.4f}]",
            *(number(row[column]) for column in ("seconds_alone", "seconds_batched", "tokens")),
        ]
        for row in frame.to_dict("records")
    ]
    parts = ["# Thinking: nothing, latent or written", table(head, body, left=2), *map(running, [NOTE, *below])]
    return "\n\n".join(parts) + "\n"


def plot(frame: pd.DataFrame) -> Figure:
    """NDCG@10 with its interval against seconds and against tokens per case; colour and mark say the kind of
    thinking."""
    figure = new_figure(13.5, 6.6)
    panels = figure.subplots(1, 2, sharey=True)
    drawn = {kind: Line2D([], [], linestyle="", color=COLOURS[kind], marker=MARKS[kind]) for kind in frame.thinking}
    # Outside of the panels, before the names find their places.
    figure.legend(drawn.values(), drawn, loc="outside right upper", title="before it recommends", frameon=False)
    top = max(float(frame.high.max()) * 1.1, 1e-3)
    for axes, (column, label) in zip(
        panels,
        (("seconds_alone", "seconds per case, alone (log scale)"), ("tokens", "tokens per case (log scale from 1 on)")),
        strict=True,
    ):
        at = frame[column].to_numpy()
        if column == "tokens":
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(-0.25, max(at.max() * 3, 2))
        else:
            at = np.maximum(at, 1e-6)  # a log axis has no 0
            axes.set_xscale("log")
            axes.set_xlim(at.min() / 3, at.max() * 3)
        axes.set_ylim(0, top)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for kind, part in frame.groupby("thinking", sort=False):
            own = at[part.index.to_numpy()]
            axes.vlines(own, part.low, part.high, color=COLOURS[str(kind)], linewidth=1, alpha=0.45)
            mark = {"color": COLOURS[str(kind)], "marker": MARKS[str(kind)]}
            axes.plot(own, part["mean"], linestyle="", markersize=6, **mark)
        axes.set_xlabel(label)
        lines = frame[["low", "high"]].to_numpy()
        place_labels(figure, axes, at, frame["mean"].to_numpy(), frame.method.tolist(), lines)
    panels[0].set_ylabel(MAIN)
    names = names_of(frame)
    what = f"{MAIN} on {names[0]}" if len(names) == 1 else f"mean {MAIN} of {len(names)} datasets"
    rule = f"Points: {what}; lines: 95 % bootstrap interval over users. Rows of one kind differ in other ways, too."
    head_and_foot(figure, "Quality against cost, by what is computed before a recommendation", [rule])
    return figure


@command
def main() -> None:
    parser = command_line("benchmark.output.thinking", __doc__)
    add_thinking(parser)
    args = methods_arguments(parser, out="tables")
    datasets = [DatasetStatistics.read(args.statistics, dataset) for dataset in args.datasets]
    overall = read_csv(args.statistics / OVERALL_METHODS) if len(datasets) > 1 else None
    frame = thinking(datasets, overall, args.thinking)
    if frame.empty:
        raise InputError("no method has results on all of these datasets; see their logs")
    below = [*([args.note] if args.note else []), *left_out(datasets), *on_seconds_of(datasets)]
    write(frame, args.out, args.results / "plots", below)


def write(frame: pd.DataFrame, out: Path, plots: Path, below: Sequence[str]) -> None:
    """Write thinking.csv and thinking.md to `out`, the plot to `plots`, and print the table. below: further notes."""
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        save(plot(frame), plots, "thinking")
    text = markdown(frame, below)
    write_text(out / "thinking.csv", csv(frame))
    write_text(out / "thinking.md", text)
    print(text)


if __name__ == "__main__":
    main()
