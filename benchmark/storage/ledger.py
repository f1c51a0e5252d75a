"""Count the seconds of a fit or a scoring: across kills and restarts, and with results that other runs have made.

Runs share expensive results that are the same for all of them: states of an untrained LM, warm starts, texts. The run
that makes one notes its seconds (`making`), and every run that finds it is charged them (`charge_for`, `charge`), so
that a method's cost doesn't depend on which run came first.
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
    """The ledger of one fit on disk. A piece is the time between a start of the fit and its end or kill."""

    by: str = ""  # the name of its account; empty in ledgers of earlier versions
    before: float  # seconds of the pieces before the present one
    began: float  # when the present piece began, seconds since 1970
    whole: float | None = None  # all seconds, once the fit is done
    reused: float = 0.0  # of these, seconds that other runs had spent


class Made(_Strict):
    """The note beside a result that runs share: the account of the fit or scoring that made it, and its seconds."""

    by: str
    seconds: float


@dataclass(frozen=True)
class Cost:
    """Seconds in all, how many of them other runs had spent, and the name of the account."""

    seconds: float
    reused: float
    by: str


@dataclass
class Account:
    """The fit or scoring that is running now: its own seconds since it began, and those it has been charged."""

    by: str  # its name
    own: frozenset[str]  # accounts whose results it has paid for already, itself among them
    before: float = 0.0  # seconds of earlier pieces
    reused: float = 0.0  # seconds that it has been charged
    waited: float = 0.0  # seconds of waiting for other processes

    def __post_init__(self) -> None:
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """All seconds so far, with those charged and without those waited."""
        return self.before + time.monotonic() - self.began - self.waited + self.reused

    def cost(self) -> Cost:
        """The cost so far."""
        return Cost(self.seconds, self.reused, self.by)


_open: list[Account] = []


@contextmanager
def account(by: str | None = None, own: frozenset[str] = frozenset(), before: float = 0.0) -> Iterator[Account]:
    """Open an account, to which results that are found on disk within it are charged.

    by: its name; None: a new one. own: accounts whose results are not charged to it.
    """
    by = by or uuid.uuid4().hex
    _open.append(Account(by, own | {by}, before))
    try:
        yield _open[-1]
    finally:
        _open.pop()


def name() -> str:
    """The name of the account that is open now; "" without one."""
    return _open[-1].by if _open else ""


def charge(by: str, seconds: float) -> None:
    """Charge a found result of so many seconds, made by the account `by`, to the open account, unless it is its own."""
    if _open and by not in _open[-1].own:
        _open[-1].reused += seconds


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Note the seconds of making `path`, which is made within it, beside `path`.

    They include earlier pieces of a killed fit, and results that were found meanwhile. Without an open account, as in a
    helper process of a fit, nothing is noted.
    """
    if not _open:
        yield
        return
    open_account, note = _open[-1], _beside(path)
    start = open_account.seconds - open_account.before
    if not path.exists():
        note.unlink(missing_ok=True)
    yield
    if not note.exists():  # of two jobs that make it at once, the first one's stays
        write_json(note, Made(by=open_account.by, seconds=round(open_account.seconds - start, 3)).model_dump())


@contextmanager
def waiting() -> Iterator[None]:
    """Leave the time within it out of the open account: the process waits for a result that another one makes.

    The seconds of the maker are charged instead.
    """
    start = time.monotonic()
    try:
        yield
    finally:
        if _open:
            _open[-1].waited += time.monotonic() - start


def charge_for(path: Path) -> None:
    """Charge the found result `path` by the note that `making` has left beside it; nothing without a note."""
    if _open and (note := _read(Made, _beside(path))) is not None:
        charge(note.by, note.seconds)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.spent.json")


def _read(model: type[ModelT], note: Path) -> ModelT | None:
    """Read a note of costs; None without one. A damaged note is reported and ignored, so that it ends no run."""
    if not note.exists():
        return None
    try:
        return checked(model, read_json(note), str(note))
    except (InputError, OSError) as error:
        print(f"a note of costs is left out, so that these seconds are not counted: {error}", flush=True)
        return None


def timed_fit(fit: Callable[[], Fitted], folder: Path) -> tuple[Fitted, Cost]:
    """Call `fit`, which keeps its checkpoints in `folder`; return its result and its cost.

    A piece that was killed counts up to the last file that it wrote to the folder, as everything after it is done
    again. A fit that was done before, with its files still there, keeps the seconds that it had then, however fast it
    is loaded. Without files the fit begins anew; results that it had left elsewhere are then charged as another's.
    """
    ledger = folder.with_name(f"{folder.name}.seconds.json")
    times = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
    noted = _read(Spent, ledger) if times else None
    if noted is not None and noted.whole is not None:
        return fit(), Cost(noted.whole, noted.reused, noted.by)
    before = 0.0 if noted is None else noted.before + max(0.0, max(times) - noted.began)
    with account(noted.by if noted else None, before=before) as open_account:
        record = Spent(by=open_account.by, before=before, began=time.time())
        write_json(ledger, record.model_dump())
        fitted = fit()
        cost = open_account.cost()
    write_json(ledger, record.model_copy(update={"whole": cost.seconds, "reused": cost.reused}).model_dump())
    return fitted, cost
