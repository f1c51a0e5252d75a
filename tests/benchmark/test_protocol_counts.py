"""What the protocol counts, the popularity that leaks on purpose, and logs of which nothing is left."""

import numpy as np
import pandas as pd
import pytest

from benchmark.config.methods import ROOT
from benchmark.data.cleaning import clean
from benchmark.data.prepare import split_hash
from benchmark.data.protocol import Prepared, popularity, prepare
from benchmark.datasets import Raw
from benchmark.errors import InputError
from tests.support.logs import DAY, Row, listed, raw_of
from tests.support.planted import planted, settings

# The leak control


def test_leaky_popularity_by_hand_is_over_the_whole_log() -> None:
    rows = [("u", "a", 1 * DAY), ("v", "a", 2 * DAY), ("u", "b", 3 * DAY), ("w", "a", 90 * DAY), ("w", "b", 91 * DAY)]
    raw = raw_of(rows, ratings=[5.0, 4.0, np.nan, 4.0, np.nan])
    log = clean(raw, settings(), "here")
    items = popularity(log).set_index("item_id")
    # The ratings of the last days, which are no training cases, count too: (5 + 4 + 4) / 3.
    assert items.loc["a", "average_rating"] == 4.3 and np.isnan(items.loc["b", "average_rating"])
    assert items["rating_number"].to_dict() == {"a": 3, "b": 2}


def test_leaky_popularity_is_off_by_default_and_another_dataset_when_on() -> None:
    plain, leaky = (prepare(planted(n_users=20), settings(leaky_popularity=on), "here") for on in (False, True))
    assert prepare(planted(n_users=20), settings(), "here").items.equals(plain.items)
    added = [column for column in leaky.items if column not in plain.items]
    assert added == ["average_rating", "rating_number"]
    # Numbers are no item attributes for any method.
    assert all(pd.api.types.is_numeric_dtype(leaky.items[column]) for column in added)
    assert split_hash(leaky) != split_hash(plain)
    assert listed(leaky.test, leaky.items) == listed(plain.test, plain.items)


def test_leaky_columns_of_the_source_are_not_overwritten() -> None:
    raw = planted(n_users=20)
    with pytest.raises(InputError, match="have a column 'rating_number' already; leave leaky_popularity out"):
        prepare(Raw(raw.interactions, raw.items.assign(rating_number="3")), settings(leaky_popularity=True), "here")


# Counts


def counts_add_up(prepared: Prepared) -> None:
    c = prepared.counts
    dropped = ("unknown_item", "no_title", "outside_window", "repeats", "minimum_counts")
    assert c["interactions_read"] == sum(c[f"dropped_{why}"] for why in dropped) + c["interactions"]
    assert c["interactions_before_minimum_counts"] == c["interactions"] + c["dropped_minimum_counts"]
    assert c["items_read"] >= c["items_without_title"] + c["items"] == c["items_without_title"] + len(prepared.items)
    assert c["cases"] == c["cases_train"] + c["cases_valid"] + c["cases_test"]
    for part in ("train", "valid", "test"):
        assert c[part] == len(getattr(prepared, part)) <= c[f"cases_{part}"]
    assert 0 <= c["cold_targets_test"] <= c["test"] and 0 <= c["cold_targets_valid"] <= c["valid"]
    assert c["users_without_case"] <= c["users"] and 1 <= c["test_users"] <= c["users"] - c["users_without_case"]
    assert c["items_cold"] <= c["items"] and c["interactions_in_a_shared_second"] <= c["interactions"]


