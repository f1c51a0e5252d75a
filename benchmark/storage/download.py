"""Download large files over HTTP: resume them after a break, try again after a failure, and check them.

A file is written as `.{name}.part` beside its place, with what the server said about it in `.{name}.part.json`, and
renamed when all of it is there. A killed download goes on from its last byte, if the server still has the same file
(`If-Range`: its ETag or date) and can send a part of it; otherwise it starts again.

Checksums are trusted on first use: the sha256 of a file, once its gzip stream has been read to the end, is recorded in
`{name}.sha256` beside it (the form of sha256sum) and enforced from then on, also when the file is fetched again.
"""

import gzip
import shutil
import time
import zlib
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from benchmark.errors import InputError
from benchmark.storage.io import locked, read_json, sha256_of, write_json, write_text

TIMEOUT = (15, 60)  # seconds to connect; seconds without a byte
FAILURES = 6  # in a row, none of which brought a new byte
WAIT = 1.0  # seconds after the first failure; doubled after each further one
LONGEST_WAIT = 120.0
BLOCK = 2**20
# Passing troubles by the HTTP standard; any other 4xx will be the same next time.
PASSING = {408, 425, 429, 500, 502, 503, 504}


class _Again(Exception):
    """An attempt failed in a way that may pass. `after`: seconds that the server asked to wait."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


def download(url: str, path: Path) -> Path:
    """Return `path`, fetched from `url` if it is absent. Processes that want the same file wait for one another.

    Raises InputError when the server refuses the file, when all attempts fail, and when the disk is full.
    """
    if path.exists():  # whole, and perhaps in a folder of another user's, in which nothing can be locked
        return path
    with locked(path):
        if not path.exists():
            part = path.with_name(f".{path.name}.part")
            _fetch(url, part)
            part.rename(path)
            _notes_of(part).unlink(missing_ok=True)
    return path


def check_pinned(path: Path, record: Path, pinned: str | None) -> None:
    """Raise InputError unless the file has the sha256 that is pinned in the config or was recorded on first use.

    path: the file; record: where its sha256 is recorded; pinned: the config's sha256, which goes before the record.
    On first use the gzip stream is read to its end before anything is recorded.
    """
    if pinned is None and record.exists():
        pinned = record.read_text(encoding="utf-8", errors="replace").split(" ")[0]
        source, advice = f"recorded in {record}", f"; to accept what is there now, delete {record}"
    else:
        source, advice = "pinned in the config's sha256", ""
    if pinned is None:
        check_gzip(path)
    sha256 = sha256_of(path)
    if pinned not in (None, sha256):
        raise InputError(
            f"{path}: sha256 is {sha256}, {source} is {pinned}: the file is damaged or another one; "
            f"delete it to fetch it again{advice}"
        )
    if not record.exists():
        write_text(record, f"{sha256}  {path.name}\n")
        print(f"{path.name}: sha256 {sha256}, {'recorded on first use in' if pinned is None else 'noted in'} {record}")


def check_gzip(path: Path) -> None:
    """Read a gzip file to its end. Raises InputError where it is cut off, damaged or no gzip file."""
    size = path.stat().st_size
    try:
        with (
            open(path, "rb") as packed,
            gzip.GzipFile(fileobj=packed) as file,
            _bar(f"checking {path.name}", size) as bar,
        ):
            while file.read(BLOCK):
                bar.update(packed.tell() - bar.n)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: no whole gzip file ({error}); delete it to fetch it again") from None


def _bar(description: str, total: int | None, initial: int = 0) -> tqdm:
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        mininterval=1,
        delay=5,
        leave=False,
    )


def _fetch(url: str, part: Path) -> None:
    """Attempt after attempt until the part is whole; only those in a row without a new byte are counted."""
    failures, most = 0, _size(part)
    with requests.Session() as session:
        while True:
            try:
                return _attempt(session, url, part)
            except _Again as trouble:
                why, after = str(trouble), trouble.after
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                why, after = f"{type(error).__name__}: {error}", 0.0
            except OSError as error:  # of the network they are requests' and urllib3's own, so this one is the disk's
                raise InputError(
                    f"{part}: can't be written after {_size(part):,} bytes ({error.strerror}); free some space on the "
                    "disk and run again, it goes on from there"
                ) from None
            failures, most = (1, _size(part)) if _size(part) > most else (failures + 1, most)
            if failures >= FAILURES:
                raise InputError(
                    f"{url}: given up after {failures} failures in a row ({why}); run again to go on from "
                    f"{_size(part):,} bytes, or name another mirror"
                )
            seconds = min(max(WAIT * 2 ** (failures - 1), after), LONGEST_WAIT)
            print(f"{url}: {why}; again in {seconds:g} s", flush=True)
            time.sleep(seconds)


def _attempt(session: requests.Session, url: str, part: Path) -> None:
    """One request, going on where the part ends. Raises _Again, InputError, and what requests and urllib3 raise."""
    notes = _read_notes(part, url)
    if not notes:
        part.unlink(missing_ok=True)  # of another mirror, or of nobody knows what
    have = _size(part)
    if have and notes["total"] == have:
        return  # killed between the last byte and the renaming
    # What lies on the server is wanted byte for byte; some unpack .gz on the way if they may.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if notes["validator"]:
            headers["If-Range"] = notes["validator"]
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        status = answer.status_code
        if status == 416 and have:  # nothing behind our last byte: another file, or exactly what we have
            if _content_range(answer)[1] == have:
                return
            part.unlink()
            raise _Again(f"status 416, the server's file does not go on at byte {have:,}, so from the start")
        if status in PASSING or status == 416:
            raise _Again(f"status {status}", _retry_after(answer))
        if status not in (200, 206):
            raise InputError(f"{url}: status {status} {answer.reason}; check category and mirror")
        start, total = _content_range(answer) if status == 206 else (0, _length(answer))
        if status == 206 and (start, total) != (have, notes["total"]):
            part.unlink()
            raise _Again(f"the server's file has changed since its first {have:,} bytes came, so from the start")
        # A strong one only: a weak ETag (W/) may stand for other bytes.
        etag = answer.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified")
        write_json(_notes_of(part), {"url": url, "total": total, "validator": validator})
        _check_space(part, url, start, total)
        _write(answer, part, start, total)
    if total is not None and _size(part) != total:
        raise _Again(f"cut off after {_size(part):,} of {total:,} bytes")


def _write(answer: requests.Response, part: Path, start: int, total: int | None) -> None:
    """Append the answer's body to the part's first `start` bytes."""
    with open(part, "ab" if start else "wb") as file, _bar(part.name[1:-5], total, start) as bar:
        # What has arrived, at most a block: what stays in a buffer is lost with the connection or the process.
        while block := answer.raw.read1(BLOCK, decode_content=False):
            file.write(block)
            file.flush()
            bar.update(len(block))


def _check_space(part: Path, url: str, start: int, total: int | None) -> None:
    """Raise InputError where the disk can't hold what is still to come."""
    free = shutil.disk_usage(part.parent).free
    if total is not None and free < total - start:
        raise InputError(
            f"{url}: {(total - start) / 1e9:.2f} GB are still to come and {part.parent} has {free / 1e9:.2f} GB left; "
            "free some and run again"
        )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _notes_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_notes(part: Path, url: str) -> dict:
    """The server's notes on the part; {} if it came from another address, or if the notes are damaged."""
    notes = _notes_of(part)
    try:
        notes_read = read_json(notes) if notes.exists() else {}
    except InputError as problem:
        print(f"{problem}; the download begins again", flush=True)
        return {}
    whole = isinstance(notes_read, dict) and {"url", "total", "validator"} <= notes_read.keys()
    return notes_read if whole and notes_read["url"] == url else {}


def _length(answer: requests.Response) -> int | None:
    """The body's length; None where the server doesn't say."""
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _content_range(answer: requests.Response) -> tuple[int, int | None]:
    """First byte and whole size of the file, out of `bytes 5-9/10` or `bytes */10`; -1 and None where missing."""
    unit, _, span_and_size = answer.headers.get("Content-Range", "").partition(" ")
    span, _, size = span_and_size.partition("/")
    first = span.partition("-")[0]
    known = unit == "bytes"
    return (int(first) if known and first.isdecimal() else -1), (int(size) if known and size.isdecimal() else None)


def _retry_after(answer: requests.Response) -> float:
    """Seconds that the server asks to wait; 0 where it names none."""
    seconds = answer.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdecimal() else 0.0
