"""Keep results that several jobs need: each is made once, found by all that it depends on, and charged to every job."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmark.storage import ledger
from benchmark.storage.checksums import intact, note
from benchmark.storage.io import atomic, locked, sha256_of_json
from benchmark.storage.stages import Stage


def key(stage: Stage, inputs: dict[str, Any]) -> dict[str, Any]:
    """All that a kept result depends on, as JSON: its inputs, and the versions of its stage (`Stage.about`)."""
    return inputs | stage.about()


def place(folder: str | Path, about: dict[str, Any], ending: str) -> Path:
    """The path of the result that depends on `about`, named by its hash. ending: of a file's name; "" for a folder."""
    return Path(folder) / f"{sha256_of_json(about)}{ending}"


def kept(path: Path, make: Callable[[Path], None]) -> bool:
    """Make a file or folder at `path` by `make`, unless it is there intact; return whether it was there.

    make: writes to the temporary path that it is given, which becomes `path` when it returns. Other processes that want
    it wait meanwhile, and their waiting is not counted. The seconds of making it are noted beside it, and charged to
    the account of every fit that finds it (benchmark/storage/ledger.py). A result that was left unfinished or is
    damaged is made anew.
    """
    with ExitStack() as lock:
        if not (present := intact(path)):
            with ledger.waiting():
                lock.enter_context(locked(path))
            present = intact(path)
        if present:
            ledger.charge_for(path)
            return True
        with ledger.making(path), atomic(path) as temporary:
            make(temporary)
            note(path, temporary)
    return False
