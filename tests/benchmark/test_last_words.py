"""What a run prints: the sentences of failed jobs, the end of a run, a line per job with what is left."""

import logging
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from benchmark.jobs.estimates import ANY, Estimate
from benchmark.jobs.last_words import (
    SHOWN,
    TORCH_CANT_WRITE,
    FailedJob,
    of_failure,
    of_others,
    of_rows,
    of_success,
    places,
    reasons,
    sentence,
    sentence_of,
)
from benchmark.jobs.records import FailedRun
from benchmark.jobs.screen import Job, Lines, Progress, Watch, shown_root, take
from benchmark.provenance import ROOT
from tests.support.planted import planted, write_files
from tests.support.project import SNAKEMAKE, changed_config, copy_of_project
from tests.support.terminal import interruptible

TRACEBACK = """reading
Traceback (most recent call last):
  File "x.py", line 3, in <module>
    fit()
ValueError: broken on purpose
"""
TORCH = "[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 0"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("a\nerror: x.csv: row 5: rating is 'nan'; give a number\n", "x.csv: row 5: rating is 'nan'; give a number"),
        ("error: first\nerror: last\nbye\n", "last"),
        (TRACEBACK, "ValueError: broken on purpose"),
        (TRACEBACK + TRACEBACK.replace("purpose", "accident"), "ValueError: broken on accident"),
        (TRACEBACK.replace("ValueError: broken on purpose", "KeyError: 'x'\nmore of it"), "KeyError: 'x'"),
        ("Traceback (most recent call last):\n  cut off", "  cut off"),
        (TRACEBACK.replace("broken on purpose", TORCH), f"ValueError: {TORCH}{TORCH_CANT_WRITE}"),
        ("one\n 5%|##   |\r100%|#####| 9/9\nKilled\n", "Killed"),
        ("step 1\rstep 2\n", "step 2"),
        ("", None),
        ("\n \n", None),
    ],
)  # fmt: skip
def test_a_logs_own_sentence(log: str, expected: str | None) -> None:
    assert sentence(log) == expected


def in_methods(*frames: tuple[str, int], says: str = "KeyError: 'b'") -> str:
    lines = "".join(
        f'  File "{file}", line {line}, in fit\n    counts[item]\n    ~~~~~~^^^^^^\n' for file, line in frames
    )
    return f"Traceback (most recent call last):\n{lines}{says}\n"


MINE, SHARED = f"{ROOT}/baselines/mine.py", f"{ROOT}/baselines/_writers/more.py"


def test_an_exception_ends_with_the_line_of_the_method_that_led_there() -> None:
    run, library = (f"{ROOT}/benchmark/jobs/run.py", 250), ("/lib/pandas/core/frame.py", 4000)
    deep = in_methods(run, (MINE, 12), (MINE, 42), library)
    assert sentence(deep) == "KeyError: 'b' (baselines/mine.py:42)"
    assert sentence(in_methods((MINE, 12), (SHARED, 5))) == "KeyError: 'b' (baselines/_writers/more.py:5)"
    # Of the last traceback alone, and of no folder that has the same name.
    assert sentence(deep + in_methods(run, library)) == "KeyError: 'b'"
    assert sentence(in_methods(run, ("/lib/other/baselines/mine.py", 3))) == "KeyError: 'b'"
    assert sentence(in_methods((MINE, 3)) + "error: x.csv: too small\n") == "x.csv: too small"


