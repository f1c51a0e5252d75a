"""Kept results: made once, whole or not at all, and charged to every job that uses them."""

import multiprocessing
import time
from pathlib import Path

import pytest

from benchmark.storage.kept import kept, key, place
from benchmark.storage.ledger import Cost, account
from benchmark.storage.stages import Stage


def write(temporary: Path) -> None:
    """Takes 0.4 s."""
    time.sleep(0.4)
    temporary.write_text("made")


def fail(temporary: Path) -> None:
    temporary.write_text("half")
    raise RuntimeError("killed")


def cost_of(path: Path, make=write) -> tuple[bool, Cost]:
    with account() as now:
        return kept(path, make), now.cost()


def test_it_is_made_once_and_charged_to_each(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "states"
    was_there, first = cost_of(path)
    assert not was_there and first.reused == 0 and 0.4 <= first.seconds < 1
    was_there, second = cost_of(path, fail)  # it isn't asked to make anything
    assert was_there and path.read_text() == "made"
    assert second.reused == pytest.approx(first.seconds, abs=0.05) and second.seconds == pytest.approx(
        first.seconds, abs=0.1
    )


def test_a_folder_is_kept_like_a_file(tmp_path: Path) -> None:
    def folder(temporary: Path) -> None:
        temporary.mkdir()
        (temporary / "part").write_text("made")

    assert [kept(tmp_path / "fit", folder) for _ in range(2)] == [False, True]
    assert (tmp_path / "fit" / "part").read_text() == "made"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        kept(tmp_path / "states", fail)
    assert not [file for file in tmp_path.iterdir() if not file.name.endswith(".lock")]
    assert cost_of(tmp_path / "states")[0] is False and (tmp_path / "states").read_text() == "made"


def in_a_job(path: Path, answers: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    answers.put(cost_of(path))


def test_who_asks_meanwhile_waits_and_pays_the_maker_alone(tmp_path: Path) -> None:
    spawned = multiprocessing.get_context("fork")
    answers = spawned.Queue()
    jobs = [spawned.Process(target=in_a_job, args=(tmp_path / "states", answers)) for _ in range(3)]
    for job in jobs:
        job.start()
    results = [answers.get(timeout=30) for _ in jobs]
    for job in jobs:
        job.join()
    assert sorted(was_there for was_there, _ in results) == [False, True, True]
    (maker,) = [cost.seconds for was_there, cost in results if not was_there]
    for was_there, cost in results:
        assert cost.seconds == pytest.approx(maker, abs=0.2), "waiting is nobody's work"
        assert cost.reused == pytest.approx(maker if was_there else 0, abs=0.05)


def test_other_inputs_and_another_version_are_kept_elsewhere(tmp_path: Path) -> None:
    stage = Stage("states", 1, after=(Stage("writing", 1),))
    path = place(tmp_path, key(stage, {"cases": "a"}), ".safetensors")
    assert path == place(tmp_path, key(stage, {"cases": "a"}), ".safetensors") and path.suffix == ".safetensors"
    others = [
        key(stage, {"cases": "b"}),
        key(Stage("states", 2, after=stage.after), {"cases": "a"}),
        key(Stage("states", 1, after=(Stage("writing", 2),)), {"cases": "a"}),
        key(Stage("states", 1, after=stage.after, packages=("torch",)), {"cases": "a"}) | {"packages": {"torch": "0"}},
    ]
    assert len({path, *(place(tmp_path, about, ".safetensors") for about in others)}) == 5
