"""Valid data that may mean something else than it says: each kind has its sentence, and its likes have none."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.data.account import Account
from benchmark.data.protocol import prepare
from benchmark.datasets import Raw
from benchmark.errors import InputError
from tests.benchmark.test_check_data import called
from tests.support.csv_files import NOON, load, write
from tests.support.planted import planted, settings, write_files


def warned(raw: Raw, **changes: object) -> list[str]:
    account = Account()
    prepare(raw, settings(**changes), "shop", account)
    return account.warnings


def rated(ratings: np.ndarray) -> Raw:
    raw = planted(n_users=40, length=8)
    return Raw(raw.interactions.assign(rating=np.resize(ratings, len(raw.interactions)).astype(np.float32)), raw.items)


@pytest.mark.parametrize(
    ("ratings", "middle", "scale"),
    [([1, 1, 2, 3, 40], 2, 100), ([1, 1, 2, 7, 1], 1, 10), ([1, 1, 1, 4], 1, 5), ([3, 4, 2, 5, 3, 99, 3], 3, 100)],
)
def test_counts_in_the_place_of_ratings_are_said(ratings: list[int], middle: float, scale: int) -> None:
    sentence = (
        f"half of the ratings are at most {middle:g}, and prompts say that they are out of {scale}; if they count "
        "something, set rating_scale: none"
    )
    assert warned(rated(np.array(ratings))) == [sentence]
    # Who sets the scale knows what the numbers are.
    assert warned(rated(np.array(ratings)), rating_scale=scale) == []
    assert warned(rated(np.array(ratings)), rating_scale="none") == []


@pytest.mark.parametrize("ratings", [[1, 2, 3, 4, 5], [1, 1, 2, 4, 5], [3, 5, 7, 10], [20, 55, 80, 100], [1], [np.nan]])
def test_ratings_that_are_ratings_are_not(ratings: list[float]) -> None:
    assert warned(rated(np.array(ratings))) == []


@pytest.mark.parametrize(
    ("ratings", "said"),
    [
        ([3, 40, 250], "ratings go from 3 to 250 (above 100)"),
        ([0.2, 0.5, 1], "ratings go from 0.2 to 1 (none above 1)"),
    ],
)
def test_ratings_that_no_prompt_mentions_are_said(ratings: list[float], said: str) -> None:
    raw = rated(np.array(ratings))
    assert warned(raw) == [
        f"{said}, so that no prompt mentions them; set rating_scale to what they are out of, or to none if they are no "
        "ratings"
    ]
    assert warned(raw, rating_scale=max(ratings)) == warned(raw, rating_scale="none") == []


def test_a_slip_above_all_scales_is_counted() -> None:
    assert warned(rated(np.array([1, 2, 3, 4, 5] * 60 + [250]))) == [
        "1 rating of 307 above 100, the highest 250: no prompt mentions ratings; mend those, or set rating_scale"
    ]


def shop_with(column: str, values: list[object]) -> Raw:
    """A shop whose items come one by one and are taken ever after, and whose ratings are an item's own."""
    generator = np.random.default_rng(0)
    items, users, days = 60, 150, 100
    quality = generator.permutation(items) % 5 + 1
    rows = []
    for user in range(users):
        for day in sorted(generator.choice(days, 12, replace=False).tolist()):
            # Item i comes on day i.
            item = int(generator.integers(min(day + 1, items)) if day else 0)
            rows.append((f"u{user}", f"i{item}", NOON + day * 86_400 + user, float(quality[item])))
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "rating"]).astype({"rating": "float32"})
    names = [f"i{item}" for item in range(items)]
    return Raw(log, pd.DataFrame({"item_id": names, "title": [f"Thing {name}" for name in names], column: values}))


def occurrences() -> list[int]:
    log = shop_with("none", [""] * 60).interactions.drop_duplicates(["user_id", "item_id"])
    return log["item_id"].value_counts().reindex([f"i{item}" for item in range(60)], fill_value=0).tolist()


COUNTS = occurrences()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([f"{10_000 + n:,}" for n in COUNTS], "how often an item occurs"),
        ([-n for n in COUNTS], "how often an item occurs"),
        ([f"{n} sold" if i % 3 else "" for i, n in enumerate(COUNTS)], "how often an item occurs"),
        ([f"{n / 10}k" for n in COUNTS], "how often an item occurs"),
        ([f"{n % 5 + 1.0}" for n in np.random.default_rng(0).permutation(60)], "an item's mean rating"),
    ],
)
def test_attributes_that_go_with_popularity_are_said(values: list[object], what: str) -> None:
    """As a shop exports them: times sold, a rank among the bestsellers, or stars, under whatever name."""
    raw = shop_with("shown", values)
    (said,) = warned(raw)
    told = re.fullmatch(
        rf"item column 'shown' goes with {what} \(rank correlation (-?[.\d]+)\): if it tells how popular items became, "
        "it tells prompts what came later; leave it out of `attributes`, or of the file",
        said,
    )
    assert told is not None and abs(float(told[1])) > 0.9
    assert warned(raw, popularity_columns=True) == []


