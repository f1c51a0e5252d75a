"""The last lines of a workflow's run: where its results are and what they say, or why each failed job failed."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.config.methods import authors_line
from benchmark.config.wording import many, names_in_words, printable
from benchmark.errors import InputError
from benchmark.jobs.records import FailedRun, read_failed

# Torch names no disk where it fails to write a checkpoint.
TORCH_CANT_WRITE = " (torch could not write all of a file: is the disk full?)"
LONGEST = 500  # characters of a sentence
FRAME = re.compile(r'  File "(.+)", line (\d+)')  # of a traceback
# Beyond these, failed jobs tend to repeat one cause.
SHOWN = 10
PLACES = {"tables": ("tables", "tables"), "plots": ("plots", "plots"), "page": ("page", "report/index.html")}


@dataclass(frozen=True)
class FailedJob:
    """A job that failed, and its log files, relative to the run's folder."""

    name: str
    logs: tuple[str, ...] = ()


def sentence(log: str) -> str | None:
    """Why a job failed, from the text of its log; None if it wrote nothing.

    That is its last `error: ...`, else the exception of its last traceback, else its last line. Behind an exception
    stands the line of a method's file that it came from, if it came from one.

    >>> sentence("reading\\nerror: x.csv: row 5: rating is 'nan'; give a finite number\\n")
    "x.csv: row 5: rating is 'nan'; give a finite number"
    """
    lines = _lines(log)
    return _stated(lines) or (lines[-1].strip() if lines else None)


def of_exit(code: int, log: str) -> str:
    """Why a job ended by itself with this exit code, from the text of its log. Nobody has killed it.

    Python ends with 1 behind a traceback, and our commands with 2 behind an error: with another code, what the log says
    of an error was caught.

    >>> of_exit(7, "epoch 1\\nepoch 2\\n")
    'ended with exit code 7; the last line of its log: epoch 2'
    """
    lines = _lines(log)
    if code in (1, 2) and (why := _stated(lines)) is not None:
        return why
    if lines:
        return f"ended with exit code {code}; the last line of its log: {lines[-1].strip()}"
    return f"ended with exit code {code} without a word; its code, or code that it calls, ends the process (os._exit)"


def _lines(log: str) -> list[str]:
    # A progress bar writes its steps over each other, in one line.
    return [part for line in log.splitlines() if (part := line.rstrip().rsplit("\r", 1)[-1]).strip()]


def _stated(lines: Sequence[str]) -> str | None:
    """The last `error: ...` of these lines of a log, else the exception of the last traceback; None without both."""
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    return _of_traceback(lines[starts[-1] + 1 :] or lines[-1:]) if starts else None


