"""Item columns that tell how popular an item became, which is what happened after the cases: a leak.

Columns with the usual names are hidden from all methods (`without_popularity`). One with another name is said, where
its numbers go with the items' interactions (`seem_popularity`). `popularity` makes such columns on purpose, for the
control that measures the leak.
"""

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmark.data.cleaning import Log
from benchmark.data.texts import LEAKY, NOT_ATTRIBUTES
from benchmark.datasets import Raw
from benchmark.errors import InputError

# Names without case and separators: those of Amazon Reviews and similar.
POPULARITY = ("averagerating", "ratingnumber", "avgrating", "meanrating", "ratingcount", "ratingscount",
              "numberofratings", "numratings", "reviewcount", "numreviews", "numberofreviews")  # fmt: skip
# A column is said where its rank correlation with an item's interactions or mean rating is at least so high. Years stay
# below .4 in the datasets of this project.
GOES_WITH = 0.7
ENOUGH_ITEMS = 30  # items with a number, below which chance alone may give such a correlation
MOST_ITEMS = 100_000  # that are compared; evenly spaced where there are more
LEAST_NUMBERS = 0.5  # share of the items that have to have a number
NUMBER = r"(-?\d{1,3}(?:[, ']\d{3})+(?!\d)(?:\.\d+)?|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([kKmM](?![A-Za-z]))?"
FACTORS = {"k": 1e3, "m": 1e6}


def without_popularity(raw: Raw, kept: bool) -> tuple[Raw, list[str]]:
    """The source without item columns that tell how popular items became, and the names of those.

    kept: leave them there as text, which is an attribute for all methods.
    """
    names = [name for name in raw.items.columns if re.sub(r"[\s_.-]+", "", str(name)).lower() in POPULARITY]
    if not names:
        return raw, []
    if not kept:
        return replace(raw, items=raw.items.drop(columns=names)), names
    as_text = {name: raw.items[name].astype(object).where(raw.items[name].notna(), "").astype(str) for name in names}
    return replace(raw, items=raw.items.assign(**as_text)), []


def check_no_popularity(items: pd.DataFrame) -> None:
    """Raise InputError where the source has columns itself that leaky_popularity would make."""
    if clashing := [column for column in LEAKY if column in items.columns]:
        raise InputError(
            f"leaky_popularity: the source's items have a column {clashing[0]!r} already; leave leaky_popularity out"
        )


def popularity(log: Log) -> pd.DataFrame:
    """A LEAK, only for the control that measures it: the items with their popularity in the whole log, test included.

    Columns as Amazon Reviews 2023 has them at the time of its crawl, which the released code of R2ec puts into item
    prompts: average_rating (float64, one decimal; NaN where nobody rated) and rating_number (int64, interactions). They
    are numbers, which no method takes for item attributes; only R2ec's `prompts.leaky_attributes` shows them.
    """
    numbers, means = _taken_and_rated(log)
    return log.items.assign(average_rating=means.round(1).to_numpy(), rating_number=numbers)


def _taken_and_rated(log: Log) -> tuple[np.ndarray, pd.Series]:
    """Of each item in the whole log: interactions (int64 [n]) and mean rating (float64 [n], NaN where nobody rated)."""
    by_item = pd.Series(log.rating.astype(np.float64)).groupby(log.item)
    return np.bincount(log.item, minlength=len(log.items)), by_item.mean().reindex(range(len(log.items)))


def seem_popularity(log: Log, kept: bool) -> list[str]:
    """Sentences about attributes of the items that go with how popular they are in the whole log.

    That is, how often they occur or how they are rated. kept: the user has said that such columns stay.
    """
    n = len(log.items)
    if kept or n < ENOUGH_ITEMS:
        return []
    sample = np.unique(np.linspace(0, n - 1, min(MOST_ITEMS, n)).round().astype(np.int64))
    first = pd.Series(log.time).groupby(log.item).min().reindex(sample).to_numpy(np.float64)
    taken, rated = _taken_and_rated(log)
    popular = {
        "how often an item occurs": taken[sample].astype(np.float64),
        "an item's mean rating": rated.to_numpy()[sample],
    }
    sentences = []
    for name in [column for column in log.items.columns if column not in NOT_ATTRIBUTES]:
        numbers = _numbers_in(log.items[name].iloc[sample])
        what, rho = max(
            ((what, _correlation(numbers, values)) for what, values in popular.items()), key=lambda pair: abs(pair[1])
        )
        # What is older has been taken more often: a launch date, or a running number, goes with the age even more.
        if abs(rho) >= max(GOES_WITH, abs(_correlation(numbers, first))):
            sentences.append(
                f"item column {name!r} goes with {what} (rank correlation {rho:.2f}): if it tells how popular items "
                "became, it tells prompts what came later; leave it out of `attributes`, or of the file"
            )
    return sentences


def _numbers_in(column: pd.Series) -> np.ndarray:
    """The first number of each value, float64 [n], NaN for none: as in 1,204 or 6.7k or 49 sold.

    >>> _numbers_in(pd.Series(["1,204", "6.7k", "49 sold", "10,11,12", "red", 5])).tolist()
    [1204.0, 6700.0, 49.0, 10.0, nan, 5.0]
    """
    parts = column.astype(str).str.extract(NUMBER)
    numbers = pd.to_numeric(parts[0].str.replace(r"[, ']", "", regex=True), errors="coerce").to_numpy(np.float64)
    return np.asarray(numbers * parts[1].str.lower().map(FACTORS).fillna(1).to_numpy(np.float64))


def _correlation(numbers: np.ndarray, values: np.ndarray) -> float:
    """Spearman's rank correlation where both are known; 0.0 where that is for too few."""
    known = np.isfinite(numbers) & np.isfinite(values)
    if known.sum() < max(ENOUGH_ITEMS, LEAST_NUMBERS * len(numbers)):
        return 0.0
    if np.ptp(numbers[known]) == 0 or np.ptp(values[known]) == 0:
        return 0.0
    # As scipy.stats.spearmanr, which takes a second to import, at each start of the workflow.
    return float(pd.Series(numbers[known]).rank().corr(pd.Series(values[known]).rank()))
