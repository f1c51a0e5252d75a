"""No row, column, rating or title vanishes without a word: files that a person got wrong, by hand."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from benchmark.data.account import Account
from benchmark.data.protocol import prepare
from benchmark.data.texts import attributes
from benchmark.datasets import Raw
from benchmark.errors import InputError
from benchmark.storage.io import read_json
from tests.support.csv_files import NOON, load, walks, write
from tests.support.planted import planted, settings
from tests.support.preparing import fetch_and_prepare
from tests.support.tiny_tokenizers import tiny_tokenizer


def test_other_separators_and_encodings_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="separate columns by commas, not by ';'"):
        load(write(tmp_path, f"user_id;item_id;timestamp\nu;i0;{NOON}\n"))
    with pytest.raises(InputError, match=r"separate columns by commas, not by ';'$"):  # and a decimal comma
        load(write(tmp_path, f"user_id;item_id;timestamp;rating\nu;i0;{NOON};4,5\n"))
    (tmp_path / "interactions.csv").write_text(f"# of 2020\nuser_id,item_id,timestamp\nu,i0,{NOON}\n")
    with pytest.raises(InputError, match=r"the first line has to name the columns$"):
        load(tmp_path)
    write(tmp_path, f"u,i0,{NOON}\n")
    (tmp_path / "items.csv").write_bytes("item_id,title\ni0,Café\n".encode("latin-1"))
    with pytest.raises(InputError, match="save it in UTF-8"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (gzip.compress(b"item_id,title\ni0,Lamp\n", mtime=0), "it is packed by gzip: unpack it"),
        (b"PK\x03\x04\x14\x00\xff\xfe", "it is a zip file or a spreadsheet: unpack it, or save it as csv"),
        (b"PAR1\x15\x04\xff\xfe", "it is a parquet file: name it .parquet"),
    ],
    ids=("gzip", "zip", "parquet"),
)
def test_what_is_only_called_csv_is_named(content: bytes, advice: str, tmp_path: Path) -> None:
    write(tmp_path, f"u,i0,{NOON}\n")
    (tmp_path / "items.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"items\.csv: can't be read \(.*\); {advice}$"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("log", "items", "message"),
    [("", "i0,Lamp\n", "the source has none"), (f"u,i0,{NOON}\n", "i0,\n", "no item has a title: give titles")],
)
def test_what_would_help_where_nothing_is_left_is_named(log: str, items: str, message: str, tmp_path: Path) -> None:
    raw = load(write(tmp_path, log, "item_id,title\n" + items))
    with pytest.raises(InputError, match=f"no interaction is left .*; {message}"):
        prepare(raw, settings(), "here")


def test_leave_one_out_that_leaves_nothing_to_train_on_says_what_it_needs() -> None:
    rows = [(f"u{user}", f"i{place}", NOON + 1000 * user + place, 1.0) for user in range(12) for place in range(3)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "rating"]).astype({"rating": "float32"})
    raw = Raw(log, pd.DataFrame({"item_id": ["i0", "i1", "i2"], "title": list("abc")}))
    with pytest.raises(
        InputError,
        match=r"here: the train split is empty .* users with four interactions or more, and the "
        "longest has 3: take split: global-temporal",
    ):
        prepare(raw, settings(split="leave-one-out"), "here")  # fmt: skip
    assert prepare(raw, settings(), "here").counts["train"] == 19


def test_one_test_user_is_said_by_prepare_with_the_datasets_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "mine", *walks(step_ms=10_000, users=1, items=40))
    assert (
        fetch_and_prepare(monkeypatch, tmp_path, folder, options={"folder": str(folder), "timestamp_unit": "ms"}) == 0
    )
    assert "mine: warning: all test cases are one user's; intervals and tests" in capsys.readouterr().out
    assert "one user's" in read_json(tmp_path / "data/mine/dataset.json")["warnings"][0]


def test_interactions_of_items_without_a_title_are_said() -> None:
    raw, account = planted(n_users=20), Account()
    items = raw.items.assign(title=raw.items["title"].where(raw.items["item_id"] != "i3", " "))
    counts = prepare(Raw(raw.interactions, items), settings(), "here", account).counts
    gone = int((raw.interactions["item_id"] == "i3").sum())
    assert gone == counts["dropped_no_title"] > 0
    assert (
        f"{gone} of 320 ({gone / 3.2:.1f} %) interactions are of an item without a title, first 'i3'"
        in account.warnings[0]
    )


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            'item_id,title\ni0,"Lamp\ni1,Chair\ni2,Stool\n',
            r"items\.csv: line 2: a quote isn't closed at the end of its field",
        ),
        (
            'item_id,title\ni0,Lamp\ni1,"Chair\ni2,"Stool"\n',
            r"items\.csv: line 3: a quote isn't closed at the end of its",
        ),
        (
            'item_id,title\n"i0,Lamp\ni1",Chair\ni2,Stool\n',
            r"items\.csv: row 1: item_id 'i0,Lamp\\ni1' holds a line break",
        ),
    ],
)
def test_a_quote_that_swallows_rows_is_refused(items: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(write(tmp_path, f"u,i0,{NOON}\n", items))


def test_rows_between_two_stray_quotes_are_said_in_whatever_column(tmp_path: Path) -> None:
    """A comment that nothing reads holds two rows of the log; a title holds the end of one item and another's start."""
    rows = ["u,i0,5,fine", 'u,i1,4,"ok', "u,i2,3,ok", 'u,i3,3,ok"', 'u,i0,2,"two lines,\nbut no row"', "u,i3,2,ok"]
    (tmp_path / "interactions.csv").write_text(
        "user_id,item_id,rating,comment,timestamp\n"
        + "".join(f"{row},{NOON + n}\n" for n, row in enumerate(rows[:1]))
        + f"{rows[1]},{NOON + 1}\n{rows[2]},{NOON + 2}\n{rows[3]},{NOON + 3}\n"
        + "".join(f"{row},{NOON + 9 + n}\n" for n, row in enumerate(rows[4:]))
    )
    (tmp_path / "items.csv").write_text(
        'item_id,title,year\ni0,"Lamp,1990\ni1,Chair",1991\ni2,"A\nB, C",1992\ni3,Stool,1993\n'
    )
    raw = load(tmp_path)
    assert len(raw.interactions) == 4 and raw.items["item_id"].tolist() == ["i0", "i2", "i3"]
    advice = "if a quote there belongs to no text, take it out, or double it"
    said = [note for note in raw.notes if "further row" in note]
    assert said == [
        "interactions.csv: 1 text may hold 2 further rows of the file, first that of column 'comment' in line 3: "
        f"{advice}",
        f"items.csv: 1 text may hold 1 further row of the file, first that of column 'title' in line 2: {advice}",
    ]


