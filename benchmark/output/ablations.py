"""Make the tables of ablations from their statistics: `python -m benchmark.output.ablations`.

The workflow calls this for the section `ablations` of a config, and writes --factors itself. By hand: `snakemake
ablations`.

Per factor the folder gets {factor}.csv, .md and .tex with every value's metrics, and {factor}.tests.csv: every value
against the base by every metric. `python -m benchmark.statistics.ablations` comes first.
"""

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.config.factors import Factor
from benchmark.config.wording import many
from benchmark.errors import command, command_line
from benchmark.metrics import METRICS
from benchmark.output.arguments import ablations_arguments
from benchmark.output.captions import backgrounds_in_words, of_different_code, runs_behind, what_it_shows
from benchmark.output.forms import csv, csv_with_failed, failed_rows, latex, latex_row, markdown, plain_latex
from benchmark.output.markdown import plain, running, table
from benchmark.statistics.ablations import AGAINST_BASE
from benchmark.statistics.files import FactorStatistics
from benchmark.storage.io import write_text

MAIN = "NDCG@10"
CURVES = {  # key in the log of a run -> title of its plot
    "reward": "reward, each run's own",
    "reward_ndcg": "R_d, its NDCG part",
    "length": "tokens per reasoning",
    "entropy": "entropy of a token, nats",
}
HEAD = ["value", "difference", "95 % interval", "p", "p, Holm", "smallest detectable"]


def notes(frame: pd.DataFrame) -> list[str]:
    """The caption of a factor's table, sentence by sentence, like `captions.notes` for the table of methods."""
    base = frame.base.iloc[0]
    out = [what_it_shows(as_rows(frame), f'the base, "{base}"', AGAINST_BASE)]
    for _, part in frame.groupby("dataset", sort=False):
        row = part.iloc[0]
        family = f"family of {row.family_size} tests ({many(len(part) - 1, 'value')} x {len(METRICS)} metrics)"
        out.append(runs_behind(as_rows(part), family))
    return out + backgrounds_in_words(as_rows(frame)) + of_different_code(as_rows(frame))


def as_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """A factor's frame as `benchmark.output.forms` takes it: the values are its rows."""
    return frame.rename(columns={"value": "method"})


def as_numbers(labels: list[str]) -> np.ndarray | None:
    """The values that the labels say, float64; None unless every one is a number.

    >>> as_numbers(["0.25", "4"]).tolist(), as_numbers(["4", "none"])
    ([0.25, 4.0], None)
    """
    try:
        return np.array([float(label) for label in labels])
    except ValueError:
        return None


def order_of(factor: Factor) -> list[str]:
    """The labels as plot and page show them: numbers ascending, others as the factor has them."""
    labels = list(factor.runs)
    numbers = as_numbers(labels)
    return labels if numbers is None else [labels[i] for i in np.argsort(numbers, kind="stable")]


def curve(statistics: FactorStatistics, dataset: str, label: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """What the trainings of a value logged under `key`: steps int64 [n] and numbers float64 [seeds, n]; n may be 0."""
    rows = statistics.curves
    rows = rows[(rows.dataset == dataset) & (rows.value == label) & (rows.key == key)]
    logged = rows.pivot(index="seed", columns="step", values="logged")
    return logged.columns.to_numpy(), logged.to_numpy()


def note_of_differences(tests: pd.DataFrame) -> str:
    """The caption of the second table: what its columns are."""
    return (
        f"{MAIN} minus the base's. Smallest detectable: the true difference that the test would find with a power of "
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


def as_markdown(factor: Factor, statistics: FactorStatistics) -> str:
    """Both tables of a factor in GitHub's Markdown, with their captions."""
    second = table(HEAD, [[plain(row[0]), *row[1:]] for row in differences(statistics.tests)])
    first = markdown(
        as_rows(statistics.values), notes(statistics.values), "value", failed_rows(statistics.failed, "value")
    )
    return f"# {plain(factor.title)}\n\n{first}\n{second}\n\n{running(note_of_differences(statistics.tests))}\n"


def why_nothing(statistics: FactorStatistics) -> str:
    """Why a factor has no table, in one sentence."""
    reasons = "; ".join(f"{row.value} failed on {row.dataset}: {row.why}" for row in statistics.failed.itertuples())
    return f"Nothing to compare: {reasons}"


def nothing_left(factor: Factor, statistics: FactorStatistics) -> str:
    """What stands in the place of the tables of a factor whose base, or every other value, has failed."""
    return f"# {plain(factor.title)}\n\n{plain(why_nothing(statistics))}\n"


def as_latex(factor: Factor, statistics: FactorStatistics) -> str:
    """Both tables of a factor as LaTeX; needs booktabs and graphicx."""
    body = [latex_row(map(plain_latex, row)) for row in differences(statistics.tests)]
    title = plain_latex(f"{factor.title}. ")
    frame, failed = statistics.values, failed_rows(statistics.failed, "value")
    return latex(as_rows(frame), [f"{factor.title}.", *notes(frame)], "value", failed) + "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * (len(HEAD) - 1)}}}",
            r"\toprule",
            latex_row(map(plain_latex, HEAD)),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{title}{plain_latex(note_of_differences(statistics.tests))}}}",
            r"\end{table}",
            "",
        ]
    )


@command
def main() -> None:
    args = ablations_arguments(command_line("benchmark.output.ablations", __doc__))
    files: dict[str, str] = {}
    for factor in args.factors:
        statistics = FactorStatistics.read(args.statistics, factor.name)
        comparable = len(statistics.values) > 0
        files[f"{factor.name}.csv"] = csv_with_failed(statistics.values, statistics.failed)
        files[f"{factor.name}.tests.csv"] = csv(statistics.tests)
        files[f"{factor.name}.md"] = as_markdown(factor, statistics) if comparable else nothing_left(factor, statistics)
        files[f"{factor.name}.tex"] = (
            as_latex(factor, statistics) if comparable else plain_latex(why_nothing(statistics)) + "\n"
        )
    for name, text in files.items():
        write_text(args.out / name, text)


if __name__ == "__main__":
    main()
