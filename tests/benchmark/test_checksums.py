"""Checksums of kept files: damage is found before anything parses the file, and named or made anew."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.data.store import read_about, read_split, read_test
from benchmark.errors import InputError
from benchmark.storage import checksums, ledger
from benchmark.storage.io import atomic, read_json, write_json
from tests.support.planted import planted, write_prepared


def flip(path: Path, byte: int) -> None:
    """Flip one bit, as a disk may: size and dates stay."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "planted", planted(n_users=20))


@pytest.mark.parametrize("part", ["items", "train", "valid", "test"])
def test_a_flipped_bit_of_a_prepared_dataset_is_named_before_it_is_parsed(part: str, prepared: Path) -> None:
    path = prepared / f"{part}.parquet"
    whole = path.read_bytes()
    for byte in (0, len(whole) // 2, len(whole) - 1):
        flip(path, byte)
        with pytest.raises(
            InputError, match=rf"{part}\.parquet: damaged or replaced .* delete it and prepare the dataset"
        ):
            read_split(prepared)
            read_test(prepared, read_about(prepared))
        path.write_bytes(whole)
    read_split(prepared)


def test_every_flipped_bit_of_a_record_is_found(tmp_path: Path) -> None:
    """A record with a flipped bit is refused, or reads the same, where the bit is one of blanks or of case in an
    escape.
    """
    path = tmp_path / "about.json"
    record = {"name": "ml", "counts": {"items": 1234, "share": 0.25}, "none": None}
    write_json(path, checksums.seal(record))
    whole = path.read_bytes()
    for byte in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[byte] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                read_record = checksums.read_sealed(path, "make it again")
            except InputError as problem:
                assert str(path) in str(problem)
            else:
                assert {key: value for key, value in read_record.items() if key != "sha256"} == record


def test_sums_have_the_form_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "kept" / "inner").mkdir(parents=True)
    (tmp_path / "kept" / "inner" / "a").write_bytes(b"a")
    checksums.write_sums(tmp_path / "kept")
    text = (tmp_path / "kept" / "SHA256SUMS").read_text()
    assert text == f"{hashlib.sha256(b'a').hexdigest()}  inner/a\n"
    assert subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path / "kept", check=False).returncode == 0


@pytest.mark.parametrize("folder", [True, False])
def test_a_kept_result_that_is_damaged_is_removed_with_a_word(
    folder: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    file = kept / "weights" if folder else kept

    def keep() -> None:
        with atomic(kept) as temporary:
            if folder:
                temporary.mkdir()
                (temporary / "weights").write_bytes(b"0123")
                checksums.write_sums(temporary)
            else:
                temporary.write_bytes(b"0123")
                checksums.note_sum(kept, temporary)

    assert not checksums.intact(kept)
    keep()
    assert checksums.intact(kept) and capsys.readouterr().out == ""
    flip(file, 2)
    with pytest.raises(InputError, match=r"is not what was written there; delete .*kept and run again"):
        checksums.check_kept(kept)
    assert not checksums.intact(kept) and f"damaged: {file} is not what was written there" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    keep()
    file.unlink()
    if folder:
        assert not checksums.intact(kept) and "weights is missing" in capsys.readouterr().out
    # What was kept before there were checksums is taken, and has them from now on.
    keep()
    (kept / "SHA256SUMS" if folder else tmp_path / "kept.sha256").unlink()
    assert checksums.intact(kept)
    flip(file, 0)
    assert not checksums.intact(kept)


def test_a_damaged_json_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content, message in (
        (b"{\n oops", "line 2 is not JSON"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "is not JSON of ours"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"x\.json: {message}"):
            read_json(path)


def test_a_damaged_note_of_costs_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "states"
    with ledger.account() as maker, ledger.making(path):
        path.write_text("made")
    note = tmp_path / "states.spent.json"
    assert read_json(note)["by"] == maker.by
    for content in (b"{", b"\xff", b'{"by": 1}', b"[]"):
        note.write_bytes(content)
        with ledger.account() as finder:
            ledger.charge_for(path)
        assert finder.reused == 0.0
        assert f"a note of costs is left out, so that these seconds are not counted: {note}" in capsys.readouterr().out


def test_a_damaged_ledger_of_a_fit_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "fit"
    folder.mkdir()
    (folder / "model").write_text("kept")
    (tmp_path / "fit.seconds.json").write_text('{"before": ')
    fitted, cost = ledger.timed_fit(lambda: "fitted", folder)
    assert fitted == "fitted" and cost.seconds < 5 and "note of costs" in capsys.readouterr().out
    assert json.loads((tmp_path / "fit.seconds.json").read_text())["whole"] == cost.seconds


def test_what_a_killed_process_left_of_a_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "model"
    child = "import os, sys; from benchmark.storage.io import atomic\n"
    child += "with atomic(sys.argv[1]) as part:\n part.mkdir(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", child, str(path)], check=False)
    (remaining,) = tmp_path.iterdir()
    assert ".part" in remaining.name
    with atomic(path) as temporary:
        temporary.write_text("whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
