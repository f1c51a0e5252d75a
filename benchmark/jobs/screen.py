"""Print one line per job while the workflow runs: the job, how many are done and how long the others will take.

Snakemake itself prints eight lines and more per job, its input files among them. A formatter for its own handler
changes that and nothing else: quietness, colours, the files in .snakemake/log and any other logger plugin stay as they
are, and `--verbose` and `--printshellcmds` show all that Snakemake knows. (snakemake-logger-plugin-rich 0.5.1 was
tried: it has no line per job without `--verbose` and no time left, ignores `--quiet`, and prints a failed job's whole
log.)
"""

import logging
import math
import re
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from benchmark.config.wording import many, printable
from benchmark.jobs.estimates import RULES, Estimate, in_words
from benchmark.jobs.last_words import FailedJob, reasons, sentence_of

# Snakemake's sentence about a lock that a killed run has left, and how to unlock with our commands.
UNLOCK = "It can be removed with the --unlock argument."
UNLOCK_IN_FULL = """
To remove it, give r2ec-bench the same arguments with `-- --unlock` behind them: after make reproduce
`r2ec-bench run -- --unlock`, after make quick `r2ec-bench quick -- --unlock`. After another target of make it is the
line of snakemake that make has printed, with --unlock behind it.
Then the command itself goes on where the killed run was."""

# Messages about Snakemake itself, and those that the last lines of a run replace.
DROPPED = (
    "Building DAG of jobs",
    "Select jobs to execute",
    "Using shell:",
    "Conda environments: ignored",
    "Reasons:",
    "At least one job did not complete successfully.",
    "WorkflowError:\nAt least one job did not complete successfully.",
    "Exiting because a job execution failed.",
    "Elapsed time:",
)
SILENT = (
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RESOURCES_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.JOB_FINISHED,
    LogEvent.PROGRESS,
)
KILLS = "Terminating processes on user request"
SILENCE = 300.0  # seconds without a line after which the screen says what the running jobs are at
TALKERS = 4  # running jobs that such a line names
LOG_END = 2**20  # bytes of a log that are read for it
# In a log: the setting of a grid that is tried, and a bar of tqdm's, perhaps without a name. A bar that has stopped on
# the way stays where it was: one that moves stands in the last lines.
SETTING = re.compile(r"^[\w.-]+: (setting \d+ of \d+): ", re.MULTILINE)
BAR = re.compile(r" *(?:(?P<name>[^|]{1,60}): +)?\d+%\|[^|]*\| *(?P<done>[^/\s]+)/(?P<all>\S+) \[")
BAR_LINES, MOVING = 3, 10_000
PRIOR = 60.0  # seconds of jobs that took as long as estimated, assumed before the first one ends


@dataclass(frozen=True)
class Job:
    """A planned job. expected: its estimate; None for a job that takes no time."""

    rule: str
    wildcards: tuple[tuple[str, str], ...]
    expected: Estimate | None = None
    threads: int = 1
    gpus: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """Rule and wildcards, by which Snakemake's messages identify the job."""
        return self.rule, self.wildcards

    @property
    def kind(self) -> tuple[str, str]:
        """Jobs whose estimates err alike: the rule, and a method with its ablations."""
        return self.rule, dict(self.wildcards).get("method", "").partition("--")[0]


