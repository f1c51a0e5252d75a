"""Make table and plot of one method against each of the others: `python -m benchmark.output.against`.

Differences are per dataset and over all datasets.

    python -m benchmark.output.against --datasets ml-100k

The folder gets `against` as .csv and .md, and that of the plots a plot of the differences, from the statistics that
`python -m benchmark.statistics.against` and `benchmark.statistics.datasets` have written.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.analysis import significance
from benchmark.config.wording import many
from benchmark.errors import command, command_line
from benchmark.output.arguments import methods_arguments
from benchmark.output.captions import against_note, backgrounds_in_words, of_different_code
from benchmark.output.costs import HEADINGS, number
from benchmark.output.forms import csv
from benchmark.output.markdown import plain, running, table
from benchmark.output.plots import GREY, REFERENCE, STYLE, head_and_foot, new_figure, save
from benchmark.statistics.against import COSTS, EVERY, MAIN
from benchmark.statistics.files import AGAINST, DatasetStatistics, read_csv
from benchmark.storage.io import write_text


def markdown(frame: pd.DataFrame, above: str = "", below: Sequence[str] = ()) -> str:
    """The table in GitHub's Markdown: for each dataset the reference's own row, then the others.

    above: a text above the table. below: further notes below it.
    """
    name = plain(frame.reference.iloc[0])
    head = ["dataset", "method", MAIN, f"{name} minus this one", "95 % interval", "p", "p, Holm", "smallest detectable"]
    head += [HEADINGS[column] for column in COSTS]
    body = []
    for dataset, part in frame.groupby("dataset", sort=False):
        first = part.iloc[0]
        costs = [number(first[f"{column}_reference"]) for column in COSTS]
        body.append([plain(str(dataset)), f"**{name}**", f"{first.mean_reference:.4f}", *[""] * 5, *costs])
        for row in part.to_dict("records"):
            tests = [f"{row['difference']:+.4f}", f"[{row['low']:+.4f}, {row['high']:+.4f}]"]
            tests += [f"{row['p']:.2g}", f"{row['p_holm']:.2g}"]
            tests.append("unknown" if np.isnan(row["detectable"]) else f"{row['detectable']:.4f}")
            costs = [number(row[column]) for column in COSTS]
            body.append([plain(str(dataset)), plain(row["method"]), f"{row['mean']:.4f}", *tests, *costs])
    notes_below = map(running, [against_note(frame), *below])
    parts = [f"# {name} against each of the others", running(above), table(head, body, left=2), *notes_below]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_nothing(frame: pd.DataFrame, out: Path, plots: Path) -> str:
    """Write the files of a reference that can't be compared with any other method: they say why. Returns the text."""
    why = "; ".join(f"{row.method} on {row.dataset} failed: {row.failed}" for row in frame.itertuples())
    reference = frame.reference.iloc[0]
    figure = new_figure(10, 1.5)
    head_and_foot(figure, f"{reference} against each of the others: nothing to compare", [why])
    save(figure, plots, "against")
    text = f"# {plain(reference)} against each of the others\n\nNothing to compare: {plain(why)}\n"
    write_text(out / AGAINST, csv(frame))
    write_text(out / "against.md", text)
    return text


def plot(frame: pd.DataFrame) -> Figure:
    """The differences as points with intervals, one panel per dataset; right of zero the reference ranks better."""
    parts = list(frame.groupby("dataset", sort=False))
    methods, reference = parts[0][1].method.tolist(), frame.reference.iloc[0]
    figure = new_figure(10, 1.5 + 0.27 * max(4, len(methods)))
    at = np.arange(len(methods))[::-1]
    panels = figure.subplots(1, len(parts), squeeze=False, sharex=True, sharey=True)[0]  # one scale, to compare them
    for axes, (dataset, part) in zip(panels, parts, strict=True):
        axes.axvline(0, color=GREY, linewidth=0.8, linestyle="--", zorder=1.5)
        axes.hlines(at, part.low, part.high, color=REFERENCE, linewidth=1.6)
        for y, value, p in zip(at, part.difference, part.p_holm, strict=True):
            inside = REFERENCE if p < significance.ALPHA else "white"
            axes.plot(value, y, "o", color=REFERENCE, markerfacecolor=inside, markersize=5.5, zorder=4)
        axes.set_title(f"{dataset}\n{part.n_cases.iloc[0]:,} cases, {part.n_users.iloc[0]:,} users")
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    figure.axes[0].set_yticks(at, methods)
    figure.axes[0].set_ylim(-0.7, len(methods) - 0.3)
    of_panel = f"the {many(len(methods), 'method')} of a panel"
    filled = f"Filled: p < {significance.ALPHA} after Holm's correction over {of_panel}."
    rules = [f"Right of the line: {reference} ranks better. Lines: 95 % bootstrap interval over users. {filled}"]
    head_and_foot(figure, f"{MAIN} of {reference} minus that of each other method", rules)
    return figure


@command
def main() -> None:
    args = methods_arguments(command_line("benchmark.output.against", __doc__), out="tables")
    frame = read_csv(args.statistics / AGAINST)
    if "failed" in frame:
        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            print(write_nothing(frame, args.out, args.results / "plots"))
        return
    rows = [
        DatasetStatistics.read(args.statistics, dataset).methods
        for dataset in frame.dataset.unique()
        if dataset != EVERY
    ]
    together = pd.concat(rows, ignore_index=True)
    beside = [*backgrounds_in_words(together), *of_different_code(together)]
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        save(plot(frame), args.results / "plots", "against")
    text = markdown(frame, args.note, beside)
    write_text(args.out / AGAINST, csv(frame))
    write_text(args.out / "against.md", text)
    print(text)


if __name__ == "__main__":
    main()
