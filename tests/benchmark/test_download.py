"""Downloads: cut off, refused, changed, killed, damaged, on a full disk. The server is a thread of the test."""

import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmark.errors import InputError
from benchmark.storage import download as module
from benchmark.storage.download import check_pinned, download
from tests.support.mirror import Mirror, serving

# Random bytes, so that the packed file is large enough to be broken off in the middle.
WHOLE = gzip.compress(np.random.default_rng(0).bytes(50_000), mtime=0)
OTHER = gzip.compress(np.random.default_rng(1).bytes(50_000), mtime=0)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving() as running:
        running.files["a/x.gz"] = WHOLE
        yield running


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the download wants to make, none of which is made."""
    seconds: list[float] = []
    monkeypatch.setattr(module.time, "sleep", seconds.append)
    return seconds


def get(mirror: Mirror, folder: Path) -> Path:
    return download(f"{mirror.url}/a/x.gz", folder / "deep" / "x.gz")


def files_of(folder: Path) -> set[str]:
    return {path.name for path in (folder / "deep").iterdir()} - {".x.gz.lock"}


def test_a_file_is_fetched_once(mirror: Mirror, tmp_path: Path) -> None:
    assert get(mirror, tmp_path).read_bytes() == WHOLE
    assert get(mirror, tmp_path).read_bytes() == WHOLE
    assert mirror.asked == [None] and files_of(tmp_path) == {"x.gz"}
    assert mirror.seen[0][1]["Accept-Encoding"] == "identity"


def test_a_cut_off_transfer_goes_on_from_its_last_byte(mirror: Mirror, tmp_path: Path, waits: list[float]) -> None:
    mirror.plan = ["cut", "cut"]
    assert get(mirror, tmp_path).read_bytes() == WHOLE
    half = len(WHOLE) // 2
    further = half + (len(WHOLE) - half) // 2
    assert mirror.asked == [None, f"bytes={half}-", f"bytes={further}-"]
    assert waits == [1, 1]  # each brought new bytes, so neither counts as the second failure in a row
    assert mirror.seen[1][1]["If-Range"].startswith('"')


def test_a_server_without_ranges_is_read_from_the_start(mirror: Mirror, tmp_path: Path, waits: list[float]) -> None:
    mirror.ranges, mirror.plan = False, ["cut", "cut"]
    assert get(mirror, tmp_path).read_bytes() == WHOLE
    assert len(mirror.seen) == 3 and waits == [1, 2]  # the second half brought nothing that the first had not


def test_passing_troubles_are_waited_out(mirror: Mirror, tmp_path: Path, waits: list[float]) -> None:
    mirror.plan = ["503", "429 7", "500", "503 9999"]
    assert get(mirror, tmp_path).read_bytes() == WHOLE
    assert waits == [1, 7, 4, 120]


def test_a_missing_file_is_refused_at_once(mirror: Mirror, tmp_path: Path, waits: list[float]) -> None:
    with pytest.raises(InputError, match=r"/b\.gz: status 404 Not Found; check category and mirror"):
        download(f"{mirror.url}/b.gz", tmp_path / "b.gz")
    assert len(mirror.seen) == 1 and waits == [] and not (tmp_path / "b.gz").exists()


def test_it_gives_up_after_failures_in_a_row(mirror: Mirror, tmp_path: Path, waits: list[float]) -> None:
    mirror.plan = ["cut"] + ["503"] * 20
    with pytest.raises(
        InputError, match=r"given up after 6 failures in a row \(status 503\); run again to go on from "
    ):
        get(mirror, tmp_path)
    assert waits == [1, 2, 4, 8, 16] and len(mirror.seen) == 6
    assert files_of(tmp_path) == {".x.gz.part", ".x.gz.part.json"}
    mirror.plan = []
    assert get(mirror, tmp_path).read_bytes() == WHOLE and mirror.asked[-1] == f"bytes={len(WHOLE) // 2}-"


def test_a_server_that_does_not_answer_is_refused(tmp_path: Path, waits: list[float]) -> None:
    with serving() as gone:
        url = gone.url
    with pytest.raises(InputError, match=r"given up after 6 failures in a row \(ConnectionError"):
        download(f"{url}/a/x.gz", tmp_path / "x.gz")
    assert len(waits) == 5


def leave_part(mirror: Mirror, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str = "cut") -> Path:
    """Interrupt a download half-way; return the part that it leaves."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "FAILURES", 1)
        mirror.plan = [step]
        with pytest.raises(InputError, match="given up after 1 failures"):
            get(mirror, folder)
    return folder / "deep" / ".x.gz.part"


