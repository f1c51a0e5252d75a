"""A small part of the fault campaign; `make faults` runs the whole of it."""

import faulthandler
import os
import random
import signal
from pathlib import Path

import pytest

from tests.faults import damage, hostile, kills, methods
from tests.faults.count import Outcome, table

# Of each way to misbehave one, and what no other test has.
SOME = [
    "gives_none",
    "objects",
    "nan_in_report",
    "exits",
    "deaf",
    "eats_elsewhere",
    "shouts_one_line",
    "leaves_a_process",
]


def as_it_should_be(outcome: Outcome, tries: int) -> None:
    assert outcome.counts.total() == tries and not outcome.wrong, table([outcome])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> list[damage.Kept]:
    return damage.keep_everything(tmp_path_factory.mktemp("kept"))


@pytest.mark.parametrize("how", [damage.flipped, damage.cut])
def test_damage_is_named_or_made_anew(how: object, kept: list[damage.Kept]) -> None:
    assert len(kept) == 20
    as_it_should_be(damage.damaged(kept, how, "damage", 60, 1), 60)  # type: ignore[arg-type]


def test_damage_that_nobody_notes_is_called_silent(tmp_path: Path) -> None:
    """The campaign's own eyes: a file without checksums is read with its flipped bit."""
    path = tmp_path / "kept" / "plain"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    blind = damage.Kept("plain", path, lambda: path.read_bytes())
    assert damage.damaged([blind], damage.flipped, "damage", 3, 1).counts == {"SILENT": 3}


def test_a_damaged_download_is_named(tmp_path: Path) -> None:
    as_it_should_be(damage.wheels(tmp_path, 20, 1), 20)


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_hostile_inputs_are_one_sentence(kind: str, tmp_path: Path) -> None:
    tries = 20 if kind == "config" else 150
    as_it_should_be(hostile.hostile(kind, tries, tmp_path, 1), tries)


def test_a_reader_that_ends_the_process_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reads(folder: Path, rng: random.Random) -> None:
        if rng.random() < 0.5:
            raise KeyError("x")
        if rng.random() < 0.2:
            faulthandler.disable()  # pages of a stack, which whoever reads the tests' output would take for a failure
            os.kill(os.getpid(), signal.SIGSEGV)

    monkeypatch.setitem(hostile.KINDS, "bad", (lambda folder, rng: None, 1))
    assert hostile.hostile("bad", 30, tmp_path, 0).counts == {"read": 30}
    kinds = hostile.KINDS["bad"]
    monkeypatch.setitem(hostile.KINDS, "bad", (lambda *a: reads(*a) if (tmp_path / "on").exists() else None, kinds[1]))
    real = hostile._batch

    def batch(*arguments: object) -> None:
        (tmp_path / "on").touch()
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hostile, "_batch", batch)
    counts = hostile.hostile("bad", 30, tmp_path, 0).counts
    assert counts.total() == 30 and counts["traceback (KeyError)"] > 5 and counts["ended the process (-11)"] >= 1


def test_methods_that_misbehave_are_rows(tmp_path: Path) -> None:
    as_it_should_be(methods.misbehave(tmp_path, SOME), len(SOME))


def test_killed_runs_come_to_the_same(tmp_path: Path) -> None:
    as_it_should_be(kills.runs(tmp_path, 2, 5), 2)
