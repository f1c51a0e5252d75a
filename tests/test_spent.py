"""Seconds of fits that were killed or are loaded again."""

import os
import time
from pathlib import Path

import pytest

from benchmark.io import read_json
from benchmark.spent import timed_fit


class Killed(Exception):
    pass


def fit(folder: Path, seconds: float, killed: bool = False) -> str:
    """Takes so long and leaves one checkpoint at its end, before which a killed one would lose everything."""
    time.sleep(seconds)
    (folder / "checkpoint").write_text("weights")
    if killed:
        time.sleep(0.2)  # lost: after the last file
        raise Killed
    return "fitted"


def test_a_fit_that_is_loaded_again_has_the_seconds_that_it_took(tmp_path: Path) -> None:
    folder = tmp_path / "fit"
    folder.mkdir()
    assert timed_fit(lambda: fit(folder, 0.3), folder)[0] == "fitted"
    first = read_json(tmp_path / "fit.seconds.json")["whole"]
    assert 0.3 <= first < 2
    assert timed_fit(lambda: "loaded", folder) == ("loaded", first)
    (folder / "checkpoint").unlink()  # as RecBole's, which are deleted: nothing to load, it is fitted anew
    assert timed_fit(lambda: "anew", folder)[1] < 0.3


def test_a_killed_piece_counts_up_to_its_last_file(tmp_path: Path) -> None:
    folder = tmp_path / "fit"
    folder.mkdir()
    with pytest.raises(Killed):
        timed_fit(lambda: fit(folder, 0.3, killed=True), folder)
    began = read_json(tmp_path / "fit.seconds.json")["began"]
    os.utime(folder / "checkpoint", (began + 5, began + 5))  # as if it had taken five seconds
    with pytest.raises(Killed):
        timed_fit(lambda: fit(folder, 0.0, killed=True), folder)
    began = read_json(tmp_path / "fit.seconds.json")["began"]
    os.utime(folder / "checkpoint", (began + 3, began + 3))
    fitted, seconds = timed_fit(lambda: fit(folder, 0.0), folder)
    assert fitted == "fitted" and 8 <= seconds < 9
    assert timed_fit(lambda: "loaded", folder)[1] == seconds
