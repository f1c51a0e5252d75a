"""Run one job within its limits, and record why it failed, if it does: `python -m benchmark.jobs.supervise MODULE`.

The workflow starts each run of a method by it. Time and memory of the job and the size of its log are limited. Whatever
ends the job - an error, a signal, a limit, or an end without a result - becomes a sentence in run.json, so that the row
of this method says "failed", and the tables of all others are made. Exit codes: 0 done, 3 failed and recorded, 2 failed
and to be tried again.

A job that somebody stops, or whose workflow is gone, has not failed: nothing is recorded.
"""

import signal

if __name__ == "__main__":
    # The terminal shows what this process writes: stopped while it still imports, it must end without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import contextlib
import os
import selectors
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmark.errors import InputError, command, command_line
from benchmark.jobs.last_words import of_exit, shown
from benchmark.jobs.launch import SUPERVISOR
from benchmark.jobs.records import FailedRun, read_run, write_failed
from benchmark.processes import own_temporary
from benchmark.provenance import memory_bytes

WRITTEN_DOWN = 3  # exit code
BLOCK = 2**16  # bytes read at once
LOG_BYTES = 16 * 2**20  # of a log; of more the first half and the last part stay
SHARE_OF_MEMORY = 0.9  # of the machine's, where no limit is set
LOOK_AGAIN = 1.0  # seconds between two looks at time and memory
LAST_WORDS = 5.0  # seconds that a job has to say where it was
CLOSING = 1.0  # seconds in which what a job has started may still write to its log


@dataclass(frozen=True)
class Limits:
    """The limits of one job."""

    seconds: float
    memory: int  # bytes of it and all that it has started

    def exceeded(self, seconds: float, memory: int) -> str | None:
        """The limit that a job exceeds, in words; None for none."""
        if seconds > self.seconds:
            return (
                f"took longer than its limit of {self.seconds / 3600:g} h; raise max_hours of this method in the config"
            )
        if memory > self.memory:
            gib = self.memory / 2**30
            return (
                f"took more than its limit of {gib:.3g} GiB of main memory; raise max_memory_gib of this method in the "
                "config"
            )
        return None


