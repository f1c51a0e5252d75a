"""How long a fit took in all, although it was killed on the way or is only loaded again: a file beside its checkpoints."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from benchmark.errors import checked
from benchmark.io import read_json, write_json

Fitted = TypeVar("Fitted")


class Spent(BaseModel):
    """What is known of a fit: seconds of the pieces before, when the present piece began (since 1970), all seconds once done."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    before: float
    began: float
    whole: float | None = None


def timed_fit(fit: Callable[[], Fitted], folder: Path) -> tuple[Fitted, float]:
    """Call `fit`, which keeps its checkpoints in `folder`; return what it returns and the seconds that it took in all.

    A piece that was killed counts up to the last file that it left in the folder: what came after is done again. A fit that
    had ended, with its files still there, has the seconds that it had then, however fast it is loaded. Without files it begins
    anew.
    """
    ledger = folder.with_name(f"{folder.name}.seconds.json")
    kept = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
    known = checked(Spent, read_json(ledger), str(ledger)) if kept and ledger.exists() else None
    if known is not None and known.whole is not None:
        return fit(), known.whole
    before = 0.0 if known is None else known.before + max(0.0, max(kept) - known.began)
    spent = Spent(before=before, began=time.time())
    write_json(ledger, spent.model_dump())
    start = time.monotonic()
    fitted = fit()
    seconds = before + time.monotonic() - start
    write_json(ledger, spent.model_copy(update={"whole": seconds}).model_dump())
    return fitted, seconds
