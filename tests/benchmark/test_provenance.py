"""A tree that is not a commit: found, named and refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark import provenance
from benchmark.errors import InputError
from benchmark.provenance import ROOT, require_clean


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a small project."""
    for file in (
        "benchmark/jobs/run.py",
        "r2ec/model/network.py",
        "results/tables/main.md",
        "docs/results.md",
        "README.md",
        "Makefile",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("one\n")
    for folder in ("baselines", "lm", "workflow", "config"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_text("a")
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return tmp_path


def refused(match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        require_clean()
    assert "\n" not in str(caught.value)


def test_a_commit_is_clean_whatever_the_results_are(tree: Path) -> None:
    require_clean()
    (tree / "results/tables/main.md").write_text("two\n")  # what a run writes
    for page in ("README.md", "docs/results.md"):  # what `make readme` writes
        (tree / page).write_text("two\n")
    (tree / "notes.txt").write_text("mine")  # no part of what runs
    (tree / "r2ec/model.pyc").write_text("ignored")
    require_clean()


def test_changed_and_new_files_are_named(tree: Path) -> None:
    (tree / "Makefile").write_text("two\n")
    (tree / "r2ec/model/network.py").write_text("two\n")
    (tree / "baselines/mine.py").write_text("new\n")
    refused(
        "^require_clean: not as in the last commit: Makefile, baselines/mine.py, r2ec/model/network.py; commit what is "
        "to run"
    )
    subprocess.run(["git", "add", "."], cwd=tree, check=True)
    subprocess.run(["git", "mv", "benchmark/jobs/run.py", "benchmark/go.py"], cwd=tree, check=True)
    refused("Makefile, baselines/mine.py, benchmark/go.py, r2ec/model/network.py; commit")
    (tree / "config/a").unlink()
    (tree / "workflow/a").unlink()
    refused("Makefile, baselines/mine.py, benchmark/go.py, config/a, r2ec/model/network.py and 1 more; commit")


def test_without_git_nothing_says_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    refused(f"^require_clean: {tmp_path} is no git checkout, so that no commit says what runs; clone")


def test_the_share_of_waiting_by_hand(tmp_path: Path) -> None:
    """Threads that ran 3 and 1 s and waited 0 and 1 s; one that has ended, and one of a kernel that doesn't count."""
    for thread, text in (("1", "3000000000 0 12"), ("2", "1000000000 1000000000 7"), ("3", ""), ("4", "0 0 0")):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(text)
    (tmp_path / "5").mkdir()
    assert provenance.waited_for_cores(tmp_path) == 0.2
    assert (
        provenance.waited_for_cores(tmp_path / "4") is None and provenance.waited_for_cores(tmp_path / "none") is None
    )


SPIN = """
import os, time
from benchmark import provenance
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print("ready", flush=True)
input()
end = time.monotonic() + 1.5
while time.monotonic() < end:
    pass
print(provenance.waited_for_cores())
"""


@pytest.mark.skipif(provenance.waited_for_cores() is None, reason="this system doesn't say how long a process waits")
def test_a_process_that_shares_its_core_has_waited() -> None:
    """Two that spin on one core: each has half of it, or less where others are there, too."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    both = [subprocess.Popen([sys.executable, "-c", SPIN], text=True, cwd=ROOT, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both if process.stdout] == ["ready\n"] * 2
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    shares = [float(process.communicate()[0]) for process in both]
    assert min(shares) > 0.25, shares
