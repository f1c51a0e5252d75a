"""From interactions to cases: the rules of cleaning (benchmark/data/cleaning.py), histories, the chronological split.

The protocol is the paper's (R2ec, arXiv 2505.16994, section 4): a case is a user's history and the next item, all cases
in time order, 80/10/10. What the paper leaves open has one rule each, counted in dataset.json:

repeats             only a user's first interaction with an item counts; later ones are dropped (of several at one time,
                    the one with the lowest rating counts).
order               by the time in the precision that the source gives, milliseconds or finer. A tie is ordered by a
                    hash, never by file order or item number, which could give the target away.
one second          (same_time: exclude) a history holds only what lies strictly before its case's second, so that the
                    items of one basket don't predict each other, however fine the times are. With same_time: order they
                    follow each other.
one interaction     a user with nothing before the last second has no case and is left out.
no title            items without a title are dropped with their interactions.
unknown items       interactions of items that the catalogue doesn't have are dropped; more than max_unknown_items of
                    them are refused.
impossible times    times before earliest or after latest are refused.
popularity          the source's average_rating and rating_number hold what came after the cases, so that they are left
                    out; popularity_columns keeps them.
cold targets        items never seen in training stay in the catalogue and among the targets.

With leaky_popularity: true the items get two numeric columns that leak the test period on purpose, see `popularity`.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmark.config.wording import many
from benchmark.contract import Cases
from benchmark.data import equal_times
from benchmark.data.account import Account, warnings_of
from benchmark.data.cleaning import Log, clean
from benchmark.data.popularity import check_no_popularity, popularity, seem_popularity, without_popularity
from benchmark.data.settings import DatasetConfig
from benchmark.data.texts import SCALES, rating_scale
from benchmark.datasets import Raw
from benchmark.datasets._texts import TextsOnDisk
from benchmark.errors import InputError
from benchmark.provenance import derive_seed

FEW = 0.01  # share of the ratings that is too small to set their scale without a warning
LOW = 0.2  # of the scale: where half of the ratings are no higher, they may be counts


def make_cases(log: Log, history_length: int, same_time: str) -> Cases:
    """All cases, in order of time (ties by hash), numbered 0..n-1 in that order.

    The history of the interaction at row p is the rows [max(first row of the user, end - history_length), end), where
    `end` is p itself (same_time "order") or the first row of p's second (same_time "exclude").
    """
    n = len(log.user)
    rows = np.arange(n)
    new_user = np.r_[True, np.diff(log.user) != 0]
    first_of_user = np.maximum.accumulate(np.where(new_user, rows, 0))
    new_second = new_user | np.r_[True, np.diff(log.time) != 0]
    end = rows if same_time == "order" else np.maximum.accumulate(np.where(new_second, rows, 0))
    start = np.maximum(first_of_user, end - history_length)
    chosen = np.flatnonzero(end > start)
    chosen = chosen[np.lexsort((log.tie[chosen], log.fraction[chosen], log.time[chosen]))]
    lengths = (end - start)[chosen]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(start[chosen], lengths)
    return Cases(
        case=np.arange(len(chosen)),
        user=log.user[chosen].astype(np.int32),
        time=log.time[chosen],
        offsets=offsets,
        items=log.item[flat].astype(np.int32),
        ratings=log.rating[flat],
        times=log.time[flat],
        target=log.item[chosen].astype(np.int32),
    )


def split_cases(cases: Cases, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of training, validation and test cases, each ascending.

    global-temporal: the first 80 % of all cases, the next 10 %, the rest (counts rounded down, as in the paper).
    leave-one-out: each user's last case is test, the one before it validation, the others training. Training then holds
    cases that are later than other users' test cases.
    """
    n = len(cases)
    if kind == "global-temporal":
        train, valid = n * 8 // 10, n // 10
        return np.arange(train), np.arange(train, train + valid), np.arange(train + valid, n)
    order = np.lexsort((cases.case, cases.user))
    user = cases.user[order]
    last = np.r_[user[1:] != user[:-1], True] if n else np.zeros(0, bool)
    # The position behind the last case of each user, minus this one's: 0 for the last case, 1 for the one before it.
    ends = np.flatnonzero(last)
    from_end = np.repeat(ends, np.diff(np.r_[-1, ends])) - np.arange(n)
    return np.sort(order[from_end >= 2]), np.sort(order[from_end == 1]), np.sort(order[from_end == 0])