def test_counts_by_hand() -> None:
    titles = {name: f"The {name}" for name in "abcdefghijklmnop"} | {"untitled": ""}
    rows = [("u", name, number) for number, name in enumerate("abcdefghijklmn")]  # 13 cases
    rows += [("w", "a", 50), ("w", "b", 50), ("w", "c", 60)]  # one case; a and b share a second
    rows += [("x", "a", 70)]  # no case
    rows += [("u", "a", 80), ("u", "untitled", 81), ("u", "nowhere", 82), ("u", "p", 10 * DAY)]
    prepared = prepare(raw_of(rows, titles), settings(end="1970-01-10", train_cases=5, test_cases=2), "here")
    assert prepared.counts == {
        "interactions_read": 22,
        "items_read": 17,
        "items_without_title": 1,
        "dropped_unknown_item": 1,
        "dropped_no_title": 1,
        "dropped_outside_window": 1,
        "dropped_repeats": 1,
        "interactions_before_minimum_counts": 18,
        "dropped_minimum_counts": 0,
        "interactions": 18,
        "users": 3,
        "items": 14,
        "users_without_case": 1,
        "interactions_in_a_shared_second": 2,
        "interactions_hidden": 0,  # those two are their user's first and no history
        "cases": 14,
        "cases_train": 11,
        "cases_valid": 1,
        "cases_test": 2,
        "train": 11,
        "train_llm": 5,
        "valid": 1,
        "test": 2,
        "test_users": 2,
        "cold_targets_valid": 1,
        "cold_targets_test": 1,
        "items_cold": 2,
    }
    counts_add_up(prepared)


def test_config_readme_explains_every_count() -> None:
    text = (ROOT / "config" / "README.md").read_text()
    rows = " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    for name in prepare(planted(), settings(), "here").counts:
        assert f"`{name}`" in rows, f"config/README.md doesn't explain {name}"


@pytest.mark.parametrize("split", ["global-temporal", "leave-one-out"])
@pytest.mark.parametrize("same_time", ["exclude", "order"])
def test_counts_add_up(split: str, same_time: str) -> None:
    raw = planted()
    coarse = raw.interactions.assign(timestamp=raw.interactions["timestamp"] // 500_000 * 500_000)
    chosen = settings(split=split, same_time=same_time, min_user_count=8, min_item_count=20, test_cases=80)
    prepared = prepare(Raw(interactions=coarse, items=raw.items), chosen, "here")
    counts_add_up(prepared)
    assert prepared.counts["dropped_repeats"] > 0 and prepared.counts["interactions_in_a_shared_second"] > 0
    assert prepared.counts["dropped_minimum_counts"] > 0


# Bad input


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (
            [("u", "a", 1), ("u", "b", 2)],
            {},
            r"here: the train split is empty \(1 cases in all\); give more of them \(left: 2 interactions of 1 user\)",
        ),
        (
            [("u", "a", 10**9), ("u", "b", 10**9 + 1)],
            {"start": "2000-01-01"},
            r"here: the train split is empty \(1 cases in all\); widen the time window or lower",
        ),
        ([("u", f"i{n}", n) for n in range(6)], {}, r"here: the valid split is empty \(5 cases in all\)"),
        ([("u", "a", 1), ("w", "b", 2)], {}, r"here: the train split is empty \(0 cases in all\)"),
        ([("u", "a", 1), ("w", "b", 2)], {"split": "leave-one-out"}, r"here: the train split is empty \(0 cases"),
        ([("u", "a", 1), ("u", "b", 2)], {"min_item_count": 2}, r"here: no interaction is left .*2 per item"),
        ([("u", "a", 1)], {"start": "2000-01-01"}, r"here: no interaction is left"),
        ([], {}, r"here: no interaction is left"),
        (
            [("u", "a", 1), ("u", "b", 2**40)],
            {},
            rf"here: interactions: row 1: timestamp {2**40} is no time in seconds",
        ),
    ],
)
def test_nothing_left_and_bad_values_are_one_sentence(rows: list[Row], changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        prepare(raw_of(rows), settings(**changes), "here")
    assert "\n" not in str(caught.value)


def test_a_doubled_item_of_any_source_is_refused() -> None:
    raw = raw_of([("u", "a", 1)])
    doubled = Raw(interactions=raw.interactions, items=pd.concat([raw.items, raw.items], ignore_index=True))
    with pytest.raises(InputError, match="here: items: row 1: item_id 'a' occurs twice"):
        prepare(doubled, settings(), "here")
