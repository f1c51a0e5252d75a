"""Hold one method against each of the others, on each dataset and over all of them: `python -m benchmark.output.against`.

    python -m benchmark.output.against --reference r2ec --datasets ml-100k --methods popularity sasrec r2ec --seeds 3

The folder gets `against` as .csv and .md: differences in NDCG@10, their paired tests, and what both cost; and a plot of the
differences. The workflow makes it where a config names a `reference`. Nothing is written unless the runs pass the
checks of `benchmark.analysis.collect`.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmark.analysis import significance
from benchmark.analysis.collect import Collected, arguments, collect_all
from benchmark.analysis.comparisons import comparisons
from benchmark.analysis.costs import costs, number
from benchmark.errors import InputError, command, command_line
from benchmark.metrics import METRICS
from benchmark.output.captions import said_beside
from benchmark.output.forms import FailedRow, csv, plain_markdown
from benchmark.output.plots import GREY, R2EC, STYLE, head_and_foot, new_figure, save
from benchmark.output.summary import background
from benchmark.provenance import derive_seed
from benchmark.storage.io import write_text

MAIN = "NDCG@10"
EVERY = "all datasets"
# Columns of costs.csv with their headings.
COSTS = {"users": "users learned from", "targets": "targets", "settings": "settings tried"}
COSTS |= {"fit_s": "fit, s", "score_s": "ranking, s", "tokens": "tokens written", "ms_alone": "ms per case, alone"}


def against(collected: Sequence[Collected], reference: str) -> pd.DataFrame:
    """The reference's NDCG@10 minus every other method's; one family of tests per dataset, and one over all datasets.

    Columns: dataset, method, reference, mean, mean_reference, difference, low, high (95 % interval of the difference over
    users), p, p_holm, detectable (`significance.smallest_detectable` at Holm's first step), family_size, n_cases, n_users,
    and of costs.COSTS the method's own and, as `*_reference`, the reference's, averaged under "all datasets". That part is
    there if there are several datasets; each of them weighs the same in it.
    """
    frames = [_on_one(results, reference) for results in collected]
    if len(collected) > 1 and len(set.intersection(*(set(results.methods) for results in collected))) > 1:
        frames.append(_on_all(collected, reference, frames))
    frame = pd.concat(frames, ignore_index=True)
    sizes = frame.groupby("dataset", sort=False).p.transform("size")
    corrected = frame.groupby("dataset", sort=False).p.transform(lambda p: significance.holm(p.to_numpy()))
    errors = zip(frame.pop("error"), sizes, strict=True)
    detectable = [significance.smallest_detectable(error, size) for error, size in errors]
    return frame.assign(p_holm=corrected, detectable=detectable, family_size=sizes)


def _on_one(results: Collected, reference: str) -> pd.DataFrame:
    others = [method for method in results.methods if method != reference]
    found = [c for c in comparisons(results, [(reference, other) for other in others]) if c.metric == MAIN]
    spent = costs(results).set_index("method")[list(COSTS)]
    rows = [
        {
            "dataset": results.dataset,
            "method": c.b,
            "reference": reference,
            "mean": c.mean_b,
            "mean_reference": c.mean_a,
            "difference": c.mean_a - c.mean_b,
            "low": c.low,
            "high": c.high,
            "p": c.p,
            "error": c.error,
            "n_cases": len(results.cases),
            "n_users": results.n_users,
            **spent.loc[c.b].to_dict(),
            **spent.loc[reference].add_suffix("_reference").to_dict(),
        }
        for c in found
    ]
    return pd.DataFrame(rows)


def _on_all(collected: Sequence[Collected], reference: str, frames: list[pd.DataFrame]) -> pd.DataFrame:
    """The mean of the datasets' differences. Users are resampled within their datasets; each user of each has one sign."""
    # On all of these datasets; a method that failed on one of them has no mean over all.
    shared = set.intersection(*(set(results.methods) for results in collected))
    others = [method for method in collected[0].methods if method in shared and method != reference]
    stacked, replicates = [], []
    for results in collected:
        at = [results.methods.index(method) for method in (reference, *others)]
        values = results.case_means[METRICS.index(MAIN)][at]
        sums, counts = significance.user_sums(values, results.cases.user)
        stacked.append(sums / counts.sum() / len(collected))
        replicates.append(significance.bootstrap_means(sums, counts, derive_seed("bootstrap", results.dataset)))
    sums = np.concatenate(stacked)
    pairs = [(0, i + 1) for i in range(len(others))]
    flips = significance.flips_for(len(pairs))
    p = significance.randomisation_test(sums, pairs, derive_seed("sign flips", EVERY), flips)
    drawn = np.mean(replicates, axis=0)
    differences = drawn[:, [0]] - drawn[:, 1:]
    low, high = significance.interval(differences)
    # A dataset's number is there once, so that the mean over rows of a method is that over datasets.
    means = pd.concat(frames).groupby("method", sort=False).mean(numeric_only=True).loc[others].reset_index()
    return means.assign(
        dataset=EVERY,
        reference=reference,
        low=low,
        high=high,
        p=p,
        error=differences.std(axis=0, ddof=1),
        n_cases=sum(len(results.cases) for results in collected),
        n_users=sum(results.n_users for results in collected),
    )[frames[0].columns]


def markdown(frame: pd.DataFrame, above: str = "", below: Sequence[str] = ()) -> str:
    """The table in GitHub's Markdown: of each dataset the reference's own row, then the others. `above` stands above it, and
    `below` are further notes."""
    reference = frame.reference.iloc[0]
    name = plain_markdown(reference)
    head = ["dataset", "method", MAIN, f"{name} minus this one", "95 % interval", "p", "p, Holm", "smallest detectable"]
    head += list(COSTS.values())
    lines = [head, [":--", ":--", *["--:"] * (len(head) - 2)]]
    for dataset, part in frame.groupby("dataset", sort=False):
        first = part.iloc[0]
        spent = [number(first[f"{column}_reference"]) for column in COSTS]
        lines.append([plain_markdown(str(dataset)), f"**{name}**", f"{first.mean_reference:.4f}", *[""] * 5, *spent])
        for row in part.to_dict("records"):
            tests = [f"{row['difference']:+.4f}", f"[{row['low']:+.4f}, {row['high']:+.4f}]"]
            tests += [f"{row['p']:.2g}", f"{row['p_holm']:.2g}"]
            tests.append("unknown" if np.isnan(row["detectable"]) else f"{row['detectable']:.4f}")
            spent = [number(row[column]) for column in COSTS]
            method = plain_markdown(row["method"])
            lines.append([plain_markdown(str(dataset)), method, f"{row['mean']:.4f}", *tests, *spent])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    parts = [f"# {name} against each of the others", above, table, note(frame), *below]
    return "\n\n".join(part for part in parts if part) + "\n"


def note(frame: pd.DataFrame) -> str:
    """What the numbers are."""
    measured = "; ".join(
        f"{dataset}: {part.n_cases.iloc[0]:,} cases of {part.n_users.iloc[0]:,} users"
        for dataset, part in frame.groupby("dataset", sort=False)
    )
    several = (
        f' Under "{EVERY}" each dataset weighs the same, and costs are means.' if EVERY in set(frame.dataset) else ""
    )
    return (
        f"{measured}. Two-sided paired randomisation tests, signs flipped per user; Holm's correction over the "
        f"{frame.family_size.iloc[0]} methods of one part of the table. Interval: bootstrap over users. Smallest detectable: the "
        f"true difference that the test would find with a power of {100 * significance.POWER:.0f} % at the level of Holm's first "
        f"step. Users are resampled and not trainings.{several} Costs: as in costs.md, where a run "
        "is charged for what others had encoded or written."
    )


def comparable(collected: Sequence[Collected], reference: str) -> list[Collected]:
    """The datasets on which the reference and another method have results."""
    return [results for results in collected if reference in results.methods and len(results.methods) > 1]


def write_nothing(collected: Sequence[Collected], reference: str, out: Path, plots: Path) -> str:
    """The files of a reference that can't be held against any other method: they say why. Returns the text."""
    failed = [
        FailedRow(one.dataset, one.method, one.failed) for results in collected for one in results.failed.values()
    ]
    why = "; ".join(f"{one.method} on {one.dataset} {one.said}" for one in failed)
    figure = new_figure(10, 1.5)
    head_and_foot(figure, f"{reference} against each of the others: nothing to compare", [why])
    save(figure, plots, "against")
    text = f"# {plain_markdown(reference)} against each of the others\n\nNothing to compare: {plain_markdown(why)}\n"
    rows = [(one.dataset, one.method, reference, one.why) for one in failed]
    write_text(out / "against.csv", csv(pd.DataFrame(rows, columns=["dataset", "method", "reference", "failed"])))
    write_text(out / "against.md", text)
    return text


def beside(collected: Sequence[Collected]) -> list[str]:
    """What is said beside every table, a note per dataset."""
    return [said_beside(background(results)) for results in collected]


def plot(frame: pd.DataFrame) -> Figure:
    """The differences as points with intervals, one panel per dataset; right of zero the reference ranks better."""
    parts = list(frame.groupby("dataset", sort=False))
    methods, reference = parts[0][1].method.tolist(), frame.reference.iloc[0]
    figure = new_figure(10, 1.5 + 0.27 * max(4, len(methods)))
    at = np.arange(len(methods))[::-1]
    for axes, (dataset, part) in zip(figure.subplots(1, len(parts), squeeze=False, sharey=True)[0], parts, strict=True):
        axes.axvline(0, color=GREY, linewidth=0.8, linestyle="--", zorder=1.5)
        axes.hlines(at, part.low, part.high, color=R2EC, linewidth=1.6)
        for y, value, p in zip(at, part.difference, part.p_holm, strict=True):
            inside = R2EC if p < significance.ALPHA else "white"
            axes.plot(value, y, "o", color=R2EC, markerfacecolor=inside, markersize=5.5, zorder=4)
        axes.set_title(f"{dataset}\n{part.n_cases.iloc[0]:,} cases, {part.n_users.iloc[0]:,} users")
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    figure.axes[0].set_yticks(at, methods)
    figure.axes[0].set_ylim(-0.7, len(methods) - 0.3)
    filled = f"Filled: p < {significance.ALPHA} after Holm's correction over the {len(methods)} methods of a panel."
    rules = [f"Right of the line: {reference} ranks better. Lines: 95 % bootstrap interval over users. {filled}"]
    head_and_foot(figure, f"{MAIN} of {reference} minus that of each other method", rules)
    return figure


@command
def main() -> None:
    given = arguments(command_line("benchmark.output.against", __doc__), out="tables", reference=True)
    if given.reference is None:
        raise InputError("--reference is missing; name the method that is held against the others")
    everything = collect_all(given)
    if not (collected := comparable(everything, given.reference)):
        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            print(write_nothing(everything, given.reference, given.out, given.results / "plots"))
        return
    frame = against(collected, given.reference)
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        save(plot(frame), given.results / "plots", "against")
    text = markdown(frame, given.note, beside(collected))
    write_text(given.out / "against.csv", csv(frame))
    write_text(given.out / "against.md", text)
    print(text)


if __name__ == "__main__":
    main()
