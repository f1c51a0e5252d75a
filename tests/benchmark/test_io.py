"""Nothing half-written is taken for done, whatever was left behind."""

from pathlib import Path

import pytest

from benchmark.storage.io import atomic


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


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(RuntimeError), atomic(tmp_path / "file") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]