def sample_rows(rows: np.ndarray, size: int | None, *names: str) -> np.ndarray:
    """A seeded sample of these rows, ascending; all of them if `size` is None or larger."""
    if size is None or size >= len(rows):
        return rows
    chosen = np.random.default_rng(derive_seed(*names)).choice(len(rows), size, replace=False)
    return rows[np.sort(chosen)]


@dataclass(frozen=True)
class Prepared:
    """One dataset, split. `test` still holds its targets here. texts: further text columns of the items, on disk."""

    items: pd.DataFrame
    train: Cases
    valid: Cases
    test: Cases
    counts: dict[str, int]
    llm_rows: np.ndarray  # int64, the training cases that an LLM may read, see `Split`
    texts: TextsOnDisk | None = None
    rating_scale: float | None = None  # what ratings are out of; None: there are none that a prompt may mention


def prepare(raw: Raw, settings: DatasetConfig, name: str, account: Account | None = None) -> Prepared:
    """Clean the interactions, make cases, split and sample them. account: records what becomes of the interactions.

    Raises InputError for bad values and for an empty split.
    """
    account = account or Account()
    account.warnings += raw.notes
    if settings.leaky_popularity:
        check_no_popularity(raw.items)
    raw, hidden = without_popularity(raw, settings.popularity_columns)
    if hidden:
        account.warnings.append(
            f"item columns {', '.join(hidden)} are hidden from all methods, as they tell what came later "
            "(popularity_columns)"
        )
    log = clean(raw, settings, name, account)
    cases = make_cases(log, settings.history_length, settings.same_time)
    train, valid, test = split_cases(cases, settings.split)
    used = {
        "train": train,
        "valid": sample_rows(valid, settings.valid_cases, name, "valid cases"),
        "test": sample_rows(test, settings.test_cases, name, "test cases"),
    }
    for part, rows in used.items():
        if len(rows) == 0:
            advice = what_would_help(log, settings)
            raise InputError(f"{name}: the {part} split is empty ({len(cases)} cases in all); {advice}")
    parts = {part: cases.take(rows) for part, rows in used.items()}
    llm_rows = np.searchsorted(train, sample_rows(train, settings.train_cases, name, "train cases"))
    with_case = np.unique(cases.user)
    counts = account.counts
    counts |= {
        "users_without_case": log.counts["users"] - len(with_case),
        "interactions_in_a_shared_second": equal_times.in_shared_second(log.user, log.time),
        "interactions_hidden": equal_times.hidden(log.user, log.time) if settings.same_time == "exclude" else 0,
        "cases": len(cases),
        "cases_valid": len(valid),
        "cases_test": len(test),
        "cases_train": len(train),
        "train": len(train),
        "train_llm": len(llm_rows),
        "valid": len(used["valid"]),
        "test": len(used["test"]),
        "test_users": len(np.unique(parts["test"].user)),
    }
    in_training = np.zeros(len(log.items), bool)
    in_training[parts["train"].interactions()[1]] = True
    for part in ("valid", "test"):
        counts[f"cold_targets_{part}"] = int((~in_training[parts[part].target]).sum())
    counts["items_cold"] = int((~in_training).sum())
    items = popularity(log) if settings.leaky_popularity else log.items
    account.warnings += warnings_of(raw, account, log.items)
    account.warnings += seem_popularity(log, settings.popularity_columns)
    scale = _scale(log.rating, settings.rating_scale, name)
    account.warnings += _odd_ratings(scale, log.rating, settings)
    account.warnings += equal_times.warnings_of(log.user, log.time, log.fraction, settings.same_time)
    return Prepared(items=items, counts=counts, llm_rows=llm_rows, texts=log.texts, rating_scale=scale, **parts)


def _scale(ratings: np.ndarray, configured: float | str | None, name: str) -> float | None:
    """The upper end of the rating scale, by settings or ratings. Raises InputError for a rating above it."""
    if configured is None or isinstance(configured, str):
        return rating_scale(ratings) if configured is None else None
    if (highest := np.nanmax(ratings, initial=0.0)) > configured:
        raise InputError(f"{name}: a rating is {highest:g}, but rating_scale is {configured:g}; raise it")
    return configured


