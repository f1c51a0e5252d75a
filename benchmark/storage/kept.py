"""Results that several jobs need and one of them makes: found again by all that they depend on, made once, paid for by
each."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmark.storage import ledger
from benchmark.storage.checksums import intact, note
from benchmark.storage.io import atomic, locked, sha256_of_json
from benchmark.storage.stages import Stage


def key(stage: Stage, inputs: dict[str, Any]) -> dict[str, Any]:
    """All that a kept result depends on, as JSON: the stage with its versions, see `Stage.about`, and what it reads."""
    return inputs | stage.about()


def place(folder: str | Path, about: dict[str, Any], ending: str) -> Path:
    """The file or folder of what depends on `about`: named by its hash."""
    return Path(folder) / f"{sha256_of_json(about)}{ending}"


def kept(path: Path, make: Callable[[Path], None]) -> bool:
    """Have a file or folder at `path`, made by `make` unless it is there; return whether it was.

    make: writes to the temporary path that it is given, which becomes `path` when it returns. Whoever asks meanwhile
    waits, which is nobody's work. What it took is noted beside it, and charged to the account of each who finds it
    (benchmark/storage/ledger.py). What was killed on the way, or is not as it was written, is made anew.
    """
    with ExitStack() as held:
        if not (there := intact(path)):
            with ledger.waiting():
                held.enter_context(locked(path))
            there = intact(path)
        if there:
            ledger.charge_for(path)
            return True
        with ledger.making(path), atomic(path) as temporary:
            make(temporary)
            note(path, temporary)
    return False
