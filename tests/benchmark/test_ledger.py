"""The ledger: seconds of fits that were killed, are loaded again, or find results of other runs on disk."""

import os
import time
from pathlib import Path

import pytest

from benchmark.storage.io import read_json
from benchmark.storage.ledger import account, charge, charge_for, making, name, timed_fit


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
    loaded, cost = timed_fit(lambda: "loaded", folder)
    assert (loaded, cost.seconds, cost.reused) == ("loaded", first, 0)
    (folder / "checkpoint").unlink()  # as RecBole's, which are deleted: nothing to load, it is fitted anew
    assert timed_fit(lambda: "anew", folder)[1].seconds < 0.3


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
    fitted, cost = timed_fit(lambda: fit(folder, 0.0), folder)
    assert fitted == "fitted" and 8 <= cost.seconds < 9
    assert timed_fit(lambda: "loaded", folder)[1] == cost


def sharing(folder: Path, shared: Path, killed: bool = False) -> str:
    """Makes what all fits share, 0.3 s, unless it is there."""
    if shared.exists():
        charge_for(shared)
    else:
        with making(shared):
            time.sleep(0.3)
            shared.write_text("states")
    return fit(folder, 0.0, killed)


def test_who_finds_what_another_made_is_charged_for_it(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    costs = []
    for which in ("first", "second", "third"):
        (tmp_path / which).mkdir()
        costs.append(timed_fit(lambda folder=tmp_path / which: sharing(folder, shared), tmp_path / which)[1])  # type: ignore[misc]
    noted = read_json(tmp_path / "shared.spent.json")
    assert noted["by"] == costs[0].by and 0.3 <= noted["seconds"] < 1
    assert [cost.reused for cost in costs] == [0, noted["seconds"], noted["seconds"]]
    assert costs[0].seconds >= 0.3 and all(0.3 <= cost.seconds < 1 for cost in costs[1:])
    again = timed_fit(lambda: sharing(tmp_path / "second", shared), tmp_path / "second")[1]
    assert again == costs[1]  # loaded: charged once
    with account(own=frozenset({costs[0].by})) as scoring:  # of the first's recommender
        charge_for(shared)
        assert scoring.reused == 0
        charge(costs[1].by, 2.0)
        charge(name(), 3.0)  # what it made itself
        assert scoring.reused == 2.0 and scoring.seconds >= 2.0


def test_a_killed_fit_is_not_charged_for_what_it_made_itself(tmp_path: Path) -> None:
    folder, shared = tmp_path / "fit", tmp_path / "shared"
    folder.mkdir()
    with pytest.raises(Killed):
        timed_fit(lambda: sharing(folder, shared, killed=True), folder)
    cost = timed_fit(lambda: sharing(folder, shared), folder)[1]
    assert cost.reused == 0 and 0.3 <= cost.seconds < 0.6  # in the piece before


def test_what_is_made_on_the_way_counts_for_the_whole(tmp_path: Path) -> None:
    """A warm start made of states that another run had encoded costs both."""
    states, start = tmp_path / "states", tmp_path / "start"
    with account() as other, making(states):
        other.before = 5.0  # as if killed before
        states.write_text("")
    assert 5 <= read_json(tmp_path / "states.spent.json")["seconds"] < 6
    with account() as now, making(start):
        charge_for(states)
        start.write_text("")
    assert 5 <= read_json(tmp_path / "start.spent.json")["seconds"] < 6
    assert now.reused == read_json(tmp_path / "states.spent.json")["seconds"]


def test_of_two_that_make_the_same_the_first_is_noted(tmp_path: Path) -> None:
    """Whoever was first made what is kept; a note that outlived what it was of says nothing."""
    states = tmp_path / "states"
    (tmp_path / "states.spent.json").write_text("old")
    with account("slower"), making(states), account("faster"), making(states):
        states.write_text("")
    assert read_json(tmp_path / "states.spent.json")["by"] == "faster"


def test_without_an_account_nothing_is_noted(tmp_path: Path) -> None:
    with making(tmp_path / "states"):
        (tmp_path / "states").write_text("")
    charge_for(tmp_path / "states")
    charge("another", 1.0)
    assert name() == "" and [path.name for path in tmp_path.iterdir()] == ["states"]
