"""Judge the registered claims: `python -m benchmark.analysis.registered --config config/claims.yaml`.

A registered claim has a `smallest_effect` in its config, beside statistic, datasets and number of trainings. It is
judged once, over all datasets of its factor, each of the same weight, and all its trainings, by the test over users and
trainings (`benchmark.analysis.trainings`). Training s of both values has the same random numbers, so that trainings are
paired; those of two rows only where the rows have one random stream (a method's STREAM). Holm's correction is over the
whole registered family; a claim whose runs are missing counts in it with p = 1.
Verdicts, in this order:

- "not run": a run is missing, or was made at a commit whose config had another claim, or none;
- "no effect worth having": the whole 95 % interval lies within the smallest effect, which is a share of the mean of
  `against`. For a claim that expects `equal` the verdict is then "supports";
- "supports", "contradicts": the corrected p is below 0.05, and the difference has the expected sign or the other one.
  A claim that expects `equal` is contradicted where, besides, the interval lies outside the smallest effect;
- "can't tell" in every other case: the smallest detectable difference says what could have been seen.

The folder --out gets registered.csv, a row per claim; registered.datasets.csv, a row per claim and dataset, whose p are
not corrected and judge nothing; and registered.md.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError

from benchmark.analysis import significance
from benchmark.analysis.collect import collect, failures
from benchmark.analysis.trainings import USERS, Components, Judged, components, judge
from benchmark.config.factors import Factor, ablations_of
from benchmark.config.read import read_config_file
from benchmark.config.schema import ClaimConfig
from benchmark.errors import InputError, command, command_line
from benchmark.metrics import statistic
from benchmark.output.markdown import plain, table
from benchmark.provenance import ROOT
from benchmark.storage.io import write_text

NOT_RUN, NOT_WORTH = "not run", "no effect worth having"
SUPPORTS, CONTRADICTS, CANT_TELL = "supports", "contradicts", "can't tell"


@dataclass(frozen=True)
class OnDataset:
    """A claim on one dataset."""

    dataset: str
    mean: float
    mean_against: float
    by_training: np.ndarray  # float64 [trainings]
    parts: Components
    n_cases: int
    n_users: int
    commits: list[str]
    seconds: float  # of fitting and ranking, all runs of both values


@dataclass(frozen=True)
class Measured:
    """A registered claim with its measurements on each dataset, or the reason why there are none."""

    factor: Factor
    claim: ClaimConfig
    datasets: list[OnDataset]
    missing: str  # why there are no measurements; "" where all runs are there


def registered(factors: Sequence[Factor]) -> list[tuple[Factor, ClaimConfig]]:
    """The claims that are registered, in the config's order."""
    return [(factor, claim) for factor in factors for claim in factor.claims if claim.smallest_effect is not None]


def measure(factor: Factor, claim: ClaimConfig, results: Path, config: str) -> Measured:
    """Read a claim's runs. Raises InputError for runs that are there and can't be compared, as `collect` does."""
    runs = (factor.runs[claim.value], factor.runs[claim.against])
    expected = [
        results / "runs" / dataset / run / f"seed{seed}" / "run.json"
        for dataset in factor.datasets
        for run in runs
        for seed in range(1, factor.seeds + 1)
    ]
    present = sum(path.exists() for path in expected)
    if present < len(expected):
        return Measured(factor, claim, [], f"{present} of {len(expected)} runs are there")
    for dataset in factor.datasets:
        for run, failed in failures(results / "runs" / dataset, dict.fromkeys(runs, factor.seeds)).items():
            reason = f"{factor.labels[run]} failed on {dataset}: {failed.failed} (log: {failed.log})"
            return Measured(factor, claim, [], reason)
    datasets = [_on_dataset(factor, claim, results, dataset, runs) for dataset in factor.datasets]
    commits = sorted({commit for on_dataset in datasets for commit in on_dataset.commits})
    if unregistered := [commit for commit in commits if not was_registered(claim, commit, config)]:
        return Measured(factor, claim, [], f"commit {unregistered[0][:10]} of its runs had no such claim")
    return Measured(factor, claim, datasets, "")