def test_a_quote_that_swallows_rows_and_closes_again_shows_in_the_log(tmp_path: Path) -> None:
    folder = write(
        tmp_path, "".join(f"u,i{n},{NOON + n}\n" for n in range(4)), 'item_id,title\ni0,"A\ni1,B\ni2,C"\ni3,D\n'
    )
    with pytest.raises(InputError, match=r"here: 2 of 4 \(50\.0 %\) interactions name an item .* first 'i1' in row 2"):
        prepare(load(folder), settings(), "here")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("item_id,title,Title", "columns 'title' and 'Title' differ in spelling alone; keep or rename one"),
        ("Title,item_id,title", "columns 'title' and 'Title' differ in spelling alone; keep or rename one"),
        ("item_id,title,Item ID", "columns 'item_id' and 'Item ID' differ in spelling alone; keep or rename one"),
        ("item_id,Title,note", "column 'Title' must be called 'title'; rename it"),
        ("item_id,title,note,NOTE", "columns 'note' and 'NOTE' differ in spelling alone; keep or rename one"),
    ],
)
def test_columns_that_differ_in_spelling_alone_are_refused(header: str, message: str, tmp_path: Path) -> None:
    cells = ",".join(f"c{n}" for n in range(header.count(",") + 1))
    with pytest.raises(InputError, match=f"items.csv: {message}"):
        load(write(tmp_path, f"u,i0,{NOON}\n", f"{header}\n{cells}\n"))


def test_a_misspelt_rating_is_no_missing_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"interactions\.csv: column 'Rating' must be called 'rating'; rename it"):
        load(write(tmp_path, f"user_id,item_id,timestamp,Rating\nu,i0,{NOON},5\n"))
    # What isn't read at all may be called anything.
    log = load(write(tmp_path, f"user_id,item_id,timestamp,x,X\nu,i0,{NOON},5,5\n")).interactions
    assert "x" not in log and log["rating"].isna().all()


def test_row_numbers_are_ignored_with_a_word(tmp_path: Path) -> None:
    items = ",item_id,title,index,Unnamed: 7,level_0\n0,i0,Lamp,0,9,5\n1,i1,Chair,1,9,5\n"
    raw = load(write(tmp_path, f",user_id,item_id,timestamp\n0,u,i0,{NOON}\n", items))
    assert raw.items.columns.tolist() == ["item_id", "title", "level_0"]  # which isn't 0, 1, ...
    names = ("", "Unnamed: 7", "index")
    assert raw.notes == tuple(f"items.csv: column {name!r} holds row numbers and is ignored" for name in names)
    chosen = load(tmp_path, attributes=["index"])
    assert chosen.items["index"].tolist() == ["0", "1"] and chosen.notes == ()


def test_notes_of_a_source_are_warnings_of_prepare(tmp_path: Path) -> None:
    account, raw = Account(), planted(n_users=20)
    prepare(Raw(raw.interactions, raw.items, notes=("items.csv: a word",)), settings(), "here", account)
    assert account.warnings == ["items.csv: a word"]


