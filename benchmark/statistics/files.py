"""Write and read the csv files of statistics, the only source of tables, plots and claims.

Numbers are written so that reading gives the same float64; a missing number is an empty cell. Text that a spreadsheet
would run as a formula gets an apostrophe in front, which reading takes away. `results/statistics` holds, per dataset:

{dataset}.methods.csv    one row per method
    dataset, method, kind ("baseline" or "reference"), best_baseline ("" where no method is a baseline), n_cases,
    n_users, seeds, family_size (tests against the best baseline), commit (of the runs, with a space between several),
    version (what its method declares of the code that makes it, or ""), code (hashes of the code that made its runs);
    learned_users, learned_targets, learned_positions (means over seeds), settings_tried, settings_undecided (1: all of
    them had the same value on the validation cases), less_information (the reason, or ""), distinct_items (in the best
    20 of all cases), three_items_share (of all places there, the three commonest items'), n_items, cold_targets (test
    cases), hidden_share (of the interactions); per metric m (Hit@5 ... NDCG@20): m (mean), m_sd (over seeds, ddof 1;
    empty for one seed), m_low, m_high (95 % interval over users), m_p_holm (against the best baseline; empty for the
    best baseline). Means, sd and interval have 6 decimals
{dataset}.tests.csv      one row per family, metric and pair of methods
    family ("against the best baseline" or "all pairs"), family_size, metric, method_a, method_b, mean_a, mean_b,
    difference (a - b), low, high (its 95 % interval over users), p, p_holm (in the family), test (its name), n_cases,
    n_users, seeds_a, seeds_b, error (standard error of the difference over users), detectable (smallest difference that
    the test would find at Holm's first step; empty where no user differs). Values have 6 decimals, p 4 significant
    digits
{dataset}.intervals.csv  one row per group of cases, metric and method: what the plots show
    by ("all", "history": length of the history, "target": popularity of the target), group ("all cases", "history of
    1-4", "cold target" ...), n_cases, n_users (of the group), metric (groups have NDCG@10 alone), method, mean, low,
    high (95 % interval over users). A group of no case has no mean, one of fewer than two users no interval
{dataset}.seeds.csv      one row per group of cases, metric, method and seed
    by, group, metric, method, seed (1 ...), mean. A group of no case has no rows
{dataset}.pairs.csv      one row per group of cases (but all) and pair of methods
    by, group, method_a, method_b, difference (of NDCG@10, a - b), low, high (95 % interval over users;
    empty for fewer than two and where no case differs)
{dataset}.costs.csv      one row per method: the means of its runs
    dataset, method, seeds, users, targets, positions (learned from), settings (tried), fit_s, tuning_s, score_s
    (seconds), tokens (written while ranking), ms_batched, ms_alone (milliseconds per case), peak_mib, waited (share
    of the time without a core, of runs that know it; empty if none does)
{dataset}.runs.csv       one row per run: what its run.json says
    dataset, method, kind, seed, seed_value, commit, code, data_hash, users, targets, positions, settings, fit_s,
    score_s, reused_s, tokens, ms_batched, ms_alone, peak_mib, finished_at (ISO 8601, UTC), and as JSON params,
    versions, hardware
{dataset}.failed.csv     one row per method of which a run has failed; it is in no other file
    dataset, method, why (with the path of the log)

of a config with several datasets, each of which weighs the same, the methods that have results on all of them:

overall_methods.csv      one row per metric and method
    metric, method, mean, low, high (users are resampled within their datasets)
overall_tests.csv        one row per metric and pair of methods
    metric, method_a, method_b, difference (a - b), low, high, p, p_holm, test (NDCG alone is tested), family_size,
    error, detectable

of a config with a reference:

against.csv              one row per dataset and other method; with several datasets also one per method under the
                         dataset "all datasets"
    dataset, method, reference, mean, mean_reference, difference (reference - method), low, high, p, n_cases, n_users,
    p_holm, detectable (smallest difference that the test would find; empty where no user differs), family_size; of
    costs.csv the columns users, targets, settings, fit_s, score_s, tokens, ms_alone, each once more with _reference
    behind it for the reference's
    Where so many methods have failed that there is nothing to compare: dataset, method, reference, failed (why)

and in a folder of the ablations' name, per factor:

{factor}.values.csv      one row per dataset and value
    the columns of methods.csv without kind, but `value` (the label) in the place of method, `base` (the base's label)
    in that of best_baseline, and m_p_holm against the base
{factor}.tests.csv       one row per dataset, metric and value that isn't the base
    factor, dataset, family, family_size, metric, value, base, mean, mean_base, difference (value - base), low, high, p,
    p_holm, test, n_cases, n_users, seeds, error (standard error of the difference over users), detectable
{factor}.seeds.csv       dataset, metric, value, seed, mean
{factor}.curves.csv      one row per step that every seed of a value's run logged
    dataset, value, key (reward, reward_ndcg, length, entropy), step, seed, logged (by the training)
{factor}.failed.csv      dataset, value, why: values of which a run has failed on a dataset; they are in no other file;
                         where nothing is left to compare, the others have no rows
claims.csv               one row per claim and dataset; no row where no factor has claims
    factor, title, dataset, says, value, against, metric, expect, margin (in units of the metric; empty for none),
    verdict, mean, mean_against, difference, low, high, p, p_holm, error, detectable, by_seed (the seeds' differences,
    spaces between), test, family_size, n_cases, n_users, seeds, commit, why (it can't be judged, or empty)
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from benchmark.errors import InputError
from benchmark.storage.io import write_text

# Columns of text in any of the files; all others are numbers.
TEXT = (
    "dataset", "method", "kind", "best_baseline", "commit", "less_information", "family", "metric", "method_a",
    "method_b", "test", "by", "group", "reference", "value", "base", "factor", "key", "title", "says", "against",
    "expect", "verdict", "by_seed", "data_hash", "finished_at", "params", "why", "failed", "versions", "hardware",
    "version", "code",
)  # fmt: skip
AGAINST, CLAIMS = "against.csv", "claims.csv"
OVERALL_METHODS, OVERALL_TESTS = "overall_methods.csv", "overall_tests.csv"
# Characters that a spreadsheet takes for the start of a formula, and the apostrophe that says it is none.
FORMULA = re.compile(r"['=+\-@\t\r]")
NUMBERS = re.compile(r"[-+\d.eE ]+")


@dataclass(frozen=True)
class Parts:
    """The files of one dataset or factor, by the word before .csv."""

    @classmethod
    def paths(cls, folder: Path | str, name: str) -> list[Path]:
        """The paths of the files: {folder}/{name}.{part}.csv."""
        return [Path(folder, f"{name}.{part.name}.csv") for part in fields(cls)]

    @classmethod
    def read(cls, folder: Path | str, name: str) -> Self:
        """Read all files. Raises InputError for a missing or unreadable one."""
        return cls(*map(read_csv, cls.paths(folder, name)))

    def write(self, folder: Path | str, name: str) -> None:
        """Write all files, each atomically."""
        for part, path in zip(fields(self), self.paths(folder, name), strict=True):
            write_csv(path, getattr(self, part.name))


@dataclass(frozen=True)
class DatasetStatistics(Parts):
    """The statistics of one dataset, a frame per file."""

    methods: pd.DataFrame
    tests: pd.DataFrame
    intervals: pd.DataFrame
    seeds: pd.DataFrame
    pairs: pd.DataFrame
    costs: pd.DataFrame
    runs: pd.DataFrame
    failed: pd.DataFrame


@dataclass(frozen=True)
class FactorStatistics(Parts):
    """The statistics of one factor of the ablations, over its datasets, a frame per file."""

    values: pd.DataFrame
    tests: pd.DataFrame
    seeds: pd.DataFrame
    curves: pd.DataFrame
    failed: pd.DataFrame


def no_formula(text: str) -> str:
    """Text that no spreadsheet runs when it opens a csv file.

    >>> no_formula("=1+1"), no_formula("-0.25"), no_formula("r2ec"), no_formula("'tis")
    ("'=1+1", '-0.25', 'r2ec', "''tis")
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBERS.fullmatch(text) else text


def as_csv(frame: pd.DataFrame) -> str:
    """A frame as csv, floats with all their digits."""
    out = frame.copy()
    for column in out.columns:
        if out[column].dtype.kind == "f":
            out[column] = ["" if np.isnan(number) else repr(float(number)) for number in out[column]]
        elif column in TEXT:
            out[column] = [no_formula(str(text)) for text in out[column]]
    text: str = out.to_csv(index=False, lineterminator="\n")
    return text


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write one frame as `read_csv` reads it, atomically."""
    write_text(path, as_csv(frame))


def read_csv(path: Path) -> pd.DataFrame:
    """Read one of these files: columns of TEXT as str, numbers as written. Raises InputError where it can't be read."""
    try:
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXT, str),
            keep_default_na=False,
            na_values={column: [""] for column in pd.read_csv(path, nrows=0).columns if column not in TEXT},
            float_precision="round_trip",
        )
    except FileNotFoundError:
        raise InputError(f"{path}: missing; make the statistics of these runs first") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: can't be read as csv ({reason}); delete it and make the statistics again") from None
    for column in frame.columns.intersection(list(TEXT)):
        frame[column] = pd.Series([text.removeprefix("'") for text in frame[column]], dtype=object)
    return frame