def _odd_ratings(scale: float | None, ratings: np.ndarray, settings: DatasetConfig) -> list[str]:
    """A warning of ratings that may mean something else than they are taken for; at most one."""
    return (
        _no_scale(scale, ratings, settings)
        or _few_ratings_set(scale, ratings, settings)
        or _counts_for_ratings(scale, ratings, settings)
    )


def _no_scale(scale: float | None, ratings: np.ndarray, settings: DatasetConfig) -> list[str]:
    """A warning of ratings that differ, and that no prompt mentions as no usual scale holds them."""
    known = ratings[np.isfinite(ratings)]
    if scale is not None or settings.rating_scale is not None or len(known) == 0:
        return []
    lowest, highest = known.min(), known.max()
    if lowest == highest or lowest < 0:  # each stands for "took it"; negative ones are said where they are read
        return []
    limit = f"above {SCALES[-1]:g}" if highest > SCALES[-1] else "none above 1"
    if 0 < (above := int((known > SCALES[-1]).sum())) < FEW * len(known):
        return [
            f"{many(above, 'rating')} of {len(known):,} above {SCALES[-1]:g}, the highest {highest:g}: no prompt "
            "mentions ratings; mend those, or set rating_scale"
        ]
    return [
        f"ratings go from {lowest:g} to {highest:g} ({limit}), so that no prompt mentions them; set rating_scale to "
        "what they are out of, or to none if they are no ratings"
    ]


def _few_ratings_set(scale: float | None, ratings: np.ndarray, settings: DatasetConfig) -> list[str]:
    """A warning where few ratings, which may be typing errors, make the scale as large as it is."""
    if scale is None or settings.rating_scale is not None:
        return []
    lower = max((smaller for smaller in SCALES if smaller < scale), default=None)
    above = 0 if lower is None else int((ratings > lower).sum())
    if not 0 < above < FEW * np.isfinite(ratings).sum():
        return []
    return [
        f"ratings count as out of {scale:g}, because {above} of them are above {lower:g}, the highest "
        f"{np.nanmax(ratings):g}; mend those, or set rating_scale"
    ]


def what_would_help(log: Log, settings: DatasetConfig) -> str:
    """The end of a sentence that says what to change where a part of the split is empty."""
    if len(np.unique(log.time)) == 1 and not np.diff(log.fraction).any():
        return f"all interactions have one time, {log.time[0]}: give each its own"
    ordered = split_cases(make_cases(log, settings.history_length, "order"), settings.split)
    if settings.same_time == "exclude" and all(len(rows) for rows in ordered):
        n, shared = len(log.user), equal_times.in_shared_second(log.user, log.time)
        return (
            f"{shared} of {n} interactions share their second with another of their user: same_time: order gives them "
            "an order"
        )
    by_user = np.bincount(log.user)
    if settings.split == "leave-one-out":
        return (
            f"leave-one-out trains on users with four interactions or more, and the longest has {by_user.max()}: take "
            "split: global-temporal, widen the time window or lower min_item_count"
        )
    counts_hold = max(settings.min_user_count, settings.min_item_count) > 1
    window_holds = settings.source != "files" or settings.start is not None or settings.end is not None
    held_back = counts_hold or window_holds
    more = "widen the time window or lower the minimum counts" if held_back else "give more of them"
    return f"{more} (left: {many(len(log.user), 'interaction')} of {many(len(by_user), 'user')})"


def without_targets(cases: Cases) -> Cases:
    """The same cases as a method sees them at test time."""
    return replace(cases, target=None)


def _counts_for_ratings(scale: float | None, ratings: np.ndarray, settings: DatasetConfig) -> list[str]:
    """A warning where prompts would call something a rating that may be how often an item was bought or played."""
    if scale is None or settings.rating_scale is not None or (middle := np.nanmedian(ratings)) > LOW * scale:
        return []
    return [
        f"half of the ratings are at most {middle:g}, and prompts say that they are out of {scale:g}; if they count "
        "something, set rating_scale: none"
    ]
