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
# A column is said where its rank correlation with the interactions of an item is at least so high. In the datasets of
# this project, years and prices stay below .4.
GOES_WITH = 0.7
ENOUGH_ITEMS = 30  # items with a number, below which chance alone may give such a correlation
MOST_ITEMS = 100_000  # that are compared; evenly spaced where there are more
MOST_TEXTS = 0.1  # share of the column that may be text or missing


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
    by_item = pd.Series(log.rating.astype(np.float64)).groupby(log.item)
    numbers = np.bincount(log.item, minlength=len(log.items))
    means = by_item.mean().reindex(range(len(log.items))).round(1)
    return log.items.assign(average_rating=means.to_numpy(), rating_number=numbers)


def seem_popularity(log: Log, kept: bool) -> list[str]:
    """Sentences about attributes of the items whose numbers go with how often the items occur in the whole log.

    kept: the user has said that such columns stay.
    """
    if kept or len(log.items) < ENOUGH_ITEMS:
        return []
    sample = np.unique(np.linspace(0, len(log.items) - 1, min(MOST_ITEMS, len(log.items))).round().astype(np.int64))
    occur = np.bincount(log.item, minlength=len(log.items))[sample]
    sentences = []
    for name in [column for column in log.items.columns if column not in NOT_ATTRIBUTES]:
        rho = _correlation(log.items[name].iloc[sample], occur)
        if abs(rho) >= GOES_WITH:
            sentences.append(
                f"item column {name!r} goes with how often an item occurs (rank correlation {rho:.2f}): if it tells "
                "how popular items became, it tells prompts what came later; leave it out, by `attributes` or "
                "in the file"
            )
    return sentences


def _correlation(column: pd.Series, occur: np.ndarray) -> float:
    """Spearman's rank correlation of the column's numbers with `occur`; 0.0 for a column that isn't of numbers."""
    numbers = pd.to_numeric(column.astype(str).str.replace(",", ""), errors="coerce").to_numpy(np.float64)
    known = np.isfinite(numbers)
    if known.sum() < max(ENOUGH_ITEMS, (1 - MOST_TEXTS) * len(column)):
        return 0.0
    if np.ptp(numbers[known]) == 0 or np.ptp(occur[known]) == 0:
        return 0.0
    # As scipy.stats.spearmanr, which takes a second to import, at each start of the workflow.
    return float(pd.Series(numbers[known]).rank().corr(pd.Series(occur[known]).rank()))
