"""What each row of the tables cost: data, settings, time, text and memory of its runs.

Seconds are wall-clock on the machine that the page names; jobs side by side slow each other down, so that small
differences mean nothing. How long a row waited for a core is said beside them.
"""

import numpy as np
import pandas as pd

from benchmark.analysis.collect import Collected


def costs(results: Collected) -> pd.DataFrame:
    """The frame of {dataset}.costs.csv, a row per method: dataset, method, seeds, and what its runs cost (float64)."""
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
                # NaN where no run knows it
                "waited": np.mean([run.waited for run in runs if run.waited is not None] or [np.nan]),
            }
        )
    return pd.DataFrame(rows)
