"""What each row of the tables cost: data, settings, time, text and memory of its runs.

`python -m benchmark.output.tables` writes it with the tables.

Seconds are wall-clock on the machine that the page names; jobs side by side slow each other down, so that small
differences mean nothing.
"""

import numpy as np
import pandas as pd

from benchmark.analysis.collect import Collected

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
    "Means over the runs of a row; what a run found on disk (states, warm starts, texts) counts with the seconds of making "
    "it. targets: training interactions that a fit predicted; positions: those that it read, in a history or as a target; "
    "settings tried: of the grid, not within a fit; fit: with the chosen setting, early stopping included; tuning: all settings "
    "tried on validation cases by repetition 1, its own fit among them; ranking: all test cases; tokens written: by an LLM "
    "while ranking; alone: median over 5 cases, one at a time, nothing taken from disk; peak memory: of the process."
)


def costs(results: Collected) -> pd.DataFrame:
    """One row per method: dataset, method, seeds, and the columns of HEADINGS (float64)."""
    rows = []
    for method in results.methods:
        runs = results.records_of(method)
        tuning = runs[0].tuning
        rows.append(
            {
                "dataset": results.dataset,
                "method": method,
                "seeds": len(runs),
                "users": np.mean([run.learned.users for run in runs]),
                "targets": np.mean([run.learned.targets for run in runs]),
                "positions": np.mean([run.learned.positions for run in runs]),
                "settings": float(len(tuning.trials) if tuning else 1),
                "fit_s": np.mean([run.seconds.fit for run in runs]),
                "tuning_s": sum(trial.seconds for trial in tuning.trials) if tuning else 0.0,
                "score_s": np.mean([run.seconds.score for run in runs]),
                "tokens": np.mean([run.tokens_written for run in runs]),
                "ms_batched": np.mean([run.latency_ms_per_case for run in runs]),
                "ms_alone": np.mean([run.latency_ms_alone for run in runs]),
                "peak_mib": np.mean([run.peak_memory_mib for run in runs]),
            }
        )
    return pd.DataFrame(rows)


def number(value: float) -> str:
    """A cost as the tables print it.

    >>> number(1234.5), number(0.04567), number(0.0)
    ('1,234', '0.0457', '0')
    """
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def markdown(frame: pd.DataFrame) -> str:
    """The table in GitHub's Markdown, its note below it."""

    head = ["dataset", "method", "seeds", *HEADINGS.values()]
    lines = [head, [":--", ":--", *["--:"] * (len(HEADINGS) + 1)]]
    for row in frame.to_dict("records"):
        method = row["method"].replace("_", "\\_")
        lines.append([row["dataset"], method, str(row["seeds"]), *(number(row[column]) for column in HEADINGS)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{NOTE}\n"