class CutLog:
    """A log of at most `most` bytes: where more is written, the beginning and the end stay.

    A full disk does not end the job.
    """

    def __init__(self, path: Path, most: int = LOG_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w+b", buffering=0)
        self.most, self.size, self.left_out = most, 0, 0
        self.note = b""  # the line that stands for what was left out

    def write(self, data: bytes) -> None:
        """Append, and cut where it has become too long."""
        try:
            for start in range(0, len(data), self.most // 4):
                part = data[start : start + self.most // 4]
                self.file.write(part)
                self.size += len(part)
                if self.size > self.most:
                    self._cut()
        except OSError:
            return

    def _cut(self) -> None:
        half, tail_bytes = self.most // 2, self.most // 4
        self.file.seek(self.size - tail_bytes)
        end = self.file.read(tail_bytes)
        self.left_out += self.size - half - tail_bytes - len(self.note)
        self.note = f"\n[... about {self.left_out:,} bytes are left out here ...]\n".encode()
        self.file.truncate(half)
        self.file.seek(half)
        self.file.write(self.note + end)
        self.size = self.file.tell()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def memory_of(process: subprocess.Popen[bytes]) -> int:
    """Resident bytes of a process and of all that it has started."""
    resident = 0
    try:
        parent = psutil.Process(process.pid)
        for process_or_child in [parent, *parent.children(recursive=True)]:
            try:
                resident += process_or_child.memory_info().rss
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return resident


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def watched(line: list[str], log: CutLog, limits: Limits) -> tuple[int, str | None]:
    """Run a command to its end and write its output to the log.

    Returns its exit code (negative: the signal that ended it) and the limit that it exceeded, in words (None: none).
    """
    # Python says where it was when a signal such as SIGSEGV ends it, and when we send SIGABRT.
    environment = os.environ | {"PYTHONFAULTHANDLER": "1", SUPERVISOR: str(os.getpid())}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, process_group=0)
    assert process.stdout is not None
    began = last_look = time.monotonic()
    ended: float | None = None  # since when the process has ended, while what it has started may still write
    limit: str | None = None
    try:
        with selectors.DefaultSelector() as output:
            output.register(process.stdout, selectors.EVENT_READ)
            while ended is None or time.monotonic() - ended < CLOSING:
                if output.select(LOOK_AGAIN if ended is None else LOOK_AGAIN / 10):
                    if not (data := os.read(process.stdout.fileno(), BLOCK)):
                        break  # all that could write have closed it
                    log.write(data)
                now = time.monotonic()
                if ended is None and process.poll() is not None:
                    ended = now
                elif limit is not None and now - last_look >= LAST_WORDS:
                    kill_all(process)
                elif limit is None and now - last_look >= LOOK_AGAIN:
                    last_look = now
                    if (limit := limits.exceeded(now - began, memory_of(process))) is not None:
                        process.send_signal(signal.SIGABRT)
        return process.wait(), limit
    finally:
        kill_all(process)


def why_failed(code: int, limit: str | None, log: Path, out: Path) -> str | None:
    """Why a job has no result, in a sentence; None if it has one."""
    if limit is not None:
        return limit
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was ended by {name}" + (", for lack of memory, or by hand" if -code == signal.SIGKILL else "")
    if code > 0:
        return shown(of_exit(code, log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""))
    if not (out / "run.json").is_file():
        return "ended with exit code 0 but without a result; its code must not end the process"
    try:
        read_run(out / "run.json")
    except InputError as problem:
        return f"ended with exit code 0, but {problem}"
    return None if (out / "rankings.parquet").is_file() else "ended with exit code 0 but without rankings.parquet"


def stopped(number: int, _: object) -> None:
    """Handle a signal of somebody who stops the job: end with it, and record nothing."""
    raise SystemExit(128 + number)


@command
def main() -> None:
    parser = command_line("benchmark.jobs.supervise", __doc__)
    parser.add_argument("--run", nargs=3, required=True, metavar=("DATASET", "METHOD", "SEED"), help="the run it is")
    parser.add_argument("--out", type=Path, required=True, help="the folder that the job writes")
    parser.add_argument("--log", type=Path, required=True, help="the file that gets its output")
    parser.add_argument("--max-seconds", type=float, required=True, help="time that it may take")
    parser.add_argument("--max-mib", type=int, default=0, help="main memory that it may take (default: 90 %% of all)")
    parser.add_argument("--try-again", action="store_true", help="leave a failure to the next attempt: write nothing")
    parser.add_argument("module", nargs=argparse.REMAINDER, help="the module, and its own arguments")
    args = parser.parse_args()
    if not args.module:
        raise InputError("no module is named; give one, such as benchmark.jobs.launch, and its arguments behind it")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stopped)
    log, temporary = CutLog(args.log), own_temporary()
    memory = args.max_mib * 2**20 or int(SHARE_OF_MEMORY * memory_bytes())
    os.environ["TMPDIR"] = str(temporary)
    try:
        code, limit = watched([sys.executable, "-m", *args.module], log, Limits(args.max_seconds, memory))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        log.close()
    why = why_failed(code, limit, args.log, args.out)
    if why is None:
        return
    dataset, method, seed = args.run
    if args.try_again:
        raise InputError(f"{method} on {dataset}, seed {seed}: {why}; it is tried again")
    failed = FailedRun(failed=why, log=str(args.log), dataset=dataset, method=method, seed=int(seed))
    write_failed(args.out, failed)
    print(f"failed: {method} on {dataset}, seed {seed}: {why} (log: {args.log})", file=sys.stderr, flush=True)
    sys.exit(WRITTEN_DOWN)


if __name__ == "__main__":
    main()