def test_ratings_of_zero_are_none_and_counted(tmp_path: Path) -> None:
    log = f"user_id,item_id,timestamp,rating\nu,i0,{NOON},3\nu,i1,{NOON},0\nu,i2,{NOON},0.0\nu,i3,{NOON},.5\n"
    raw = load(write(tmp_path, log))
    assert raw.interactions["rating"].fillna(-1).tolist() == [3, -1, -1, 0.5]
    warning = (
        "interactions.csv: 2 of 4 ratings are 0, first in row 2: they count as none (zero_ratings: true keeps them)"
    )
    assert raw.notes == (warning,)
    kept = load(tmp_path, zero_ratings=True)
    assert kept.interactions["rating"].tolist() == [3, 0, 0, 0.5] and kept.notes == ()


def test_negative_ratings_are_said(tmp_path: Path) -> None:
    """Some logs write -1 where somebody took an item without rating it."""
    log = f"user_id,item_id,timestamp,rating\nu,i0,{NOON},3\nu,i1,{NOON},-1\nu,i2,{NOON},-1\n"
    assert load(write(tmp_path, log)).notes == (
        "interactions.csv: 2 of 3 ratings are negative, first -1 in row 2: no prompt mentions ratings then, unless "
        "rating_scale is set; write 0 where there is none",
    )


def test_a_rating_that_float32_cannot_hold_is_refused(tmp_path: Path) -> None:
    log = f"user_id,item_id,timestamp,rating\nu,i0,{NOON},3\nu,i1,{NOON},1e39\n"
    with pytest.raises(
        InputError, match=r"interactions\.csv: row 2: rating 1e\+39 is too large; give a number below 3e38"
    ):
        load(write(tmp_path, log))


def test_titles_that_read_as_missing_are_said(tmp_path: Path) -> None:
    raw = load(write(tmp_path, f"u,i0,{NOON}\n", "item_id,title\ni0,Lamp\ni1,nan\ni2,None\ni3,\n"))
    assert raw.notes == ("items.csv: 2 of 4 titles read as a missing value, first 'nan' of 'i1'",)


def test_titles_that_no_person_wrote_and_those_of_several_items_are_said(tmp_path: Path) -> None:
    titles = ["AT&T <3", "Tom &amp; Jerry", "Am\u00c3\u00a9lie", "\u00c5ngstr\u00f6m", "Up", "Up "]
    items = "item_id,title\n" + "".join(f"i{v},{title}\n" for v, title in enumerate(titles))
    assert load(write(tmp_path, f"u,i0,{NOON}\n", items)).notes == (
        "items.csv: 1 of 6 titles hold HTML, first 'Tom &amp; Jerry' of 'i1'",
        "items.csv: 1 of 6 titles seem to be read in a wrong encoding, first 'Am\u00c3\u00a9lie' of 'i2'",
        "items.csv: 2 of 6 titles are another item's, too, which a method that writes titles can't tell apart, first "
        "'Up' of 'i4'",
    )


def test_popularity_columns_are_hidden_from_all_unless_the_config_says_otherwise() -> None:
    raw = planted(n_users=20)
    more = raw.items.assign(average_rating="4.5", **{"Rating Number": range(len(raw.items)), "rating": "PG"})
    account = Account()
    hidden = prepare(Raw(raw.interactions, more), settings(), "here", account)
    assert hidden.items.columns.tolist() == ["item_id", "title", "colour", "rating"]
    assert account.warnings == [
        "item columns average_rating, Rating Number are hidden from all methods, as they tell what came later "
        "(popularity_columns)"
    ]
    shown = prepare(Raw(raw.interactions, more), settings(popularity_columns=True), "here")
    # As text, which is an attribute for every method.
    assert shown.items.loc[3, ["average_rating", "Rating Number"]].tolist() == ["4.5", "3"]
    read = attributes(shown.items, tiny_tokenizer("llama"))
    assert read["average_rating"][3] == "4.5" and read["Rating Number"][3] == "3"
    assert list(attributes(hidden.items, tiny_tokenizer("llama"))) == ["colour", "rating"]


def test_a_scale_that_few_ratings_set_and_an_order_that_a_hash_sets_are_said() -> None:
    def warned(raw: Raw, **changes: object) -> list[str]:
        account = Account()
        prepare(raw, settings(**changes), "shop", account)
        return account.warnings

    raw = planted(n_users=40, length=8)
    assert not warned(raw) and not warned(raw, same_time="order")
    slip = raw.interactions.copy()
    slip.loc[3, "rating"] = 99
    warnings = warned(Raw(slip, raw.items))
    assert warnings == [
        "ratings count as out of 100, because 1 of them are above 10, the highest 99; mend those, or set rating_scale"
    ]
    assert not warned(Raw(slip, raw.items), rating_scale=100)
    ten = raw.interactions.assign(rating=raw.interactions["rating"] * 2)  # many above 5: a scale of 10
    assert not warned(Raw(ten, raw.items))
    equal = raw.interactions.assign(timestamp=1_400_000_000)
    (said_of_order,) = warned(Raw(equal, raw.items), same_time="order")
    assert said_of_order.endswith(
        "interactions have the very time of another of their user, so that a hash orders them"
    )
