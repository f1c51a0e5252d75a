"""Say what finished ablations tell about each claim of a config: `python -m benchmark.output.claims`.

The workflow calls this for the section `ablations` of a config, and writes --factors itself. By hand: `snakemake ablations`.

The folder gets claims.csv and the page claims.md. A claim names two values of a factor, a metric and what it expects. Its test is
that of the tables (paired, over users; `benchmark.analysis.significance`), Holm-corrected over all claims of the page. The verdict:

- `higher` or `lower` is expected: "supports" where p, corrected, is below 0.05 and the difference has the expected sign,
  "contradicts" where it is below 0.05 and has the other sign;
- `equal` is expected: "supports" where the whole 95 % interval of the difference lies within the margin that the claim sets
  beforehand, as a share of the mean of `against`; "contradicts" where it lies outside on one side and p, corrected, is below
  0.05. A small p alone contradicts nothing, as it says that the difference isn't 0 and not that it is beyond the margin; a
  large one supports nothing. The interval isn't corrected for the number of claims;
- "can't tell" in every other case, and in place of any verdict that rests on p where several seeds were run and their
  differences don't all have one sign.

Users are the units of every test: it says whether these trained models differ on other users, not whether other trainings would.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmark.analysis import significance
from benchmark.analysis.collect import Collected
from benchmark.analysis.comparisons import Comparison, comparisons
from benchmark.config.factors import Factor, arguments
from benchmark.config.schema import ClaimConfig
from benchmark.errors import command, command_line
from benchmark.metrics import METRICS
from benchmark.output.ablations import in_words, read_runs, without_failed
from benchmark.output.forms import csv, plain_markdown
from benchmark.storage.io import write_text

SUPPORTS, CONTRADICTS, CANT_TELL = "supports", "contradicts", "can't tell"
EXPECTATION = {"higher": "higher than", "lower": "lower than", "equal": "no other than"}
RULE = (
    "A claim that expects a difference is supported where p, Holm-corrected over all claims here, is below "
    f"{significance.ALPHA} and the difference has the expected sign, and contradicted where it has the other one. A claim "
    "that expects none is supported where the whole 95 % interval, which isn't corrected for the number of claims, lies within "
    "the margin that was set beforehand, a share of the second mean, and contradicted where it lies outside on one side and p "
    "is below that. In all other cases, and where several seeds disagree about the sign, "
    "the data can't tell, which is not evidence of no difference: the smallest detectable difference says what could have "
    f"been seen (power {100 * significance.POWER:.0f} %, at the level of Holm's first step). Two-sided paired tests over "
    "users, as in the tables. Users are their units: they say whether these trained models differ on other users, not "
    "whether other trainings would; where there are several seeds, each one's difference is given. The claims are about "
    "other models, data and budgets than those that were run here: what is said holds at this scale."
)


@dataclass(frozen=True)
class Measured:
    """One claim on one dataset before correction."""

    factor: Factor
    claim: ClaimConfig
    results: Collected
    found: Comparison
    by_seed: np.ndarray  # float64 [seeds], difference of each seed


def measure(factors: list[Factor], results: Path) -> list[Measured]:
    """Every claim on every dataset of its factor, in the config's order."""
    family = sum(len(factor.exploratory) * len(factor.datasets) for factor in factors)
    out = []
    for asked in factors:
        factor, _ = without_failed(asked, results)
        if not factor.exploratory:
            continue
        pairs = list(dict.fromkeys((factor.runs[c.value], factor.runs[c.against]) for c in factor.exploratory))
        for collected in read_runs(factor, results):
            every = {(c.metric, c.a, c.b): c for c in comparisons(collected, pairs, family)}
            for claim in factor.exploratory:
                a, b = factor.runs[claim.value], factor.runs[claim.against]
                row = METRICS.index(claim.metric)
                means = [collected.values[collected.methods.index(run)][row].mean(axis=-1) for run in (a, b)]
                found = every[claim.metric, a, b]
                out.append(Measured(factor, claim, collected, found, means[0] - means[1]))
    return out


def verdict(claim: ClaimConfig, found: Comparison, by_seed: np.ndarray, p_holm: float) -> str:
    """SUPPORTS, CONTRADICTS or CANT_TELL, by the rule at the top of this file."""
    if claim.margin is not None:
        margin = claim.margin * found.mean_b
        if -margin < found.low and found.high < margin:
            return SUPPORTS
        if found.low < margin and found.high > -margin:
            return CANT_TELL
    one_sign = bool((by_seed > 0).all() or (by_seed < 0).all())
    if p_holm >= significance.ALPHA or not one_sign:
        return CANT_TELL
    expected = {"higher": by_seed[0] > 0, "lower": by_seed[0] < 0, "equal": False}
    return SUPPORTS if expected[claim.expect] else CONTRADICTS


