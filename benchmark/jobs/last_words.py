"""What a run of the workflow ends with: where its results are and what they say, or why each failed job failed."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.config.wording import printable
from benchmark.errors import InputError
from benchmark.jobs.records import FailedRun, read_failed

# Torch names no disk where it fails to write a checkpoint.
TORCH_CANT_WRITE = " (torch could not write all of a file: is the disk full?)"
LONGEST = 500  # characters of a sentence
# Beyond these, failed jobs tend to repeat one cause.
SHOWN = 10
PLACES = {"tables": ("tables", "tables"), "plots": ("plots", "plots"), "page": ("page", "report/index.html")}


@dataclass(frozen=True)
class Failed:
    """A job that failed: what it is, and its log files as the run's folder names them."""

    what: str
    logs: tuple[str, ...] = ()


def sentence(log: str) -> str | None:
    """Why a job failed, from the text of its log: its last `error: ...`, else the end of its last traceback, else its
    last line.

    None if it wrote nothing.

    >>> sentence("reading\\nerror: x.csv: row 5: rating is 'nan'; give a finite number\\n")
    "x.csv: row 5: rating is 'nan'; give a finite number"
    """
    # A progress bar writes its steps over each other, in one line.
    lines = [part for line in log.splitlines() if (part := line.rstrip().rsplit("\r", 1)[-1]).strip()]
    if not lines:
        return None
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if starts:
        # Frames are indented; the exception is the first line that isn't.
        found = next((line for line in lines[starts[-1] + 1 :] if not line.startswith(" ")), lines[-1])
        return found + TORCH_CANT_WRITE if "inline_container.cc" in found and "unexpected pos" in found else found
    return lines[-1].strip()


def shown(found: str) -> str:
    """A sentence of a log as a terminal and a table may have it: no control characters, and an end.

    >>> shown("x" * 1000) == "x" * 500 + " ..."
    True
    """
    text = printable(found.strip())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def sentence_of(logs: Sequence[str]) -> str:
    """The sentence of the first of these files that has one; unreadable ones have none."""
    for path in logs:
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if (found := sentence(text)) is not None:
            return shown(found)
    return "it left no word in its log; it may have been killed, for lack of memory or time, or by hand"


def of_failure(failed: Sequence[Failed], stopped: bool = False, root: Path = Path()) -> str:
    """The end of a run with failed jobs: a line about all of them, then each one's own sentence and log.

    stopped: by the user. root: what the paths of logs are shown under; they are read from the current folder.
    """
    if stopped:
        return "Stopped. What was finished stays; the same command goes on from there."
    if not failed:
        return "The run ended early. What was finished stays; the same command goes on from there."
    jobs = "1 job" if len(failed) == 1 else f"{len(failed)} jobs"
    lines = [f"{jobs} failed. What was finished stays; after mending, the same command goes on from there."]
    for job in failed[:SHOWN]:
        logs = ", ".join(str(root / log) for log in job.logs)
        lines.append(f"error: {sentence_of(job.logs)} ({job.what}{'; log: ' if logs else ''}{logs})")
    if len(failed) > SHOWN:
        lines.append(f"... and {len(failed) - SHOWN} more; their logs are in {root / 'results/logs'}")
    return "\n".join(lines)


def written_down(records: Iterable[str]) -> list[FailedRun]:
    """Of these run.json, those of runs that failed; damaged ones, which the next run makes anew, are left out."""
    found = []
    for path in records:
        try:
            failed = read_failed(path)
        except InputError:
            continue
        if failed is not None:
            found.append(failed)
    return found


def of_rows(failed: Sequence[FailedRun], root: Path = Path(), logs: bool = False) -> str:
    """What is said of runs that failed where everything else was made: a line about all of them, then each one's
    sentence.

    logs: whether their logs stand before that.
    """
    texts = [
        Path(one.log).read_text(encoding="utf-8", errors="replace") for one in failed if logs and Path(one.log).exists()
    ]
    runs = "1 run" if len(failed) == 1 else f"{len(failed)} runs"
    lines = [f"{runs} failed, as the tables say; after mending, the same command tries again what failed, and no more."]
    for one in failed[:SHOWN]:
        what = f"{one.method} on {one.dataset}, seed {one.seed}"
        lines.append(f"error: {shown(one.failed)} ({what}; log: {root / one.log})")
    if len(failed) > SHOWN:
        lines.append(f"... and {len(failed) - SHOWN} more; their logs are in {root / 'results/logs'}")
    return "\n".join([*texts, *lines])


def of_success(results: Path, rules: Iterable[str], ablations: str, head: str, root: Path = Path()) -> str:
    """The end of a run in which nothing failed: the tables' text, what it says about claims, and where things are.

    results: the run's folder of results. rules: those that the run's targets end in, whether or not they had to run.
    ablations: the folder of the ablations' tables. head: the sentence between text and places.
    """
    rules = set(rules)
    texts = []
    if "tables" in rules:
        texts.append(results / "tables" / "main.txt")
    if "claims" in rules:
        texts.append(results / ablations / "claims.md")
    said = [path.read_text(encoding="utf-8").rstrip() for path in texts if path.is_file()]
    return "\n\n".join([*said, "\n".join([head, *places(results, rules, ablations, root)])])


def places(results: Path, rules: Iterable[str], ablations: str, root: Path = Path()) -> list[str]:
    """Where tables, plots and page are, as far as these rules make them and they are there: a line, or none."""
    rules = set(rules)
    named = [(word, place) for rule, (word, place) in PLACES.items() if rule in rules]
    if {"ablation", "claims"} & rules:
        named.append(("ablations", ablations))
    if "ablation_plot" in rules:
        named.append(("their plots", f"plots/{ablations}"))
    found = [f"{word}: {root / results / place}" for word, place in named if (results / place).exists()]
    line = "   ".join(found)
    return [line[0].upper() + line[1:]] if line else []


def reasons(said: str) -> str:
    """Why Snakemake runs a job, without the files.

    >>> reasons("Missing output files: a, b; Input files updated by another job: c")
    'missing output files, input files updated by another job'
    """
    heads = [part.split(":")[0].strip() for part in re.split(r";\s*", said) if part.strip()]
    return ", ".join(head[0].lower() + head[1:] for head in heads)
