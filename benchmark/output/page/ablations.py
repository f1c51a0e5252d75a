"""The ablations' part of the page, from their statistics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmark.config.factors import Factor
from benchmark.metrics import METRICS
from benchmark.output.ablations import CURVES, as_numbers, curve, note_of_differences, notes, order_of
from benchmark.output.claims import RULE, cannot_be_judged, expected, found
from benchmark.output.page.pairs import digits, rounded
from benchmark.statistics.files import FactorStatistics

CLAIM = ["factor", "says", "metric", "value", "against", "expect"]  # what a claim says, whatever the dataset


def part_of(factor: Factor, statistics: FactorStatistics) -> dict[str, Any]:
    """Everything that the page shows of one factor."""
    factor = factor.without(set(statistics.failed["value"]))
    failed = [f"{row.value} failed on {row.dataset}: {row.why}" for row in statistics.failed.itertuples()]
    comparable = len(statistics.values) > 0
    return {
        "name": factor.name,
        "title": factor.title,
        "base": factor.base,
        "numeric": as_numbers(list(factor.runs)) is not None,
        "seeds": factor.seeds,
        "failed": failed if comparable else [f"There is nothing to compare: {reason}" for reason in failed],
        "notes": [*notes(statistics.values), note_of_differences(statistics.tests)] if comparable else [],
        "datasets": [
            {
                "name": dataset,
                "values": _values(factor, statistics, dataset),
                "curves": _curves(factor, statistics, dataset),
            }
            for dataset in (factor.datasets if comparable else ())
        ],
    }


def _values(factor: Factor, statistics: FactorStatistics, dataset: str) -> list[dict[str, Any]]:
    """Every value in the order of a plot: its means, and its differences from the base (None for the base itself)."""
    rows = statistics.values[statistics.values.dataset == dataset].set_index("value").to_dict("index")
    apart = statistics.tests[statistics.tests.dataset == dataset]
    out = []
    for label in order_of(factor):
        row, differences = rows[label], apart[apart.value == label].set_index("metric")
        value: dict[str, Any] = {"label": label, "difference": None}
        value |= {"mean": [digits(row[m]) for m in METRICS], "sd": [digits(row[f"{m}_sd"]) for m in METRICS]}
        value |= {side: [digits(row[f"{m}_{side}"]) for m in METRICS] for side in ("low", "high")}
        if len(differences):
            differences = differences.loc[METRICS]
            names = ("difference", "low", "high", "detectable")
            value["difference"] = {name: rounded(differences[name].to_numpy(float)) for name in names}
            value["difference"] |= {name: differences[name].tolist() for name in ("p", "p_holm")}
        out.append(value)
    return out


def _curves(factor: Factor, statistics: FactorStatistics, dataset: str) -> list[dict[str, Any]]:
    """A panel of training curves per entry of CURVES: by label the steps, and mean, lowest and highest over seeds.

    A panel that no run logged is left out.
    """
    labels = [label for label in order_of(factor) if factor.runs[label] not in factor.scored]
    panels = []
    for key, title in CURVES.items():
        lines = []
        for label in labels:
            steps, values = curve(statistics, dataset, label, key)
            if len(steps) > 1:
                ends = {"low": rounded(values.min(axis=0)), "high": rounded(values.max(axis=0))}
                lines.append({"label": label, "step": steps.tolist(), "mean": rounded(values.mean(axis=0)), **ends})
        if any(line["label"] != factor.base for line in lines):
            panels.append({"title": title, "lines": lines})
    return panels


def claims(frame: pd.DataFrame) -> dict[str, Any] | None:
    """The exploratory claims with their verdicts and sentences, from claims.csv; None where no factor has any."""
    if not len(frame):
        return None
    shown = ("title", "factor", "dataset", "says", "verdict", "metric", "seeds")
    numbers = ("difference", "low", "high", "p_holm", "detectable", "margin")
    numbers_of_claims = frame.groupby(CLAIM, sort=False).ngroup()  # their places in the list of sentences
    out = [
        {name: row[name] for name in shown}
        | {name: digits(float(row[name])) for name in numbers}
        | {"missing": row["why"], "claim": int(claim)}
        for row, claim in zip(frame.to_dict("records"), numbers_of_claims, strict=True)
    ]
    return {"rule": RULE, "rows": out, "sentences": claims_in_sentences(frame)}


def claims_in_sentences(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Each claim once: what it expects, and a line with a verdict for what was found on each dataset.

    Datasets on which it can't be judged for one and the same reason share a line.
    """
    out = []
    for _, of_claim in frame.groupby(CLAIM, sort=False):
        rows = of_claim.to_dict("records")
        lines: list[list[str]] = []
        reasons: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            if row["why"]:
                reasons.setdefault((row["why"], row["verdict"]), []).append(row["dataset"])
                continue
            margin = "" if np.isnan(row["margin"]) else f"Margin {row['margin']:.4f}. "
            lines.append([margin + found(row), row["verdict"]])
        lines += [[cannot_be_judged(names, why), verdict] for (why, verdict), names in reasons.items()]
        out.append({"says": rows[0]["says"], "expected": f"{expected(rows[0])}.", "lines": lines})
    return out


def registered_claims(paths: Sequence[Path]) -> dict[str, Any] | None:
    """The registered claims of the one file, as `benchmark.analysis.registered` judged them; None without one."""
    if not paths:
        return None
    frame = pd.read_csv(paths[0], keep_default_na=False, na_values=[""])
    shown = ("factor", "says", "value", "against", "statistic", "verdict", "missing", "trainings", "datasets")
    numbers = ("difference", "low", "high", "p_holm", "detectable", "margin", "smallest_effect")
    rows = [
        {name: "" if pd.isna(row[name]) else row[name] for name in shown}
        | {name: digits(float(row[name])) for name in numbers}
        for row in frame.to_dict("records")
    ]
    from benchmark.analysis import registered  # here, as few pages have such claims and its tests load scipy.stats

    return {"rule": registered.rule(frame), "rows": rows}
