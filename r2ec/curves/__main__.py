"""Say what long trainings of RecPO gained on their way.

    python -m r2ec.curves --results results/curves/results --out results/curves/results/curves

Reads the runs of config/curves.yaml (`make curves`) that are there, and names those that aren't. Validation: the ranks
that each training noted on its way, less those of its own start. Test: the finished model less the start. Intervals
cover users and, where a value has several trainings, trainings.

--out gets, per factor, {factor}.gains.csv, {factor}.test.csv, {factor}.md, {factor}.png and {factor}.pdf.
"""

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from benchmark.config.factors import Factor, ablations_of
from benchmark.config.read import read_config_file
from benchmark.errors import InputError, command, command_line
from benchmark.output.ablation_plots import styles
from benchmark.output.markdown import plain, running, table
from benchmark.output.plots import STYLE, head_and_foot, new_figure, save
from benchmark.storage.io import write_text
from r2ec.curves.runs import STATISTICS, Run, gains, on_test, read_factor, start_of

LESS_IS_BETTER = "A lower log rank is better: a difference of -.1 divides the geometric mean rank by e^.1."


def as_markdown(factor: Factor, runs: list[Run], gained: pd.DataFrame, tested: pd.DataFrame, missing: list[str]) -> str:
    """A row per run: its steps and hours, what it gained on validation and test cases, and its tokens' entropy."""
    head = ["dataset", "value", "trainings", "steps", "hours", *(f"validation, {name}" for name in STATISTICS)]
    head += [*(f"test, {name}" for name in STATISTICS), "p, test log rank", "entropy, nats"]
    lines = []
    for run in runs:
        if not run.steps:
            continue
        last = gained[(gained.dataset == run.dataset) & (gained.value == run.value) & (gained.step == run.steps[-1])]
        test = tested[(tested.dataset == run.dataset) & (tested.value == run.value)]
        hours = f"{run.seconds[:, -1].mean() / 3600:.2f}"
        p = test.p[test.statistic == STATISTICS[0]]
        entropy = "" if run.entropy is None else f"{run.entropy[0]:.2f} to {run.entropy[1]:.2f}"
        lines.append([run.dataset, run.value, str(run.trainings), str(run.steps[-1]), hours])
        lines[-1] += [_difference(frame, name) for frame in (last, test) for name in STATISTICS]
        lines[-1] += [f"{p.iloc[0]:.2g}" if len(p) else "", entropy]
    text = table(head, [[*map(plain, line[:2]), *line[2:]] for line in lines], left=2)
    notes = (
        "Differences with 95 % intervals: on validation cases from the training's own step 0, on test cases from the "
        "value that isn't trained. Intervals of a value with one training cover users alone. p is not corrected, and "
        "all of this is exploratory. Hours of training, without measuring. Entropy of a sampled token, first and last "
        f"ten steps. {LESS_IS_BETTER}"
    )
    absent = f"\n\nNot here: {running('; '.join(missing))}." if missing else ""
    return f"# {plain(factor.title)}\n\n{text}\n\n{notes}{absent}\n"


def _difference(frame: pd.DataFrame, name: str) -> str:
    rows = frame[frame.statistic == name]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    return f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]"


def plot(factor: Factor, gained: pd.DataFrame) -> Figure:
    """A panel per dataset and statistic: the gain from each training's own start by step.

    The interval is drawn of each value's last step alone, beside it: those of all steps would cover each other.
    """
    datasets = [name for name in factor.datasets if (gained.dataset == name).any()]
    style = styles(list(factor.runs), factor.base)
    figure = new_figure(4.2 * len(datasets) + 1.8, 6.4)
    grid = figure.subplots(len(STATISTICS), len(datasets), squeeze=False, sharex=True, sharey="row")
    apart = 0.015 * gained.step.max()  # between the intervals of two values
    for row, name in zip(grid, STATISTICS, strict=True):
        for axes, dataset in zip(row, datasets, strict=True):
            part = gained[(gained.dataset == dataset) & (gained.statistic == name)]
            for place, (value, points) in enumerate(part.groupby("value", sort=False), start=1):
                form = style[str(value)]
                axes.plot(points.step, points.difference, label=str(value), marker=".", **form)
                last = points.sort_values("step").iloc[-1]
                beside = last.step + place * apart
                axes.vlines(beside, last.low, last.high, color=form["color"], linewidth=1.6)
                axes.plot(beside, last.difference, marker="o", markersize=3, color=form["color"])
            axes.axhline(0, color="black", linewidth=0.6)
            axes.set_title(f"{dataset}: {name}, minus its start's")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    rule = (
        "Validation cases. Vertical lines: 95 % interval of the last step, over users and, of several trainings, "
        "trainings."
    )
    head_and_foot(figure, factor.title, [rule, LESS_IS_BETTER])
    return figure


@command
def main() -> None:
    parser = command_line("r2ec.curves", __doc__)
    parser.add_argument("--config", default="config/curves.yaml", help="the config (default: config/curves.yaml)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with runs/ (default: results)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    shown = 0
    for factor in ablations_of(read_config_file(args.config), args.config).factors.values():
        runs, missing = read_factor(factor, args.results)
        start, gained = start_of(factor), gains(runs)
        tested = on_test(runs, start) if start else on_test([], "")
        if gained.empty:
            print(f"{factor.name}: no run with measured steps is there yet.")
            continue
        for name, frame in (("gains", gained), ("test", tested)):
            path = args.out / f"{factor.name}.{name}.csv"
            write_text(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.6f"))
        text = as_markdown(factor, runs, gained, tested, missing)
        write_text(args.out / f"{factor.name}.md", text)
        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            save(plot(factor, gained), args.out, factor.name)
        print(text)
        shown += 1
    if not shown:
        raise InputError(f"{args.results}: holds no run of {args.config} with measured steps; run make curves first")


if __name__ == "__main__":
    main()