@pytest.mark.parametrize(
    "values",
    [
        list(range(60)),  # a running number
        [NOON + 86_400 * day for day in range(60)],
        [2000 + day // 20 for day in range(60)],
        ["red", "blue"] * 30,
        [str(price) for price in np.random.default_rng(3).permutation(60)],
    ],
)
def test_launch_dates_numbers_and_prices_are_not(values: list[object]) -> None:
    assert warned(shop_with("shown", values)) == []


def test_one_time_of_many_is_said(tmp_path: Path) -> None:
    """40 of 340 interactions have the time that a system writes for none."""
    log = [f"u{user},i{item},{NOON + 977 * user + 40 * item}\n" for user in range(30) for item in range(10)]
    unknown = [f"u{row % 25},i{row % 4},1262304000\n" for row in range(40)]
    assert load(write(tmp_path, "".join(log + unknown))).notes == (
        "interactions.csv: 40 of 340 interactions, of 25 users, are of the one time 1262304000 (2010-01-01 00:00:00 "
        "UTC); if it stands for missing ones, leave those rows out",
    )
    few = [f"u{row % 19},i{row % 4},1262304000\n" for row in range(40)]  # as in a class that came on one day
    assert load(write(tmp_path, "".join(log + few))).notes == ()
    days = [f"u{user},i{item},{1262304000 + 86400 * (user % 5)}\n" for user in range(150) for item in range(2)]
    assert load(write(tmp_path, "".join(days))).notes == ()  # each of five days has a fifth of all


def test_a_log_of_one_time_is_refused_with_what_to_do() -> None:
    raw = planted(n_users=40, length=8)
    with pytest.raises(InputError, match=r"train split is empty .* one time, 1400000000: give each its own$"):
        warned(Raw(raw.interactions.assign(timestamp=1_400_000_000), raw.items))


def test_users_of_two_spellings_are_said(tmp_path: Path) -> None:
    mails = [f"{name}{user}@shop.org,i0,{NOON + user}\n" for user in range(12) for name in ("Ann", "ann")]
    assert load(write(tmp_path, "".join(mails))).notes == (
        "interactions.csv: 12 of 24 user_ids differ from another in small and capital letters alone, first "
        "'ann0@shop.org'",
    )
    # Random ids of letters differ so by chance, but few do.
    random = [f"x{user}Q,i0,{NOON + user}\n" for user in range(30)] + [f"x1q,i1,{NOON}\n", f"x2q,i1,{NOON}\n"]
    assert load(write(tmp_path, "".join(random))).notes == ()


def test_titles_without_words_are_said(tmp_path: Path) -> None:
    def notes(titles: list[str]) -> tuple[str, ...]:
        items = "item_id,title\n" + "".join(f"i{item},{title}\n" for item, title in enumerate(titles))
        return load(write(tmp_path, f"u,i0,{NOON}\n", items)).notes

    say = "are numbers or the items' ids, which say nothing to a method that reads titles, first"
    assert notes(["1984", "300", "Up"]) == (f"items.csv: 2 of 3 titles {say} '1984' of 'i0'",)
    assert notes(["i0", "Lamp", "i2"]) == (f"items.csv: 2 of 3 titles {say} 'i0' of 'i0'",)
    assert notes(["1984", "Up", "Big"]) == ()  # a film may be called so
    assert notes(["千と千尋", "もののけ姫", "Up 2"]) == ()


def test_columns_that_nothing_reads_are_said(tmp_path: Path) -> None:
    log = f"user_id,item_id,timestamp,event\nu,i0,{NOON},view\nu,i1,{NOON + 9},purchase\n"
    assert load(write(tmp_path, log)).notes == (
        "interactions.csv: column 'event' is not read: every row counts as an interaction, whatever it says",
    )
    more = f",user_id,item_id,event,price,timestamp,rating\n0,u,i0,view,3,{NOON},5\n"
    assert load(write(tmp_path, more)).notes == (
        "interactions.csv: columns 'event', 'price' are not read: every row counts as an interaction, whatever they "
        "say",
    )
    chosen = "item_id,title,price\ni0,Lamp,3\n"  # which attributes of items are read is the user's own choice
    assert load(write(tmp_path, f"u,i0,{NOON}\n", chosen), attributes=[]).notes == ()


def test_items_that_nobody_took_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unused(raw: Raw) -> int:
        write_files(tmp_path / "shop", raw)
        assert called(monkeypatch, tmp_path / "shop") == 0
        said = re.search(
            r"^ +outside the ranked catalogue, as no kept interaction is of them: (\d+) items?$",
            capsys.readouterr().out,
            flags=re.M,
        )
        return int(said[1]) if said else 0

    raw = planted()
    more = pd.DataFrame({"item_id": ["x1", "x2", "x3"], "title": ["Shelf", "Rug", "Vase"]})
    assert unused(raw) == 0
    assert unused(Raw(raw.interactions, pd.concat([raw.items, more]).fillna("plain"))) == 3
