"""What the screen says of jobs that run for long."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from benchmark.jobs.estimates import Estimate
from benchmark.jobs.screen import TALKERS, Job, Progress, Watch, at
from tests.benchmark.test_last_words import record

BAR = "untrained states, train:  53%|█████▎    | 17/32 [05:21<04:43, 18.9s/it]"
STEP = " 28%|██▊       | 11/40 [04:20<11:56, 24.7s/it]"
FULL = "item table: 100%|██████████| 5590/5590 [05:49<00:00, 23.0item/s]"
TRIES = "r2ec: setting 2 of 6: {'training': {'max_steps': 12}}"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", []),
        ("fit\n", []),
        (f"r2ec: setting 1 of 6: {{}}\nr2ec: valid NDCG@10 0.04 after 3 s\n{TRIES}\n", ["setting 2 of 6"]),
        (f"{TRIES}\n{FULL}\r{BAR}", ["setting 2 of 6", "untrained states, train 17/32"]),
        (f"{TRIES}\n{BAR}\r{FULL}\n", ["setting 2 of 6"]),  # what comes now has no bar
        (f"\n{{'loss': '0.5'}}\n\n{STEP}\n{{'loss': '0.4'}}\n\n", ["step 11/40"]),
        # A bar that has stopped on the way, as early stopping leaves it, is where nothing is any more.
        (f"{BAR}\nkept\nr2ec: valid NDCG@10 0.04 after 3 s\nread\n", []),
        ("error: 12%|x; give a number", []),
        (f"{TRIES}\n{BAR}\r{' ' * 70}\r", ["setting 2 of 6"]),  # a bar that was erased
        (f"{BAR}\nr2ec: valid NDCG@10 0.04 after 3 s\n{TRIES}\n", ["setting 2 of 6"]),  # one of the setting before
        (f"{TRIES}\nr2ec: valid NDCG@10 0.04 after 3 s\n{STEP}", ["step 11/40"]),  # the test cases are ranked
        (f"my-r2ec_v1.5: setting 1 of 2: {{}}\n{STEP}", ["setting 1 of 2", "step 11/40"]),
    ],
)
def test_a_log_tells_what_its_job_is_at(log: str, expected: list[str]) -> None:
    assert at(log) == expected


def watch_of(count: int, folder: Path, began: float) -> Watch:
    """A watch of `count` jobs that run, of whom the first, "a" of 0 s less, began last; and one that collects files."""
    jobs = [Job("run", (("method", f"m{number}"),), Estimate(7200.0, 0)) for number in range(count)]
    watch = Watch(lambda: Progress([*jobs, Job("all", ())], cores=count))
    watch.emit(record(LogEvent.RUN_INFO))
    for number in range(count):
        log = folder / f"{number}.log"
        log.write_text(f"m: setting {number + 1} of 6: \n{STEP}")
        started: dict[str, Any] = {"rule_name": "run", "wildcards": {"method": f"m{number}"}, "log": [str(log)]}
        watch.emit(record(LogEvent.JOB_INFO, jobid=number, rule_msg=f"m{number} on toy", **started))
        watch.progress.running[number] = watch.progress.running[number][0], began - 60 * number
    watch.emit(record(LogEvent.JOB_INFO, jobid=99, rule_name="all", rule_msg=None, wildcards={}))
    return watch


def test_running_jobs_are_one_line_with_the_longest_first(tmp_path: Path) -> None:
    now = time.monotonic()
    watch = watch_of(2, tmp_path, now - 1200)
    assert watch.running(now) == (
        "[0 of 2 done, about 1 h 40 min left] still running: m1 on toy (for 21 min 0 s, setting 2 of 6, step 11/40); "
        "m0 on toy (for 20 min 0 s, setting 1 of 6, step 11/40)"
    )
    (tmp_path / "1.log").unlink()  # a log that can't be read stops nothing
    assert "m1 on toy (for 21 min 0 s); m0" in str(watch.running(now))
    watch.emit(record(LogEvent.JOB_FINISHED, job_id=0))
    watch.emit(record(LogEvent.JOB_FINISHED, job_id=1))
    assert watch.running(now) is None  # the job that collects files is none that anybody waits for

    line = str(watch_of(TALKERS + 2, tmp_path, now - 1200).running(now))
    assert line.endswith("; and 2 other jobs") and line.count(" on toy") == TALKERS and "m0" not in line


def test_the_screen_speaks_where_nothing_else_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = watch_of(1, tmp_path, time.monotonic() - 600)
    watch.talk(every=0.2)
    time.sleep(0.1)
    other = {"rule_name": "all", "rule_msg": None, "wildcards": {}}
    watch.emit(record(LogEvent.JOB_INFO, jobid=99, **other))  # a line of another job
    assert capsys.readouterr().err == ""
    deadline = time.monotonic() + 30
    while not (said := capsys.readouterr().err):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert re.fullmatch(
        r"\[0 of 1 done, about 1 h 50 min left\] still running: m0 on toy "
        r"\(for 10 min \d+ s, setting 1 of 6, step 11/40\)\n",
        said,
    )
    watch.emit(record(None, "Will exit after finishing currently running jobs (scheduler)."))
    assert watch.stopped
    capsys.readouterr()
    deadline = time.monotonic() + 30
    while "still running: m0 on toy" not in capsys.readouterr().err:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    watch.emit(record(None, "Terminating processes on user request, this might take some time."))
    capsys.readouterr()
    time.sleep(0.5)
    assert capsys.readouterr().err == ""
