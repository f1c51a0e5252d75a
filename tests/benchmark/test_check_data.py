"""What check-data says is what prepare does: counts, reasons, first rows, problems and exit codes."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmark.config.read import read_config_file
from benchmark.data import check_data
from benchmark.data.account import UNKNOWN_ITEM, Account, Dropped, share
from benchmark.data.protocol import prepare
from benchmark.datasets import Raw
from benchmark.errors import InputError
from benchmark.storage.io import read_json
from tests.support.planted import planted, settings, write_files
from tests.support.preparing import fetch_and_prepare

DAY = 86_400
BELOW = "below the minimum counts ({} per user, {} per item)"
REPEATS = "repeats: the user took the item before"
UNTITLED = "their item has no title"
OUTSIDE = "outside the window from `start` to `end`"


def called(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["check-data", *map(str, arguments)])
    try:
        check_data.main()
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        return ended.code
    return 0


def shop(folder: Path) -> Path:
    """The planted log with one interaction for each rule that drops some."""
    raw = planted(n_users=40)
    row = raw.interactions.iloc[0]
    before = int(raw.interactions["timestamp"].min()) - 400 * DAY
    more = [
        ("u1", "gone", row["timestamp"], 1.0),
        ("u2", "blank", row["timestamp"] + 1, 1.0),
        ("u3", "i3", before, 1.0),
        (row["user_id"], row["item_id"], row["timestamp"] + 9 * 10**6, 1.0),
        ("new", "i5", row["timestamp"] + 2, 1.0),
    ]
    log = pd.concat([raw.interactions, pd.DataFrame(more, columns=raw.interactions.columns)], ignore_index=True)
    items = pd.concat([raw.items, pd.DataFrame({"item_id": ["blank"], "title": [" "], "colour": ["red"]})])
    write_files(folder, Raw(log, items.reset_index(drop=True)))
    return folder


def test_every_rule_says_how_many_and_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shop(tmp_path / "shop")
    start = pd.to_datetime(planted(n_users=40).interactions["timestamp"].min(), unit="s").date()
    own = ["--min-user-count", "2", "--min-item-count", "1", "--start", start]
    assert called(monkeypatch, folder, *own, "--resources", tmp_path / "unused") == 0
    output = capsys.readouterr().out
    for line, first in (
        (f"1 interaction (0.2 %): {UNKNOWN_ITEM}", "first row 641: user 'u1', item 'gone', "),
        (f"1 interaction (0.2 %): {UNTITLED}", "first row 642: user 'u2', item 'blank', "),
        (f"1 interaction (0.2 %): {OUTSIDE}", "first row 643: user 'u3', item 'i3', 20"),
        (f"{BELOW.format(2, 1)}", "first row 645: user 'new', item 'i5', "),
    ):
        at = output.index(line)
        assert output[at:].splitlines()[1].strip().startswith(first)
    assert "the user has 1 and the item " in output and REPEATS in output
    assert (
        "Warning   1 of 645 (0.2 %) interactions name an item that isn't in items, first 'gone'; they are dropped"
        in output
    )
    # The numbers are those of dataset.json.
    assert fetch_and_prepare(monkeypatch, tmp_path, folder, min_user_count=2, start=str(start)) == 0
    assert "warning: 1 of 645 (0.2 %) interactions name an item that isn't in items" in capsys.readouterr().out
    counts = read_json(tmp_path / "data/mine/dataset.json")["counts"]
    assert f"{counts['interactions']} interactions of {counts['users']} users with {counts['items']} items" in output
    assert f"{counts['cases']} cases, each" in output and f"train {counts['train']} cases" in output
    assert (
        f"test  {counts['test']} cases of {counts['test_users']} users; {counts['cold_targets_test']} target" in output
    )
    assert not (tmp_path / "unused").exists()


def test_its_entry_can_be_put_into_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shop(tmp_path / "shop")
    own = ["--min-item-count", 1, "--end", "2030-01-01", "--option", "attributes=[colour]", "--same-time", "order"]
    assert called(monkeypatch, folder, *own) == 0
    output = capsys.readouterr().out
    written = yaml.safe_load(output.partition("Its entry in a config:")[2])
    assert written == {
        "shop": {
            "source": "files",
            "options": {"folder": str(folder), "attributes": ["colour"]},
            "category": "item",
            "min_item_count": 1,
            "end": "2030-01-01",
            "same_time": "order",
        }
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"datasets": written, "methods": {"popularity": None}}, sort_keys=False))
    assert read_config_file(path).datasets["shop"].min_user_count == 5
    # And from there it reads the same.
    assert called(monkeypatch, "--config", path, "--dataset", "shop") == 0
    assert capsys.readouterr().out == output


def test_all_datasets_of_a_config_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = shop(tmp_path / "good"), tmp_path / "bad"
    entry = {"source": "files", "category": "thing", "min_item_count": 1}
    value = {"datasets": {name.name: entry | {"options": {"folder": str(name)}} for name in (bad, good)}}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(value))  # what else a config needs is no matter here
    assert called(monkeypatch, "--config", path) == 2
    output = capsys.readouterr()
    assert output.err == "error: 1 of 2 datasets can't be used\n"
    assert f"Problem   {bad}: need interactions.parquet or interactions.csv, neither exists" in output.out
    assert "good can be used." in output.out and "bad can be used." not in output.out


def test_an_entry_may_be_like_a_shared_one(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("datasets: {mine: {like: ml-100k, min_user_count: 7}}\n")
    settings = check_data.entries(check_data.parse(["--config", str(path), "--same-time", "order"]))["mine"]
    assert (settings.source, settings.min_user_count, settings.same_time) == ("ml_100k", 7, "order")


SENTENCES: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "error: no data is named; give FOLDER with interactions.csv and items.csv, or --config FILE"),
    "no folder": (
        ["nowhere"],
        "error: nowhere: need interactions.parquet or interactions.csv, neither exists, nor does the folder in /",
    ),
    "no such source": (["--source", "ml_100"], "error: ml_100: no source 'ml_100'; did you mean 'ml_100k'? Known: "),
    "no such option": (["shop", "--option", "timestamp_unt=ms"], "'timestamp_unt'; did you mean 'timestamp_unit'?"),
    "half an option": (["shop", "--option", "ms"], "error: --option ms: expected KEY=VALUE, such as timestamp_unit=ms"),
    "no number": (
        ["shop", "--min-user-count", "few"],
        "error: check-data: min_user_count: expected a whole number, found",
    ),
    "no day": (["shop", "--start", "soon"], "error: check-data: start: expected a date"),
    "no such day": (["shop", "--start", "2016-13-01"], "error: --start: '2016-13-01' can't be read: month must be in"),
    "not YAML": (["shop", "--start", "["], "error: --start: '[' can't be read; put it in quotes"),
    "nothing left": (["shop", "--min-user-count", "900"], "error: shop: no interaction is left after"),
    "no config": (["--config", "none.yaml"], "error: none.yaml: no such file; give the path of a config"),
    "no such dataset": (
        ["--config", "own.yaml", "--dataset", "shopp"],
        "error: own.yaml: datasets: no dataset 'shopp'; did you mean 'shop'? Known: shop",
    ),
    "no datasets": (["--config", "empty.yaml"], "error: empty.yaml: names no datasets; see config/README.md"),
    "no entry": (["--config", "own.yaml"], "error: own.yaml: datasets.shop: expected settings by name, found nothing"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_it_refuses_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shop(tmp_path / "shop")
    (tmp_path / "own.yaml").write_text("datasets: {shop: }\n")
    (tmp_path / "empty.yaml").write_text("seeds: 1\n")
    arguments, message = SENTENCES[name]
    assert called(monkeypatch, *arguments) == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert message in printed


def test_what_was_counted_is_said_before_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No item of the log is known, as its ids are spelled otherwise; the report before the error shows them."""
    raw = planted(n_users=5)
    write_files(tmp_path / "shop", Raw(raw.interactions.assign(item_id=raw.interactions["item_id"] + ".0"), raw.items))
    assert called(monkeypatch, tmp_path / "shop") == 2
    output = capsys.readouterr().out
    assert f"80 interactions (100.0 %): {UNKNOWN_ITEM}" in output and "first row 1: user 'u0', item 'i" in output
    assert "can be used" not in output and "Kept" not in output