def _on_dataset(factor: Factor, claim: ClaimConfig, results: Path, dataset: str, runs: tuple[str, str]) -> OnDataset:
    settings = {run: factor.settings[run] for run in runs if run in factor.settings}
    reasons = {run: why for run, why in factor.less_information.items() if run in runs}
    read = collect(results, dataset, dict.fromkeys(runs, factor.seeds), settings, reasons)
    first, second = (statistic(claim.metric, ranks) for ranks in read.ranks)
    return OnDataset(
        dataset=dataset,
        mean=float(first.mean()),
        mean_against=float(second.mean()),
        by_training=first.mean(axis=1) - second.mean(axis=1),
        parts=components(
            first, second, read.cases.user, shared=factor.share_random_numbers(claim.value, claim.against)
        ),
        n_cases=len(read.cases),
        n_users=read.n_users,
        commits=read.commits,
        seconds=sum(record.seconds.fit + record.seconds.score for record in read.records.values()),
    )


@cache
def _config_at(commit: str, config: str) -> str:
    command = ["git", "show", f"{commit}:{config}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def was_registered(claim: ClaimConfig, commit: str, config: str) -> bool:
    """Whether the config at a commit had this claim, word for word.

    Uncommitted changes don't count. False for a commit that this repository doesn't have.
    """
    text = _config_at(commit.removesuffix("-dirty"), config)
    try:
        value = yaml.safe_load(text) if text else None
    except (yaml.YAMLError, ValueError, RecursionError):  # that commit had no config there that could be run
        return False
    factors = value.get("ablations") if isinstance(value, dict) else None
    parts = [factor.get("claims") for factor in _values(factors) if isinstance(factor, dict)]
    return any(_is(claim, entry) for entries in parts if isinstance(entries, list) for entry in entries)


def _values(section: Any) -> list[Any]:
    return list(section.values()) if isinstance(section, dict) else []


def _is(claim: ClaimConfig, entry: Any) -> bool:
    """Whether an entry of a config, perhaps of a schema that is no more, is this claim."""
    try:
        return ClaimConfig.model_validate(entry) == claim
    except ValidationError:
        return False


def verdict(claim: ClaimConfig, judged: Judged, margin: float, p_holm: float) -> str:
    """By the rules at the top of this file. margin: the smallest effect in units of the statistic."""
    if -margin < judged.low and judged.high < margin:
        return SUPPORTS if claim.expect == "equal" else NOT_WORTH
    if p_holm >= significance.ALPHA:
        return CANT_TELL
    if claim.expect == "equal":
        return CONTRADICTS if judged.low > margin or judged.high < -margin else CANT_TELL
    return SUPPORTS if (judged.difference > 0) == (claim.expect == "higher") else CONTRADICTS


def verdicts(claims: Sequence[Measured]) -> pd.DataFrame:
    """One row per claim, the frame of registered.csv; numbers are empty where it wasn't run."""
    judgements = [
        judge([on_dataset.parts for on_dataset in measured.datasets]) if measured.datasets else None
        for measured in claims
    ]
    corrected = significance.holm([judgement.p if judgement else 1.0 for judgement in judgements]).tolist()
    rows = []
    for measured, judgement, p_holm in zip(claims, judgements, corrected, strict=True):
        claim, parts = measured.claim, measured.datasets
        assert claim.smallest_effect is not None
        row: dict[str, object] = {"factor": measured.factor.name, "says": claim.says, "value": claim.value}
        row |= {"against": claim.against, "statistic": claim.metric, "expect": claim.expect}
        row |= {"smallest_effect": claim.smallest_effect, "trainings": measured.factor.seeds}
        row |= {"datasets": " ".join(measured.factor.datasets), "verdict": NOT_RUN, "missing": measured.missing}
        if judgement is not None:
            mean = float(np.mean([part.mean_against for part in parts]))
            margin = claim.smallest_effect * mean
            row |= {"verdict": verdict(claim, judgement, margin, p_holm), "mean_against": mean, "margin": margin}
            row |= {
                "mean": float(np.mean([part.mean for part in parts])),
                **_numbers(judgement, len(claims)),
                "p_holm": p_holm,
            }
            row |= {"n_cases": sum(part.n_cases for part in parts), "n_users": sum(part.n_users for part in parts)}
            row |= {"seconds": sum(part.seconds for part in parts)}
            row |= {"commit": " ".join(sorted({commit for part in parts for commit in part.commits}))}
        rows.append(row | {"family_size": len(claims)})
    columns = [*COLUMNS, *(["commit"] if any(judgements) else [])]
    return pd.DataFrame(rows).reindex(columns=columns)


COLUMNS = (
    *(
        "factor",
        "says",
        "value",
        "against",
        "statistic",
        "expect",
        "smallest_effect",
        "trainings",
        "datasets",
        "verdict",
    ),
    *("missing", "mean", "mean_against", "margin", "difference", "low", "high", "p", "p_holm", "error"),
    *("error_trainings", "detectable", "covers", "n_cases", "n_users", "seconds", "family_size"),
)

DATASET_COLUMNS = (
    *("says", "dataset", "statistic", "mean", "mean_against", "difference", "low", "high", "p", "error"),
    *("error_trainings", "detectable", "covers", "n_cases", "n_users", "by_training"),
)


def _numbers(judged: Judged, family: int) -> dict[str, object]:
    return {
        "difference": judged.difference,
        "low": judged.low,
        "high": judged.high,
        "p": judged.p,
        "error": judged.error,
        "error_trainings": judged.error_trainings,
        "detectable": judged.detectable(family),
        "covers": judged.covers,
    }


def by_dataset(claims: Sequence[Measured]) -> pd.DataFrame:
    """One row per claim and dataset, the frame of registered.datasets.csv: described, not judged."""
    rows = []
    for measured in claims:
        for part in measured.datasets:
            judged = judge([part.parts])
            row: dict[str, object] = {"says": measured.claim.says, "dataset": part.dataset}
            row |= {"statistic": measured.claim.metric, "mean": part.mean, "mean_against": part.mean_against}
            row |= _numbers(judged, 1) | {"n_cases": part.n_cases, "n_users": part.n_users}
            rows.append(row | {"by_training": " ".join(f"{difference:+.6f}" for difference in part.by_training)})
    return pd.DataFrame(rows, columns=list(DATASET_COLUMNS))


def as_markdown(frame: pd.DataFrame) -> str:
    """The verdicts as a table, with how they are found."""
    head = [
        "claim",
        "verdict",
        "statistic",
        "trainings",
        "difference",
        "95 % interval",
        "worth having from",
        "p, Holm",
        "smallest detectable",
        "hours",
    ]
    lines = []
    for number, row in enumerate(frame.to_dict("records"), 1):
        line = [f"{number}. {plain(row['says'])}", f"**{row['verdict']}**", row["statistic"], str(row["trainings"])]
        if row["verdict"] == NOT_RUN:
            line += [row["missing"], "", f"{100 * row['smallest_effect']:.0f} %", "", "", ""]
        else:
            line += [f"{row['difference']:+.4f}", f"[{row['low']:+.4f}, {row['high']:+.4f}]", f"{row['margin']:.4f}"]
            line += [f"{row['p_holm']:.2g}", f"{row['detectable']:.4f}", f"{row['seconds'] / 3600:.1f}"]
        lines.append(line)
    return f"# Registered claims\n\n{table(head, lines, left=3)}\n\n{rule(frame)}\n"


def rule(frame: pd.DataFrame) -> str:
    """What the columns and verdicts are."""
    datasets = frame.datasets[0].replace(" ", ", ") if frame.datasets.nunique() == 1 else "the datasets of its factor"
    narrow = " A row of single trainings covers users alone." if USERS in set(frame.covers) else ""
    return (
        f"{len(frame)} claims, written down before their runs, each judged once: over "
        f"{datasets}, each of the same weight, and over its trainings of both sides, which share "
        f"their random numbers in pairs, but for rows with random streams of their own. Test and interval cover users "
        f"and trainings.{narrow} Holm's "
        f"correction is over all {len(frame)}; what was not run counts with p = 1. A claim is supported or "
        f'contradicted below {significance.ALPHA}; "{NOT_WORTH}" where the whole interval lies within the smallest '
        "effect that is worth having, a share of the second mean. Hours are those of fitting and ranking all of its "
        "runs, of one machine; claims share runs. Everything else that this project says of these questions is "
        "exploratory."
    )


@command
def main() -> None:
    parser = command_line("benchmark.analysis.registered", __doc__)
    parser.add_argument("--config", default="config/claims.yaml", help="the config (default: config/claims.yaml)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with data/ and runs/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    factors = list(ablations_of(read_config_file(args.config), args.config).factors.values())
    claims = registered(factors)
    if not claims:
        raise InputError(f"{args.config}: no claim has a smallest_effect; give those that are registered one")
    measured = [measure(factor, claim, args.results, args.config) for factor, claim in claims]
    frame = verdicts(measured)
    for name, csv_frame in (("registered.csv", frame), ("registered.datasets.csv", by_dataset(measured))):
        write_text(args.out / name, csv_frame.to_csv(index=False, lineterminator="\n"))
    write_text(args.out / "registered.md", as_markdown(frame))
    print(as_markdown(frame))


if __name__ == "__main__":
    main()
