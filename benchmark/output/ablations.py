"""Make the tables of ablations, whose runs are finished: `python -m benchmark.output.ablations`.

The workflow calls this for the section `ablations` of a config, and writes --factors itself. By hand: `snakemake ablations`.

Per factor the folder gets {factor}.csv, .md and .tex with every value's metrics, and {factor}.tests.csv: every value against the
base by every metric, Holm-corrected over the factor's family (values x 6 metrics on one dataset), with the smallest
difference that the test could have found. Nothing is written unless the runs pass the checks of `benchmark.analysis.collect`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.collect import Collected, collect, failures
from benchmark.analysis.comparisons import comparisons, tests_frame
from benchmark.config.factors import Factor, arguments
from benchmark.errors import InputError, command, command_line
from benchmark.metrics import METRICS
from benchmark.output.captions import runs_behind, said_beside, what_it_shows
from benchmark.output.forms import FailedRow, csv, latex, markdown, plain_latex, plain_markdown
from benchmark.output.summary import summarise
from benchmark.storage.io import write_text

AGAINST_BASE = "against the base"
MAIN = "NDCG@10"
HEAD = ["value", "difference", "95 % interval", "p", "p, Holm", "smallest detectable"]


def without_failed(factor: Factor, results: Path) -> tuple[Factor, list[FailedRow]]:
    """The factor without the values of which a run has failed, and these values with the reasons.

    A value that failed on one dataset is left out of all. Raises InputError where the base has failed, or every other value.
    """
    rows, gone = list[FailedRow](), set[str]()
    for dataset in factor.datasets:
        for run, one in failures(results / "runs" / dataset, factor.seeds_of_runs).items():
            rows.append(FailedRow(dataset, factor.labels[run], f"{one.failed} (log: {one.log})"))
            gone.add(factor.labels[run])
    runs = {label: run for label, run in factor.runs.items() if label not in gone}
    if gone and (factor.base in gone or len(runs) == 1):
        raise InputError(
            f"{factor.name}: nothing is left to compare: {'; '.join(f'{r.method} {r.said}' for r in rows)}"
        )
    claims = [claim for claim in factor.claims if not gone & {claim.value, claim.against}]
    return factor.model_copy(update={"runs": runs, "claims": claims}), rows


def read_runs(factor: Factor, results: Path) -> list[Collected]:
    """The runs of a factor, dataset by dataset. Raises InputError as `collect` does."""
    return [
        collect(results, dataset, factor.seeds_of_runs, factor.settings, factor.less_information)
        for dataset in factor.datasets
    ]


def against_base(results: Collected, factor: Factor) -> pd.DataFrame:
    """Every value's run against the base's on one dataset, by every metric: one family.

    Columns of `tables.tests_frame` (method_a: the value's run, method_b: the base's), and `error`, the standard error of the
    difference over users, and `detectable`, the smallest difference that would be found with a power of 80 % at the
    level of Holm's first step (`significance.smallest_detectable`).
    """
    base = factor.runs[factor.base]
    found = comparisons(results, [(run, base) for run in factor.runs.values() if run != base])
    return tests_frame(results, {AGAINST_BASE: found}).assign(
        error=[c.error for c in found],
        detectable=[significance.smallest_detectable(c.error, len(found)) for c in found],
    )


def tables_of(factor: Factor, collected: list[Collected]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames of {factor}.csv and {factor}.tests.csv, over all datasets, with labels in place of runs.

    The first has one row per dataset and value in the factor's order, with the columns of `tables.summarise`, but `value` for
    `method` and `base` (the base's label) for `best_baseline`; the second is `against_base` with `value` and `base`.
    """
    frames, tests = [], []
    for results in collected:
        tested = against_base(results, factor)
        frames.append(summarise(results, tested, AGAINST_BASE).assign(best_baseline=factor.base))
        tests.append(tested.assign(dataset=results.dataset))
    frame = pd.concat(frames, ignore_index=True).rename(columns={"method": "value", "best_baseline": "base"})
    both = pd.concat(tests, ignore_index=True).rename(
        columns={"method_a": "value", "method_b": "base", "mean_a": "mean", "mean_b": "mean_base", "seeds_a": "seeds"}
    )
    both = both.assign(factor=factor.name, value=both.value.map(factor.labels), base=factor.base)
    first = ["factor", "dataset"]
    both = both[[*first, *both.columns.drop([*first, "seeds_b"])]]
    return frame.assign(value=frame.value.map(factor.labels)), both