@dataclass
class Progress:
    """Which of the planned jobs are done, and how long the others will take.

    cores, gpus: of this machine; on another one, the number of jobs side by side; None where that is unknown.
    """

    jobs: list[Job]
    cores: int | None = None
    gpus: int | None = None
    running: dict[int, tuple[Job, float]] = field(default_factory=dict)  # by Snakemake's number, and since when
    done: dict[tuple[Any, ...], float] = field(default_factory=dict)  # seconds by key

    @property
    def counted(self) -> list[Job]:
        """The jobs that take time, which are counted on the screen."""
        return [job for job in self.jobs if job.expected is not None]

    def start(self, number: int, key: tuple[Any, ...], now: float) -> None:
        """A job begins, perhaps for a second time."""
        job = next((job for job in self.jobs if job.key == key), None)
        if job is not None:
            self.running[number] = job, now

    def end(self, number: int, now: float, well: bool) -> None:
        """A job ends, well or not."""
        job, began = self.running.pop(number, (None, now))
        if job is not None and well:
            self.done[job.key] = now - began

    def left(self, now: float) -> float | None:
        """Seconds until the last job ends: the estimates times how much slower finished jobs of their kind were.

        None while a job without an estimate is to come, or one has taken far longer than its own.
        """
        if not all(job.expected.known for job in self.jobs if job.expected and job.key not in self.done):
            return None
        paces = self._paces()
        # The median: one kind whose estimate is far off says nothing about the others.
        of_others = statistics.median(paces.values()) if paces else 1.0
        began = {job.key: start for job, start in list(self.running.values())}  # the screen's thread asks, too
        remaining = []
        for job in self.jobs:
            if job.expected is not None and job.key not in self.done:
                elapsed = now - began[job.key] if job.key in began else 0.0
                expected = job.expected.seconds * paces.get(job.kind, of_others)
                if elapsed > expected + SILENCE:
                    return None
                remaining.append((max(0.0, expected - elapsed), job))
        bounds = [max((seconds for seconds, _ in remaining), default=0.0)]
        if self.cores:
            bounds.append(sum(seconds * min(job.threads, self.cores) for seconds, job in remaining) / self.cores)
        if self.gpus:
            bounds.append(sum(seconds * min(job.gpus, self.gpus) for seconds, job in remaining) / self.gpus)
        return max(bounds)

    def _paces(self) -> dict[tuple[str, str], float]:
        """How many times its estimate each kind of job took, of those that have ended."""
        took: dict[tuple[str, str], float] = defaultdict(float)
        thought: dict[tuple[str, str], float] = defaultdict(float)
        for job in self.jobs:
            # The default of a method without an estimate says nothing about a pace.
            if job.expected and job.expected.known and job.key in self.done:
                took[job.kind] += self.done[job.key]
                thought[job.kind] += job.expected.seconds
        return {kind: (PRIOR + took[kind]) / (PRIOR + thought[kind]) for kind in thought}

    def since(self, number: int, now: float) -> float | None:
        """Seconds that a job has run; None where it isn't running, or only collects files."""
        job, began = self.running.get(number, (None, now))
        return None if job is None or job.expected is None else now - began

    def so_far(self, now: float) -> str:
        """The beginning of a job's line: how many jobs are done, and how long the others will take."""
        total = len(self.counted)
        done = sum(job.key in self.done for job in self.counted)
        left = self.left(now)
        soon = "" if left is None else f", about {in_words(left)} left"
        return f"[{done:>{len(str(total))}} of {total} done{soon}]"


