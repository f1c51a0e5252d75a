"""Amazon Reviews 2023: files that aren't what they should be, and how files are fetched, from a server and a folder."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark.config.methods import ROOT
from benchmark.datasets import _duckdb, amazon_2023
from benchmark.datasets._amazon_text import attribute
from benchmark.errors import InputError
from benchmark.speed import raw_amazon
from benchmark.storage import download
from tests.support.amazon_2023 import ITEMS, LIMITS, item, lines_of, load, options, packed, pairs, write_mirror
from tests.support.mirror import serving


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mirror(tmp_path_factory.mktemp("mirror"))


BROKEN = ['{"parent_asin": "Y", "title": "brok', "[1, 2]", "{}", '{"parent_asin": null}', b'{"parent_asin": "\xff"}']


@pytest.mark.parametrize(
    "line", [*BROKEN, '{"parent_asin": "Y", "title": "\\ud800"}', '{"parent_asin": ""}'], ids=range(7)
)
def test_a_broken_line_is_named(tmp_path: Path, line: Any) -> None:
    folder = write_mirror(tmp_path, items=[*lines_of(ITEMS[:3]), line, *lines_of(ITEMS[3:])])
    with pytest.raises(
        InputError, match=r"meta_Video_Games\.jsonl\.gz: line 4: .*; broken lines: 1, of 11: fetch the file"
    ):
        load(folder)
    assert load(folder, broken_lines=1).about["counts"]["lines_broken"] == 1


def test_more_broken_lines_than_tolerated_are_refused(tmp_path: Path) -> None:
    folder = write_mirror(tmp_path, items=[*lines_of(ITEMS), *BROKEN])
    with pytest.raises(
        InputError, match=r"line 11: .*; broken lines: 5, of 15: .* broken_lines tolerate them \(it is 4\)"
    ):
        load(folder, broken_lines=4)
    raw = load(folder, broken_lines=5)
    assert raw.about["counts"]["lines_broken"] == 5 and pairs(raw) == "1A 1D 5I 1F 2A 2E 3F 3A"


def test_blank_lines_and_surrogate_pairs_are_fine(tmp_path: Path) -> None:
    folder = write_mirror(tmp_path, items=["", *lines_of(ITEMS), "", ""])
    assert "\\ud83c\\udfb8" in lines_of(ITEMS)[4]
    assert load(folder).about["counts"]["items_read"] == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u1,A,5.0", r"line 3: 3 columns instead of 4 \('u1,A,5\.0'\); fetch the file again"),
        ("u1,A,5.0,1,2", "line 3: 5 columns instead of 4"),
        ("u1,A,5.0,yesterday", "line 3: invalid literal for int.* 'yesterday'"),
        ("u1,A,good,1693526400000", "line 3: could not convert string to float: 'good'"),
        ("u1,A,inf,1693526400000", "line 3: rating is no finite number"),
        ("u1,A,1e39,1693526400000", "line 3: rating is no finite number"),
        (",A,5.0,1693526400000", "line 3: user_id is missing"),
        ("u1,,5.0,1693526400000", "line 3: parent_asin is missing"),
        ("u1,A,5.0,", "line 3: timestamp is missing"),
        (f"u1,A,5.0,{'9' * 400}", "line 3: integer division result too large for a float"),
        (f"u1,A,5.0,{'9' * 5000}", "line 3: Exceeds the limit"),
    ],
)
def test_bad_interactions_are_named(tmp_path: Path, line: str, message: str) -> None:
    folder = write_mirror(tmp_path, ["u1,A,5.0,1693526400000", line, "u2,F,5.0,1693526400000"])
    with pytest.raises(InputError, match=rf"Video_Games\.csv\.gz: {message}"):
        load(folder)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (f"{'[' * 900}{']' * 900}", "maximum recursion depth"),
        ("9" * 5000, "Exceeds the limit"),
        ('"\\ud800"', "surrogates not allowed|surrogate"),
    ],
)
def test_metadata_that_is_json_and_no_text_is_one_sentence(tmp_path: Path, value: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"the metadata's attribute .*({reason}).*; leave its line out"):
        attribute(value, None)
    line = f'{{"parent_asin": "A", "title": "Alpha", "price": 1, "details": {value}}}'
    folder = write_mirror(tmp_path, items=[line, *lines_of(ITEMS)[1:]])
    try:
        load(folder, attributes=["details"])
    except InputError as problem:
        assert "\n" not in str(problem)


def test_other_files_are_refused(tmp_path: Path) -> None:
    folder = write_mirror(tmp_path)
    path = folder / "benchmark/0core/rating_only/Video_Games.csv.gz"
    path.write_bytes(packed(["user,item,rating,timestamp", "u1,A,5.0,1693526400000"]))
    with pytest.raises(
        InputError, match="line 1: columns are 'user,item,rating,timestamp', expected 'user_id,parent_asin"
    ):
        load(folder)
    path.write_bytes(packed(["user_id,parent_asin,rating,timestamp", "u1,A,5.0,1693526400"]))
    # Seconds, a time that stands for "unknown", and dates: none is read as a time of 1970.
    for value, read in ((1693526400, "1970-01-20"), (-1, "1969-12-31"), (0, "1970-01-01"), (20140820, "1970-01-01")):
        path.write_bytes(
            packed(["user_id,parent_asin,rating,timestamp", "u1,A,5.0,1693526400000", f"u1,F,5.0,{value}"])
        )
        message = (
            rf"line 3: timestamp {value} is no time in milliseconds \(it reads as {read}, .*, lines like it: 1; take"
        )
        with pytest.raises(InputError, match=message):
            load(folder)
    path.write_bytes(b"user_id,parent_asin,rating,timestamp\n")
    with pytest.raises(InputError, match=r"Video_Games\.csv\.gz: no whole gzip file"):
        load(folder)
    with pytest.raises(InputError, match="no item with an interaction before the window's end passes the rules"):
        load(write_mirror(tmp_path / "x", items=lines_of([item("Z", "Zulu", 1)])))
    with pytest.raises(InputError, match="no interaction is left by the rules"):
        load(write_mirror(tmp_path / "y"), start="2023-09-29", min_items=0)


@pytest.mark.parametrize(
    "name", ["benchmark/0core/rating_only/Video_Games.csv.gz", "raw/meta_categories/meta_Video_Games.jsonl.gz"]
)
def test_half_a_file_is_refused(tmp_path: Path, name: str) -> None:
    path = write_mirror(tmp_path) / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"{path.name}: no whole gzip file"):
        load(tmp_path)
    with pytest.raises(InputError, match=rf"{path.name}: no whole gzip file"):
        amazon_2023.fetch(options(tmp_path), tmp_path / "resources")


def test_too_little_room_for_the_tables_is_refused(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = _duckdb.shutil.disk_usage("/")
    monkeypatch.setattr(_duckdb.shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(InputError, match=r"0\.00 GB are left and up to .*; free some, or set TMPDIR to a larger disk"):
        load(mirror)


def test_a_disk_that_gets_full_is_one_sentence(tmp_path: Path) -> None:
    """The limit on a file's size, below what the tables take, stands for a quota of the temporary folder."""
    raw_amazon.write_category(tmp_path, "Video_Games", "0core", 200_000)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from benchmark.datasets import Limits, amazon_2023 as a; o = a.Options(category='Video_Games', "
        "mirror=sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000));"
        "a.load(o, a.inputs(o), Limits(0, 2**33, 1))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert "InputError" in done.stderr and "; free some, or set TMPDIR to a larger disk" in done.stderr


# Fetching


def server_files(folder: Path) -> dict[str, bytes]:
    return {f"data/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.gz")}


