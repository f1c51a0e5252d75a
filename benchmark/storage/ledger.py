"""What a fit or a scoring took in all: also where it was killed, is only loaded again, or found on disk what others
made.

Runs share what is expensive and the same for all of them: states of an untrained LM, warm starts, texts. Whoever makes
one notes its seconds (`making`), whoever finds one is charged them (`charge_for`, `charge`), so that a method's cost doesn't
depend on which run came first.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from benchmark.errors import InputError, ModelT, checked
from benchmark.storage.io import read_json, write_json

Fitted = TypeVar("Fitted")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spent(_Strict):
    """What is known of a fit."""

    by: str = ""  # its account's name; empty in a ledger of before there were any
    before: float  # seconds of the pieces before
    began: float  # when the present piece began, since 1970
    whole: float | None = None  # all seconds, once done
    reused: float = 0.0  # of these, what others had spent


class Made(_Strict):
    """Beside a file or folder that runs share: which fit or scoring made it, and the seconds that this took."""

    by: str
    seconds: float


@dataclass(frozen=True)
class Cost:
    """Seconds in all, how many of them others had spent, and the name under which it made what it left on disk."""

    seconds: float
    reused: float
    by: str


@dataclass
class Account:
    """The fit or scoring that is running now: its own seconds since it began, and those it has been charged."""

    by: str
    own: frozenset[str]  # what these made is paid for already
    before: float = 0.0
    reused: float = 0.0
    waited: float = 0.0  # for others

    def __post_init__(self) -> None:
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """All so far, what others had spent included, waiting for them left out."""
        return self.before + time.monotonic() - self.began - self.waited + self.reused

    def cost(self) -> Cost:
        """What it comes to now."""
        return Cost(self.seconds, self.reused, self.by)


_open: list[Account] = []


@contextmanager
def account(by: str | None = None, own: frozenset[str] = frozenset(), before: float = 0.0) -> Iterator[Account]:
    """Charge what is found on disk within it to a new account: of the fit `by`, or of something new. `own`: others it
    pays for."""
    by = by or uuid.uuid4().hex
    _open.append(Account(by, own | {by}, before))
    try:
        yield _open[-1]
    finally:
        _open.pop()


def name() -> str:
    """Of the account that is open, for what is made now; empty without one."""
    return _open[-1].by if _open else ""


def charge(by: str, seconds: float) -> None:
    """Something of so many seconds was found on disk, made by `by`: charged to the open account unless it was its
    own."""
    if _open and by not in _open[-1].own:
        _open[-1].reused += seconds


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Note beside `path`, which is made within it, the seconds of making it.

    They include a killed fit's earlier pieces and what was found on the way. Without an open account, as in a process
    that only helps, nothing is noted.
    """
    if not _open:
        yield
        return
    now, note = _open[-1], _beside(path)
    start = now.seconds - now.before
    if not path.exists():
        note.unlink(missing_ok=True)
    yield
    if not note.exists():  # of two jobs that make it at once, the first one's stays
        write_json(note, Made(by=now.by, seconds=round(now.seconds - start, 3)).model_dump())


@contextmanager
def waiting() -> Iterator[None]:
    """What passes within it, until another job has made what both need, is nobody's work: the maker's seconds are
    charged."""
    start = time.monotonic()
    try:
        yield
    finally:
        if _open:
            _open[-1].waited += time.monotonic() - start


def charge_for(path: Path) -> None:
    """`path` was there: charge what `making` noted of it. Without a note, nothing is known and nothing charged."""
    if _open and (made := _read(Made, _beside(path))) is not None:
        charge(made.by, made.seconds)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.spent.json")


def _read(model: type[ModelT], note: Path) -> ModelT | None:
    """A note of costs; None where there is none. A damaged one is said and left out: no run ends for what another one
    cost."""
    if not note.exists():
        return None
    try:
        return checked(model, read_json(note), str(note))
    except (InputError, OSError) as error:
        print(f"a note of costs is left out, so that these seconds are not counted: {error}", flush=True)
        return None


def timed_fit(fit: Callable[[], Fitted], folder: Path) -> tuple[Fitted, Cost]:
    """Call `fit`, which keeps its checkpoints in `folder`; return what it returns and what it took in all.

    A piece that was killed counts up to the last file that it left in the folder: what came after is done again. A fit
    that had ended, with its files still there, has the seconds that it had then, however fast it is loaded. Without
    files it begins anew; what it had left elsewhere is then charged as another's.
    """
    ledger = folder.with_name(f"{folder.name}.seconds.json")
    kept = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
    known = _read(Spent, ledger) if kept else None
    if known is not None and known.whole is not None:
        return fit(), Cost(known.whole, known.reused, known.by)
    before = 0.0 if known is None else known.before + max(0.0, max(kept) - known.began)
    with account(known.by if known else None, before=before) as now:
        spent = Spent(by=now.by, before=before, began=time.time())
        write_json(ledger, spent.model_dump())
        fitted = fit()
        cost = now.cost()
    write_json(ledger, spent.model_copy(update={"whole": cost.seconds, "reused": cost.reused}).model_dump())
    return fitted, cost