def judge(measured: list[Measured]) -> pd.DataFrame:
    """One row per claim and dataset, the frame of claims.csv; Holm's correction is over all rows."""
    rows = []
    corrected = significance.holm([m.found.p for m in measured])
    for m, p_holm in zip(measured, corrected.tolist(), strict=True):
        claim, found = m.claim, m.found
        rows.append(
            {
                "factor": m.factor.name,
                "title": m.factor.title,
                "dataset": m.results.dataset,
                "says": claim.says,
                "value": claim.value,
                "against": claim.against,
                "metric": claim.metric,
                "expect": claim.expect,
                "margin": np.nan if claim.margin is None else claim.margin * found.mean_b,
                "verdict": verdict(claim, found, m.by_seed, p_holm),
                "mean": found.mean_a,
                "mean_against": found.mean_b,
                "difference": found.mean_a - found.mean_b + 0.0,
                "low": found.low,
                "high": found.high,
                "p": found.p,
                "p_holm": p_holm,
                "error": found.error,
                "detectable": significance.smallest_detectable(found.error, len(measured)),
                "by_seed": " ".join(f"{difference:+.6f}" for difference in m.by_seed),
                "test": found.test,
                "family_size": len(measured),
                "n_cases": len(m.results.cases),
                "n_users": m.results.n_users,
                "seeds": m.factor.seeds,
                "commit": " ".join(m.results.commits),
            }
        )
    return pd.DataFrame(rows)


def read_claims(path: Path) -> pd.DataFrame:
    """claims.csv as `judge` made it, but for rounding; labels stay text."""
    text = dict.fromkeys(("value", "against", "by_seed", "says", "title"), str)
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])


def sentences(row: dict) -> str:
    """What the data say about one claim, from a row of `judge`."""
    claimed = f'"{row["value"]}" {EXPECTATION[row["expect"]]} "{row["against"]}"'
    margin = "" if np.isnan(row["margin"]) else f", to within {row['margin']:.4f}"
    seeds = [float(text) for text in row["by_seed"].split()]
    difference = f"{row['difference']:+.4f}{share(row['difference'], row)}"
    text = (
        f"Expected: {row['metric']} of {claimed}{margin}. Found on {row['dataset']} ({row['n_cases']:,} cases of "
        f"{row['n_users']:,} users, {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}): {row['mean']:.4f} against "
        f"{row['mean_against']:.4f}, a difference of {difference} with the 95 % interval [{row['low']:+.4f}, "
        f"{row['high']:+.4f}], p = {row['p']:.2g}, {row['p_holm']:.2g} after Holm's correction over {row['family_size']} claims. "
    )
    if len(seeds) > 1:
        spread = float(np.std(seeds, ddof=1))
        text += f"By seed: {', '.join(f'{seed:+.4f}' for seed in seeds)} (sd {spread:.4f}). "
    else:
        text += "One seed: how much another training would differ is not known. "
    if np.isnan(row["detectable"]):
        return (
            text + "The two gave every user the same value, so that nothing can be said of what could have been seen."
        )
    detectable = f"{in_words(row['detectable'])}{share(row['detectable'], row, sign='')}"
    return text + f"The smallest difference that would have been found: {detectable}."


def share(value: float, row: dict, sign: str = "+") -> str:
    """A difference as a share of the mean that it is held against, in brackets; nothing where that is 0."""
    return f" ({value / row['mean_against']:{sign}.0%})" if row["mean_against"] > 0 else ""


def as_markdown(frame: pd.DataFrame) -> str:
    """The page: a table of verdicts, then each claim in sentences."""
    head = ["claim", "verdict", "difference", "95 % interval", "p, Holm", "smallest detectable"]
    table, text = [head, [":--", ":--", *["--:"] * 4]], []
    several = frame.dataset.nunique() > 1
    for number, row in enumerate(frame.to_dict("records"), 1):
        where = f" ({row['dataset']})" if several else ""
        interval = f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        claim = plain_markdown(row["says"])
        table.append(
            [
                f"{number}. {claim}{plain_markdown(where)}",
                f"**{row['verdict']}**",
                f"{row['difference']:+.4f}",
                interval,
            ]
        )
        table[-1] += [f"{row['p_holm']:.2g}", in_words(row["detectable"])]
        heading = f"## {number}. {plain_markdown(row['title'] + where)}: {row['verdict']}"
        text.append(f"{heading}\n\n{claim}\n\n{plain_markdown(sentences(row))}")
    lines = "\n".join(f"| {' | '.join(line)} |" for line in table)
    return "\n\n".join(["# What the data here say about each claim", lines, RULE, *text]) + "\n"


@command
def main() -> None:
    given = arguments(command_line("benchmark.output.claims", __doc__), out="ablations")
    measured = measure(given.factors, given.results)
    if not measured:
        files = {"claims.csv": "", "claims.md": "No factor of the config has claims that are judged here.\n"}
    else:
        frame = judge(measured)
        files = {"claims.csv": csv(frame), "claims.md": as_markdown(frame)}
    for name, text in files.items():
        write_text(given.out / name, text)


if __name__ == "__main__":
    main()