def test_another_file_at_the_same_address_is_not_appended(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    part = leave_part(mirror, tmp_path, monkeypatch)
    assert part.read_bytes() == WHOLE[: len(WHOLE) // 2]
    mirror.files["a/x.gz"] = OTHER
    assert get(mirror, tmp_path).read_bytes() == OTHER


def test_a_changed_length_is_noticed_without_a_validator(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    part = leave_part(mirror, tmp_path, monkeypatch)
    notes = part.with_name(f"{part.name}.json")
    notes.write_text(notes.read_text().replace('"validator": "\\"', '"validator": null, "was": "\\"'))
    mirror.files["a/x.gz"] = OTHER + b"more"
    assert get(mirror, tmp_path).read_bytes() == OTHER + b"more"
    assert mirror.asked[-2:] == [f"bytes={len(WHOLE) // 2}-", None] and waits == [1]


def test_a_part_of_another_mirror_is_not_appended(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    leave_part(mirror, tmp_path, monkeypatch)
    mirror.files["other/x.gz"] = OTHER
    download(f"{mirror.url}/other/x.gz", tmp_path / "deep" / "x.gz")
    assert (tmp_path / "deep" / "x.gz").read_bytes() == OTHER and mirror.asked[-1] is None


@pytest.mark.parametrize("more", [b"", b"more"])
def test_a_part_that_the_server_does_not_go_on_from_starts_again(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float], more: bytes
) -> None:
    """Nothing follows the part's last byte: the part is the whole file, or it is of another file."""
    part = leave_part(mirror, tmp_path, monkeypatch)
    part.write_bytes(WHOLE + more)
    notes = part.with_name(f"{part.name}.json")
    notes.write_text(notes.read_text().replace(str(len(WHOLE)), "null"))  # as if the size had not been said
    assert get(mirror, tmp_path).read_bytes() == WHOLE
    assert mirror.asked[1:] == ([f"bytes={len(WHOLE)}-"] if not more else [f"bytes={len(WHOLE) + 4}-", None])


def test_it_gives_up_where_every_answer_is_416(mirror: Mirror, tmp_path: Path, waits: list[float]) -> None:
    mirror.plan = ["416"] * 20
    with pytest.raises(InputError, match=r"given up after 6 failures in a row \(status 416\)"):
        get(mirror, tmp_path)


def test_a_download_killed_before_its_renaming_is_whole(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_part(mirror, tmp_path, monkeypatch).write_bytes(WHOLE)
    assert get(mirror, tmp_path).read_bytes() == WHOLE and len(mirror.seen) == 1


def test_a_killed_download_goes_on_from_its_last_byte(mirror: Mirror, tmp_path: Path) -> None:
    mirror.plan = ["slow"]
    code = (
        "import sys, pathlib; from benchmark.storage.download import download;"
        "download(sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    path = tmp_path / "deep" / "x.gz"
    part = tmp_path / "deep" / ".x.gz.part"
    with subprocess.Popen([sys.executable, "-c", code, f"{mirror.url}/a/x.gz", str(path)]) as process:
        until = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 8_000):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    have = part.stat().st_size
    assert 0 < have < len(WHOLE) and not path.exists()
    assert get(mirror, tmp_path).read_bytes() == WHOLE
    assert mirror.asked == [None, f"bytes={have}-"]


def test_two_that_want_the_same_file_fetch_it_once(mirror: Mirror, tmp_path: Path) -> None:
    mirror.plan = ["slow"]
    threads = [threading.Thread(target=get, args=(mirror, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mirror.seen) == 1 and (tmp_path / "deep" / "x.gz").read_bytes() == WHOLE


def test_too_little_disk_is_said_before_the_first_byte(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = len(WHOLE) - 1
    usage = shutil._ntuple_diskusage(1, 1, free)  # type: ignore[attr-defined]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"0\.00 GB are still to come and .*deep has 0\.00 GB left; free some"):
        get(mirror, tmp_path)
    assert not (tmp_path / "deep" / ".x.gz.part").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is_one_sentence(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    notes = tmp_path / "deep" / ".x.gz.part.json"
    notes.write_text(f'{{"url": "{mirror.url}/a/x.gz", "total": 1, "validator": null}}')
    (tmp_path / "deep" / ".x.gz.part").symlink_to("/dev/full")
    with pytest.raises(
        InputError, match=r"\.x\.gz\.part: can't be written .*\(No space left on device\); free some space"
    ):
        get(mirror, tmp_path)
    assert not (tmp_path / "deep" / "x.gz").exists() and len(mirror.seen) == 1


def test_a_quota_that_ends_in_the_middle_is_one_sentence(mirror: Mirror, tmp_path: Path) -> None:
    """The limit on a file's size stands for a quota; what has come stays, and the next run goes on from it."""
    code = (
        "import resource, signal, sys, pathlib; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from benchmark.storage.download import download as d; d(sys.argv[1], pathlib.Path(sys.argv[2]))"
    )
    path = tmp_path / "deep" / "x.gz"
    done = subprocess.run(
        [sys.executable, "-c", code, f"{mirror.url}/a/x.gz", str(path)], capture_output=True, text=True
    )
    assert "can't be written after 20,000 bytes" in done.stderr and not path.exists()
    assert get(mirror, tmp_path).read_bytes() == WHOLE and mirror.asked[-1] == "bytes=20000-"


def test_checksums_are_recorded_on_first_use_and_then_enforced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, record = tmp_path / "x.gz", tmp_path / "notes" / "x.gz.sha256"
    path.write_bytes(WHOLE)
    check_pinned(path, record, None)
    digest = hashlib.sha256(WHOLE).hexdigest()
    assert record.read_text() == f"{digest}  x.gz\n" and "recorded on first use" in capsys.readouterr().out
    check_pinned(path, record, None)
    check_pinned(path, record, digest)
    path.write_bytes(OTHER)
    with pytest.raises(
        InputError, match=rf"recorded in {record} is {digest}: the file is damaged or another one; delete it"
    ):
        check_pinned(path, record, None)
    # What the config pins goes before the record.
    check_pinned(path, record, hashlib.sha256(OTHER).hexdigest())
    with pytest.raises(InputError, match=f"pinned in the config's sha256 is {'0' * 64}"):
        check_pinned(path, record, "0" * 64)


def test_a_wrong_checksum_records_nothing(tmp_path: Path) -> None:
    path, record = tmp_path / "x.gz", tmp_path / "x.gz.sha256"
    path.write_bytes(WHOLE)
    with pytest.raises(InputError, match="pinned in the config"):
        check_pinned(path, record, "0" * 64)
    assert not record.exists()


def test_half_a_file_of_unsaid_length_is_not_trusted(mirror: Mirror, tmp_path: Path) -> None:
    mirror.plan = ["no length"]
    path = get(mirror, tmp_path)
    assert path.read_bytes() == WHOLE[: len(WHOLE) // 2]  # nothing in the transfer tells that it is half of it
    record = tmp_path / "x.gz.sha256"
    with pytest.raises(InputError, match=r"x\.gz: no whole gzip file .*; delete it to fetch it again"):
        check_pinned(path, record, None)
    assert not record.exists()
    path.unlink()
    check_pinned(get(mirror, tmp_path), record, None)


def test_an_error_page_is_no_file(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["a/x.gz"] = b"<html>Please log in</html>"
    with pytest.raises(InputError, match="no whole gzip file"):
        check_pinned(get(mirror, tmp_path), tmp_path / "x.sha256", None)