def test_a_long_or_strange_exception_keeps_its_line(tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    for says in ("ValueError: " + "x" * 10_000, "ValueError: " + "\x1b" * 300):
        log.write_text(in_methods((MINE, 42), says=says))
        said = sentence_of([str(log)])
        assert said.startswith("ValueError: ") and said.endswith(" ... (baselines/mine.py:42)") and len(said) <= 504


def test_the_sentence_of_a_jobs_logs(tmp_path: Path) -> None:
    gone, empty, full = (tmp_path / name for name in ("gone.log", "empty.log", "full.log"))
    empty.write_text("")
    full.write_bytes(b"\xff\nerror: no space left; free some\n")
    assert sentence_of([str(gone), str(empty), str(full)]) == "no space left; free some"
    assert "may have been killed" in sentence_of([str(gone), str(empty)]) == sentence_of([])


def test_the_end_of_a_run_with_failed_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.log").write_text(TRACEBACK)
    Path("b.log").write_text("error: too small\n")
    failed = [FailedJob("sasrec on toy, seed 1", ("a.log",)), FailedJob("prepare toy", ("b.log",))]
    lines = of_failure(failed, root=Path("there")).splitlines()
    assert lines[0].startswith("2 jobs failed. ") and "the same command goes on" in lines[0]
    assert lines[1:] == [
        "error: ValueError: broken on purpose (sasrec on toy, seed 1; log: there/a.log)",
        "error: too small (prepare toy; log: there/b.log)",
    ]
    assert of_failure(failed[:1]).startswith("1 job failed. ") and "; log: a.log)" in of_failure(failed[:1])
    many = of_failure(failed * SHOWN).splitlines()
    assert len(many) == SHOWN + 2 and many[-1] == f"... and {SHOWN} more; their logs are in results/logs"
    assert of_failure(failed, stopped=True).startswith("Stopped. ") and "error" not in of_failure(failed, stopped=True)
    assert of_failure([]).startswith("The run ended early")


def test_the_end_of_a_run_says_what_its_targets_end_in(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for file, text in {
        "tables/main.txt": "the table\n",
        "plots/toy.png": "",
        "report/index.html": "",
        "ablations-full/claims.md": "the claims\n",
        "plots/ablations-full/x.png": "",
    }.items():
        (results / file).parent.mkdir(parents=True, exist_ok=True)
        (results / file).write_text(text)

    def text_of(*rules: str, root: Path = Path()) -> str:
        return of_success(results, rules, "ablations-full", "9 jobs done in 3 s.", root)

    assert text_of("run", "tables", "plots", "page", "all").split("\n") == [
        "the table",
        "",
        "9 jobs done in 3 s.",
        f"Tables: {results}/tables   plots: {results}/plots   page: {results}/report/index.html",
    ]
    assert text_of("claims", "ablation", "ablation_plot").split("\n") == [
        "the claims",
        "",
        "9 jobs done in 3 s.",
        f"Ablations: {results}/ablations-full   their plots: {results}/plots/ablations-full",
    ]
    assert text_of("fetch", "prepare") == "9 jobs done in 3 s."
    shutil.rmtree(results / "tables")
    assert "tables" not in text_of("tables", "plots").lower()
    assert places(Path("gone"), ["tables"], "a") == []


def test_a_runs_folder_is_named_from_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somewhere").mkdir()
    monkeypatch.chdir(tmp_path / "somewhere")
    assert shown_root(tmp_path / "somewhere") == Path() and shown_root(tmp_path) == Path("somewhere")
    assert shown_root(tmp_path / "else") == (tmp_path / "somewhere").resolve()


def test_reasons_are_printed_without_files() -> None:
    assert reasons("Code has changed since last execution") == "code has changed since last execution"
    assert reasons("") == ""


def job(name: str, seconds: float, threads: int = 1, gpus: int = 0) -> Job:
    return Job("run", (("method", name),), Estimate(seconds, 1), threads, gpus)


def test_time_left_by_hand() -> None:
    jobs = [job("a", 60), job("b", 60), job("wide", 40, threads=8), Job("all", ())]
    progress = Progress(jobs, cores=2)
    # 60 + 60 + 2 * 40 core seconds on two cores; a job wider than the machine has it alone.
    assert progress.left(0) == 100
    assert progress.so_far(0) == "[0 of 3 done, about 2 min left]"
    assert Progress(jobs, cores=100).left(0) == 60  # the longest
    progress.start(1, jobs[0].key, 0)
    assert progress.left(50) == (10 + 60 + 80) / 2
    assert progress.left(300) == (0 + 60 + 80) / 2  # late
    assert progress.left(400) is None and progress.so_far(400) == "[0 of 3 done]"  # so late that nobody knows
    # It took thrice as long as estimated: with the minute that is taken as seen, twice.
    progress.end(1, 180, well=True)
    assert progress.left(180) == 2 * (60 + 80) / 2 and progress.so_far(180).startswith("[1 of 3 done")
    progress.start(2, jobs[1].key, 180)
    progress.end(2, 190, well=False)  # it may be tried again
    assert progress.left(190) == 140
    progress.start(3, ("other", ()), 190)
    progress.end(3, 191, well=True)
    assert progress.so_far(190).startswith("[1 of 3 done")


def test_one_kind_that_takes_longer_says_nothing_about_the_others() -> None:
    slow, again, other, of_other = job("slow", 60), job("slow", 30), job("other", 60), job("other--beta=0", 30)
    again = replace(again, wildcards=(*again.wildcards, ("seed", "2")))
    third = job("third", 30)
    progress = Progress([slow, again, other, of_other, third], cores=1)
    for number, (finished, took) in enumerate(((slow, 540.0), (other, 60.0))):
        progress.start(number, finished.key, 0)
        progress.end(number, took, well=True)
    # Slow jobs take (60 + 540) / (60 + 60) = 5 times their estimate. The other took its own, as will its ablation.
    # Of the third none has ended: it takes the median of both, 3.
    assert progress.left(600) == 30 * 5 + 30 * 1 + 30 * 3


def test_time_left_with_few_gpus_and_unknown_methods() -> None:
    jobs = [job("a", 10, gpus=2), job("b", 30, gpus=1), job("c", 30, gpus=1)]
    assert Progress(jobs, cores=64, gpus=2).left(0) == 40 and Progress(jobs, cores=64).left(0) == 30
    unknown = Progress([Job("run", (), ANY), job("a", 10)], cores=2)
    assert unknown.left(0) is None and unknown.so_far(0) == "[0 of 2 done]"
    unknown.start(1, ("run", ()), 0)
    unknown.end(1, 2, well=True)
    assert unknown.left(2) == 10  # that it took two seconds of 40 minutes says nothing about the others


def record(event: LogEvent | None, message: str = "", level: int = logging.INFO, **about: Any) -> logging.LogRecord:
    log_record = logging.makeLogRecord(
        {"msg": message, "levelno": level, "levelname": logging.getLevelName(level), **about}
    )
    log_record.event = event
    return log_record


def screen(quiet: set[Quietness] | None = None, **output_settings: Any) -> tuple[Watch, Lines]:
    settings = SimpleNamespace(
        **{"quiet": quiet or set(), "show_failed_logs": False, "dryrun": False, "printshellcmds": False}
        | output_settings
    )
    watch = Watch(lambda: Progress([job("a", 10), job("b", 10)], cores=1))
    stale = {"old": "x.csv has changed"}
    return watch, Lines(watch, settings, lambda jobs: f"plan of {len(jobs)}", lambda: ["Tables: there"], stale)


RUN_INFO = {"stats": {"run": 2, "all": 1, "total": 3}}
STARTED = {"jobid": 1, "rule_name": "run", "rule_msg": "a on toy", "wildcards": {"method": "a"}, "reason": "Missing: x"}
BROKEN = {"jobid": 1, "rule_name": "run", "rule_msg": None, "log": ["gone.log"], "aux": {}}


def test_a_job_is_one_line_and_its_failure_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gone.log").write_text("error: too small\n")
    watch, lines = screen()
    messages = [
        record(LogEvent.WORKFLOW_STARTED),
        record(None, "Building DAG of jobs..."),
        record(LogEvent.RUN_INFO, "Job stats:\nrun 2", **RUN_INFO),
        record(LogEvent.JOB_STARTED, "Execute 1 jobs..."),
        record(LogEvent.JOB_INFO, **STARTED),
        record(LogEvent.JOB_INFO, **STARTED | {"jobid": 0, "rule_name": "all", "rule_msg": None}),
        record(LogEvent.JOB_ERROR, "Error in rule run", logging.ERROR, **BROKEN),
        record(LogEvent.ERROR, "RuleException:\nCalledProcessError in file x, line 1:", logging.ERROR),
        record(None, "something else", logging.WARNING),
    ]
    lines_printed = []
    for message in messages:
        if lines.wanted(message):
            lines_printed.append(lines.format(message))
        watch.emit(message)
    assert lines_printed == [
        "2 jobs: 2 run",
        "[0 of 2 done, about 20 s left] a on toy",
        "failed: a on toy: too small",
        "something else",
    ]
    assert list(watch.failed.values()) == [FailedJob("a on toy", ("gone.log",))]
    watch.emit(record(LogEvent.JOB_INFO, **STARTED))
    watch.emit(record(LogEvent.JOB_FINISHED, job_id=1))  # the second attempt went well
    assert not watch.failed and watch.summary().startswith("1 job done in ")
    watch.emit(record(None, "Terminating processes on user request, this might take some time."))
    assert watch.stopped and not lines.wanted(messages[6])


def test_a_dry_run_tells_the_plan_once_at_its_end() -> None:
    watch, lines = screen(dryrun=True)
    info = record(LogEvent.RUN_INFO, "Job stats:\nrun  2", **RUN_INFO)
    assert lines.format(info) == ""
    watch.emit(info)
    assert lines.format(record(LogEvent.JOB_INFO, **STARTED)) == "a on toy: missing"
    assert lines.format(record(LogEvent.JOB_INFO, **STARTED | {"output": ["old"]})) == "a on toy: x.csv has changed"
    assert lines.format(info) == "\nJob stats:\nrun  2\nplan of 2\n"
    from snakemake.common import NOTHING_TO_BE_DONE_MSG

    assert lines.format(record(None, NOTHING_TO_BE_DONE_MSG)) == f"{NOTHING_TO_BE_DONE_MSG}\nTables: there"


def test_a_lock_that_is_left_says_how_it_goes_on() -> None:
    from snakemake.exceptions import LockException

    _, lines = screen()
    text = lines.format(record(None, str(LockException())))
    assert "`r2ec-bench run -- --unlock`" in text and text.endswith("goes on where the killed run was.")


def test_another_plugins_screen_is_left_alone_and_a_fault_here_ends_no_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, lines = screen()
    own, other = logging.StreamHandler(), logging.StreamHandler()
    own.name, other.name = "DefaultStreamHandler", "rich"
    logger = logging.Logger("test")
    logger.addHandler(own)
    logger.addHandler(other)
    take(logger, watch, lines)
    assert own.formatter is lines and other.formatter is None and watch in logger.handlers
    watch.planned = lambda: Progress(1 / 0)  # type: ignore[arg-type]
    monkeypatch.setattr(logging, "raiseExceptions", True)
    watch.emit(record(LogEvent.RUN_INFO, "x", **RUN_INFO))
    assert "ZeroDivisionError" in capsys.readouterr().err


# --- the real thing
# ----------------------------------------------------------------------------------------------------

WAITING = """
import os, time
def fit(split, *, seed, params, workdir):
    if not os.path.exists("mended"):
        time.sleep(float(os.environ.get("WAIT", "0")))
        raise ValueError('broken on purpose')
    from baselines.popularity import fit
    return fit(split, seed=seed, params={}, workdir=workdir)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with a config of a method that breaks, in another folder than the run's."""
    copied = copy_of_project(tmp_path / "project")
    (copied / "baselines" / "broken.py").write_text(WAITING)
    config = copied / changed_config(copied, "broken.yaml", only=True, popularity=None, broken=None)
    value = yaml.safe_load(config.read_text()) | {"seeds": 1}
    config.write_text(yaml.safe_dump(value, sort_keys=False))
    write_files(copied / "there" / "planted", planted(n_users=40))
    return copied


def test_a_failed_run_is_said_to_stand_in_tables_only_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = FailedRun(dataset="toy", method="mine", seed=1, failed="ValueError: x", log="a.log")
    assert of_rows([failed]).startswith("1 run failed; after mending, the same command")
    (tmp_path / "results/tables").mkdir(parents=True)
    (tmp_path / "results/tables/main.csv").touch()
    assert of_rows([failed]).startswith("1 run failed, as the tables say; after mending")


def said_by(project: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines, of both streams, of a run in the folder `there`."""
    command = [*SNAKEMAKE, "--cores", "2", "--configfile", "config/broken.yaml", "--directory", "there", *arguments]
    done = subprocess.run(
        command, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
    )
    return done.returncode, done.stdout.splitlines()


def test_what_a_run_says_from_its_plan_to_its_table(project: Path) -> None:
    code, lines = said_by(project, "--dry-run")
    assert code == 0 and lines[-1].startswith("This was a dry-run")
    assert "broken on planted, seed 1: missing output files, input files updated by another job" in lines
    assert [line for line in lines if line.startswith("estimates ")] and "done" not in " ".join(lines)
    counted = dict(re.findall(r"^(run popularity|run broken|tables?|page) +(\d+) +\S", "\n".join(lines), flags=re.M))
    assert counted == {"run popularity": "1", "run broken": "1", "table": "1", "tables": "1", "page": "1"}

    # Broken: all others have their table, and the run's own sentence is the last line of all.
    code, lines = said_by(project)
    log = "there/results/logs/runs/planted.broken.seed1.log"
    assert code == 1 and "CalledProcessError" not in " ".join(lines) and "Traceback" not in " ".join(lines)
    why = "ValueError: broken on purpose (baselines/broken.py:6)"
    assert lines[-1] == f"error: {why} (broken on planted, seed 1; log: {log})"
    assert lines[-2].startswith("1 run failed, as the tables say;") and (project / log).is_file()
    assert (project / "there/results/tables/main.txt").read_text().rstrip() in "\n".join(lines)
    assert len([line for line in lines if line.startswith("failed: broken on planted, seed 1: ValueError")]) == 1
    assert "Traceback" in "\n".join(said_by(project, "--show-failed-logs")[1])
    quiet = said_by(project, "--quiet")[1]
    assert quiet[-1] == lines[-1] and not [line for line in quiet if line.startswith("[")]

    # Mended: what is left runs; the table's text and the places are the end.
    (project / "there" / "mended").touch()
    code, lines = said_by(project, "--dry-run", "--quiet", "rules")
    assert not [line for line in lines if "popularity" in line] and [line for line in lines if "run broken" in line]
    code, lines = said_by(project)
    text = "\n".join(lines)
    assert code == 0 and "\x1b" not in text and "\r" not in text
    assert (project / "there/results/tables/main.txt").read_text().rstrip() in text
    where = "Tables: there/results/tables   plots: there/results/plots   page: there/results/report/index.html"
    assert lines[-1] == where and re.fullmatch(r"6 jobs done in (\d+ min )?\d+ s\.", lines[-2])
    jobs = [line for line in lines if line.startswith("[")]
    assert len(jobs) == 6 and jobs[0].startswith("[0 of 6 done] broken on planted") and jobs[-1].endswith(" page")

    code, lines = said_by(project)
    assert code == 0 and lines[-2].startswith("Nothing to be done") and lines[-1] == where
    code, lines = said_by(project, "results/data/planted/dataset.json", "--forceall", "--quiet", "all")
    assert code == 0 and len(lines) <= 2


def test_a_stopped_run_says_so_and_names_no_failure(project: Path) -> None:
    command = [*SNAKEMAKE, "--cores", "2", "--configfile", "config/broken.yaml", "--directory", "there"]
    process = subprocess.Popen(
        command,
        cwd=project,
        preexec_fn=interruptible,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"WAIT": "120"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    logs = [project / f"there/results/logs/runs/planted.{method}.seed1.log" for method in ("broken", "popularity")]
    while not all(log.exists() for log in logs):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, output = process.communicate(timeout=60)
    lines = output.splitlines()
    assert process.returncode == 1 and "Traceback" not in output and "error:" not in output
    assert lines[-1] == "Stopped. What was finished stays; the same command goes on from there."


def test_tables_and_plots_of_another_config_are_named(tmp_path: Path) -> None:
    made = ["tables/main.md", "plots/shop.cost.png", "statistics/shop.csv"]
    for name in [*made, "tables/against.md", "tables/old.csv", "plots/old.cost.png", "plots/ablations/beta.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = [str(tmp_path / name) for name in made]
    assert of_others(tmp_path, files) == (
        f"Not of this config: {tmp_path}/tables/against.md, {tmp_path}/tables/old.csv and 1 more; delete what is of an "
        "earlier one."
    )
    for name in ("tables/against.md", "tables/old.csv", "plots/old.cost.png"):
        (tmp_path / name).unlink()
    assert of_others(tmp_path, files) == ""