def test_minimum_counts_that_drop_most_of_it_are_a_warning() -> None:
    """All items but the planted ones are in one interaction each, as in a part of a larger log."""
    raw = planted(n_users=40)
    once = pd.DataFrame({"user_id": "u1", "item_id": [f"x{n}" for n in range(len(raw.interactions) + 1)]})
    once["timestamp"], once["rating"] = raw.interactions["timestamp"].iloc[0] + 60 * once.index, 1.0
    items = pd.DataFrame({"item_id": once["item_id"], "title": once["item_id"], "colour": "red"})
    for rows, said in ((once, True), (once.iloc[:10], False)):
        account = Account()
        log = pd.concat([raw.interactions, rows], ignore_index=True)
        prepare(Raw(log, pd.concat([raw.items, items], ignore_index=True)), settings(min_item_count=2), "here", account)
        dropped, before = account.counts["dropped_minimum_counts"], account.counts["interactions_before_minimum_counts"]
        assert (dropped > before / 2) == said
        sentence = f"the minimum counts drop {share(dropped, before)} interactions; where the log is a part of a larger"
        assert sum(warning.startswith(sentence) for warning in account.warnings) == said


def test_one_user_alone_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account()
    prepare(planted(n_users=1), settings(), "here", account)
    assert account.warnings == ["all test cases are one user's; intervals and tests are over users and need several"]
    account = Account()
    prepare(planted(), settings(), "here", account)
    assert not account.warnings and list(account.dropped) == [REPEATS]


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("uvwxyz"), st.integers(0, 9)), max_size=40),
    per_user=st.integers(1, 3),
    per_item=st.integers(1, 2),
)
def test_each_row_is_dropped_by_one_rule_or_kept(
    rows: list[tuple[str, str, int]], per_user: int, per_item: int
) -> None:
    """u has no title, v is no item, and day 0 is before the window. A plain loop applies every rule row by row."""
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    log = log.assign(timestamp=log["timestamp"].astype("int64") * DAY, rating=np.float32(1))
    items = pd.DataFrame({"item_id": list("uwxyz"), "title": ["", *"WXYZ"]})
    account, chosen = (
        Account(),
        settings(start="1970-01-02", min_user_count=per_user, min_item_count=per_item, max_unknown_items=1),
    )
    with contextlib.suppress(InputError):  # nothing left, or an empty split: what was counted stands
        prepare(Raw(log, items), chosen, "here", account)
    expected: dict[str, list[int]] = {}
    earliest: dict[tuple[str, str], tuple[int, int]] = {}
    for number, (user, item, day) in enumerate(rows):
        reason = UNKNOWN_ITEM if item == "v" else UNTITLED if item == "u" else OUTSIDE if day < 1 else None
        if reason is not None:
            expected.setdefault(reason, []).append(number)
        else:
            earliest[user, item] = min(earliest.get((user, item), (day, number)), (day, number))
    kept = {number for _, number in earliest.values()}
    gone = {number for numbers in expected.values() for number in numbers}
    if repeats := [number for number in range(len(rows)) if number not in kept | gone]:
        expected[REPEATS] = repeats
    remaining = set(kept)
    while True:
        users, things = ([rows[number][place] for number in remaining] for place in (0, 1))
        stays = {n for n in remaining if users.count(rows[n][0]) >= per_user and things.count(rows[n][1]) >= per_item}
        if stays == remaining:
            break
        remaining = stays
    if kept - remaining:
        expected[BELOW.format(per_user, per_item)] = sorted(kept - remaining)
    dropped: dict[str, Any] = {reason: (rule.rows, rule.first) for reason, rule in account.dropped.items()}
    assert dropped == {reason: (len(numbers), min(numbers)) for reason, numbers in expected.items()}
    assert account.counts["interactions_read"] - sum(rule.rows for rule in account.dropped.values()) == len(remaining)


def test_a_reason_without_rows_is_no_reason() -> None:
    account = Account()
    account.drop("never", np.array([], np.int64))
    account.drop("twice", np.array([7, 3]), "so")
    assert account.dropped == {"twice": Dropped(2, 3, "so")}
