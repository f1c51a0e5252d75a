"""Make the table of costs in Markdown."""

import pandas as pd

from benchmark.output.markdown import plain, table

HEADINGS = {
    "users": "users learned from",
    "targets": "targets",
    "positions": "positions",
    "settings": "settings tried",
    "fit_s": "fit, s",
    "tuning_s": "tuning, s",
    "score_s": "ranking, s",
    "tokens": "tokens written",
    "ms_batched": "ms per case, in batches",
    "ms_alone": "ms per case, alone",
    "peak_mib": "peak memory, MiB",
}
NOTE = (
    "Means over the runs of a row; what a run found on disk (states, warm starts, texts) counts with the seconds of "
    "making it. targets: training interactions that a fit predicted; positions: those that it read, in a history or as "
    "a target; settings tried: of the grid, not within a fit; fit: with the chosen setting, early stopping included; "
    "tuning: all settings tried on validation cases by repetition 1, its own fit among them; ranking: all test cases; "
    "tokens written: by an LLM while ranking; alone: median over 5 cases, one at a time, nothing taken from disk; peak "
    "memory: of the process."
)


def number(value: float) -> str:
    """A cost as the tables print it.

    >>> number(1234.5), number(0.04567), number(0.0)
    ('1,234', '0.0457', '0')
    """
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def markdown(frame: pd.DataFrame) -> str:
    """The table in GitHub's Markdown, its note below it. frame: columns of costs.csv."""
    head = ["dataset", "method", "seeds", *HEADINGS.values()]
    body = [
        [plain(row["dataset"]), plain(row["method"]), str(row["seeds"]), *(number(row[column]) for column in HEADINGS)]
        for row in frame.to_dict("records")
    ]
    return f"{table(head, body, left=2)}\n\n{NOTE}\n"