def read_table(path: Path) -> pd.DataFrame:
    """{factor}.csv or {factor}.tests.csv as `tables_of` made it, but for rounding; labels stay text."""
    text = dict.fromkeys(("value", "base", "factor", "dataset", "commit", "less_information"), str)
    frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])  # a label may be "None"
    return frame.fillna({"less_information": ""})  # of the first of the two alone


def notes(frame: pd.DataFrame) -> list[str]:
    """The caption of a factor's table, as `captions.notes` is that of the methods'."""
    base = frame.base.iloc[0]
    out = [what_it_shows(as_rows(frame), f'the base, "{base}"', AGAINST_BASE)]
    for _, part in frame.groupby("dataset", sort=False):
        row = part.iloc[0]
        family = f"family of {row.family_size} tests ({len(part) - 1} values x {len(METRICS)} metrics)"
        out += [runs_behind(as_rows(part), family), said_beside(as_rows(part))]
    return out


def as_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """A factor's frame as the forms of `benchmark.output.tables` take it: the values are its rows."""
    return frame.rename(columns={"value": "method"})


def note_of_differences(tests: pd.DataFrame) -> str:
    """What the columns of the second table are."""
    return (
        f"{MAIN} less the base's. Smallest detectable: the true difference that the test would find with a power of "
        f"{100 * significance.POWER:.0f} % at the level of Holm's first step, {significance.ALPHA} / "
        f"{tests.family_size.iloc[0]}, from the standard error of the paired difference over users."
    )


def differences(tests: pd.DataFrame) -> list[list[str]]:
    """The rows of the second table: NDCG@10 of every value against the base's, as strings under HEAD."""
    several = tests.dataset.nunique() > 1
    rows = []
    for row in tests[tests.metric == MAIN].to_dict("records"):
        label = f"{row['dataset']}: {row['value']}" if several else str(row["value"])
        interval = f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        rows.append([label, f"{row['difference']:+.4f}", interval, f"{row['p']:.2g}", f"{row['p_holm']:.2g}"])
        rows[-1].append(in_words(row["detectable"]))
    return rows


def in_words(detectable: float) -> str:
    """A smallest detectable difference as the tables print it."""
    return "unknown: no user differs" if np.isnan(detectable) else f"{detectable:.4f}"


def as_markdown(factor: Factor, frame: pd.DataFrame, tests: pd.DataFrame, failed: Sequence[FailedRow] = ()) -> str:
    """Both tables of a factor in GitHub's Markdown, with their captions."""
    lines = [HEAD, [":--"] + ["--:"] * (len(HEAD) - 1)]
    lines += [[plain_markdown(row[0]), *row[1:]] for row in differences(tests)]
    second = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    first = markdown(as_rows(frame), notes(frame), "value", failed)
    return f"# {plain_markdown(factor.title)}\n\n{first}\n{second}\n\n{note_of_differences(tests)}\n"


def as_latex(factor: Factor, frame: pd.DataFrame, tests: pd.DataFrame, failed: Sequence[FailedRow] = ()) -> str:
    """Both tables of a factor as LaTeX; needs booktabs and graphicx."""
    body = [" & ".join(plain_latex(cell) for cell in row) + r" \\" for row in differences(tests)]
    title = plain_latex(f"{factor.title}. ")
    return latex(as_rows(frame), [f"{factor.title}.", *notes(frame)], "value", failed) + "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * (len(HEAD) - 1)}}}",
            r"\toprule",
            " & ".join(plain_latex(cell) for cell in HEAD) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{title}{plain_latex(note_of_differences(tests))}}}",
            r"\end{table}",
            "",
        ]
    )


@command
def main() -> None:
    given = arguments(command_line("benchmark.output.ablations", __doc__), out="ablations")
    files: dict[str, str] = {}
    for asked in given.factors:
        factor, failed = without_failed(asked, given.results)
        collected = read_runs(factor, given.results)
        frame, tests = tables_of(factor, collected)
        files |= {f"{factor.name}.csv": csv(frame), f"{factor.name}.tests.csv": csv(tests)}
        files[f"{factor.name}.md"] = as_markdown(factor, frame, tests, failed)
        files[f"{factor.name}.tex"] = as_latex(factor, frame, tests, failed)
    for name, text in files.items():
        write_text(given.out / name, text)


if __name__ == "__main__":
    main()
