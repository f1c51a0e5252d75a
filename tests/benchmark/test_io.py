"""Nothing half-written is taken for done, whatever was left behind."""

import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmark.storage.io import atomic, clear_parts, write_csv


@pytest.mark.parametrize("folder", [True, False])
def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path: Path, folder: bool) -> None:
    with atomic(tmp_path / "done") as part:
        part.write_text("x")
    (tmp_path / "done").unlink()
    if folder:
        part.mkdir()
        (part / "half").write_text("x")
    else:
        part.write_text("x")
    with atomic(tmp_path / "done") as temporary:
        temporary.mkdir()
        (temporary / "whole").write_text("y")
    assert [path.name for path in tmp_path.iterdir()] == ["done"]
    assert [path.name for path in (tmp_path / "done").iterdir()] == ["whole"]


def test_a_link_to_a_folder_is_replaced_and_its_folder_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine").write_text("x")
    (tmp_path / "run").symlink_to("elsewhere")
    with atomic(tmp_path / "run") as temporary:
        temporary.mkdir()
        (temporary / "whole").write_text("y")
    assert not (tmp_path / "run").is_symlink() and (tmp_path / "run/whole").read_text() == "y"
    assert (tmp_path / "elsewhere/mine").read_text() == "x"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError), atomic(tmp_path / "file") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_others_may_read_what_a_writer_keeps_to_itself(tmp_path: Path) -> None:
    """safetensors gives its files the mode 600, whatever the umask."""
    with atomic(tmp_path / "states") as temporary:
        temporary.touch(0o600)
    with atomic(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "weights").touch(0o600)
        (temporary / "run.sh").touch(0o700)
    (tmp_path / "plain").touch()
    plain = (tmp_path / "plain").stat().st_mode
    assert [(tmp_path / name).stat().st_mode for name in ("states", "model/weights")] == [plain, plain]
    assert (tmp_path / "model/run.sh").stat().st_mode == plain | 0o700


def test_a_table_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_csv(path, ["a", "b"], [{"a": 1, "b": "x, y"}, {"a": 2, "b": None}])
    assert path.read_bytes() == b'a,b\r\n1,"x, y"\r\n2,\r\n'
    with pytest.raises(ValueError, match="dict contains fields not in fieldnames: 'c'"):
        write_csv(path, ["a", "b"], [{"a": 3, "b": 4}, {"c": 5}])
    assert path.read_bytes() == b'a,b\r\n1,"x, y"\r\n2,\r\n' and list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_of_a_process_that_nobody_has_collected_is_removed(tmp_path: Path) -> None:
    """A killed job's process may wait for a moment until its new parent asks for it: it writes no more."""
    kept, left = (subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2))
    parts = [tmp_path / f".a.json.part-{platform.node()}-{process.pid}" for process in (kept, left)]
    for part in parts:
        part.touch()
    clear_parts(tmp_path / "a.json")
    assert all(part.exists() for part in parts)
    left.kill()
    until = time.monotonic() + 60
    while psutil.Process(left.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.01)
    clear_parts(tmp_path / "a.json")
    assert [part.exists() for part in parts] == [True, False]
    kept.kill()
    for process in (kept, left):
        process.communicate()
