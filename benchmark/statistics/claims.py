"""Judge each claim of a config by finished ablations: `python -m benchmark.statistics.claims`.

The workflow calls this for the section `ablations` of a config, and writes --factors itself. By hand: `snakemake
ablations`.

The folder gets claims.csv (`benchmark.statistics.files`). A claim names two values of a factor, a metric and what it
expects. Its test is that of the tables (paired, over users; `benchmark.analysis.significance`), Holm-corrected over all
claims of the config. The verdict:

- `higher` or `lower` is expected: "supports" where the corrected p is below 0.05 and the difference has the expected
  sign, "contradicts" where it is below 0.05 and the difference has the other sign;
- `equal` is expected: "supports" where the whole 95 % interval of the difference lies within the margin that the claim
  sets beforehand, as a share of the mean of `against`; "contradicts" where it lies outside on one side and the
  corrected p is below 0.05. A small p alone contradicts nothing, as it says that the difference isn't 0 and not that it
  is beyond the margin; a large one supports nothing. The interval isn't corrected for the number of claims;
- "can't tell" in every other case, and in place of any verdict that rests on p where several seeds were run and their
  differences don't all have one sign.

- "not judged" where a run of one of the two values has failed, with the failure in the column `why`. Such a claim
  counts in Holm's correction with p = 1.

Users are the units of every test: it says whether these trained models differ on other users, not whether other
trainings would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.arguments import factors_arguments
from benchmark.analysis.collect import Collected
from benchmark.analysis.comparisons import Comparison, comparisons
from benchmark.config.factors import Factor
from benchmark.config.schema import ClaimConfig
from benchmark.errors import command, command_line
from benchmark.metrics import METRICS
from benchmark.statistics.ablations import comparable, read_runs, without_failed
from benchmark.statistics.files import CLAIMS, write_csv

SUPPORTS, CONTRADICTS, CANT_TELL, NOT_JUDGED = "supports", "contradicts", "can't tell", "not judged"
COLUMNS = (  # of claims.csv
    *(
        "factor",
        "title",
        "dataset",
        "says",
        "value",
        "against",
        "metric",
        "expect",
        "margin",
        "verdict",
        "mean",
        "mean_against",
    ),
    *(
        "difference",
        "low",
        "high",
        "p",
        "p_holm",
        "error",
        "detectable",
        "by_seed",
        "test",
        "family_size",
        "n_cases",
        "n_users",
    ),
    *("seeds", "commit", "why"),
)


@dataclass(frozen=True)
class Measured:
    """One claim on one dataset before correction."""

    factor: Factor
    claim: ClaimConfig
    results: Collected
    comparison: Comparison
    by_seed: np.ndarray  # float64 [seeds], difference of each seed


@dataclass(frozen=True)
class NotJudged:
    """One claim on one dataset of which a run has failed."""

    factor: Factor
    claim: ClaimConfig
    dataset: str
    why: str


def measure(factors: list[Factor], results: Path) -> list[Measured | NotJudged]:
    """Every claim on every dataset of its factor, in the config's order; a factor's claims that can't be judged come
    last.
    """
    family = sum(len(factor.exploratory) * len(factor.datasets) for factor in factors)
    out: list[Measured | NotJudged] = []
    for whole_factor in factors:
        factor, failed = without_failed(whole_factor, results)
        if comparable(factor) and factor.exploratory:
            out += _measured(factor, results, family)
        for claim in whole_factor.exploratory:
            claim_failures = failed[failed.value.isin([claim.value, claim.against])]
            reasons = "; ".join(
                f"{row.value} failed on {row.dataset}: {row.why}" for row in claim_failures.itertuples()
            )
            out += [NotJudged(whole_factor, claim, dataset, reasons) for dataset in whole_factor.datasets if reasons]
    return out


def _measured(factor: Factor, results: Path, family: int) -> list[Measured | NotJudged]:
    """The claims of one factor on its datasets; family: how many claims are judged in all."""
    out: list[Measured | NotJudged] = []
    pairs = list(dict.fromkeys((factor.runs[c.value], factor.runs[c.against]) for c in factor.exploratory))
    for collected in read_runs(factor, results):
        every = {(c.metric, c.a, c.b): c for c in comparisons(collected, pairs, family)}
        for claim in factor.exploratory:
            a, b = factor.runs[claim.value], factor.runs[claim.against]
            row = METRICS.index(claim.metric)
            means = [collected.values[collected.methods.index(run)][row].mean(axis=-1) for run in (a, b)]
            comparison = every[claim.metric, a, b]
            out.append(Measured(factor, claim, collected, comparison, means[0] - means[1]))
    return out


def verdict(claim: ClaimConfig, comparison: Comparison, by_seed: np.ndarray, p_holm: float) -> str:
    """SUPPORTS, CONTRADICTS or CANT_TELL, by the rule at the top of this file."""
    if claim.margin is not None:
        margin = claim.margin * comparison.mean_b
        if -margin < comparison.low and comparison.high < margin:
            return SUPPORTS
        if comparison.low < margin and comparison.high > -margin:
            return CANT_TELL
    one_sign = bool((by_seed > 0).all() or (by_seed < 0).all())
    if p_holm >= significance.ALPHA or not one_sign:
        return CANT_TELL
    expected = {"higher": by_seed[0] > 0, "lower": by_seed[0] < 0, "equal": False}
    return SUPPORTS if expected[claim.expect] else CONTRADICTS


def judge(measured: Sequence[Measured | NotJudged]) -> pd.DataFrame:
    """One row per claim and dataset, the frame of claims.csv; Holm's correction is over all rows."""
    corrected = significance.holm([m.comparison.p if isinstance(m, Measured) else 1.0 for m in measured])
    rows = []
    for m, p_holm in zip(measured, corrected.tolist(), strict=True):
        claim = m.claim
        row: dict[str, object] = {"factor": m.factor.name, "title": m.factor.title, "says": claim.says}
        row |= {"value": claim.value, "against": claim.against, "metric": claim.metric, "expect": claim.expect}
        row |= {"seeds": m.factor.seeds, "family_size": len(measured)}
        if isinstance(m, Measured):
            row |= {"verdict": verdict(claim, m.comparison, m.by_seed, p_holm), "p_holm": p_holm, "why": ""}
            row |= _numbers(m, len(measured))
        else:
            row |= {"dataset": m.dataset, "verdict": NOT_JUDGED, "why": m.why, "by_seed": "", "test": "", "commit": ""}
            row |= {"n_cases": 0, "n_users": 0}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _numbers(m: Measured, family: int) -> dict[str, object]:
    """What was measured of a claim."""
    claim, comparison = m.claim, m.comparison
    return {
        "dataset": m.results.dataset,
        "margin": np.nan if claim.margin is None else claim.margin * comparison.mean_b,
        "mean": comparison.mean_a,
        "mean_against": comparison.mean_b,
        "difference": comparison.mean_a - comparison.mean_b + 0.0,
        "low": comparison.low,
        "high": comparison.high,
        "p": comparison.p,
        "error": comparison.error,
        "detectable": significance.smallest_detectable(comparison.error, family),
        "by_seed": " ".join(f"{difference:+.6f}" for difference in m.by_seed),
        "test": comparison.test,
        "n_cases": len(m.results.cases),
        "n_users": m.results.n_users,
        "commit": " ".join(m.results.commits),
    }


@command
def main() -> None:
    args = factors_arguments(command_line("benchmark.statistics.claims", __doc__))
    write_csv(args.out / CLAIMS, judge(measure(args.factors, args.results)))


if __name__ == "__main__":
    main()
