"""Drop and sort interactions by the rules of benchmark/data/protocol.py."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.data.account import UNKNOWN_ITEM, UNTITLED, Account, check_unknown
from benchmark.data.settings import DatasetConfig, seconds_of
from benchmark.data.texts import one_line
from benchmark.datasets import Limits, Raw
from benchmark.datasets._texts import TextsOnDisk
from benchmark.datasets._times import impossible, said_of
from benchmark.errors import InputError


@dataclass(frozen=True)
class Log:
    """The cleaned interactions, sorted by user, time and tie-break hash. All arrays have one row per interaction."""

    user: np.ndarray  # int64, 0..n_users-1
    item: np.ndarray  # int64, 0..n_items-1, the row of `items`
    time: np.ndarray  # int64, Unix seconds
    fraction: np.ndarray  # int32, nanoseconds within the second; 0 where the source has whole seconds
    rating: np.ndarray  # float32
    tie: np.ndarray  # uint64, orders interactions of one time
    items: pd.DataFrame
    counts: dict[str, int]
    texts: TextsOnDisk | None = None


def clean(raw: Raw, settings: DatasetConfig, where: str, account: Account | None = None) -> Log:
    """Drop interactions by the rules, repeat the minimum counts until they hold, number users and items.

    account: records what is dropped, and why. Raises InputError for bad values, naming row and value, and where no
    interaction is left.
    """
    account = account or Account()
    check_raw(raw, where, settings.limits)
    items, texts, counts = raw.items, raw.texts, account.counts
    counts |= {"interactions_read": len(raw.interactions), "items_read": len(items)}
    log = numbered(raw)

    def keep(mask: pd.Series, name: str, reason: str) -> None:
        nonlocal log
        account.drop(reason, log.index.to_numpy()[~mask.to_numpy()])
        counts[name] = counts.get(name, 0) + int((~mask).sum())
        if not mask.all():  # no copy for nothing
            log = log[mask]

    has_title = titled(items["title"])
    counts["items_without_title"] = int((~has_title).sum())
    keep(log["item"] >= 0, "dropped_unknown_item", UNKNOWN_ITEM)
    keep(pd.Series(has_title[log["item"]], log.index), "dropped_no_title", UNTITLED)
    keep(_in_window(log, settings), "dropped_outside_window", "outside the window from `start` to `end`")
    # A hash of user and item orders interactions of one time: a model can learn nothing from it.
    # The rating is the last key so that nothing at all depends on the order of the source's rows.
    log = log.assign(tie=tie_of(raw.interactions, log.index.to_numpy()))
    log = log.iloc[np.lexsort((log["rating"], log["tie"], log["fraction"], log["timestamp"]))]
    keep(~log.duplicated(["user", "item"]), "dropped_repeats", "repeats: the user took the item before")
    log = _without_rare(log, settings, account)
    # Last, so that the account also says what else is dropped.
    check_unknown(raw, account, settings.max_unknown_items, where)
    if log.empty:
        raise InputError(
            f"{where}: no interaction is left after title, window and minimum counts {_for_more(raw, settings, counts)}"
        )
    # Items keep the order of the source's catalogue; users are numbered by their first interaction.
    kept_items = np.zeros(len(items), bool)
    kept_items[log["item"]] = True
    rows = np.flatnonzero(kept_items)
    if len(rows) < len(items):  # no copy of all texts for nothing
        items, texts = items.iloc[rows], None if texts is None else texts.take(rows)
    items = items.reset_index(drop=True)
    user, item = pd.factorize(log["user"])[0], (np.cumsum(kept_items) - 1)[log["item"]]
    log = log.assign(user=user, item=item)
    log = log.iloc[np.lexsort((log["tie"], log["fraction"], log["timestamp"], log["user"]))]
    counts |= {"interactions": len(log), "users": int(user.max()) + 1, "items": len(items)}
    return Log(
        user=log["user"].to_numpy(np.int64),
        item=log["item"].to_numpy(np.int64),
        time=log["timestamp"].to_numpy(np.int64),
        fraction=log["fraction"].to_numpy(np.int32),
        rating=log["rating"].to_numpy(np.float32),
        tie=log["tie"].to_numpy(np.uint64),
        items=items,
        counts=counts,
        texts=texts,
    )


def _without_rare(log: pd.DataFrame, settings: DatasetConfig, account: Account) -> pd.DataFrame:
    """The interactions of which the minimum counts hold; the account says what is dropped."""
    account.counts["interactions_before_minimum_counts"] = len(log)
    kept = minimum_counts(log, settings.min_user_count, settings.min_item_count)
    account.counts["dropped_minimum_counts"] = len(log) - len(kept)
    if len(kept) < len(log):
        least = f"{settings.min_user_count} per user, {settings.min_item_count} per item"
        rows = np.setdiff1d(log.index, kept.index, assume_unique=True)
        account.drop(f"below the minimum counts ({least})", rows, _how_many(log, int(rows.min())))
    return kept


def _in_window(log: pd.DataFrame, settings: DatasetConfig) -> pd.Series:
    """Whether each interaction lies between `start` and `end`, bool."""
    inside = pd.Series(True, index=log.index)
    if settings.start is not None:
        inside &= log["timestamp"] >= seconds_of(settings.start)
    if settings.end is not None:
        inside &= log["timestamp"] < seconds_of(settings.end)
    return inside


def _for_more(raw: Raw, settings: DatasetConfig, counts: dict[str, int]) -> str:
    """The end of a sentence where no interaction is left: the minimum counts, and what to change."""
    least = f"({settings.min_user_count} per user, {settings.min_item_count} per item); "
    if raw.interactions.empty:
        return least + "the source has none"
    if counts["items_without_title"] == len(raw.items):
        return least + "no item has a title: give titles"
    return least + "lower them or widen the window"


def _how_many(log: pd.DataFrame, row: int) -> str:
    """How often user and item of one row are in the log."""
    user, item = (int((log[name] == log.at[row, name]).sum()) for name in ("user", "item"))
    return f"the user has {user} and the item {item} before any of these go"


def numbered(raw: Raw) -> pd.DataFrame:
    """The interactions with numbers in place of ids, which take less memory.

    Columns: user (int64, in no order that matters), item (int64, its row of raw.items, -1 for none), timestamp,
    fraction, rating.
    """
    log = raw.interactions
    item_ids, catalogue_ids = (
        pa.Table.from_pandas(table[["item_id"]], preserve_index=False).column(0).cast(pa.large_string())
        for table in (log, raw.items)
    )
    item = pc.index_in(item_ids, value_set=catalogue_ids).fill_null(-1)
    return pd.DataFrame(
        {
            "user": pd.factorize(log["user_id"])[0],
            "item": item.to_numpy().astype(np.int64),
            "timestamp": log["timestamp"].to_numpy(),
            "fraction": log["fraction"].to_numpy() if "fraction" in log else np.zeros(len(log), np.int32),
            "rating": log["rating"].to_numpy(),
        }
    )


def titled(titles: pd.Series, rows: int = 2**16) -> np.ndarray:
    """Whether each item has a title, bool [n]; `rows` of them are in memory at a time."""
    has_title = np.zeros(len(titles), bool)
    for start in range(0, len(titles), rows):
        part = titles.iloc[start : start + rows].fillna("")
        has_title[start : start + rows] = [one_line(title) != "" for title in part]  # invisible characters are no title
    return has_title


def tie_of(log: pd.DataFrame, rows: np.ndarray, at_once: int = 2**18) -> np.ndarray:
    """The hash of user and item of these rows, uint64 [n]; `at_once` of the pairs are in memory at a time."""
    hashes = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), at_once):
        part = log.iloc[rows[start : start + at_once]]
        pairs = (part["user_id"] + "\x1f" + part["item_id"]).to_numpy(dtype=object)
        hashes[start : start + at_once] = pd.util.hash_array(pairs, categorize=False)
    return hashes


def check_raw(raw: Raw, where: str, limits: Limits) -> None:
    """Raise InputError unless items are unique, and timestamps within the limits."""
    twice = raw.items["item_id"].duplicated()
    if twice.any():
        row = int(np.argmax(twice))
        raise InputError(
            f"{where}: items: row {row}: item_id {raw.items['item_id'].iloc[row]!r} occurs twice; merge its rows"
        )
    times = raw.interactions["timestamp"].to_numpy()
    if len(times) and (bad := impossible(times, limits)).size:
        row = int(bad[0])
        raise InputError(
            f"{where}: interactions: row {row}: {said_of(times[row], 's', limits)}; mend it, or let earliest and "
            "latest say what can be"
        )


def minimum_counts(log: pd.DataFrame, per_user: int, per_item: int) -> pd.DataFrame:
    """The k-core: drop rare items and short users, again and again until both minimums hold."""
    while True:
        before = len(log)
        log = log[np.bincount(log["item"])[log["item"]] >= per_item]
        log = log[np.bincount(log["user"])[log["user"]] >= per_user]
        if len(log) == before:
            return log