def _of_traceback(lines: Sequence[str]) -> str:
    """The exception of the traceback that these lines begin with, and the line of a method's file that led there."""
    # Frames are indented; the exception is the first line that isn't.
    end = next((i for i, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    exception = lines[end] if end < len(lines) else lines[-1]
    if "inline_container.cc" in exception and "unexpected pos" in exception:
        exception += TORCH_CANT_WRITE
    frames = [match.groups() for line in lines[:end] if (match := FRAME.match(line))]
    place = authors_line((file, int(number)) for file, number in frames)
    return exception if place is None else f"{_cut(printable(exception), LONGEST - len(place) - 10)} ({place})"


def shown(sentence: str) -> str:
    """A sentence of a log, fit for a terminal and a table: without control characters, and cut where it is long.

    >>> shown("x" * 1000) == "x" * 500 + " ..."
    True
    """
    return _cut(printable(sentence.strip()), LONGEST)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."


def sentence_of(logs: Sequence[str]) -> str:
    """The `sentence` of the first of these log files that is readable and not empty."""
    for path in logs:
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if (reason := sentence(text)) is not None:
            return shown(reason)
    return "it left no word in its log; it may have been killed, for lack of memory or time, or by hand"


def of_failure(failed: Sequence[FailedJob], stopped: bool = False, root: Path = Path()) -> str:
    """The last lines of a run with failed jobs: a line about all of them, then the sentence and log of each.

    stopped: by the user. root: the folder under which the paths of logs are shown; they are read from the current one.
    """
    if stopped:
        return "Stopped. What was finished stays; the same command goes on from there."
    if not failed:
        return "The run ended early. What was finished stays; the same command goes on from there."
    jobs = many(len(failed), "job")
    lines = [f"{jobs} failed. What was finished stays; after mending, the same command goes on from there."]
    for job in failed[:SHOWN]:
        logs = ", ".join(str(root / log) for log in job.logs)
        lines.append(f"error: {sentence_of(job.logs)} ({job.name}{'; log: ' if logs else ''}{logs})")
    if len(failed) > SHOWN:
        lines.append(f"... and {len(failed) - SHOWN} more; their logs are in {root / 'results/logs'}")
    return "\n".join(lines)


def failed_runs_in(records: Iterable[str]) -> list[FailedRun]:
    """The failed runs among these run.json; damaged files, which the next run makes anew, are left out."""
    failures = []
    for path in records:
        try:
            failed = read_failed(path)
        except InputError:
            continue
        if failed is not None:
            failures.append(failed)
    return failures


def of_rows(failed: Sequence[FailedRun], root: Path = Path(), logs: bool = False) -> str:
    """The last lines where some runs failed and everything else was made: a line about all, then one for each.

    logs: whether the logs of these runs are printed before.
    """
    texts = [
        Path(run.log).read_text(encoding="utf-8", errors="replace") for run in failed if logs and Path(run.log).exists()
    ]
    runs = many(len(failed), "run")
    told = ", as the tables say" if Path("results/tables/main.csv").exists() else ""
    lines = [f"{runs} failed{told}; after mending, the same command tries again what failed, and no more."]
    for run in failed[:SHOWN]:
        what_failed = f"{run.method} on {run.dataset}, seed {run.seed}"
        lines.append(f"error: {shown(run.failed)} ({what_failed}; log: {root / run.log})")
    if len(failed) > SHOWN:
        lines.append(f"... and {len(failed) - SHOWN} more; their logs are in {root / 'results/logs'}")
    return "\n".join([*texts, *lines])


def of_success(results: Path, rules: Iterable[str], ablations: str, head: str, root: Path = Path()) -> str:
    """The last lines of a run in which nothing failed: the main table, the claims' verdicts, and where the results are.

    results: the run's folder of results. rules: those that make the run's targets, whether or not they had to run.
    ablations: the folder of the ablations' tables. head: the sentence between the tables and the places.
    """
    rules = set(rules)
    texts = []
    if "tables" in rules:
        texts.append(results / "tables" / "main.txt")
    if "claims" in rules:
        texts.append(results / ablations / "claims.md")
    contents = [path.read_text(encoding="utf-8").rstrip() for path in texts if path.is_file()]
    return "\n\n".join([*contents, "\n".join([head, *places(results, rules, ablations, root)])])


def places(results: Path, rules: Iterable[str], ablations: str, root: Path = Path()) -> list[str]:
    """A line that says where tables, plots and page are, of those that exist and that these rules make; or no line."""
    rules = set(rules)
    named = [(word, place) for rule, (word, place) in PLACES.items() if rule in rules]
    if {"ablation", "claims"} & rules:
        named.append(("ablations", ablations))
    if "ablation_plot" in rules:
        named.append(("their plots", f"plots/{ablations}"))
    existing = [f"{word}: {root / results / place}" for word, place in named if (results / place).exists()]
    line = "   ".join(existing)
    return [line[0].upper() + line[1:]] if line else []


def of_others(results: Path, made: Iterable[str], root: Path = Path()) -> str:
    """A sentence on tables and plots that lie among a run's own and are none of them; "" for none.

    They are of another config, or of this one before a setting was changed. made: all files that the run's jobs make.
    """
    known = set(made)
    there = [path for folder in ("tables", "plots") for path in sorted((results / folder).glob("*.*"))]
    left = [str(root / path) for path in there if path.is_file() and str(path) not in known]
    if not left:
        return ""
    return f"Not of this config: {names_in_words(left)}; delete what is of an earlier one."


def reasons(stated: str) -> str:
    """Snakemake's reasons for running a job, without names of files.

    >>> reasons("Missing output files: a, b; Input files updated by another job: c")
    'missing output files, input files updated by another job'
    """
    heads = [part.split(":")[0].strip() for part in re.split(r";\s*", stated) if part.strip()]
    return ", ".join(head[0].lower() + head[1:] for head in heads)
