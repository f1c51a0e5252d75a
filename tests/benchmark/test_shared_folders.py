"""Kept results that several users share: read by all, locked by whoever may write, and named where one may not."""

import multiprocessing
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from baselines._writers.llm_texts import refusals_named
from benchmark import errors
from benchmark.errors import InputError, in_a_sentence
from benchmark.storage import checksums
from benchmark.storage.io import locked
from benchmark.storage.kept import kept

OTHER = 65_534  # "nobody" on most systems
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may read; pytest's own are for their owner alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_another(act: Callable[[], object]) -> str:
    """What `act` gives, or the sentence it ends with, where another user calls it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def child() -> None:
        os.setgroups([])
        os.setgid(OTHER)
        os.setuid(OTHER)
        try:
            with in_a_sentence():
                theirs.send(str(act()))
        except InputError as problem:
            theirs.send(f"error: {problem}")
        except Exception as error:
            theirs.send(f"traceback: {error!r}")

    process = context.Process(target=child)
    process.start()
    assert ours.poll(60)
    process.join()
    return str(ours.recv())


def make(temporary: Path) -> None:
    temporary.write_text("states")
    temporary.chmod(0o600)  # as safetensors leaves it


@as_root
def test_another_user_reads_what_is_kept_and_makes_no_copy(shared: Path) -> None:
    path = shared / "states"
    assert not kept(path, make)
    before = {file: file.read_bytes() for file in shared.iterdir()}
    assert as_another(lambda: (kept(path, make), path.read_text())) == "(True, 'states')"
    path.with_name("states.sha256").unlink()  # kept before there were checksums: another user can't write one
    assert as_another(lambda: kept(path, make)) == "True"
    checksums.note(path, path)
    assert {file: file.read_bytes() for file in shared.iterdir()} == before


@as_root
@pytest.mark.parametrize("sums", [True, False])
def test_what_another_user_may_not_read_is_named_and_stays(sums: bool, shared: Path) -> None:
    """Unreadable is not damaged: in a folder that both may write to, it would be removed and made a second time."""
    path = shared / "states"
    kept(path, make)
    path.chmod(0o600)
    if not sums:
        path.with_name("states.sha256").unlink()
    shared.chmod(0o777)
    assert as_another(lambda: kept(path, make)) == (
        f"error: {path}: Permission denied; {path} belongs to user root; have them give you the rights to it, or name "
        "a folder of your own"
    )
    path.chmod(0o644)
    if sums:
        path.with_name("states.sha256").chmod(0o600)
        assert as_another(lambda: kept(path, make)).startswith(f"error: {path}.sha256: Permission denied; ")
    assert path.read_text() == "states"


@as_root
def test_what_another_user_may_not_write_is_named(shared: Path) -> None:
    path = shared / "states"
    of_root = f"Permission denied; {shared} belongs to user root; have them give you the rights to it"
    assert as_another(lambda: kept(path, make)).startswith(f"error: {shared}/.states.lock: {of_root}")
    kept(path, make)
    path.write_text("another")  # damaged: removed and made anew, by whoever may
    assert as_another(lambda: kept(path, make)).startswith(f"error: {path}: Permission denied; {path} belongs to")
    assert path.read_text() == "another"


@as_root
def test_a_lock_is_for_all_who_may_write_to_its_folder(shared: Path) -> None:
    shared.chmod(0o777)
    with locked(shared / "states"):
        pass
    lock = shared / ".states.lock"
    assert lock.stat().st_uid == 0 and stat.S_IMODE(lock.stat().st_mode) == 0o666

    def hold() -> str:
        with locked(shared / "states"):
            return "held"

    assert as_another(hold) == "held"
    lock.chmod(0o644)  # by an earlier version
    assert as_another(hold).startswith(f"error: {lock}: Permission denied; {lock} belongs to user root; have them")


@as_root
def test_texts_of_another_user_are_read_and_not_written(shared: Path) -> None:
    path = shared / "texts.sqlite"

    def insert() -> None:
        with refusals_named(path), closing(sqlite3.connect(path)) as store, store:
            store.execute("CREATE TABLE IF NOT EXISTS texts (key)")
            store.execute("INSERT INTO texts VALUES (1)")

    assert as_another(insert).startswith(f"error: {path}: unable to open database file; {shared} belongs to user root")
    insert()
    assert as_another(insert).startswith(f"error: {path}: attempt to write a readonly database; {path} belongs to")
    with closing(sqlite3.connect(path)) as store:
        assert store.execute("SELECT count(*) FROM texts").fetchone() == (1,)


def test_of_another_users_file_a_sealed_run_speaks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own files are left to `benchmark.sandbox.explain`, which says what line of the method wanted them."""
    monkeypatch.setenv("R2EC_BENCH_SANDBOX", "landlock 5")
    refusal = PermissionError(13, "Permission denied", str(tmp_path / "x"))
    with pytest.raises(PermissionError), in_a_sentence():
        raise refusal
    monkeypatch.setattr(errors.os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(InputError, match=f"x: Permission denied; {tmp_path} belongs to "), in_a_sentence():
        raise refusal


def test_a_file_of_texts_says_what_refuses_it(tmp_path: Path) -> None:
    said = "file; get the rights to it and its folder, or name a folder of your own"
    with pytest.raises(InputError, match=said), refusals_named(tmp_path / "x"):
        sqlite3.connect(tmp_path / "no" / "x")
    with pytest.raises(sqlite3.OperationalError, match="no such table"), refusals_named(tmp_path / "x"):
        sqlite3.connect(":memory:").execute("SELECT * FROM texts")  # a fault of ours stays a traceback