class Watch(logging.Handler):
    """A handler that gets every message, however quiet Snakemake is, and notes which jobs run, are done and failed."""

    def __init__(self, planned: Callable[[], Progress]) -> None:
        super().__init__()
        self.planned = planned  # called once Snakemake has planned its jobs
        self.progress = Progress([])
        self.names: dict[int, str] = {}
        self.logs: dict[int, str] = {}
        self.spoken = time.monotonic()  # when the screen last had a line
        self.failed: dict[int, FailedJob] = {}
        self.stopped = self.kills = False  # a stopped run waits for its jobs, perhaps for hours, unless it kills them
        self.began = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Note one message. An exception is printed and does not end the run."""
        try:
            self.note(record)
        except Exception:
            self.handleError(record)

    def note(self, record: logging.LogRecord) -> None:
        """Note one message."""
        event, now = getattr(record, "event", None), time.monotonic()
        about = vars(record)
        if event == LogEvent.RUN_INFO and not self.progress.jobs:
            self.progress = self.planned()
        elif event == LogEvent.JOB_INFO:
            self.names[about["jobid"]] = name_of(about)
            self.logs[about["jobid"]] = next(map(str, about.get("log") or []), "")
            self.spoken = now if about.get("rule_msg") else self.spoken  # one without words has no line
            self.progress.start(about["jobid"], key_of(about), now)
        elif event == LogEvent.JOB_FINISHED:
            self.progress.end(about["job_id"], now, well=True)
            self.failed.pop(about["job_id"], None)  # another attempt of it had failed
        elif event == LogEvent.JOB_ERROR:
            self.progress.end(about["jobid"], now, well=False)
            self.spoken = now
            self.failed[about["jobid"]] = self.failure(about)
        elif (said := record.getMessage()).startswith((KILLS, "Will exit after finishing")):
            self.stopped, self.kills = True, self.kills or said.startswith(KILLS)

    def failure(self, about: Mapping[str, Any]) -> FailedJob:
        """The failed job of a message, with the name that an earlier message gave it."""
        more = about["aux"].get("aux_logs") or []
        return FailedJob(self.names.get(about["jobid"], about["rule_name"]), tuple(map(str, [*about["log"], *more])))

    def running(self, now: float) -> str | None:
        """A line on what the running jobs are at, those that have run longest first; None where none runs."""
        known = [(seconds, number) for number in list(self.names) if (seconds := self.progress.since(number, now))]
        if not known:
            return None
        parts = []
        for seconds, number in sorted(known, reverse=True)[:TALKERS]:
            doing = at(_end_of(Path(self.logs[number])))
            parts.append(f"{self.names[number]} ({', '.join([f'for {taken(seconds)}', *doing])})")
        more = [f"and {many(len(known) - TALKERS, 'other job')}"] if len(known) > TALKERS else []
        return f"{self.progress.so_far(now)} still running: {'; '.join([*parts, *more])}"

    def talk(self, every: float = SILENCE) -> None:
        """Print that line whenever the screen has had no other for so many seconds, until the process ends."""

        def talk_on() -> None:
            while True:
                time.sleep(max(0.01, self.spoken + every - time.monotonic()))
                now = time.monotonic()
                if now - self.spoken >= every:
                    self.spoken = now
                    if (line := self.running(now)) is not None and not self.kills:
                        sys.stderr.write(f"{printable(line)}\n")  # at once, or another message could come between
                        sys.stderr.flush()

        threading.Thread(target=talk_on, name="screen", daemon=True).start()

    def summary(self) -> str:
        """A sentence on how many jobs were done in how long."""
        done = sum(job.key in self.progress.done for job in self.progress.counted)
        return f"{many(done, 'job')} done in {taken(time.monotonic() - self.began)}."


def taken(seconds: float) -> str:
    """How long something took, to the second below an hour and to the minute above it.

    >>> taken(0.2), taken(59.6), taken(245), taken(3689.6), taken(5130), taken(86399)
    ('0 s', '1 min 0 s', '4 min 5 s', '1 h 1 min', '1 h 26 min', '24 h 0 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = math.floor(seconds / 60 + 0.5)
    return f"{minutes // 60} h {minutes % 60} min"


def at(log: str) -> list[str]:
    """What a job is at, from the text of its log: the setting that it tries, and the progress bar that moves there.

    >>> at("sasrec: setting 2 of 6: {}\\nitems:  50%|###  | 7/14 [00:05<00:05]\\ritems:  57%|###  | 8/14 [00:06<00:04]")
    ['setting 2 of 6', 'items 8/14']
    """
    settings = list(SETTING.finditer(log))
    since = log[settings[-1].end() :] if settings else log
    # Behind its validation a setting is done: another begins, or the test cases are ranked.
    parts = [settings[-1][1]] if settings and ": valid NDCG@10 " not in since else []
    lines = [line for line in since[-MOVING:].replace("\r", "\n").split("\n") if line]
    # A bar that is erased at its end leaves a line of blanks.
    bars = [found for line in lines[-BAR_LINES:] if (found := BAR.match(line)) or line.isspace()]
    if bars and bars[-1] and bars[-1]["done"] != bars[-1]["all"]:
        parts.append("{name} {done}/{all}".format(**bars[-1].groupdict(default="step")))
    return parts


def _end_of(path: Path) -> str:
    """The last text of a log; none where it can't be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_END))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def key_of(about: Mapping[str, Any]) -> tuple[Any, ...]:
    """The key of the job that a message is about."""
    return about["rule_name"], tuple(sorted((name, str(value)) for name, value in about["wildcards"].items()))


def name_of(about: Mapping[str, Any]) -> str:
    """A job's name on the screen: its rule's message, or the rule's name."""
    return about.get("rule_msg") or about["rule_name"]


class Lines(DefaultFormatter):
    """A formatter that writes Snakemake's messages in short lines.

    plan, where: called for the text of a plan and for the places of results. stale: by the first output of a job, why
    it has to run again; Snakemake only knows that it is forced.
    """

    def __init__(
        self,
        watch: Watch,
        settings: Any,
        plan: Callable[[list[Job]], str],
        where: Callable[[], list[str]],
        stale: Mapping[str, str],
    ) -> None:
        super().__init__(settings.quiet, settings.show_failed_logs)
        self.watch, self.dryrun, self.whole = watch, settings.dryrun, settings.printshellcmds
        self.plan, self.where, self.stale = plan, where, stale
        self.unexplained = False
        self.planned_before = False

    def wanted(self, record: logging.LogRecord) -> bool:
        """Whether a message is shown. This is a filter: an empty text would still print an empty line."""
        event = getattr(record, "event", None)
        if event in SILENT or (event == LogEvent.JOB_ERROR and self.watch.stopped):
            return False
        if event == LogEvent.JOB_INFO and not self.whole:
            return bool(vars(record).get("rule_msg"))  # one without words only collects files
        if event is None or event == LogEvent.ERROR:
            message = record.getMessage()
            return not (
                message.startswith(DROPPED) or ("CalledProcessError in file" in message and not self.unexplained)
            )
        return True

    def format(self, record: logging.LogRecord) -> str:
        """The text of one message."""
        if getattr(record, "event", None) is None and record.msg == NOTHING_TO_BE_DONE_MSG:
            return "\n".join([record.msg, *self.where()])
        return super().format(record).replace(UNLOCK, UNLOCK_IN_FULL)

    def format_run_info(self, msg: dict[str, Any]) -> str:
        """The plan: one line for a run; for a dry run a table with the estimates, at its end."""
        if not self.dryrun:
            counts = {rule: count for rule, count in msg["stats"].items() if rule in RULES or rule == "run"}
            total, rules = sum(counts.values()), ", ".join(f"{count} {rule}" for rule, count in counts.items())
            return f"{many(total, 'job')}: {rules}"
        if not self.planned_before:  # Snakemake tells it twice
            self.planned_before = True
            return ""
        return f"\n{msg['msg']}\n{self.plan(self.watch.progress.jobs)}\n"

    def format_job_info(self, msg: dict[str, Any]) -> str:
        """The line of a job that begins or, in a dry run, would begin."""
        if self.whole:
            return "\n".join([name_of(msg), *self._format_job_info(msg)])
        if self.dryrun:
            known = (self.stale[str(path)] for path in msg.get("output", []) if str(path) in self.stale)
            return f"{name_of(msg)}: {next(known, None) or reasons(str(msg['reason']))}"
        return f"{self.watch.progress.so_far(time.monotonic())} {msg['rule_msg']}"

    def format_job_error(self, msg: dict[str, Any]) -> str:
        """The line of a failed job with the sentence of its log; the end of the run repeats it."""
        if self.show_failed_logs:
            return str(super().format_job_error(msg))
        failure = self.watch.failure(msg)
        self.unexplained = self.unexplained or not failure.logs
        return f"failed: {failure.name}: {sentence_of(failure.logs)}"


def take(logger: logging.Logger, watch: Watch, lines: Lines) -> None:
    """Let Snakemake's own handler for the screen print these lines, if no plugin has taken its place."""
    logger.addHandler(watch)
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler":
            handler.setFormatter(lines)
            handler.addFilter(lines.wanted)


def shown_root(start: Path) -> Path:
    """The run's folder relative to `start`, if it lies in it: "." without --directory."""
    here = Path.cwd().resolve()
    start = start.resolve()
    return here.relative_to(start) if here.is_relative_to(start) else here


def say(text: str) -> None:
    """Print on stderr, like all messages of Snakemake."""
    print(printable(f"\n{text}"), file=sys.stderr, flush=True)