def test_files_are_fetched_from_a_server(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT", 0.0)
    with serving() as server:
        server.files = server_files(mirror)
        server.plan = ["503", "cut", "ok", "cut"]
        checked_options = options(mirror, mirror=f"{server.url}/data")
        assert amazon_2023.inputs(checked_options) == []
        files = amazon_2023.fetch(checked_options, tmp_path)
        assert [str(file.relative_to(tmp_path / "amazon-2023")) for file in files] == list(checked_options.names)
        requests = len(server.seen)
        amazon_2023.fetch(checked_options, tmp_path)
        released = amazon_2023.fetch(options(mirror, mirror=f"{server.url}/data/", preset="released"), tmp_path)
        assert released[1] == files[1] and released[0] != files[0] and len(server.seen) == requests + 1 == 6
        # Fetched again, the recorded checksum holds.
        files[0].unlink()
        server.files[f"data/{checked_options.names[0]}"] = packed(["user_id,parent_asin,rating,timestamp"])
        with pytest.raises(InputError, match=r"Video_Games\.csv\.gz: sha256 is .*, recorded in .*\.sha256 is "):
            amazon_2023.fetch(checked_options, tmp_path)
    raw = amazon_2023.load(checked_options, amazon_2023.inputs(options(mirror)), LIMITS)
    assert pairs(raw) == "1A 1D 5I 1F 2A 2E 3F 3A"


def test_a_mirror_without_the_file_is_refused(tmp_path: Path) -> None:
    with (
        serving() as server,
        pytest.raises(InputError, match=r"rating_only/Video_Games\.csv\.gz: status 404 Not Found"),
    ):
        amazon_2023.fetch(options(tmp_path, mirror=server.url), tmp_path)


def test_a_folder_is_read_in_place_and_pinned_too(tmp_path: Path) -> None:
    folder = write_mirror(tmp_path / "mirror")
    checked_options = options(folder)
    assert amazon_2023.fetch(checked_options, tmp_path / "resources") == amazon_2023.inputs(checked_options)
    assert not list((tmp_path / "resources").rglob("*.gz")) and not list(folder.rglob("*.sha256"))
    path = folder / checked_options.names[1]
    path.write_bytes(packed(lines_of(ITEMS[:4])))
    with pytest.raises(InputError, match=r"recorded in .*meta_Video_Games\.jsonl\.gz\.sha256"):
        amazon_2023.fetch(checked_options, tmp_path / "resources")
    wrong = options(folder, sha256={checked_options.names[0]: "0" * 64})
    with pytest.raises(InputError, match="pinned in the config's sha256"):
        amazon_2023.fetch(wrong, tmp_path / "other")
    path.unlink()
    with pytest.raises(
        InputError, match=r"meta_Video_Games\.jsonl\.gz: missing; the mirror's folder needs it at this place"
    ):
        amazon_2023.inputs(checked_options)
