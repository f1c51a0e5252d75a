"""The numbers of a table, one row per method, with intervals over users."""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.collect import Collected
from benchmark.analysis.comparisons import AGAINST_BEST
from benchmark.analysis.lists import repeated
from benchmark.jobs.records import RunRecord
from benchmark.metrics import METRICS
from benchmark.provenance import derive_seed


def summarise(
    results: Collected,
    tests: pd.DataFrame,
    family: str = AGAINST_BEST,
    reference: str | None = None,
    bounds: tuple[np.ndarray, np.ndarray] | None = None,
) -> pd.DataFrame:
    """One row per method: the frame that every form of the table is made from.

    reference: what this family of `tests` is against; None: the best baseline. bounds: `intervals` of all cases, where
    they are known. Columns: dataset, method, best_baseline (the reference, or ""), n_cases, n_users, seeds,
    family_size, commit; those of `made_of` and of `background`; and per metric m the mean `m`, `m_sd` over seeds
    (ddof 1; NaN for one seed), `m_low` and `m_high` (95 % bootstrap interval over users) and `m_p_holm`, the method's
    test in the family as method_a (NaN where it has none, as the reference). Rounded here, once, to what the tables'
    csv prints.
    """
    low, high = intervals(results) if bounds is None else bounds
    reference = (results.best_baseline or "") if reference is None else reference
    against = tests[tests.family == family]
    beside = background(results).to_dict("records")
    rows = []
    for i, method in enumerate(results.methods):
        row: dict[Hashable, object] = {
            "dataset": results.dataset,
            "method": method,
            "best_baseline": reference,
            "n_cases": len(results.cases),
            "n_users": results.n_users,
            "seeds": results.seeds[method],
            "family_size": len(against),
            "commit": " ".join(results.commits),
            **made_of(results.records_of(method)),
            **beside[i],
        }
        for j, metric in enumerate(METRICS):
            by_seed = results.values[i][j].mean(axis=-1)
            test = against[(against.method_a == method) & (against.metric == metric)]
            row[metric] = round(float(by_seed.mean()), 6)
            row[f"{metric}_sd"] = round(float(by_seed.std(ddof=1)), 6) if len(by_seed) > 1 else np.nan
            row[f"{metric}_low"], row[f"{metric}_high"] = round(float(low[j, i]), 6), round(float(high[j, i]), 6)
            row[f"{metric}_p_holm"] = float(test.p_holm.iloc[0]) if len(test) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


UNRECORDED = "unrecorded"


def made_of(records: Sequence[RunRecord]) -> dict[Hashable, str]:
    """The code that made the runs of a row: `version` and `code`.

    version: what its method declares, such as "r2ec 1, states 1"; "" where it declares nothing or the runs differ.
    code: the distinct hashes, 12 digits each, with a space between several.
    """
    stages = [record.stages for record in records]
    same = all(versions == stages[0] for versions in stages)
    version = ", ".join(f"{name} {number}" for name, number in sorted(stages[0].items())) if same else ""
    return {"version": version, "code": " ".join(sorted({record.code[:12] or UNRECORDED for record in records}))}


def background(results: Collected) -> pd.DataFrame:
    """What `captions.background` says, one row per method.

    Columns: dataset, method, n_cases; learned_users, learned_targets, learned_positions (means over seeds, which differ
    in a row with less_information alone, as where each seed draws a sample of its own), settings_tried,
    settings_undecided (1 where all of them had the same value on the validation cases, else 0), less_information (the
    reason, where the row learned from less than the others; else ""); distinct_items in the top 20 of all cases, and
    three_items_share, the share of all places there that the three commonest items take; and of the dataset n_items,
    cold_targets (test cases whose target training never shows) and hidden_share (of the interactions, as
    `equal_times.hidden` counts them).
    """
    counts = results.about["counts"]
    rows = []
    for method in results.methods:
        learned = [record.learned for record in results.records_of(method)]
        tuning, lists = results.records[method, 1].tuning, repeated(results, method)
        rows.append(
            {
                "dataset": results.dataset,
                "method": method,
                "n_cases": len(results.cases),
                "learned_users": round(float(np.mean([amount.users for amount in learned]))),
                "learned_targets": round(float(np.mean([amount.targets for amount in learned]))),
                "learned_positions": round(float(np.mean([amount.positions for amount in learned]))),
                "settings_tried": len(tuning.trials) if tuning else 1,
                "settings_undecided": int(tuning is not None and tuning.undecided),
                "less_information": results.less_information.get(method, ""),
                "distinct_items": round(lists.distinct_items),
                "three_items_share": round(lists.three_items_share, 6),
                "n_items": counts["items"],
                "cold_targets": counts["cold_targets_test"],
                "hidden_share": round(counts["interactions_hidden"] / counts["interactions"], 6),
            }
        )
    return pd.DataFrame(rows)


def intervals(results: Collected) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap intervals of metric means over all cases: [metrics, methods] each.

    A case's value is its mean over the method's seeds; users are resampled, so the interval holds the spread over users
    and not the spread over seeds.
    """
    low, high = significance.interval(resampled(results, np.arange(len(results.cases)), range(len(METRICS))))
    shape = len(METRICS), len(results.methods)
    return low.reshape(shape), high.reshape(shape)


def resampled(results: Collected, rows: np.ndarray, metrics: Sequence[int]) -> np.ndarray:
    """Means of the cases `rows` (int) under resampling of users, float64 [resamples, metrics x methods].

    metrics: their places in METRICS.
    """
    values = results.case_means[list(metrics)][..., rows].reshape(-1, len(rows))
    sums, counts = significance.user_sums(values, results.cases.user[rows])
    return significance.bootstrap_means(sums, counts, derive_seed("bootstrap", results.dataset))
