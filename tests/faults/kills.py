"""Runs and whole workflows killed at random moments, then started again: the same tables, nothing left over."""

import random
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq

from tests.faults import place
from tests.faults.count import Outcome

SAME = "the same results, nothing left over"


def runs(folder: Path, tries: int, seed: int) -> Outcome:
    """One run, killed with all below it, and started again."""
    rng, out = random.Random(seed), Outcome("one run killed, then run again", (SAME,))
    place.make(folder)
    place.prepare(folder)
    ranks = folder / "results/runs/planted/item_knn/seed1/rankings.parquet"
    began = time.monotonic()
    assert place.start(folder, place.run_line("item_knn")).wait() == 0
    took, whole = time.monotonic() - began, pq.read_table(ranks)
    for _ in range(tries):
        subprocess.run(["rm", "-rf", "results/runs", "results/work"], cwd=folder, check=True)
        job = place.start(folder, place.run_line("item_knn"))
        time.sleep(rng.uniform(0, took))
        processes = place.tree(job)
        # Half of them all at once, half the topmost alone.
        place.kill(processes if rng.random() < 0.5 else processes[:1])
        job.wait()
        if alive := place.left(processes):
            out.add("processes left", str(alive))
            place.kill(alive)
            continue
        code = place.start(folder, place.run_line("item_knn")).wait()
        out.add(*_verdict(code, code == 0 and pq.read_table(ranks).equals(whole), place.parts(folder)))
    return out


def workflows(folder: Path, tries: int, seed: int) -> Outcome:
    """The whole workflow, killed with all below it or alone, unlocked and started again."""
    rng, out = random.Random(seed), Outcome("whole workflow killed, or Snakemake alone, then run again", (SAME,))
    place.make(folder / "whole")
    began = time.monotonic()
    assert place.start(folder / "whole", place.workflow_line()).wait() == 0
    took, tables = time.monotonic() - began, _tables(folder / "whole")
    for number in range(tries):
        here = place.make(folder / f"killed{number}")
        job = place.start(here, place.workflow_line())
        time.sleep(rng.uniform(0.1, 0.95) * took)
        processes = place.tree(job)
        place.kill(processes if number % 2 else processes[:1])
        job.wait()
        if alive := place.left(processes):
            out.add("processes left", str(alive))
            place.kill(alive)
        place.start(here, place.workflow_line("--unlock")).wait()
        code = place.start(here, place.workflow_line()).wait()
        out.add(*_verdict(code, _tables(here) == tables, place.parts(here)))
        subprocess.run(["rm", "-rf", str(here)], check=True)
    return out


def _verdict(code: int, same: bool, parts: list[str]) -> tuple[str, str]:
    if code != 0:
        return "ended badly", f"exit code {code}"
    if not same:
        return "OTHER RESULTS", ""
    return ("temporary files left", ", ".join(parts)) if parts else (SAME, "")


def _tables(folder: Path) -> dict[str, object]:
    """The rankings, and the tables of metrics and tests: everything that holds no time."""
    contents: dict[str, object] = {
        str(path.relative_to(folder)): pq.read_table(path).to_pydict()
        for path in sorted((folder / "results/runs").rglob("rankings.parquet"))
    }
    names = ("main.csv", "main.md", "main.tex", "planted.tests.csv")
    return contents | {name: path.read_text() for name in names if (path := folder / "results/tables" / name).exists()}
